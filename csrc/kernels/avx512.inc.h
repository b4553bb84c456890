/* AVX-512: sixteen float32 or eight float64 lanes; the levels that have it are this with other attributes.
 *
 * Tails are masked loads and stores. avx512_fp16 is left alone: it would compute in float16.
 *
 * Needs PE_ATTRIBUTES, the function attributes of the level. PE_ROUNDS_BF16 says that it has AVX512_BF16.
 */
#include <immintrin.h>
#include <string.h>

#define PE_FN     PE_ATTRIBUTES PE_INLINE
#define PE_CASES  1
#define PE_KERNEL PE_ATTRIBUTES static

enum { FL = 16, DL = 8, TURN_VECTORS = 4 };
typedef __m512 F;
typedef __m512d D;
typedef __m512i W;

#define PE_EIGHT(op) g_##op
#include "eight_lanes.inc.h"

PE_FN __mmask32 first(size_t n) { /* n < 32 */
    return (__mmask32)((1u << n) - 1);
}

PE_FN F ld_f32(const float *p) {
    return _mm512_loadu_ps(p);
}
PE_FN F ldn_f32(const float *p, size_t n) {
    return _mm512_maskz_loadu_ps((__mmask16)first(n), p);
}
PE_FN void st_f32(float *p, F x) {
    _mm512_storeu_ps(p, x);
}
PE_FN void stn_f32(float *p, F x, size_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)first(n), x);
}
PE_FN F ld_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
PE_FN F ldn_f16(const uint16_t *p, size_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)first(n), p));
}
PE_FN F ld_bf16(const uint16_t *p) {
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}
PE_FN void sts_f32(float *p, F x) {
    _mm_stream_ps(p, _mm512_castps512_ps128(x));
    _mm_stream_ps(p + 4, _mm512_extractf32x4_ps(x, 1));
    _mm_stream_ps(p + 8, _mm512_extractf32x4_ps(x, 2));
    _mm_stream_ps(p + 12, _mm512_extractf32x4_ps(x, 3));
}
PE_FN F f_set(float x) {
    return _mm512_set1_ps(x);
}
PE_FN F f_add(F x, F y) {
    return _mm512_add_ps(x, y);
}
PE_FN F f_sub(F x, F y) {
    return _mm512_sub_ps(x, y);
}
PE_FN F f_mul(F x, F y) {
    return _mm512_mul_ps(x, y);
}
PE_FN F f_abs(F x) {
    return _mm512_abs_ps(x);
}
PE_FN F f_count(int32_t start) { /* start, start + 1, .. */
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_set1_epi32(start), lanes));
}
PE_FN F f_count2(int32_t start) { /* start, start + 2, .. */
    const __m512i lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_set1_epi32(start), lanes));
}
PE_FN F f_gather(const float *t, const int32_t *index) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(g_gather(t, index)), g_gather(t, index + 8), 1);
}
PE_FN F f_swap(F x) {
    return _mm512_permute_ps(x, 0xb1);
}
PE_FN F f_addsub(F x, F y) { /* x*1 is exact: one rounding, as if there were no product */
    return _mm512_fmaddsub_ps(x, _mm512_set1_ps(1.0f), y);
}
PE_FN F f_spread(__m256 x) { /* x0 x0 x1 x1 .. */
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(x));
}
PE_FN F f_dup(const float *p) {
    return f_spread(_mm256_loadu_ps(p));
}
PE_FN F f_dupn(const float *p, size_t n) {
    return f_spread(_mm256_maskz_loadu_ps((__mmask8)first(n), p));
}

PE_FN void f_unzip(F x, F y, F *even, F *odd) {
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *even = _mm512_permutex2var_ps(x, evens, y);
    *odd = _mm512_permutex2var_ps(x, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), y);
}
PE_FN void f_zip(F even, F odd, F *x, F *y) {
    const __m512i first_half = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *x = _mm512_permutex2var_ps(even, first_half, odd);
    *y = _mm512_permutex2var_ps(even, _mm512_add_epi32(first_half, _mm512_set1_epi32(8)), odd);
}

PE_FN F f_window(F t, const int32_t *index, int32_t first) {
    __m512i lane = _mm512_sub_epi32(_mm512_loadu_si512(index), _mm512_set1_epi32(first));
    return _mm512_permutexvar_ps(lane, t);
}
PE_FN void f_transpose(F *v) { /* within lanes of four first, then the lanes */
    F a[FL], b[FL];
    for (int i = 0; i < FL; i += 2) {
        a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < FL; i += 4) {
        b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        F low = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), high = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
        v[i] = _mm512_shuffle_f32x4(low, high, 0x88);
        v[i + 8] = _mm512_shuffle_f32x4(low, high, 0xdd);
        low = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd), high = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
        v[i + 4] = _mm512_shuffle_f32x4(low, high, 0x88);
        v[i + 12] = _mm512_shuffle_f32x4(low, high, 0xdd);
    }
}

PE_FN W w_load(const uint16_t *p) {
    return _mm512_loadu_si512(p);
}
PE_FN W w_loadn(const uint16_t *p, size_t n) {
    return _mm512_maskz_loadu_epi16(first(n), p);
}
PE_FN void w_store(uint16_t *p, W w) {
    _mm512_storeu_si512(p, w);
}
PE_FN void w_storen(uint16_t *p, W w, size_t n) {
    _mm512_mask_storeu_epi16(p, first(n), w);
}
PE_FN void w_stores(uint16_t *p, W w) {
    _mm512_stream_si512((__m512i *)p, w);
}
PE_FN F f_even(W w) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
PE_FN F f_odd(W w) {
    return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000)));
}
/* the rounded bfloat16 in the high half of each lane: half a unit is added, and one more where the result is odd */
PE_FN __m512i bf16_high(F x) {
    __m512i u = _mm512_castps_si512(x);
    __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000));
    return _mm512_mask_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd, u, _mm512_set1_epi32(0x8000));
}
PE_FN __m512i bf16_high_or_nan(F x) {
    __m512i u = _mm512_castps_si512(x);
    return _mm512_mask_or_epi32(bf16_high(x), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
}
PE_FN W bf16_join(__m512i even, __m512i odd) { /* what is in the high halves */
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(even, 16), odd);
}
PE_FN W bf16_join_or_nan(F even, F odd) {
    return bf16_join(bf16_high_or_nan(even), bf16_high_or_nan(odd));
}
/* Masks of what is well, each within the last, and one branch for all: a branch on a mask takes longer than a product. */
#ifdef PE_ROUNDS_BF16
/* The instruction rounds as bf16_high does, and makes zeros of subnormal numbers: a zero is looked at again. */
PE_FN void w_pack_all(W *w, const F *even, const F *odd, size_t n) {
    enum { SUBNORMAL = 0x20 };
    const __m512i mix = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __mmask32 nonzero = 0xffffffff;
    for (size_t k = 0; k < n; k++) {
        __m512bh rounded = _mm512_cvtne2ps_pbh(odd[k], even[k]);
        memcpy(&w[k], &rounded, sizeof rounded);
        w[k] = _mm512_permutexvar_epi16(mix, w[k]);
        nonzero = _mm512_mask_test_epi16_mask(nonzero, w[k], _mm512_set1_epi16(0x7fff));
    }
    if (PE_UNLIKELY(nonzero != 0xffffffff))
        for (size_t k = 0; k < n; k++)
            if (_mm512_fpclass_ps_mask(even[k], SUBNORMAL) | _mm512_fpclass_ps_mask(odd[k], SUBNORMAL))
                w[k] = bf16_join_or_nan(even[k], odd[k]);
}
#else
PE_FN void w_pack_all(W *w, const F *even, const F *odd, size_t n) {
    __mmask16 ordered = 0xffff;
    for (size_t k = 0; k < n; k++) {
        w[k] = bf16_join(bf16_high(even[k]), bf16_high(odd[k]));
        ordered = _mm512_mask_cmp_ps_mask(ordered, even[k], odd[k], _CMP_ORD_Q);
    }
    if (PE_UNLIKELY(ordered != 0xffff))
        for (size_t k = 0; k < n; k++) w[k] = bf16_join_or_nan(even[k], odd[k]);
}
#endif

PE_FN D d_ld_f32(const float *p) {
    return _mm512_cvtps_pd(_mm256_loadu_ps(p));
}
PE_FN D d_ld_f16(const uint16_t *p) {
    return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)));
}
PE_FN D d_ld_bf16(const uint16_t *p) {
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)));
}
PE_FN D d_set(double x) {
    return _mm512_set1_pd(x);
}
PE_FN D d_count(int32_t start) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_cvtepi32_pd(_mm256_add_epi32(_mm256_set1_epi32(start), lanes));
}
PE_FN D d_gather(const double *t, const int32_t *i) {
    return _mm512_setr_pd(t[i[0]], t[i[1]], t[i[2]], t[i[3]], t[i[4]], t[i[5]], t[i[6]], t[i[7]]);
}
PE_FN D ld_f64(const double *p) {
    return _mm512_loadu_pd(p);
}
PE_FN D ldn_f64(const double *p, size_t n) {
    return _mm512_maskz_loadu_pd((__mmask8)first(n), p);
}
PE_FN void st_f64(double *p, D x) {
    _mm512_storeu_pd(p, x);
}
PE_FN void stn_f64(double *p, D x, size_t n) {
    _mm512_mask_storeu_pd(p, (__mmask8)first(n), x);
}
PE_FN void sts_f64(double *p, D x) {
    sts_f32((float *)(void *)p, _mm512_castpd_ps(x));
}
PE_FN D d_add(D x, D y) {
    return _mm512_add_pd(x, y);
}
/* Zen 4 adds in two of its four units and multiplies in the others: x + 1*y is rounded once, to the same bits. A pass over
 * weights that takes 380 ns a row takes 350 with it. */
PE_FN D d_add_too(D x, D y) {
    return _mm512_fmadd_pd(y, _mm512_set1_pd(1.0), x);
}
#define d_add_too d_add_too
PE_FN D d_sub(D x, D y) {
    return _mm512_sub_pd(x, y);
}
PE_FN D d_mul(D x, D y) {
    return _mm512_mul_pd(x, y);
}
PE_FN D d_fma(D x, D y, D z) {
    return _mm512_fmadd_pd(x, y, z);
}
PE_FN D d_fms(D x, D y, D z) {
    return _mm512_fmsub_pd(x, y, z);
}
PE_FN D d_fnma(D x, D y, D z) {
    return _mm512_fnmadd_pd(x, y, z);
}
PE_FN D d_round_f32(D x) {
    return _mm512_cvtps_pd(_mm512_cvtpd_ps(x));
}
PE_FN D d_swap(D x) {
    return _mm512_permute_pd(x, 0x55);
}
PE_FN D d_addsub(D x, D y) {
    return _mm512_fmaddsub_pd(x, _mm512_set1_pd(1.0), y);
}
PE_FN D d_spread(__m256d x) {
    return _mm512_permutexvar_pd(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), _mm512_castpd256_pd512(x));
}
PE_FN D d_dup(const double *p) {
    return d_spread(_mm256_loadu_pd(p));
}
PE_FN D d_dupn(const double *p, size_t n) {
    return d_spread(_mm256_maskz_loadu_pd((__mmask8)first(n), p));
}
#define d_shl(x, n) _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(x), n))
PE_FN D d_or(D x, D y) {
    return _mm512_or_pd(x, y);
}
PE_FN D d_abs(D x) {
    return _mm512_abs_pd(x);
}
PE_FN D d_flip(D x, D sign) { /* x ^ (sign & top bit) */
    const __m512i top = _mm512_set1_epi64(INT64_MIN);
    return _mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_castpd_si512(x), _mm512_castpd_si512(sign), top, 0x78));
}
PE_FN D d_blend(D x, D y, D sign) {
    return _mm512_mask_blend_pd(_mm512_movepi64_mask(_mm512_castpd_si512(sign)), x, y);
}
PE_FN F f_narrow(D x, D y) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x)), _mm512_cvtpd_ps(y), 1);
}
PE_FN F f_low(D x, D y) {
    const __m512i low = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(_mm512_castpd_ps(x), low, _mm512_castpd_ps(y));
}
PE_FN F f_low_mixed(D x, D y) {
    return _mm512_shuffle_ps(_mm512_castpd_ps(x), _mm512_castpd_ps(y), 0x88);
}
/* masks of what is well, each within the last */
PE_FN int f_suspect(F x, F y, int32_t add, int32_t bits, F u, F v, F least) {
    enum { ABS_MIN = 0xa };
    __m512i a = _mm512_set1_epi32(add), b = _mm512_set1_epi32(bits);
    __mmask16 well = _mm512_test_epi32_mask(_mm512_add_epi32(_mm512_castps_si512(x), a), b);
    well = _mm512_mask_test_epi32_mask(well, _mm512_add_epi32(_mm512_castps_si512(y), a), b);
    return _mm512_mask_cmp_ps_mask(well, _mm512_range_ps(u, v, ABS_MIN), least, _CMP_NLT_UQ) != 0xffff;
}
PE_FN F f_nonzero(F x, F y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_OQ), y);
}
#define f_shl(x, n) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), n))
PE_FN F f_or(F x, F y) {
    return _mm512_or_ps(x, y);
}
PE_FN F f_flip(F x, F sign) { /* x ^ (sign & top bit) */
    const __m512i top = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(x), _mm512_castps_si512(sign), top, 0x78));
}
PE_FN F f_blend(F x, F y, F sign) {
    return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(sign)), x, y);
}
PE_FN int f_any_negative(F x) {
    return _mm512_movepi32_mask(_mm512_castps_si512(x)) != 0;
}
PE_FN int d_any_negative(D x) {
    return _mm512_movepi64_mask(_mm512_castpd_si512(x)) != 0;
}
