/* Rows of cosines and sines, exact: a template, included once per ISA.
 *
 * The angle position * inv_freq is kept as hi + lo without error (the FMA gives the rounding error of a product). It is
 * reduced by k quarter turns, k = nearest integer to angle / (pi/2) < 2^31, with pi/2 = P1 + P2 + P3 + P4 (+ 2^-122):
 * P1, P2 and P3 are multiples of 2^-21, 2^-43 and 2^-65 with 22 bits each, so k*P1, k*P2 and k*P3 have no rounding error,
 * and hi - k*P1 - k*P2 has none either (a multiple of 2^-43 below 2). What is left, |r| <= pi/4, goes through polynomials
 * in r^2: Chebyshev fits on [0, (pi/4)^2] of (sin(r)/r - 1)/r^2 and (cos(r) - 1 + r^2/2)/r^4, whose errors are 2.9e-11
 * and 2.4e-12 for float32 results (0.0003 of a unit in the last place), 1.2e-20 and 1.3e-18 for float64 ones. k's two
 * lowest bits say which of them is the cosine. tests/test_constants.py derives every constant again.
 *
 * Where angle and k*pi/2 nearly cancel, |r| < 2^-41 sqrt|k|, four pieces are too few for r's relative error; chance hits
 * that once in 2^30 angles or more, but there are positions that do it. Those rows are noticed, by the sign of
 * r^2 - 2^-82 |k|, and mended by sincos_exact.h.
 *
 * Needs PE_FN, PE_KERNEL, a vector D of DL doubles, and
 *     d_set(x)  ld_f64(p)  ldn_f64(p, n)  st_f64(p, x)  stn_f64(p, x, n)
 *     d_add  d_sub  d_mul  d_fma(a, b, c) = a*b + c  d_fms(a, b, c) = a*b - c  d_fnma(a, b, c) = c - a*b
 *     d_round_f32(x)   rounded to float32 and widened again
 *     d_st_f32(p, x)  d_stn_f32(p, x, n)    rounded to float32 and stored
 *     d_st2_f32(p, x, y)                    the same of x0 y0 x1 y1 ..
 *     d_shl(x, n)  d_or  d_abs              on the bits
 *     d_blend(x, y, sign)                   y where the top bit of sign is set
 *     d_flip(x, sign)                       -x there
 *     d_any_negative(x)                     whether any top bit is set
 */
#include "pair.inc.h"
#include "sincos_exact.h"

/* r = hi + lo - k*pi/2 in one double, error below 2^-106 |hi| */
PE_FN P sincos_reduce(P hi, P lo, P k) {
    P r = p_fnma(k, p_set(PE_P3), p_fnma(k, p_set(PE_P2), p_fnma(k, p_set(PE_P1), hi)));
    return p_add(r, p_fnma(k, p_set(PE_P4), lo));
}

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

/* to 2^-35 of the result, for a rounding to float32 within 0.501 ulp */
PE_FN void sincos_polynomial_f32(P r, P z, P *cos, P *sin) {
    P s = p_fma(z, p_fma(z, p_fma(z, p_set(PE_S4), p_set(PE_S3)), p_set(PE_S2)), p_set(PE_S1));
    P c = p_fma(z, p_fma(z, p_fma(z, p_set(PE_C4), p_set(PE_C3)), p_set(PE_C2)), p_set(PE_C1));
    *sin = p_fma(p_mul(r, z), s, r);
    *cos = p_fma(z, p_fma(z, c, p_set(-0.5)), p_set(1.0));
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
PE_FN void sincos_quadrant(P kk, P *cos, P *sin) {
    P odd = p_shl(kk, 63), sign = p_shl(kk, 62);
    P c = p_blend(*cos, *sin, odd), s = p_blend(*sin, *cos, odd);
    *sin = p_flip(s, sign);
    *cos = p_flip(p_flip(c, sign), odd);
}

/* Returns the test of cancellation, negative where it happened. as_float32 and wide are constants wherever this, and what
 * follows, is expanded. */
PE_FN P sincos_step(P position, P inv_freq, int as_float32, int wide, P *cos, P *sin) {
    P hi = p_mul(position, inv_freq), lo = p_fms(position, inv_freq, hi);
    if (as_float32) hi = p_round_f32(hi), lo = p_set(0.0);
    P magic = p_set(PE_MAGIC), kk = p_fma(hi, p_set(PE_TWO_OVER_PI), magic), k = p_sub(kk, magic), r, z;
    if (wide) {
        P tail;
        r = sincos_reduce_tail(hi, lo, k, &tail);
        z = p_mul(r, r);
        sincos_polynomial_f64(r, tail, z, cos, sin);
    } else {
        r = sincos_reduce(hi, lo, k);
        z = p_mul(r, r);
        sincos_polynomial_f32(r, z, cos, sin);
    }
    sincos_quadrant(kk, cos, sin);
    return p_fnma(p_abs(k), p_set(PE_CANCELLED), z);
}

PE_FN void sincos_store(char *row, size_t i, P x, size_t n, int wide) {
    if (wide)
        p_st_f64((double *)row + i, x, n);
    else
        p_st_f32((float *)row + i, x, n);
}

/* One row, in pieces. A local copy of the job stays in registers: the stores might alias the caller's. */
PE_FN P sincos_pairs(struct pe_sincos job, P position, char *cos, char *sin, size_t i, size_t n, enum sincos_form form,
                     int scaled) {
    P c, s, w = p_ld(job.inv_freq + i, n);
    if (job.each) position = p_ld(job.each + i, n);
    P cancelled = sincos_step(position, w, job.as_float32, form == SINCOS_F64, &c, &s);
    if (scaled) {
        if (job.as_float32) c = p_round_f32(c), s = p_round_f32(s);
        c = p_mul(c, p_set(job.scale)), s = p_mul(s, p_set(job.scale));
    }
    if (form == SINCOS_ZIP) {
        p_st2_f32((float *)sin + 2 * i, s, c, n);
    } else {
        sincos_store(cos, i, c, n, form == SINCOS_F64);
        sincos_store(sin, i, s, n, form == SINCOS_F64);
    }
    return cancelled;
}

PE_FN void sincos_rows(struct pe_sincos job, enum sincos_form form, int scaled) {
    for (size_t j = 0; j < job.rows; j++) {
        P cancelled = p_set(0.0), position = p_set(job.position[j]);
        char *cos = job.cos + (ptrdiff_t)j * job.cos_step, *sin = job.sin + (ptrdiff_t)j * job.sin_step;
        size_t i = 0;
        for (; i + PL <= job.pairs; i += PL)
            cancelled = p_or(cancelled, sincos_pairs(job, position, cos, sin, i, PL, form, scaled));
        if (i < job.pairs)
            cancelled = p_or(cancelled, sincos_pairs(job, position, cos, sin, i, job.pairs - i, form, scaled));
        if (PE_UNLIKELY(p_any_negative(cancelled))) pe_sincos_mend_row(job, j, form);
    }
}

/* The fields that choose code are set to constants, so that every case has a loop of its own. */
PE_FN void sincos_narrow(struct pe_sincos job, enum sincos_form form) {
    if (job.as_float32) {
        job.as_float32 = 1;
        sincos_rows(job, form, 1);
        return;
    }
    job.as_float32 = 0, job.each = NULL;
    if (job.scale == 1)
        sincos_rows(job, form, 0);
    else
        sincos_rows(job, form, 1);
}

PE_KERNEL void sincos_f32(const struct pe_sincos *given) {
    struct pe_sincos job = *given;
    if (job.each && !job.as_float32) {
        job.as_float32 = 0;
        sincos_rows(job, SINCOS_F32, 1);
    } else {
        sincos_narrow(job, SINCOS_F32);
    }
}

PE_KERNEL void sincos_zip(const struct pe_sincos *given) {
    struct pe_sincos job = *given;
    job.each = NULL;
    sincos_narrow(job, SINCOS_ZIP);
}

/* float64 rows of float32 angles are float32 rows widened, which is the caller's affair */
PE_KERNEL void sincos_f64(const struct pe_sincos *given) {
    struct pe_sincos job = *given;
    job.as_float32 = 0;
    sincos_rows(job, SINCOS_F64, 1);
}
