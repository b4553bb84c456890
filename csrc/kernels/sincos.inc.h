/* Rows of cosines and sines, exact: a template, included once per ISA.
 *
 * The angle position * inv_freq is kept as hi + lo without error (the FMA gives the rounding error of a product). It is
 * reduced by k quarter turns, k = nearest integer to angle / (pi/2) < 2^31, with pi/2 = P1 + P2 + P3 + P4 (+ 2^-122):
 * P1, P2 and P3 are multiples of 2^-21, 2^-43 and 2^-65 with 22 bits each, so k*P1, k*P2 and k*P3 have no rounding error,
 * and hi - k*P1 - k*P2 has none either (a multiple of 2^-43 below 2). What is left, |r| <= pi/4, goes through polynomials
 * in r^2: Chebyshev fits on [0, (pi/4)^2] of (sin(r)/r - 1)/r^2 and (cos(r) - 1 + r^2/2)/r^4, whose errors are 3e-14 and
 * 2e-12 for float32 results, 2e-19 and 2e-18 for float64 ones. k's two lowest bits say which of them is the cosine.
 * tests/test_constants.py derives every constant again.
 *
 * Where angle and k*pi/2 nearly cancel, |r| < 2^-60 |hi|, four pieces are too few for r's relative error; no such angle
 * comes up by chance, but there are positions that do it. Those rows are noticed and mended by sincos_exact.h.
 *
 * Needs PE_FN, PE_KERNEL, a vector D of DL doubles, a mask M, and
 *     d_set(x)  ld_f64(p)  ldn_f64(p, n)  st_f64(p, x)  stn_f64(p, x, n)
 *     d_add  d_sub  d_mul  d_fma(a, b, c) = a*b + c  d_fms(a, b, c) = a*b - c  d_fnma(a, b, c) = c - a*b
 *     d_round_f32(x)   rounded to float32 and widened again
 *     d_st_f32(p, x)  d_stn_f32(p, x, n)    rounded to float32 and stored
 *     d_shl(x, n)  d_and  d_xor             on the bits
 *     d_blend(x, y, sign)                   y where the top bit of sign is set
 *     m_none()  m_or_below(m, x, y)         m, or |x| < |y|        m_any(m)
 */
#include "sincos_exact.h"

/* r = hi + lo - k*pi/2 in one double, error below 2^-106 |hi| */
PE_FN D sincos_reduce(D hi, D lo, D k) {
    D r = d_fnma(k, d_set(PE_P3), d_fnma(k, d_set(PE_P2), d_fnma(k, d_set(PE_P1), hi)));
    return d_add(r, d_fnma(k, d_set(PE_P4), lo));
}

/* a + b = sum + error, exactly */
PE_FN D sincos_two_sum(D a, D b, D *error) {
    D sum = d_add(a, b), bb = d_sub(sum, a);
    *error = d_add(d_sub(a, d_sub(sum, bb)), d_sub(b, bb));
    return sum;
}

/* the same as r + tail, error below 2^-118 |hi| */
PE_FN D sincos_reduce_tail(D hi, D lo, D k, D *tail) {
    D e1, e2, e3, zero = d_set(0.0);
    D a = d_fnma(k, d_set(PE_P2), d_fnma(k, d_set(PE_P1), hi));
    a = sincos_two_sum(a, d_sub(zero, d_mul(k, d_set(PE_P3))), &e1);
    D p4 = d_mul(k, d_set(PE_P4)), p4_error = d_fms(k, d_set(PE_P4), p4);
    D b = sincos_two_sum(lo, d_sub(zero, p4), &e2);
    D sum = sincos_two_sum(a, b, &e3);
    D rest = d_sub(d_add(d_add(e1, e2), e3), p4_error);
    D r = d_add(sum, rest);
    *tail = d_add(d_sub(sum, r), rest);
    return r;
}

/* to 2^-44 of the result: what a rounding to float32 within 0.501 ulp needs, with a wide margin */
PE_FN void sincos_polynomial_f32(D r, D *cos, D *sin) {
    D z = d_mul(r, r);
    D s = d_fma(z, d_fma(z, d_fma(z, d_fma(z, d_set(PE_S5), d_set(PE_S4)), d_set(PE_S3)), d_set(PE_S2)), d_set(PE_S1));
    D c = d_fma(z, d_fma(z, d_fma(z, d_set(PE_C4), d_set(PE_C3)), d_set(PE_C2)), d_set(PE_C1));
    *sin = d_fma(d_mul(r, z), s, r);
    *cos = d_fma(d_mul(z, z), c, d_fma(d_set(-0.5), z, d_set(1.0)));
}

/* sin(r + tail) = r + (tail - z*tail/2 + r*z*s), cos(r + tail) = 1 - z/2 + (rounding error of that + z*z*c - r*tail) */
PE_FN void sincos_polynomial_f64(D r, D tail, D *cos, D *sin) {
    D z = d_mul(r, r), half = d_mul(d_set(0.5), z), one = d_set(1.0);
    D s = d_fma(z, d_set(PE_L7), d_set(PE_L6));
    s = d_fma(z, d_fma(z, d_fma(z, d_fma(z, d_fma(z, s, d_set(PE_L5)), d_set(PE_L4)), d_set(PE_L3)), d_set(PE_L2)),
              d_set(PE_L1));
    D c = d_fma(z, d_fma(z, d_set(PE_K6), d_set(PE_K5)), d_set(PE_K4));
    c = d_fma(z, d_fma(z, d_fma(z, c, d_set(PE_K3)), d_set(PE_K2)), d_set(PE_K1));
    *sin = d_add(r, d_fma(d_mul(r, z), s, d_fnma(half, tail, tail)));
    D w = d_sub(one, half);
    D rest = d_sub(d_sub(one, w), half);
    *cos = d_add(w, d_add(rest, d_fnma(r, tail, d_mul(d_mul(z, z), c))));
}

/* quarter turns: the low bits of kk are those of k */
PE_FN void sincos_quadrant(D kk, D *cos, D *sin) {
    D top = d_set(-0.0), odd = d_shl(kk, 63), sign = d_and(d_shl(kk, 62), top);
    D c = d_blend(*cos, *sin, odd), s = d_blend(*sin, *cos, odd);
    *sin = d_xor(s, sign);
    *cos = d_xor(c, d_xor(sign, d_and(odd, top)));
}

PE_FN M sincos_step(D position, D inv_freq, int as_float32, int wide, M cancelled, D *cos, D *sin) {
    D hi = d_mul(position, inv_freq), lo = d_fms(position, inv_freq, hi);
    if (as_float32) hi = d_round_f32(hi), lo = d_set(0.0);
    D magic = d_set(PE_MAGIC), kk = d_fma(hi, d_set(PE_TWO_OVER_PI), magic), k = d_sub(kk, magic), r;
    if (wide) {
        D tail;
        r = sincos_reduce_tail(hi, lo, k, &tail);
        sincos_polynomial_f64(r, tail, cos, sin);
    } else {
        r = sincos_reduce(hi, lo, k);
        sincos_polynomial_f32(r, cos, sin);
    }
    sincos_quadrant(kk, cos, sin);
    return m_or_below(cancelled, r, d_mul(hi, d_set(PE_CANCELLED)));
}

/* n pairs from pair i on; wide, as_float32 and n == DL are constants wherever this is expanded */
PE_FN M sincos_pairs(const struct pe_sincos *job, size_t j, size_t i, size_t n, int as_float32, int wide, M cancelled) {
    D c, s, scale = d_set(job->scale), w = n == DL ? ld_f64(job->inv_freq + i) : ldn_f64(job->inv_freq + i, n), p;
    if (job->each)
        p = n == DL ? ld_f64(job->each + i) : ldn_f64(job->each + i, n);
    else
        p = d_set(job->position[j]);
    cancelled = sincos_step(p, w, as_float32, wide, cancelled, &c, &s);
    if (as_float32) c = d_round_f32(c), s = d_round_f32(s);
    c = d_mul(c, scale), s = d_mul(s, scale);
    char *cos = job->cos + (ptrdiff_t)j * job->cos_step, *sin = job->sin + (ptrdiff_t)j * job->sin_step;
    if (wide && n == DL)
        st_f64((double *)cos + i, c), st_f64((double *)sin + i, s);
    else if (wide)
        stn_f64((double *)cos + i, c, n), stn_f64((double *)sin + i, s, n);
    else if (n == DL)
        d_st_f32((float *)cos + i, c), d_st_f32((float *)sin + i, s);
    else
        d_stn_f32((float *)cos + i, c, n), d_stn_f32((float *)sin + i, s, n);
    return cancelled;
}

PE_FN void sincos_rows(const struct pe_sincos *job, int as_float32, int wide) {
    for (size_t j = 0; j < job->rows; j++) {
        M cancelled = m_none();
        size_t i = 0;
        for (; i + DL <= job->pairs; i += DL) cancelled = sincos_pairs(job, j, i, DL, as_float32, wide, cancelled);
        if (i < job->pairs) cancelled = sincos_pairs(job, j, i, job->pairs - i, as_float32, wide, cancelled);
        if (PE_UNLIKELY(m_any(cancelled))) pe_sincos_mend_row(job, j, as_float32, wide);
    }
}

PE_KERNEL void sincos_f32(const struct pe_sincos *job) {
    if (job->as_float32)
        sincos_rows(job, 1, 0);
    else
        sincos_rows(job, 0, 0);
}

/* float64 rows of float32 angles are float32 rows widened, which is the caller's affair */
PE_KERNEL void sincos_f64(const struct pe_sincos *job) {
    sincos_rows(job, 0, 1);
}
