/* AVX2 with FMA and F16C: eight float32 or four float64 lanes. Tails go through masked moves, or a small buffer where
 * AVX2 has no masks for the element.
 */
#include "kernels.h"

#ifdef PE_X86_64
#include <immintrin.h>
#include <string.h>

#define PE_V3       PE_TARGET("avx,avx2,fma,f16c")
#define PE_FN       PE_V3 PE_INLINE
#define PE_CASES    1
#define PE_KERNEL   PE_V3 static
#define PE_KERNELS  pe_kernels_x86_v3
#define PE_ISA_NAME "x86_v3"

enum { FL = 8, DL = 4, TURN_VECTORS = 2 };
/* Not all of these find a register: angles that lie in memory are read by a multiplication, which costs it nothing. */
#define PE_F16_TURN  8
#define PE_F16_AHEAD 4
typedef __m256 F;
typedef __m256d D;
typedef __m256i W;

/* a window on this makes the mask of the first n lanes */
static const int32_t ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

PE_FN __m256i first(size_t n) { /* n <= 8 lanes of 32 bits */
    return _mm256_loadu_si256((const __m256i *)(ones_then_zeros + 8 - n));
}

PE_FN F ld_f32(const float *p) {
    return _mm256_loadu_ps(p);
}
PE_FN F ldn_f32(const float *p, size_t n) {
    return _mm256_maskload_ps(p, first(n));
}
PE_FN void st_f32(float *p, F x) {
    _mm256_storeu_ps(p, x);
}
PE_FN void stn_f32(float *p, F x, size_t n) {
    _mm256_maskstore_ps(p, first(n), x);
}
PE_FN F ld_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
PE_FN F ld_bf16(const uint16_t *p) {
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}
PE_FN F ldn_f16(const uint16_t *p, size_t n) {
    uint16_t buffer[FL] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return ld_f16(buffer);
}
PE_FN void st_f16(uint16_t *p, F x) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
PE_FN void stn_f16(uint16_t *p, F x, size_t n) {
    uint16_t buffer[FL];
    st_f16(buffer, x);
    memcpy(p, buffer, n * sizeof *p);
}
PE_FN void sts_f32(float *p, F x) {
    _mm_stream_ps(p, _mm256_castps256_ps128(x));
    _mm_stream_ps(p + 4, _mm256_extractf128_ps(x, 1));
}
PE_FN void sts_f16(uint16_t *p, F x) {
    _mm_stream_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#define PE_EIGHT(op) f_##op
#include "eight_lanes.inc.h"

PE_FN F f_sub(F x, F y) {
    return _mm256_sub_ps(x, y);
}
PE_FN F f_count2(int32_t start) { /* start, start + 2, .. */
    const __m256i lanes = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_set1_epi32(start), lanes));
}
PE_FN F f_dupn(const float *p, size_t n) {
    return f_spread(_mm_maskload_ps(p, _mm256_castsi256_si128(first(n))));
}

PE_FN __m256 in_order(__m256 x) { /* of shuffles within 128-bit halves */
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}
PE_FN void f_unzip(F x, F y, F *even, F *odd) {
    *even = in_order(_mm256_shuffle_ps(x, y, 0x88));
    *odd = in_order(_mm256_shuffle_ps(x, y, 0xdd));
}
PE_FN void f_zip(F even, F odd, F *x, F *y) {
    F low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    *x = _mm256_permute2f128_ps(low, high, 0x20);
    *y = _mm256_permute2f128_ps(low, high, 0x31);
}

PE_FN F f_window(F t, const int32_t *index, int32_t first) {
    __m256i lane = _mm256_sub_epi32(_mm256_loadu_si256((const __m256i *)index), _mm256_set1_epi32(first));
    return _mm256_permutevar8x32_ps(t, lane);
}
PE_FN void f_transpose(F *v) {
    F a[FL], b[FL];
    for (int i = 0; i < FL; i += 2) {
        a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < FL; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

PE_FN W w_load(const uint16_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
PE_FN W w_loadn(const uint16_t *p, size_t n) {
    uint16_t buffer[2 * FL] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return w_load(buffer);
}
PE_FN void w_store(uint16_t *p, W w) {
    _mm256_storeu_si256((__m256i *)p, w);
}
PE_FN void w_storen(uint16_t *p, W w, size_t n) {
    uint16_t buffer[2 * FL];
    w_store(buffer, w);
    memcpy(p, buffer, n * sizeof *p);
}
PE_FN void w_stores(uint16_t *p, W w) {
    _mm256_stream_si256((__m256i *)p, w);
}
PE_FN F f_even(W w) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}
PE_FN F f_odd(W w) {
    return _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32((int)0xffff0000)));
}
/* the rounded bfloat16 in the high half of each lane: half a unit is added, and one more where the result is odd */
PE_FN __m256i bf16_high(F x) {
    __m256i u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
}
PE_FN __m256i bf16_high_or_nan(F x) {
    F quiet = _mm256_or_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x400000)));
    F rounded = _mm256_castsi256_ps(bf16_high(x));
    return _mm256_castps_si256(_mm256_blendv_ps(rounded, quiet, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
/* a branch for each: one for all keeps all sums waiting for it, in more registers than there are (1.1 times as long) */
PE_FN void w_pack_all(W *w, const F *even, const F *odd, size_t n) {
    for (size_t k = 0; k < n; k++) {
        __m256i e = bf16_high(even[k]), o = bf16_high(odd[k]);
        if (PE_UNLIKELY(_mm256_movemask_ps(_mm256_cmp_ps(even[k], odd[k], _CMP_UNORD_Q))))
            e = bf16_high_or_nan(even[k]), o = bf16_high_or_nan(odd[k]);
        w[k] = _mm256_blend_epi16(_mm256_srli_epi32(e, 16), o, 0xaa);
    }
}

PE_FN D d_ld_f32(const float *p) {
    return _mm256_cvtps_pd(_mm_loadu_ps(p));
}
PE_FN D d_ld_f16(const uint16_t *p) {
    return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p)));
}
PE_FN D d_ld_bf16(const uint16_t *p) {
    __m128i words = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(words, 16)));
}
PE_FN D d_set(double x) {
    return _mm256_set1_pd(x);
}
PE_FN D d_count(int32_t start) {
    const __m128i lanes = _mm_setr_epi32(0, 1, 2, 3);
    return _mm256_cvtepi32_pd(_mm_add_epi32(_mm_set1_epi32(start), lanes));
}
PE_FN D d_gather(const double *t, const int32_t *i) {
    return _mm256_setr_pd(t[i[0]], t[i[1]], t[i[2]], t[i[3]]);
}
PE_FN D ld_f64(const double *p) {
    return _mm256_loadu_pd(p);
}
PE_FN D ldn_f64(const double *p, size_t n) {
    return _mm256_maskload_pd(p, first(2 * n));
}
PE_FN void st_f64(double *p, D x) {
    _mm256_storeu_pd(p, x);
}
PE_FN void stn_f64(double *p, D x, size_t n) {
    _mm256_maskstore_pd(p, first(2 * n), x);
}
PE_FN void sts_f64(double *p, D x) {
    sts_f32((float *)(void *)p, _mm256_castpd_ps(x));
}
PE_FN D d_add(D x, D y) {
    return _mm256_add_pd(x, y);
}
PE_FN D d_add_too(D x, D y) {
    return _mm256_fmadd_pd(y, _mm256_set1_pd(1.0), x);
}
#define d_add_too d_add_too
PE_FN D d_sub(D x, D y) {
    return _mm256_sub_pd(x, y);
}
PE_FN D d_mul(D x, D y) {
    return _mm256_mul_pd(x, y);
}
PE_FN D d_fma(D x, D y, D z) {
    return _mm256_fmadd_pd(x, y, z);
}
PE_FN D d_fms(D x, D y, D z) {
    return _mm256_fmsub_pd(x, y, z);
}
PE_FN D d_fnma(D x, D y, D z) {
    return _mm256_fnmadd_pd(x, y, z);
}
PE_FN D d_round_f32(D x) {
    return _mm256_cvtps_pd(_mm256_cvtpd_ps(x));
}
PE_FN D d_swap(D x) {
    return _mm256_permute_pd(x, 0x5);
}
PE_FN D d_addsub(D x, D y) {
    return _mm256_addsub_pd(x, y);
}
PE_FN D d_spread(__m128d x) {
    return _mm256_permute4x64_pd(_mm256_castpd128_pd256(x), 0x50);
}
PE_FN D d_dup(const double *p) {
    return d_spread(_mm_loadu_pd(p));
}
PE_FN D d_dupn(const double *p, size_t n) {
    return d_spread(_mm_maskload_pd(p, _mm256_castsi256_si128(first(2 * n))));
}
#define d_shl(x, n) _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(x), n))
PE_FN D d_or(D x, D y) {
    return _mm256_or_pd(x, y);
}
PE_FN D d_abs(D x) {
    return _mm256_andnot_pd(_mm256_set1_pd(-0.0), x);
}
PE_FN D d_flip(D x, D sign) {
    return _mm256_xor_pd(x, _mm256_and_pd(sign, _mm256_set1_pd(-0.0)));
}
PE_FN D d_blend(D x, D y, D sign) {
    return _mm256_blendv_pd(x, y, sign);
}
PE_FN F f_narrow(D x, D y) {
    return _mm256_set_m128(_mm256_cvtpd_ps(y), _mm256_cvtpd_ps(x));
}
PE_FN F f_low(D x, D y) {
    return in_order(_mm256_shuffle_ps(_mm256_castpd_ps(x), _mm256_castpd_ps(y), 0x88));
}
PE_FN F f_low_mixed(D x, D y) {
    return _mm256_shuffle_ps(_mm256_castpd_ps(x), _mm256_castpd_ps(y), 0x88);
}
PE_FN __m256i sum_and(F x, int32_t add, int32_t bits) {
    return _mm256_and_si256(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(add)), _mm256_set1_epi32(bits));
}
PE_FN int f_suspect(F x, F y, int32_t add, int32_t bits, F u, F v, F least) {
    __m256i fewest = _mm256_min_epu32(sum_and(x, add, bits), sum_and(y, add, bits));
    F none = _mm256_castsi256_ps(_mm256_cmpeq_epi32(fewest, _mm256_setzero_si256()));
    F small = _mm256_cmp_ps(_mm256_min_ps(f_abs(u), f_abs(v)), least, _CMP_LT_OQ);
    return _mm256_movemask_ps(_mm256_or_ps(none, small)) != 0;
}
PE_FN F f_nonzero(F x, F y) {
    return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_OQ), y);
}
#define f_shl(x, n) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), n))
PE_FN F f_or(F x, F y) {
    return _mm256_or_ps(x, y);
}
PE_FN F f_flip(F x, F sign) {
    return _mm256_xor_ps(x, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
PE_FN F f_blend(F x, F y, F sign) {
    return _mm256_blendv_ps(x, y, sign);
}
PE_FN int f_any_negative(F x) {
    return _mm256_movemask_ps(x);
}
PE_FN int d_any_negative(D x) {
    return _mm256_movemask_pd(x);
}

/* Streaming stores need whole, aligned vectors: the ragged ends are stored plainly. */
PE_KERNEL void stream(char *y, const char *x, size_t bytes) {
    size_t head = (size_t)(-(uintptr_t)y & 31);
    if (head > bytes) head = bytes;
    memcpy(y, x, head);
    size_t i = head;
    for (; i + 32 <= bytes; i += 32)
        _mm256_stream_si256((__m256i *)(y + i), _mm256_loadu_si256((const __m256i *)(x + i)));
    memcpy(y + i, x + i, bytes - i);
}
PE_KERNEL void stream_end(void) {
    _mm_sfence();
}

#include "table.inc.h"
#endif
