/* Rows of cosines and sines, exact: a template, included once per ISA.
 *
 * An angle is reduced to what it has beyond k quarter turns, k the nearest integer, and that goes through polynomials in
 * its square. k's two lowest bits say which of them is the cosine.
 *
 * float32 results count in quarter turns: inv_freq * 2/pi is kept as high + low, to 2^-106, once for all rows. Then
 * t = position*high - k + position*low, |t| <= 1/2, two fused steps whose error is 2^-53 of t and 2^-106 of the angle.
 * float64 results keep position * inv_freq as hi + lo without error (the FMA gives the rounding error of a product) and
 * subtract k * pi/2 with pi/2 = P1 + P2 + P3 + P4 (+ 2^-122): P1, P2 and P3 are multiples of 2^-21, 2^-43 and 2^-65
 * with 22 bits each, so k*P1, k*P2 and k*P3 have no rounding error, and hi - k*P1 - k*P2 has none either (a multiple of
 * 2^-43 below 2).
 *
 * The polynomials are Chebyshev fits on r^2 in [0, (pi/4)^2] of (sin(r)/r - 1)/r^2 and (cos(r) - 1 + r^2/2)/r^4, whose
 * errors are 2.9e-11 and 2.4e-12 for float32 results (0.0003 of a unit in the last place; their coefficients are scaled
 * to quarter turns, r = t*pi/2), 1.2e-20 and 1.3e-18 for float64 ones. tests/test_constants.py derives every constant
 * again.
 *
 * Where angle and k quarter turns nearly cancel, the error of the reduction is too much for what is left: |t| < 2^-31
 * with float32 results, r^2 < 2^-82 |k| with float64 ones. Chance hits that once in 2^30 angles or more, but there are
 * positions that do it. Those rows are noticed, by the sign of a difference, and mended by sincos_exact.h.
 *
 * Needs PE_FN, PE_KERNEL, a vector D of DL doubles, a vector F of FL = 2*DL floats, and
 *     d_set(x)  ld_f64(p)  ldn_f64(p, n)  st_f64(p, x)  stn_f64(p, x, n)  st_f32(p, x)  stn_f32(p, x, n)
 *     d_add  d_sub  d_mul  f_sub  d_fma(a, b, c) = a*b + c  d_fms(a, b, c) = a*b - c  d_fnma(a, b, c) = c - a*b
 *     d_round_f32(x)   rounded to float32 and widened again
 *     f_narrow(x, y)   the lanes of x and y rounded to float32     f_low(x, y)   their low 32 bits
 *     f_zip(x, y, &a, &b)   x0 y0 x1 y1 .. in a, then b
 *     f_nonzero(x, y)  y where x is not zero, else zero
 *     d_shl(x, n)  d_or  d_abs              on the bits; f_ likewise
 *     d_blend(x, y, sign)                   y where the top bit of sign is set
 *     d_flip(x, sign)                       -x there
 *     d_any_negative(x)                     whether any top bit is set
 */
#include "pair.inc.h"
#include "sincos_exact.h"

/* a + b = sum + error, exactly */
PE_FN P sincos_two_sum(P a, P b, P *error) {
    P sum = p_add(a, b), bb = p_sub(sum, a);
    *error = p_add(p_sub(a, p_sub(sum, bb)), p_sub(b, bb));
    return sum;
}

/* the same as r + tail, error below 2^-118 |hi| */
PE_FN P sincos_reduce_tail(P hi, P lo, P k, P *tail) {
    P e1, e2, e3, zero = p_set(0.0);
    P a = p_fnma(k, p_set(PE_P2), p_fnma(k, p_set(PE_P1), hi));
    a = sincos_two_sum(a, p_sub(zero, p_mul(k, p_set(PE_P3))), &e1);
    P p4 = p_mul(k, p_set(PE_P4)), p4_error = p_fms(k, p_set(PE_P4), p4);
    P b = sincos_two_sum(lo, p_sub(zero, p4), &e2);
    P sum = sincos_two_sum(a, b, &e3);
    P rest = p_sub(p_add(p_add(e1, e2), e3), p4_error);
    P r = p_add(sum, rest);
    *tail = p_add(p_sub(sum, r), rest);
    return r;
}

/* of t quarter turns, z = t^2: to 2^-35 of the result, for a rounding to float32 within 0.501 ulp */
PE_FN void sincos_polynomial_f32(P t, P z, P *cos, P *sin) {
    P s = p_fma(z, p_fma(z, p_fma(z, p_set(PE_S4), p_set(PE_S3)), p_set(PE_S2)), p_set(PE_S1));
    P c = p_fma(z, p_fma(z, p_fma(z, p_set(PE_C4), p_set(PE_C3)), p_set(PE_C2)), p_set(PE_C1));
    *sin = p_mul(t, p_fma(z, s, p_set(PE_S0)));
    *cos = p_fma(z, p_fma(z, c, p_set(PE_C0)), p_set(1.0));
}

/* sin(r + tail) = r + (tail - z*tail/2 + r*z*s), cos(r + tail) = 1 - z/2 + (rounding error of that + z*z*c - r*tail) */
PE_FN void sincos_polynomial_f64(P r, P tail, P z, P *cos, P *sin) {
    P half = p_mul(p_set(0.5), z), one = p_set(1.0);
    P s = p_fma(z, p_set(PE_L7), p_set(PE_L6));
    s = p_fma(z, p_fma(z, p_fma(z, p_fma(z, p_fma(z, s, p_set(PE_L5)), p_set(PE_L4)), p_set(PE_L3)), p_set(PE_L2)),
              p_set(PE_L1));
    P c = p_fma(z, p_fma(z, p_set(PE_K6), p_set(PE_K5)), p_set(PE_K4));
    c = p_fma(z, p_fma(z, p_fma(z, c, p_set(PE_K3)), p_set(PE_K2)), p_set(PE_K1));
    *sin = p_add(r, p_fma(p_mul(r, z), s, p_fnma(half, tail, tail)));
    P w = p_sub(one, half);
    P rest = p_sub(p_sub(one, w), half);
    *cos = p_add(w, p_add(rest, p_fnma(r, tail, p_mul(p_mul(z, z), c))));
}

/* quarter turns: the low bits of kk are those of k */
PE_FN void sincos_quadrant_f32(F kk, F *cos, F *sin) {
    F odd = f_shl(kk, 31), sign = f_shl(kk, 30);
    F c = f_blend(*cos, *sin, odd), s = f_blend(*sin, *cos, odd);
    *sin = f_flip(s, sign);
    *cos = f_flip(f_flip(c, sign), odd);
}

PE_FN void sincos_quadrant_f64(P kk, P *cos, P *sin) {
    P odd = p_shl(kk, 63), sign = p_shl(kk, 62);
    P c = p_blend(*cos, *sin, odd), s = p_blend(*sin, *cos, odd);
    *sin = p_flip(s, sign);
    *cos = p_flip(p_flip(c, sign), odd);
}

/* float64 results. Returns the test of cancellation, negative where it happened. */
PE_APART P sincos_step_f64(P position, P inv_freq, P *cos, P *sin) {
    P hi = p_mul(position, inv_freq), lo = p_fms(position, inv_freq, hi), tail;
    P magic = p_set(PE_MAGIC), kk = p_fma(hi, p_set(PE_TWO_OVER_PI), magic), k = p_sub(kk, magic);
    P r = sincos_reduce_tail(hi, lo, k, &tail), z = p_mul(r, r);
    sincos_polynomial_f64(r, tail, z, cos, sin);
    sincos_quadrant_f64(kk, cos, sin);
    return p_fnma(p_abs(k), p_set(PE_CANCELLED), z);
}

/* float32 results, before they are rounded, of x * (high + low) quarter turns; returns kk, whose low bits count them */
PE_FN P sincos_step_f32(P x, P high, P low, P *cos, P *sin) {
    P magic = p_set(PE_MAGIC), kk = p_fma(x, high, magic), minus_k = p_sub(magic, kk); /* +0, so that sin(0) is +0 */
    P t = p_fma(x, low, p_fma(x, high, minus_k));
    sincos_polynomial_f32(t, p_mul(t, t), cos, sin);
    return kk;
}

/* Up to so many frequencies as quarter turns: inv_freq * 2/pi = high + low. A sine below `least` may come of cancellation;
 * `least` is zero where nothing turns and every sine is zero. */
enum { SINCOS_BLOCK = 512 };
struct sincos_turns {
    PE_ALIGNED(64) double high[SINCOS_BLOCK];
    PE_ALIGNED(64) double low[SINCOS_BLOCK];
    PE_ALIGNED(64) float least[SINCOS_BLOCK];
};

PE_KERNEL PE_NOINLINE void sincos_turns(const struct pe_sincos *job, struct sincos_turns *turns) {
    F least = f_abs(p_narrow(p_mul(p_set(job->scale), p_set(PE_LEAST_SINE))));
    for (size_t i = 0; i < job->pairs; i += PL) {
        size_t n = job->pairs - i < PL ? job->pairs - i : PL;
        P w = p_ld(job->inv_freq + i, n), t = p_set(PE_TWO_OVER_PI), high = p_mul(w, t);
        p_st_f64(turns->high + i, high, PL);
        p_st_f64(turns->low + i, p_fma(w, p_set(PE_TWO_OVER_PI_LOW), p_fms(w, t, high)), PL);
        P moves = job->each ? p_mul(w, p_ld(job->each + i, n)) : w;
        st_f32(turns->least + i, f_nonzero(p_narrow(moves), least));
    }
}

PE_FN P sincos_scaled(P x, const struct pe_sincos *job) {
    if (job->as_float32) x = p_round_f32(x);
    return p_mul(x, p_set(job->scale));
}

PE_FN void sincos_store_f32(float *p, F x, size_t n) {
    if (n == FL)
        st_f32(p, x);
    else
        stn_f32(p, x, n);
}

PE_FN void sincos_store_zipped(float *p, F x, F y, size_t n) {
    F low, high;
    f_zip(x, y, &low, &high);
    sincos_store_f32(p, low, 2 * n < FL ? 2 * n : FL);
    if (2 * n > FL) sincos_store_f32(p + FL, high, 2 * n - FL);
}

PE_FN void sincos_store_pairs(float *cos, float *sin, F c, F s, size_t i, size_t n, enum sincos_form form) {
    if (form == SINCOS_ZIP) {
        sincos_store_zipped(sin + 2 * i, s, c, n);
    } else {
        sincos_store_f32(cos + i, c, n);
        sincos_store_f32(sin + i, s, n);
    }
}

/* A piece of a row of float32. A local copy of the job stays in registers: the stores might alias the caller's. */
PE_APART F sincos_pairs_f32(struct pe_sincos job, const struct sincos_turns *turns, P position, float *cos, float *sin,
                            size_t i, size_t n, enum sincos_form form, int scaled) {
    P c, s, kk;
    if (job.each) position = p_ld(job.each + i, n);
    if (job.as_float32) {
        P angle = p_round_f32(p_mul(position, p_ld(job.inv_freq + i, n)));
        kk = sincos_step_f32(angle, p_set(PE_TWO_OVER_PI), p_set(PE_TWO_OVER_PI_LOW), &c, &s);
    } else {
        kk = sincos_step_f32(position, p_ld(turns->high + i, PL), p_ld(turns->low + i, PL), &c, &s);
    }
    if (scaled) c = sincos_scaled(c, &job), s = sincos_scaled(s, &job);
    F fc = p_narrow(c), fs = p_narrow(s);
    F cancelled = job.as_float32 ? f_set(0.0f) : f_sub(f_abs(fs), ld_f32(turns->least + i));
    sincos_quadrant_f32(p_low(kk), &fc, &fs);
    sincos_store_pairs(cos, sin, fc, fs, i, n, form);
    return cancelled;
}

/* Up to PL pairs from i on of some rows, for what is rare: the ends of rows, and what is made again. Called, not expanded,
 * and for any job and form. */
PE_KERNEL PE_NOINLINE void sincos_rest_f32(const struct pe_sincos *job, const struct sincos_turns *turns, size_t row,
                                           size_t rows, size_t i, enum sincos_form form) {
    size_t n = job->pairs - i < PL ? job->pairs - i : PL;
    for (size_t j = row; j < row + rows; j++) {
        float *cos = (float *)(job->cos + (ptrdiff_t)j * job->cos_step);
        float *sin = (float *)(job->sin + (ptrdiff_t)j * job->sin_step);
        F cancelled = sincos_pairs_f32(*job, turns, p_set(job->position[j]), cos, sin, i, n, form, 1);
        if (PE_UNLIKELY(f_any_negative(cancelled))) pe_sincos_mend_row(job, j, form);
    }
}

/* The first `whole` pairs of the rows from j on. Returns the first row that is to be mended: a call in this loop would keep
 * the constants out of registers. */
PE_FN size_t sincos_whole_f32(struct pe_sincos job, const struct sincos_turns *turns, size_t whole, size_t j,
                              enum sincos_form form, int scaled) {
    for (; j < job.rows; j++) {
        F cancelled = f_set(0.0f);
        P position = p_set(job.position[j]);
        float *cos = (float *)(job.cos + (ptrdiff_t)j * job.cos_step);
        float *sin = (float *)(job.sin + (ptrdiff_t)j * job.sin_step);
        for (size_t i = 0; i < whole; i += PL)
            cancelled = f_or(cancelled, sincos_pairs_f32(job, turns, position, cos, sin, i, PL, form, scaled));
        if (PE_UNLIKELY(f_any_negative(cancelled))) break;
    }
    return j;
}

PE_FN void sincos_block_f32(struct pe_sincos job, enum sincos_form form, int scaled) {
    const struct pe_sincos same = job; /* for calls: one whose address is known elsewhere leaves the registers */
    struct sincos_turns turns;
    size_t whole = job.pairs / PL * PL;
    sincos_turns(&same, &turns); /* which angles of float32 do without */
    for (size_t j = 0; whole && (j = sincos_whole_f32(job, &turns, whole, j, form, scaled)) < job.rows; j++)
        pe_sincos_mend_row(&same, j, form);
    if (whole < job.pairs) sincos_rest_f32(&same, &turns, 0, job.rows, whole, form);
}

/* With PE_CASES as_float32, form and scaled are constants wherever this is expanded, and so is whether there is a position
 * for each pair: every case has a loop of its own */
PE_FN void sincos_rows_f32(struct pe_sincos job, enum sincos_form form, int scaled) {
    size_t size = (form == SINCOS_ZIP ? 2 : 1) * sizeof(float), at_once = job.pairs <= SINCOS_BLOCK ? job.rows : 1;
    for (size_t j = 0; j < job.rows; j += at_once)
        for (size_t i = 0; i < job.pairs; i += SINCOS_BLOCK) {
            struct pe_sincos part = job;
            part.rows = at_once, part.pairs = job.pairs - i < SINCOS_BLOCK ? job.pairs - i : SINCOS_BLOCK;
            part.position += j, part.inv_freq += i;
            if (job.each) part.each += i;
            part.cos += (ptrdiff_t)j * job.cos_step + (ptrdiff_t)(i * size);
            part.sin += (ptrdiff_t)j * job.sin_step + (ptrdiff_t)(i * size);
            sincos_block_f32(part, form, scaled);
        }
}

PE_FN void sincos_narrow(struct pe_sincos job, enum sincos_form form) {
    if (!PE_CASES) {
        sincos_rows_f32(job, form, 1);
        return;
    }
    if (job.as_float32) {
        job.as_float32 = 1;
        sincos_rows_f32(job, form, 1);
        return;
    }
    job.as_float32 = 0, job.each = NULL;
    if (job.scale == 1)
        sincos_rows_f32(job, form, 0);
    else
        sincos_rows_f32(job, form, 1);
}

PE_KERNEL void sincos_f32(const struct pe_sincos *given) {
    struct pe_sincos job = *given;
    if (PE_CASES && job.each && !job.as_float32) {
        job.as_float32 = 0;
        sincos_rows_f32(job, SINCOS_F32, 1);
    } else {
        sincos_narrow(job, SINCOS_F32);
    }
}

PE_KERNEL void sincos_zip(const struct pe_sincos *given) {
    struct pe_sincos job = *given;
    job.each = NULL;
    sincos_narrow(job, SINCOS_ZIP);
}

PE_FN P sincos_pairs_f64(struct pe_sincos job, P position, double *cos, double *sin, size_t i, size_t n) {
    P c, s;
    if (job.each) position = p_ld(job.each + i, n);
    P cancelled = sincos_step_f64(position, p_ld(job.inv_freq + i, n), &c, &s);
    p_st_f64(cos + i, p_mul(c, p_set(job.scale)), n);
    p_st_f64(sin + i, p_mul(s, p_set(job.scale)), n);
    return cancelled;
}

/* the ends of rows, as above */
PE_KERNEL PE_NOINLINE void sincos_rest_f64(const struct pe_sincos *job, size_t i) {
    for (size_t j = 0; j < job->rows; j++) {
        double *cos = (double *)(job->cos + (ptrdiff_t)j * job->cos_step);
        double *sin = (double *)(job->sin + (ptrdiff_t)j * job->sin_step);
        P cancelled = sincos_pairs_f64(*job, p_set(job->position[j]), cos, sin, i, job->pairs - i);
        if (PE_UNLIKELY(p_any_negative(cancelled))) pe_sincos_mend_row(job, j, SINCOS_F64);
    }
}

PE_FN size_t sincos_whole_f64(struct pe_sincos job, size_t whole, size_t j) {
    for (; j < job.rows; j++) {
        P cancelled = p_set(0.0), position = p_set(job.position[j]);
        double *cos = (double *)(job.cos + (ptrdiff_t)j * job.cos_step);
        double *sin = (double *)(job.sin + (ptrdiff_t)j * job.sin_step);
        for (size_t i = 0; i < whole; i += PL)
            cancelled = p_or(cancelled, sincos_pairs_f64(job, position, cos, sin, i, PL));
        if (PE_UNLIKELY(p_any_negative(cancelled))) break;
    }
    return j;
}

/* float64 rows of float32 angles are float32 rows widened, which is the caller's affair */
PE_KERNEL void sincos_f64(const struct pe_sincos *job) {
    size_t whole = job->pairs / PL * PL;
    for (size_t j = 0; whole && (j = sincos_whole_f64(*job, whole, j)) < job->rows; j++)
        pe_sincos_mend_row(job, j, SINCOS_F64);
    if (whole < job->pairs) sincos_rest_f64(job, whole);
}
