/* What the test programs share: choices that can be made again, numbers of every kind, comparison and hashing by bits,
 * and the rotation of one pair as the papers write it.
 */
#ifndef POSENC_TESTS_TESTING_H
#define POSENC_TESTS_TESTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../csrc/core/posenc.h"
#include "../../csrc/kernels/half.h"

/* ---- choices: from a seed, or from a fuzzer's bytes first ---- */

struct source {
    uint64_t state;
    const uint8_t *bytes;
    size_t left;
};

static inline uint64_t draw_bits(struct source *s) { /* splitmix64 */
    uint64_t z = s->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0 .. n - 1; the fuzzer's bytes, while they last, steer */
static inline size_t draw(struct source *s, size_t n) {
    size_t value = 0, wanted = n <= 256 ? 1 : 2;
    if (s->left < wanted) return (size_t)(draw_bits(s) % n);
    for (; wanted > 0; wanted--, s->left--) value = value << 8 | *s->bytes++;
    return value % n;
}

static inline bool one_in(struct source *s, size_t n) {
    return draw(s, n) == n - 1;
}

/* uniform in [0, 1), a multiple of 2^-53 */
static inline double draw_unit(struct source *s) {
    return (double)(draw_bits(s) >> 11) * 0x1p-53;
}

/* ---- elements as bits ---- */

static const char *const dtype_name[PE_DTYPES] = {"float32", "float64", "float16", "bfloat16"};
static const struct {
    int exponent, mantissa; /* bits */
} format[PE_DTYPES] = {{8, 23}, {11, 52}, {5, 10}, {8, 7}};

static inline uint64_t load_bits(const void *p, size_t size) {
    uint16_t h;
    uint32_t w;
    uint64_t d;
    switch (size) {
        case 2: return memcpy(&h, p, 2), h;
        case 4: return memcpy(&w, p, 4), w;
        default: return memcpy(&d, p, 8), d;
    }
}

static inline void store_bits(void *p, size_t size, uint64_t bits) {
    uint16_t h = (uint16_t)bits;
    uint32_t w = (uint32_t)bits;
    memcpy(p, size == 2 ? (const void *)&h : size == 4 ? (const void *)&w : (const void *)&bits, size);
}

static inline bool is_nan(uint64_t bits, enum pe_dtype dtype) {
    uint64_t infinity = ((1ull << format[dtype].exponent) - 1) << format[dtype].mantissa;
    return (bits & (infinity | (infinity - 1))) > infinity;
}

/* ---- numbers to test with ---- */

/* UNIT: below 1 in size, no surprises. FINITE: every finite number alike, subnormals too. SPECIAL: every fourth a zero,
 * an infinity, a NaN or an end of the range. ANY: all bit patterns. */
enum values { UNIT, FINITE, SPECIAL, ANY, VALUES };
static const char *const values_name[VALUES] = {"below 1", "finite", "special", "any bits"};

static inline uint64_t draw_special(struct source *s, enum pe_dtype dtype) {
    int m = format[dtype].mantissa;
    uint64_t normal = 1ull << m, infinity = ((1ull << format[dtype].exponent) - 1) << m;
    uint64_t choices[] = {0, 1, normal - 1, normal, infinity - 1, infinity, infinity | normal >> 1, infinity | 1};
    uint64_t r = draw_bits(s), sign = (r >> 32 & 1) << (format[dtype].exponent + m);
    return sign | choices[r % (sizeof choices / sizeof *choices)];
}

static inline uint64_t draw_element(struct source *s, enum pe_dtype dtype, enum values values) {
    int m = format[dtype].mantissa, e = format[dtype].exponent;
    uint64_t r = draw_bits(s), top = (1ull << e) - 1, mantissa = r & ((1ull << m) - 1);
    uint64_t sign = (r >> 63) << (e + m), rest = r >> 53 & 0x3ff;
    if (values == ANY) return r & (e + m == 63 ? UINT64_MAX : (1ull << (e + m + 1)) - 1);
    if (values == SPECIAL && rest % 4 == 0) return draw_special(s, dtype);
    if (values == FINITE) return sign | (draw_bits(s) % top) << m | mantissa;
    return sign | (top / 2 - 1 - rest % 4) << m | mantissa;
}

static inline void fill(struct source *s, void *data, size_t n, enum pe_dtype dtype, enum values values) {
    size_t size = pe_itemsize(dtype);
    for (size_t i = 0; i < n; i++) store_bits((char *)data + i * size, size, draw_element(s, dtype, values));
}

/* ---- comparison and hashing ---- */

/* Index of the first element whose bits differ, where not both are NaN; n where there is none. */
static inline size_t first_difference(const void *got, const void *wanted, size_t n, enum pe_dtype dtype) {
    size_t size = pe_itemsize(dtype);
    if (memcmp(got, wanted, n * size) == 0) return n;
    for (size_t i = 0; i < n; i++) {
        uint64_t a = load_bits((const char *)got + i * size, size),
                 b = load_bits((const char *)wanted + i * size, size);
        if (a != b && !(is_nan(a, dtype) && is_nan(b, dtype))) return i;
    }
    return n;
}

static const uint64_t hash_start = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */

/* The same on every byte order; all NaNs are one. */
static inline uint64_t hash_elements(uint64_t hash, const void *data, size_t n, enum pe_dtype dtype) {
    size_t size = pe_itemsize(dtype);
    for (size_t i = 0; i < n; i++) {
        uint64_t bits = load_bits((const char *)data + i * size, size);
        if (is_nan(bits, dtype)) bits = 0x7e;
        for (size_t k = 0; k < size; k++, bits >>= 8) hash = (hash ^ (bits & 0xff)) * 0x100000001b3u;
    }
    return hash;
}

/* ---- one pair ---- */

static inline float widen(const void *p, enum pe_dtype dtype) {
    uint32_t bits = (uint32_t)load_bits(p, pe_itemsize(dtype));
    union pe_bits32 v = {.u = bits};
    if (dtype == PE_F32) return v.f;
    return dtype == PE_F16 ? pe_float_from_f16((uint16_t)bits) : pe_float_from_bf16((uint16_t)bits);
}

static inline uint64_t narrow(float x, enum pe_dtype dtype) {
    union pe_bits32 v = {.f = x};
    if (dtype == PE_F32) return v.u;
    return dtype == PE_F16 ? pe_f16_from_float(x) : pe_bf16_from_float(x);
}

/* a' = a*cos - b*sin, b' = b*cos + a*sin; cos and sin point to float64 for float64 elements, else to float32. Each
 * product has a variable of its own: where C evaluates float in a wider type (FLT_EVAL_METHOD), storing rounds it. */
static inline void turn(enum pe_dtype dtype, const void *a, const void *b, const void *cos, const void *sin,
                        uint64_t *first, uint64_t *second) {
    if (dtype == PE_F64) {
        double x, y, c, s;
        memcpy(&x, a, 8), memcpy(&y, b, 8), memcpy(&c, cos, 8), memcpy(&s, sin, 8);
        double xc = x * c, ys = y * s, yc = y * c, xs = x * s, u = xc - ys, v = yc + xs;
        *first = load_bits(&u, 8), *second = load_bits(&v, 8);
        return;
    }
    float x = widen(a, dtype), y = widen(b, dtype), c = widen(cos, PE_F32), s = widen(sin, PE_F32);
    float xc = x * c, ys = y * s, yc = y * c, xs = x * s;
    *first = narrow(xc - ys, dtype), *second = narrow(yc + xs, dtype);
}

/* ---- one sum ---- */

/* x + scale*t as bits; each product has a variable of its own, as above */
static inline uint64_t sum_of(enum pe_dtype dtype, const void *x, const void *t, double scale) {
    if (dtype == PE_F64) {
        double a, b;
        memcpy(&a, x, 8), memcpy(&b, t, 8);
        double product = scale * b, sum = a + product;
        return load_bits(&sum, 8);
    }
    float a = widen(x, dtype), b = widen(t, PE_F32), product = (float)scale * b;
    return narrow(a + product, dtype);
}

#endif
