/* The constants of the sincos template, and the rare case that they are too short for.
 *
 * Position 2^31 with 53 bits of fraction can come within 2^-75 of a multiple of pi/2 (continued fractions find such
 * positions). There r is computed again from eight pieces of pi/2, 22 bits each, whose products with k are exact, by
 * summing ten exact terms with errors kept. r is then below 2^-25, and two terms of each series are exact enough.
 */
#ifndef PE_SINCOS_EXACT_H
#define PE_SINCOS_EXACT_H

#include <math.h>
#include <string.h>

#include "kernels.h"

#define PE_TWO_OVER_PI 0x1.45f306dc9c883p-1
#define PE_MAGIC       0x1.8p+52 /* adding it leaves the nearest integer in the low bits */
#define PE_CANCELLED   0x1p-82

/* pi/2 */
#define PE_P1 0x1.921fb00000000p+0
#define PE_P2 0x1.5110b00000000p-22
#define PE_P3 0x1.1846980000000p-44
#define PE_P4 0x1.3198a2e037073p-69

/* float32 results: sine S, cosine C */
#define PE_S1 -0x1.555555545df18p-3
#define PE_S2 0x1.11110deef0ae3p-7
#define PE_S3 -0x1.a013a740c35cep-13
#define PE_S4 0x1.6dbded5452c9bp-19
#define PE_C1 0x1.5555555502c6dp-5
#define PE_C2 -0x1.6c16bf54be1f5p-10
#define PE_C3 0x1.a015c4462d9e2p-16
#define PE_C4 -0x1.25243c2f39550p-22

/* float64 results: sine L, cosine K */
#define PE_L1 -0x1.5555555555555p-3
#define PE_L2 0x1.1111111111110p-7
#define PE_L3 -0x1.a01a01a019937p-13
#define PE_L4 0x1.71de3a54607a5p-19
#define PE_L5 -0x1.ae64541295cdfp-26
#define PE_L6 0x1.61217ee5cca1bp-33
#define PE_L7 -0x1.ab17bdcbd3414p-41
#define PE_K1 0x1.5555555555555p-5
#define PE_K2 -0x1.6c16c16c16967p-10
#define PE_K3 0x1.a01a019f4e9b4p-16
#define PE_K4 -0x1.27e4fa17bf139p-22
#define PE_K5 0x1.1eeb68cd22f56p-29
#define PE_K6 -0x1.907d8f29fe831p-37

/* What a kernel writes: rows of float32, rows of float64, or one row of float32, sines and cosines in turn. */
enum sincos_form { SINCOS_F32, SINCOS_F64, SINCOS_ZIP };

/* pi/2 again, for the exact reduction */
static const double pe_half_pi[8] = {
    0x1.921fb00000000p+0,  0x1.5110b00000000p-22,  0x1.1846980000000p-44,  0x1.3198800000000p-69,
    0x1.1701b80000000p-88, 0x1.cd12000000000p-115, 0x1.2049c00000000p-132, 0x1.114ce00000000p-156,
};

/* position * inv_freq - k*pi/2: ten exact terms; each pass moves rounding errors one place down, none is lost */
static inline double pe_reduce_exact(double position, double inv_freq, double k) {
    double term[10], hi = position * inv_freq;
    term[0] = hi;
    for (int i = 0; i < 8; i++) term[i + 1] = -k * pe_half_pi[i];
    term[9] = fma(position, inv_freq, -hi);
    for (int pass = 0; pass < 6; pass++)
        for (int i = 9; i > 0; i--) {
            double a = term[i - 1], b = term[i], sum = a + b, bb = sum - a;
            term[i - 1] = sum;
            term[i] = (a - (sum - bb)) + (b - bb);
        }
    double r = 0;
    for (int i = 9; i >= 0; i--) r += term[i];
    return r;
}

/* Write again those elements of row j where angle and k*pi/2 cancelled: r^2 < 2^-82 |k|, as the template tests it. No
 * float32 angle comes that close. */
static inline void pe_sincos_mend_row(struct pe_sincos job, size_t j, enum sincos_form form) {
    if (job.as_float32) return;
    char *cos = job.cos + (ptrdiff_t)j * job.cos_step, *sin = job.sin + (ptrdiff_t)j * job.sin_step;
    size_t step = form == SINCOS_ZIP ? 2 : 1;
    for (size_t i = 0; i < job.pairs; i++) {
        double p = job.each ? job.each[i] : job.position[j], w = job.inv_freq[i];
        double kk = fma(p * w, PE_TWO_OVER_PI, PE_MAGIC), k = kk - PE_MAGIC, r = pe_reduce_exact(p, w, k);
        if (!(r * r < PE_CANCELLED * fabs(k))) continue;
        uint64_t quarter;
        memcpy(&quarter, &kk, sizeof quarter);
        double near_one = 1 - r * r / 2, near_zero = r - r * r * r / 6;
        double c = quarter & 1 ? near_zero : near_one, s = quarter & 1 ? near_one : near_zero;
        if (quarter & 2) s = -s;
        if ((quarter + 1) & 2) c = -c;
        c *= job.scale, s *= job.scale;
        if (form == SINCOS_F64)
            ((double *)cos)[i] = c, ((double *)sin)[i] = s;
        else
            ((float *)cos)[i * step] = (float)c, ((float *)sin)[i * step] = (float)s;
    }
}

#endif
