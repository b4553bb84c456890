/* Two float64 vectors as one, for the sincos template: each operation is done on both halves in turn.
 *
 * A row of cosines is one chain of some twenty dependent operations a vector. Written one vector after the other, the
 * waiting operations of a chain fill a processor's scheduler; two chains in turn keep its units busy (1.2 to 1.5 times
 * as fast).
 */
enum { PL = 2 * DL };
typedef struct {
    D a, b;
} P;

PE_FN P p_set(double x) {
    D v = d_set(x);
    return (P){v, v};
}
PE_FN P p_ld(const double *p, size_t n) { /* the first n <= PL, zeros behind them */
    if (n == PL) return (P){ld_f64(p), ld_f64(p + DL)};
    if (n >= DL) return (P){ld_f64(p), n > DL ? ldn_f64(p + DL, n - DL) : d_set(0.0)};
    return (P){ldn_f64(p, n), d_set(0.0)};
}
PE_FN void p_st_f64(double *p, P x, size_t n) {
    if (n < DL) {
        stn_f64(p, x.a, n);
        return;
    }
    st_f64(p, x.a);
    if (n == PL)
        st_f64(p + DL, x.b);
    else if (n > DL)
        stn_f64(p + DL, x.b, n - DL);
}

PE_FN F p_narrow(P x) { /* rounded to float32 */
    return f_narrow(x.a, x.b);
}
PE_FN F p_low(P x) { /* the low 32 bits of each */
    return f_low(x.a, x.b);
}
PE_FN F p_low_mixed(P x) { /* in any order */
    return f_low_mixed(x.a, x.b);
}
PE_FN P p_add(P x, P y) {
    return (P){d_add(x.a, y.a), d_add(x.b, y.b)};
}
PE_FN P p_sub(P x, P y) {
    return (P){d_sub(x.a, y.a), d_sub(x.b, y.b)};
}
PE_FN P p_mul(P x, P y) {
    return (P){d_mul(x.a, y.a), d_mul(x.b, y.b)};
}
PE_FN P p_fma(P x, P y, P z) {
    return (P){d_fma(x.a, y.a, z.a), d_fma(x.b, y.b, z.b)};
}
PE_FN P p_fms(P x, P y, P z) {
    return (P){d_fms(x.a, y.a, z.a), d_fms(x.b, y.b, z.b)};
}
PE_FN P p_fnma(P x, P y, P z) {
    return (P){d_fnma(x.a, y.a, z.a), d_fnma(x.b, y.b, z.b)};
}
PE_FN P p_round_f32(P x) {
    return (P){d_round_f32(x.a), d_round_f32(x.b)};
}
PE_FN P p_or(P x, P y) {
    return (P){d_or(x.a, y.a), d_or(x.b, y.b)};
}
PE_FN P p_abs(P x) {
    return (P){d_abs(x.a), d_abs(x.b)};
}
#define p_shl(x, n) ((P){d_shl((x).a, n), d_shl((x).b, n)})
PE_FN P p_blend(P x, P y, P sign) {
    return (P){d_blend(x.a, y.a, sign.a), d_blend(x.b, y.b, sign.b)};
}
PE_FN P p_flip(P x, P sign) {
    return (P){d_flip(x.a, sign.a), d_flip(x.b, sign.b)};
}
PE_FN int p_any_negative(P x) {
    return d_any_negative(d_or(x.a, x.b));
}
