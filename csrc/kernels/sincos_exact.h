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

#define PE_TWO_OVER_PI     0x1.45f306dc9c883p-1
#define PE_TWO_OVER_PI_LOW -0x1.6b01ec5417056p-55 /* what it misses */
#define PE_MAGIC           0x1.8p+52              /* adding it leaves the nearest integer in the low bits */

/* Cancellation: float64 results, where r^2 is below this many times k; float32 results, where t is below LEAST_TURN, which
 * every sine below LEAST_SINE is looked at for. */
#define PE_CANCELLED  0x1p-82
#define PE_LEAST_TURN 0x1p-31
#define PE_LEAST_SINE 0x1p-30

/* Runs of rows (sincos_run.inc.h): results below LEAST, or closer to a middle between two float32 than so many units, are
 * made again. */
#define PE_RUN_LEAST 0x1.9p-11
#define PE_RUN_DOUBT 0x1p18

/* pi/2 */
#define PE_P1 0x1.921fb00000000p+0
#define PE_P2 0x1.5110b00000000p-22
#define PE_P3 0x1.1846980000000p-44
#define PE_P4 0x1.3198a2e037073p-69

/* float32 results, of quarter turns: sine S, cosine C */
#define PE_S0 0x1.921fb54442d18p+0
#define PE_S1 -0x1.4abbce616c300p-1
#define PE_S2 0x1.466bc2b8802dcp-4
#define PE_S3 -0x1.32ce1da69259fp-8
#define PE_S4 0x1.4cb749691a216p-13
#define PE_C0 -0x1.3bd3cc9be45dep+0
#define PE_C1 0x1.03c1f08176d8bp-2
#define PE_C2 -0x1.55d3c5ed2efaep-6
#define PE_C3 0x1.e1f01d6872ac4p-11
#define PE_C4 -0x1.a2e2e52b0988dp-16

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

/* Whether k*pi/2 takes too much away, as the template sees it. */
static inline int pe_cancelled_f64(double k, double r) {
    return r * r < PE_CANCELLED * fabs(k);
}
static inline int pe_cancelled_f32(double position, double inv_freq, double k) {
    double high = inv_freq * PE_TWO_OVER_PI, error = fma(inv_freq, PE_TWO_OVER_PI, -high);
    double t = fma(position, fma(inv_freq, PE_TWO_OVER_PI_LOW, error), fma(position, high, -k));
    return k != 0 && fabs(t) < PE_LEAST_TURN;
}

/* Write again those elements of row j where angle and k*pi/2 cancelled. No float32 angle comes that close. */
static PE_NOINLINE void pe_sincos_mend_row(const struct pe_sincos *job, size_t j, enum sincos_form form) {
    if (!job->each && job->position[j] == 0) return;
    char *cos = job->cos + (ptrdiff_t)j * job->cos_step, *sin = job->sin + (ptrdiff_t)j * job->sin_step;
    size_t step = form == SINCOS_ZIP ? 2 : 1;
    for (size_t i = 0; i < job->pairs; i++) {
        double p = job->each ? job->each[i] : job->position[j], w = job->inv_freq[i];
        double kk = fma(p * w, PE_TWO_OVER_PI, PE_MAGIC), k = kk - PE_MAGIC;
        if (form != SINCOS_F64 && !pe_cancelled_f32(p, w, k)) continue;
        double r = pe_reduce_exact(p, w, k);
        if (form == SINCOS_F64 && !pe_cancelled_f64(k, r)) continue;
        uint64_t quarter;
        memcpy(&quarter, &kk, sizeof quarter);
        double near_one = 1 - r * r / 2, near_zero = r - r * r * r / 6;
        double c = quarter & 1 ? near_zero : near_one, s = quarter & 1 ? near_one : near_zero;
        if (quarter & 2) s = -s;
        if ((quarter + 1) & 2) c = -c;
        c *= job->scale, s *= job->scale;
        if (form == SINCOS_F64)
            ((double *)cos)[i] = c, ((double *)sin)[i] = s;
        else
            ((float *)cos)[i * step] = (float)c, ((float *)sin)[i * step] = (float)s;
    }
}

#endif
