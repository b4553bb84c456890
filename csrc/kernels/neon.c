/* arm64 NEON, which every arm64 processor has, FMA included: four float32 or two float64 lanes. Tails go through a small
 * buffer. Streaming is a plain copy: arm64's non-temporal pair store is only a hint.
 */
#include "kernels.h"

#ifdef PE_ARM64
#include <arm_neon.h>
#include <string.h>

#define PE_FN       PE_INLINE
#define PE_CASES    1
#define PE_KERNEL   static
#define PE_KERNELS  pe_kernels_neon
#define PE_ISA_NAME "neon"

enum { FL = 4, DL = 2, TURN_VECTORS = 4 };
typedef float32x4_t F;
typedef float64x2_t D;
typedef uint32x4_t W;

PE_FN F ld_f32(const float *p) {
    return vld1q_f32(p);
}
PE_FN F ldn_f32(const float *p, size_t n) {
    float buffer[FL] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return vld1q_f32(buffer);
}
PE_FN void st_f32(float *p, F x) {
    vst1q_f32(p, x);
}
PE_FN void stn_f32(float *p, F x, size_t n) {
    float buffer[FL];
    vst1q_f32(buffer, x);
    memcpy(p, buffer, n * sizeof *p);
}
PE_FN F ld_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
PE_FN F ld_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
PE_FN F ldn_f16(const uint16_t *p, size_t n) {
    uint16_t buffer[FL] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return ld_f16(buffer);
}
PE_FN void st_f16(uint16_t *p, F x) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}
PE_FN void stn_f16(uint16_t *p, F x, size_t n) {
    uint16_t buffer[FL];
    st_f16(buffer, x);
    memcpy(p, buffer, n * sizeof *p);
}
#define sts_f32 st_f32
#define sts_f16 st_f16
PE_FN F f_set(float x) {
    return vdupq_n_f32(x);
}
PE_FN F f_add(F x, F y) {
    return vaddq_f32(x, y);
}
PE_FN F f_sub(F x, F y) {
    return vsubq_f32(x, y);
}
PE_FN F f_mul(F x, F y) {
    return vmulq_f32(x, y);
}
PE_FN F f_abs(F x) {
    return vabsq_f32(x);
}
PE_FN F f_count(int32_t start) { /* start, start + 1, .. */
    const int32x4_t lanes = {0, 1, 2, 3};
    return vcvtq_f32_s32(vaddq_s32(vdupq_n_s32(start), lanes));
}
PE_FN F f_count2(int32_t start) { /* start, start + 2, .. */
    const int32x4_t lanes = {0, 2, 4, 6};
    return vcvtq_f32_s32(vaddq_s32(vdupq_n_s32(start), lanes));
}
PE_FN F f_gather(const float *t, const int32_t *index) {
    float picked[FL] = {t[index[0]], t[index[1]], t[index[2]], t[index[3]]};
    return vld1q_f32(picked);
}
PE_FN F f_swap(F x) {
    return vrev64q_f32(x);
}
PE_FN F f_addsub(F x, F y) { /* x + -y is x - y */
    const uint32x4_t even = {0x80000000u, 0, 0x80000000u, 0};
    return vaddq_f32(x, vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(y), even)));
}
PE_FN F f_spread(float32x2_t x) { /* x0 x0 x1 x1 */
    return vcombine_f32(vdup_lane_f32(x, 0), vdup_lane_f32(x, 1));
}
PE_FN F f_dup(const float *p) {
    return f_spread(vld1_f32(p));
}
PE_FN F f_dupn(const float *p, size_t n) {
    return f_spread(vget_low_f32(ldn_f32(p, n)));
}

PE_FN void f_unzip(F x, F y, F *even, F *odd) {
    *even = vuzp1q_f32(x, y);
    *odd = vuzp2q_f32(x, y);
}
PE_FN void f_zip(F even, F odd, F *x, F *y) {
    *x = vzip1q_f32(even, odd);
    *y = vzip2q_f32(even, odd);
}

PE_FN F f_window(F t, const int32_t *index, int32_t first) {
    uint32x4_t lane = vreinterpretq_u32_s32(vsubq_s32(vld1q_s32(index), vdupq_n_s32(first)));
    uint32x4_t bytes = vmlaq_n_u32(vdupq_n_u32(0x03020100), lane, 0x04040404);
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(t), vreinterpretq_u8_u32(bytes)));
}
PE_FN void f_transpose(F *v) {
    float32x4x2_t a = vtrnq_f32(v[0], v[1]), b = vtrnq_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    v[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    v[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    v[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

PE_FN W w_load(const uint16_t *p) {
    return vreinterpretq_u32_u16(vld1q_u16(p));
}
PE_FN W w_loadn(const uint16_t *p, size_t n) {
    uint16_t buffer[2 * FL] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return w_load(buffer);
}
PE_FN void w_store(uint16_t *p, W w) {
    vst1q_u16(p, vreinterpretq_u16_u32(w));
}
PE_FN void w_storen(uint16_t *p, W w, size_t n) {
    uint16_t buffer[2 * FL];
    w_store(buffer, w);
    memcpy(p, buffer, n * sizeof *p);
}
#define w_stores w_store
PE_FN F f_even(W w) {
    return vreinterpretq_f32_u32(vshlq_n_u32(w, 16));
}
PE_FN F f_odd(W w) {
    return vreinterpretq_f32_u32(vandq_u32(w, vdupq_n_u32(0xffff0000u)));
}
PE_FN uint32x4_t bf16_high(F x) { /* the rounded bfloat16 in the high half of each lane */
    uint32x4_t u = vreinterpretq_u32_f32(x), even = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), even);
    return vbslq_u32(vceqq_f32(x, x), rounded, vorrq_u32(u, vdupq_n_u32(0x400000)));
}
PE_FN void w_pack_all(W *w, const F *even, const F *odd, size_t n) {
    for (size_t k = 0; k < n; k++)
        w[k] = vbslq_u32(vdupq_n_u32(0xffff0000u), bf16_high(odd[k]), vshrq_n_u32(bf16_high(even[k]), 16));
}

PE_FN D d_ld_f32(const float *p) {
    return vcvt_f64_f32(vld1_f32(p));
}
PE_FN D d_ld_f16(const uint16_t *p) {
    uint16_t four[4] = {p[0], p[1], 0, 0};
    return vcvt_f64_f32(vget_low_f32(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(four)))));
}
PE_FN D d_ld_bf16(const uint16_t *p) {
    uint32_t two[2] = {(uint32_t)p[0] << 16, (uint32_t)p[1] << 16};
    return vcvt_f64_f32(vreinterpret_f32_u32(vld1_u32(two)));
}
PE_FN D d_set(double x) {
    return vdupq_n_f64(x);
}
PE_FN D d_count(int32_t start) {
    const int32x2_t lanes = {0, 1};
    return vcvtq_f64_s64(vmovl_s32(vadd_s32(vdup_n_s32(start), lanes)));
}
PE_FN D d_gather(const double *t, const int32_t *index) {
    double picked[DL] = {t[index[0]], t[index[1]]};
    return vld1q_f64(picked);
}
PE_FN D ld_f64(const double *p) {
    return vld1q_f64(p);
}
PE_FN D ldn_f64(const double *p, size_t n) {
    double buffer[DL] = {0};
    memcpy(buffer, p, n * sizeof *p);
    return vld1q_f64(buffer);
}
PE_FN void st_f64(double *p, D x) {
    vst1q_f64(p, x);
}
PE_FN void stn_f64(double *p, D x, size_t n) {
    double buffer[DL];
    vst1q_f64(buffer, x);
    memcpy(p, buffer, n * sizeof *p);
}
#define sts_f64 st_f64
PE_FN D d_add(D x, D y) {
    return vaddq_f64(x, y);
}
PE_FN D d_sub(D x, D y) {
    return vsubq_f64(x, y);
}
PE_FN D d_mul(D x, D y) {
    return vmulq_f64(x, y);
}
PE_FN D d_fma(D x, D y, D z) {
    return vfmaq_f64(z, x, y);
}
PE_FN D d_fms(D x, D y, D z) {
    return vfmaq_f64(vnegq_f64(z), x, y);
}
PE_FN D d_fnma(D x, D y, D z) {
    return vfmsq_f64(z, x, y);
}
PE_FN D d_round_f32(D x) {
    return vcvt_f64_f32(vcvt_f32_f64(x));
}
PE_FN D d_swap(D x) {
    return vextq_f64(x, x, 1);
}
PE_FN D d_addsub(D x, D y) {
    const uint64x2_t even = {0x8000000000000000u, 0};
    return vaddq_f64(x, vreinterpretq_f64_u64(veorq_u64(vreinterpretq_u64_f64(y), even)));
}
PE_FN D d_dup(const double *p) {
    return vld1q_dup_f64(p);
}
PE_FN D d_dupn(const double *p, size_t n) { /* n < 1 pair: nothing is left */
    (void)p, (void)n;
    return vdupq_n_f64(0.0);
}
#define d_shl(x, n) vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(x), n))
PE_FN D d_or(D x, D y) {
    return vreinterpretq_f64_u64(vorrq_u64(vreinterpretq_u64_f64(x), vreinterpretq_u64_f64(y)));
}
PE_FN D d_abs(D x) {
    return vabsq_f64(x);
}
PE_FN D d_flip(D x, D sign) {
    uint64x2_t top = vandq_u64(vreinterpretq_u64_f64(sign), vdupq_n_u64(0x8000000000000000u));
    return vreinterpretq_f64_u64(veorq_u64(vreinterpretq_u64_f64(x), top));
}
PE_FN D d_blend(D x, D y, D sign) {
    return vbslq_f64(vreinterpretq_u64_s64(vshrq_n_s64(vreinterpretq_s64_f64(sign), 63)), y, x);
}
PE_FN F f_narrow(D x, D y) {
    return vcvt_high_f32_f64(vcvt_f32_f64(x), y);
}
PE_FN F f_low(D x, D y) {
    return vuzp1q_f32(vreinterpretq_f32_f64(x), vreinterpretq_f32_f64(y));
}
PE_FN F f_low_mixed(D x, D y) {
    return f_low(x, y);
}
PE_FN uint32x4_t sum_and(F x, int32_t add, int32_t bits) {
    return vandq_u32(vaddq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32((uint32_t)add)), vdupq_n_u32((uint32_t)bits));
}
PE_FN int f_suspect(F x, F y, int32_t add, int32_t bits, F u, F v, F least) {
    uint32x4_t none = vceqzq_u32(vminq_u32(sum_and(x, add, bits), sum_and(y, add, bits)));
    uint32x4_t small = vcltq_f32(vminq_f32(f_abs(u), f_abs(v)), least);
    return vmaxvq_u32(vorrq_u32(none, small)) != 0;
}
PE_FN F f_nonzero(F x, F y) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), vceqzq_f32(x)));
}
#define f_shl(x, n) vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), n))
PE_FN F f_or(F x, F y) {
    return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(x), vreinterpretq_u32_f32(y)));
}
PE_FN F f_flip(F x, F sign) {
    uint32x4_t top = vandq_u32(vreinterpretq_u32_f32(sign), vdupq_n_u32(0x80000000u));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), top));
}
PE_FN F f_blend(F x, F y, F sign) {
    return vbslq_f32(vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_f32(sign), 31)), y, x);
}
PE_FN int f_any_negative(F x) {
    return vmaxvq_u32(vreinterpretq_u32_f32(x)) >> 31;
}
PE_FN int d_any_negative(D x) {
    uint64x2_t u = vreinterpretq_u64_f64(x);
    return (int)((vgetq_lane_u64(u, 0) | vgetq_lane_u64(u, 1)) >> 63);
}

static void stream(char *y, const char *x, size_t bytes) {
    memcpy(y, x, bytes);
}
static void stream_end(void) {
}

#include "table.inc.h"
#endif
