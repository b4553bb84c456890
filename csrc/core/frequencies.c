/* Inverse frequencies, the float64 nearest to base**(-2i/r).
 *
 * A library's pow is off in the last bit, differently on every processor and C library. Here x = base**(-2/r) is found as
 * an unevaluated sum of two doubles (106 bits) by Newton's method on x**r * base**2 = 1, and its powers are taken in the
 * same arithmetic: 2*log2(r) roundings of 2^-104 in the root, i more in the i-th power, so the nearest double is missed
 * only where the value lies within about 2^-96 of halfway between two. pow only gives the first guess.
 */
#include <math.h>

#include "posenc.h"

typedef struct {
    double high, low;
} dd;

static dd dd_sum(double high, double low) { /* |high| >= |low| */
    double sum = high + low;
    return (dd){sum, low - (sum - high)};
}

static dd dd_mul(dd a, dd b) {
    double p = a.high * b.high, error = fma(a.high, b.high, -p);
    return dd_sum(p, error + (a.high * b.low + a.low * b.high));
}

static dd dd_power(dd a, size_t n) {
    dd result = {1, 0};
    for (; n; n >>= 1, a = dd_mul(a, a))
        if (n & 1) result = dd_mul(result, a);
    return result;
}

static dd dd_reciprocal(dd a) {
    double q = 1 / a.high;
    return dd_sum(q, q * (fma(-q, a.high, 1) - q * a.low));
}

/* base**(-2/r): a step multiplies x by 1 + e/r, where e = 1 - base**2 * x**r. base**2 may not fit a double, so x**(r/2)
 * is multiplied by base and then squared: both are near 1. */
static dd root(double base, size_t r) {
    dd x = {pow(base, -2.0 / (double)r), 0}, b = {base, 0};
    for (int step = 0; step < 3; step++) {
        dd y = dd_mul(dd_power(x, r / 2), b);
        double e = ((1 - y.high) - y.low) / ((double)r / 2);
        x = dd_sum(x.high, x.low + x.high * e);
    }
    return x;
}

void pe_inv_freq(double base, size_t rotary_dim, double *inv_freq) {
    if (rotary_dim == 0) return;
    dd x = root(base, rotary_dim), power = {1, 0};
    for (size_t i = 0; i < rotary_dim / 2; i++) {
        inv_freq[i] = power.high;
        power = dd_mul(power, x);
    }
}

/* base**e for e = float32(2i/r) is base**(2i/r) times exp(d*ln(base)), d = e - 2i/r, |d| < 2^-24: two terms of the
 * exponential are more than the final rounding to float32 can see. */
void pe_float32_powers(double base, size_t rotary_dim, double *powers) {
    if (rotary_dim == 0) return;
    base = (double)(float)base;
    dd x = root(base, rotary_dim), power = {1, 0};
    double log_base = log(base), r = (double)rotary_dim;
    for (size_t i = 0; i < rotary_dim / 2; i++) {
        double two_i = (double)(2 * i), e = (float)(two_i / r);
        double d = fma(e, r, -two_i) / r, step = d * log_base;
        dd up = dd_reciprocal(power);
        dd value = dd_sum(up.high, up.low + up.high * (step + step * step / 2));
        powers[i] = (double)(float)value.high;
        power = dd_mul(power, x);
    }
}
