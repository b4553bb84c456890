/* float16 and bfloat16 as bits: exact widening, and rounding to nearest, ties to even.
 *
 * The same results as F16C, as NEON's conversions and as torch: subnormals are kept, overflow gives infinity, a NaN keeps
 * its sign and high payload bits and becomes quiet.
 */
#ifndef PE_HALF_H
#define PE_HALF_H

#include <stdint.h>

#include "compiler.h"

union pe_bits32 {
    uint32_t u;
    float f;
};

PE_INLINE float pe_float_from_bf16(uint16_t h) {
    union pe_bits32 v = {.u = (uint32_t)h << 16};
    return v.f;
}

PE_INLINE uint16_t pe_bf16_from_float(float f) {
    union pe_bits32 v = {.f = f};
    if ((v.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((v.u >> 16) | 0x40);
    return (uint16_t)((v.u + 0x7fff + ((v.u >> 16) & 1)) >> 16);
}

PE_INLINE float pe_float_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    union pe_bits32 v;
    if (magnitude >= 0x7c00) { /* infinity or NaN; a NaN becomes quiet */
        v.u = 0x7f800000u | (magnitude << 13);
        if (magnitude > 0x7c00) v.u |= 0x400000u;
    } else if (magnitude >= 0x0400) { /* normal: the exponent bias grows by 127 - 15 */
        v.u = (magnitude << 13) + (112u << 23);
    } else { /* subnormal: the value is magnitude * 2^-24, exact in float32 */
        v.f = (float)magnitude * 0x1p-24f;
    }
    v.u |= sign;
    return v.f;
}

PE_INLINE uint16_t pe_f16_from_float(float f) {
    union pe_bits32 v = {.f = f};
    uint32_t sign = (v.u >> 16) & 0x8000, magnitude = v.u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | ((magnitude >> 13) & 0x1ff));
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* from 65520 on, halfway past the largest */
    if (magnitude < 0x38800000u) { /* below 2^-14: adding 0.5 puts the float16 subnormal step, 2^-24, at the last bit */
        v.u = magnitude;
        v.f += 0.5f;
        return (uint16_t)(sign | (v.u - 0x3f000000u));
    }
    magnitude += 0xfff + ((magnitude >> 13) & 1);
    return (uint16_t)(sign | ((magnitude - (112u << 23)) >> 13));
}

#endif
