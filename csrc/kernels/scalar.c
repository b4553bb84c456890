/* The level that runs everywhere, and the one that all others are tested against: lanes are plain arrays and loops.
 *
 * Four lanes let a compiler use whatever vectors its baseline has; the bits are those of one lane at a time. fma() is
 * exactly defined, so a processor without it gets the same bits, slowly.
 */
#include <math.h>
#include <string.h>

#include "half.h"
#include "kernels.h"

/* GCC 12's vectoriser of straight-line code changes numbers: it drops a rounding to float32 that is followed by another, and
 * fuses multiply and alternating add and subtract in spite of -ffp-contract=off. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-slp-vectorize")
#endif

/* Few cases, and no copies of what is long anyway: inlined all over, this file took longer to compile than any other. */
#define PE_CASES    0
#define PE_FN       PE_INLINE
#define PE_APART    static PE_NOINLINE
#define PE_KERNEL   static
#define PE_KERNELS  pe_kernels_scalar
#define PE_ISA_NAME "scalar"

enum { FL = 4, DL = 2, TURN_VECTORS = 2 };

/* A compiler that knows vectors without being told a processor keeps lanes in one, and works on all of them in one step:
 * bfloat16 takes a third of the time. Others work lane by lane. */
#ifdef __GNUC__
#define LANES_OF(type, n, name) type name __attribute__((vector_size((n) * sizeof(type))))
#define EACH(lanes)             (lanes)
#define CONVERTED(lanes, to)    __builtin_convertvector(lanes, __typeof__(to))
#define LANEWISE(n, of, expression) \
    r.of = (expression);            \
    return r
#else
#define LANES_OF(type, n, name) type name[n]
#define EACH(lanes)             (lanes)[i]
#define CONVERTED(lanes, to)    (lanes)[i]
#define LANEWISE(n, of, expression)                                  \
    for (size_t i = 0; i < (size_t)(n); i++) r.of[i] = (expression); \
    return r
#endif
typedef union {
    LANES_OF(float, FL, v);
    LANES_OF(uint32_t, FL, bits);
    LANES_OF(int32_t, FL, counts);
    LANES_OF(uint64_t, FL / 2, pairs);
} F;
typedef union {
    LANES_OF(double, DL, v);
    LANES_OF(uint64_t, DL, bits);
} D;
typedef union {
    uint16_t v[2 * FL];
    LANES_OF(uint32_t, FL, bits); /* two neighbours each */
} W;

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BIG_ENDIAN_WORDS 1
#else
#define BIG_ENDIAN_WORDS 0
#endif

#define LANES(n, expression)                                        \
    for (size_t i = 0; i < (size_t)(n); i++) r.v[i] = (expression); \
    return r

PE_FN F ldn_f32(const float *p, size_t n) {
    F r = {{0}};
    LANES(n, p[i]);
}
PE_FN F ld_f32(const float *p) {
    F r;
    memcpy(&r, p, sizeof r);
    return r;
}
PE_FN void stn_f32(float *p, F x, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = x.v[i];
}
PE_FN void st_f32(float *p, F x) {
    memcpy(p, &x, sizeof x);
}
PE_APART F ldn_f16(const uint16_t *p, size_t n) {
    F r = {{0}};
    LANES(n, pe_float_from_f16(p[i]));
}
PE_APART F ld_f16(const uint16_t *p) {
    F r;
    LANES(FL, pe_float_from_f16(p[i]));
}
PE_FN F ld_bf16(const uint16_t *p) {
    F r;
    LANES(FL, pe_float_from_bf16(p[i]));
}
PE_APART void stn_f16(uint16_t *p, F x, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = pe_f16_from_float(x.v[i]);
}
PE_APART void st_f16(uint16_t *p, F x) {
    stn_f16(p, x, FL);
}
#define sts_f32 st_f32
#define sts_f16 st_f16
PE_FN F f_set(float x) {
    F r;
    LANES(FL, x);
}
PE_FN F f_add(F x, F y) {
    F r;
    LANEWISE(FL, v, EACH(x.v) + EACH(y.v));
}
PE_FN F f_sub(F x, F y) {
    F r;
    LANEWISE(FL, v, EACH(x.v) - EACH(y.v));
}
PE_FN F f_mul(F x, F y) {
    F r;
    LANEWISE(FL, v, EACH(x.v) * EACH(y.v));
}
PE_FN F f_abs(F x) {
    F r;
    LANEWISE(FL, bits, EACH(x.bits) & 0x7fffffffu);
}
PE_FN F f_nans(F x) { /* all bits where x is one */
    F r;
    LANEWISE(FL, bits, 0 - ((0x7f800000u - (EACH(x.bits) & 0x7fffffffu)) >> 31));
}
PE_FN F f_moved(int32_t start, F steps) { /* lanes behind the last that counts may wrap */
    F r;
    LANEWISE(FL, bits, (uint32_t)start + EACH(steps.bits));
}
PE_FN F f_counted(int32_t start, F steps) {
    F n = f_moved(start, steps), r;
    LANEWISE(FL, v, CONVERTED(n.counts, r.v));
}
PE_FN F f_count(int32_t start) { /* start, start + 1, .. */
    return f_counted(start, (F){.bits = {0, 1, 2, 3}});
}
PE_FN F f_count2(int32_t start) { /* start, start + 2, .. */
    return f_counted(start, (F){.bits = {0, 2, 4, 6}});
}
PE_FN F f_gather(const float *t, const int32_t *index) {
    F r;
    LANES(FL, t[index[i]]);
}
PE_FN F f_swap(F x) {
    F r;
    LANEWISE(FL / 2, pairs, EACH(x.pairs) << 32 | EACH(x.pairs) >> 32);
}
PE_FN F f_addsub(F x, F y) {
    const F odd = {.bits = {0, ~0u, 0, ~0u}}, sum = f_add(x, y), difference = f_sub(x, y);
    F r;
    LANEWISE(FL, bits, (EACH(sum.bits) & EACH(odd.bits)) | (EACH(difference.bits) & ~EACH(odd.bits)));
}
PE_FN F f_dupn(const float *p, size_t n) {
    F r = {{0}};
    LANES(2 * n, p[i / 2]);
}
PE_FN F f_dup(const float *p) {
    return f_dupn(p, FL / 2);
}

PE_FN void f_unzip(F x, F y, F *even, F *odd) {
    F e = {{0}}, o = {{0}};
    for (size_t i = 0; i < FL; i++) {
        e.v[i] = i < FL / 2 ? x.v[2 * i] : y.v[2 * i - FL];
        o.v[i] = i < FL / 2 ? x.v[2 * i + 1] : y.v[2 * i + 1 - FL];
    }
    *even = e, *odd = o;
}
PE_FN void f_zip(F even, F odd, F *x, F *y) {
    F first = {{0}}, second = {{0}};
    for (size_t i = 0; i < FL; i++) {
        first.v[i] = i & 1 ? odd.v[i / 2] : even.v[i / 2];
        second.v[i] = i & 1 ? odd.v[(i + FL) / 2] : even.v[(i + FL) / 2];
    }
    *x = first, *y = second;
}

PE_FN F f_window(F t, const int32_t *index, int32_t first) {
    F r;
    LANES(FL, t.v[index[i] - first]);
}
PE_FN void f_transpose(F *v) {
    for (size_t i = 0; i < FL; i++)
        for (size_t j = i + 1; j < FL; j++) {
            float x = v[i].v[j];
            v[i].v[j] = v[j].v[i], v[j].v[i] = x;
        }
}

PE_FN W w_loadn(const uint16_t *p, size_t n) {
    W r = {{0}};
    LANES(n, p[i]);
}
PE_FN W w_load(const uint16_t *p) {
    W r;
    memcpy(&r, p, sizeof r);
    return r;
}
PE_FN void w_storen(uint16_t *p, W w, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = w.v[i];
}
PE_FN void w_store(uint16_t *p, W w) {
    memcpy(p, &w, sizeof w);
}
#define w_stores w_store

/* of each word, as a number whose other bits are zero */
PE_FN F low_halves(W x) {
    F r;
    LANEWISE(FL, bits, EACH(x.bits) << 16);
}
PE_FN F high_halves(W x) {
    F r;
    LANEWISE(FL, bits, EACH(x.bits) & 0xffff0000u);
}
PE_FN W halves(F low, F high) {
    W r;
    LANEWISE(FL, bits, EACH(low.bits) >> 16 | (EACH(high.bits) & 0xffff0000u));
}
PE_FN F f_even(W w) {
    return BIG_ENDIAN_WORDS ? high_halves(w) : low_halves(w);
}
PE_FN F f_odd(W w) {
    return BIG_ENDIAN_WORDS ? low_halves(w) : high_halves(w);
}
/* the bfloat16 nearest to each, in the upper half of its lane, as pe_bf16_from_float: a lane of `nan` is all ones or none */
PE_FN F bf16_high(F x) {
    F nan = f_nans(x), r;
    LANEWISE(FL, bits,
             (EACH(nan.bits) & (EACH(x.bits) | 0x400000u)) |
                 (~EACH(nan.bits) & (EACH(x.bits) + 0x7fffu + (EACH(x.bits) >> 16 & 1u))));
}
PE_FN void w_pack_all(W *w, const F *even, const F *odd, size_t n) {
    for (size_t k = 0; k < n; k++) {
        F e = bf16_high(even[k]), o = bf16_high(odd[k]);
        w[k] = BIG_ENDIAN_WORDS ? halves(o, e) : halves(e, o);
    }
}

PE_FN D d_ld_f32(const float *p) {
    D r;
    LANES(DL, p[i]);
}
PE_APART D d_ld_f16(const uint16_t *p) {
    D r;
    LANES(DL, pe_float_from_f16(p[i]));
}
PE_FN D d_ld_bf16(const uint16_t *p) {
    D r;
    LANES(DL, pe_float_from_bf16(p[i]));
}
PE_FN D d_set(double x) {
    D r;
    LANES(DL, x);
}
PE_FN D d_count(int32_t start) {
    D r;
    LANES(DL, (double)(int32_t)((uint32_t)start + (uint32_t)i));
}
PE_FN D d_gather(const double *t, const int32_t *index) {
    D r;
    LANES(DL, t[index[i]]);
}
PE_FN D ldn_f64(const double *p, size_t n) {
    D r = {{0}};
    LANES(n, p[i]);
}
PE_FN D ld_f64(const double *p) {
    D r;
    memcpy(&r, p, sizeof r);
    return r;
}
PE_FN void stn_f64(double *p, D x, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = x.v[i];
}
PE_FN void st_f64(double *p, D x) {
    memcpy(p, &x, sizeof x);
}
#define sts_f64 st_f64
PE_FN D d_add(D x, D y) {
    D r;
    LANEWISE(DL, v, EACH(x.v) + EACH(y.v));
}
PE_FN D d_sub(D x, D y) {
    D r;
    LANEWISE(DL, v, EACH(x.v) - EACH(y.v));
}
PE_FN D d_mul(D x, D y) {
    D r;
    LANEWISE(DL, v, EACH(x.v) * EACH(y.v));
}
PE_FN D d_fma(D x, D y, D z) {
    D r;
    LANES(DL, fma(x.v[i], y.v[i], z.v[i]));
}
PE_FN D d_fms(D x, D y, D z) {
    D r;
    LANES(DL, fma(x.v[i], y.v[i], -z.v[i]));
}
PE_FN D d_fnma(D x, D y, D z) {
    D r;
    LANES(DL, fma(-x.v[i], y.v[i], z.v[i]));
}
PE_FN D d_round_f32(D x) {
    D r;
    LANES(DL, (double)(float)x.v[i]);
}
PE_FN D d_swap(D x) {
    D r;
    LANES(DL, x.v[i ^ 1]);
}
PE_FN D d_addsub(D x, D y) {
    D r;
    LANES(DL, i & 1 ? x.v[i] + y.v[i] : x.v[i] - y.v[i]);
}
PE_FN D d_dupn(const double *p, size_t n) {
    D r = {{0}};
    LANES(2 * n, p[i / 2]);
}
PE_FN D d_dup(const double *p) {
    return d_dupn(p, DL / 2);
}

PE_FN D d_shl(D x, int n) {
    D r;
    LANEWISE(DL, bits, EACH(x.bits) << n);
}
PE_FN D d_or(D x, D y) {
    D r;
    LANEWISE(DL, bits, EACH(x.bits) | EACH(y.bits));
}
PE_FN D d_abs(D x) {
    D r;
    LANEWISE(DL, bits, EACH(x.bits) & ~(1ull << 63));
}
PE_FN D d_flip(D x, D sign) {
    D r;
    LANEWISE(DL, bits, EACH(x.bits) ^ (EACH(sign.bits) & 1ull << 63));
}
PE_FN D d_blend(D x, D y, D sign) {
    D r;
    LANEWISE(DL, bits, EACH(x.bits) ^ ((EACH(x.bits) ^ EACH(y.bits)) & (0 - (EACH(sign.bits) >> 63))));
}
PE_FN F f_narrow(D x, D y) {
    F r;
    LANES(FL, (float)(i < DL ? x.v[i] : y.v[i - DL]));
}
PE_FN F f_low(D x, D y) {
    F r;
    for (size_t i = 0; i < FL; i++) r.bits[i] = (uint32_t)(i < DL ? x.bits[i] : y.bits[i - DL]);
    return r;
}
PE_FN F f_low_mixed(D x, D y) {
    return f_low(x, y);
}
PE_FN int f_suspect(F x, F y, int32_t add, int32_t bits, F u, F v, F least) {
    int any = 0;
    for (int i = 0; i < FL; i++) {
        uint32_t a = x.bits[i] + (uint32_t)add, b = y.bits[i] + (uint32_t)add;
        any |=
            !(a & (uint32_t)bits) | !(b & (uint32_t)bits) | (fabsf(u.v[i]) < least.v[i]) | (fabsf(v.v[i]) < least.v[i]);
    }
    return any;
}
PE_FN F f_nonzero(F x, F y) {
    F r;
    LANES(FL, x.v[i] != 0 ? y.v[i] : 0);
}
PE_FN F f_shl(F x, int n) {
    F r;
    LANEWISE(FL, bits, EACH(x.bits) << n);
}
PE_FN F f_or(F x, F y) {
    F r;
    LANEWISE(FL, bits, EACH(x.bits) | EACH(y.bits));
}
PE_FN F f_flip(F x, F sign) {
    F r;
    LANEWISE(FL, bits, EACH(x.bits) ^ (EACH(sign.bits) & 1u << 31));
}
PE_FN F f_blend(F x, F y, F sign) {
    F r;
    LANEWISE(FL, bits, EACH(x.bits) ^ ((EACH(x.bits) ^ EACH(y.bits)) & (0 - (EACH(sign.bits) >> 31))));
}
PE_FN int f_any_negative(F x) {
    uint32_t all = 0;
    for (int i = 0; i < FL; i++) all |= x.bits[i];
    return (int)(all >> 31);
}
PE_FN int d_any_negative(D x) {
    uint64_t all = 0;
    for (int i = 0; i < DL; i++) all |= x.bits[i];
    return (int)(all >> 63);
}

static void stream(char *y, const char *x, size_t bytes) {
    memcpy(y, x, bytes);
}
static void stream_end(void) {
}

#include "table.inc.h"
