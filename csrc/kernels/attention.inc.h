/* Sums over attention weights: a template, included once per element type and ISA.
 *
 * A block of a row is read once. Each weight is added to the sum of its place, in float64; the block's sum and first
 * moment run in eight lanes, whatever the ISA's vectors hold, so that every ISA adds in the same order. The first moment
 * costs an addition and no product: with s_v the lane's sum after vector v of V, the sum of all s_v counts vector v
 * V - v times.
 *
 * The including file says which element with
 *     PE_E   element name: f32, f64, f16 or bf16       PE_T   its storage type
 * and has defined PE_FN, PE_KERNEL, ld_f64, ldn_f64, st_f64, stn_f64, d_set, d_add, d_or, d_any_negative and
 *     d_ld_e(p)      DL elements widened to float64
 */
#ifndef d_ld_f64
#define d_ld_f64 ld_f64
#endif
#define PE_WIDE(op) PE_CAT(op, PE_E)

/* The first n < DL elements, zeros behind them: once a block, so through a buffer on every ISA. */
PE_FN D PE_WIDE(tally_tail_)(const PE_T *x, size_t n) {
    PE_T buffer[DL] = {0};
    memcpy(buffer, x, n * sizeof *x);
    return PE_WIDE(d_ld_)(buffer);
}

/* One vector of weights; n < DL at the end of a block, where n = 0 still counts as a step of the moment. */
PE_FN void PE_WIDE(tally_step_)(const PE_T *x, double *by_offset, size_t n, D *sum, D *moment, D *signs) {
    if (n) {
        D w = n == DL ? PE_WIDE(d_ld_)(x) : PE_WIDE(tally_tail_)(x, n);
        if (n == DL)
            st_f64(by_offset, d_add(ld_f64(by_offset), w));
        else
            stn_f64(by_offset, d_add(ldn_f64(by_offset, n), w), n);
        *signs = d_or(*signs, w);
        *sum = d_add(*sum, w);
    }
    *moment = d_add(*moment, *sum);
}

/* Whether all bytes are zero: above the diagonal of a causal map, and outside a window, they are. A block of them adds
 * nothing, and this runs at the speed of memory. */
PE_FN int PE_WIDE(tally_nothing_)(const PE_T *x, size_t n) {
    if (n == 0 || x[0] != 0 || x[n - 1] != 0) return n == 0;
    uint64_t any = 0, word;
    size_t bytes = n * sizeof *x, i = 0;
    for (; i + sizeof word <= bytes; i += sizeof word) {
        memcpy(&word, (const char *)x + i, sizeof word);
        any |= word;
    }
    for (i /= sizeof *x; i < n; i++)
        if (x[i] != 0) return 0;
    return any == 0;
}

PE_KERNEL int PE_WIDE(tally_)(const char *source, size_t n, double *by_offset, double sums[2]) {
    const PE_T *x = (const PE_T *)source;
    if (PE_WIDE(tally_nothing_)(x, n)) {
        sums[0] = sums[1] = 0.0;
        return 0;
    }
    enum { VECTORS = PE_TALLY_LANES / DL };
    D sum[VECTORS], moment[VECTORS], signs = d_set(0.0);
    for (int k = 0; k < VECTORS; k++) sum[k] = moment[k] = d_set(0.0);
    size_t j = 0, steps = (n + PE_TALLY_LANES - 1) / PE_TALLY_LANES;
    for (; j + PE_TALLY_LANES <= n; j += PE_TALLY_LANES)
        for (int k = 0; k < VECTORS; k++)
            PE_WIDE(tally_step_)(x + j + k * DL, by_offset + j + k * DL, DL, &sum[k], &moment[k], &signs);
    for (int k = 0; j < n && k < VECTORS; k++) {
        size_t at = j + (size_t)k * DL, left = at < n ? n - at : 0;
        PE_WIDE(tally_step_)(x + at, by_offset + at, left < DL ? left : DL, &sum[k], &moment[k], &signs);
    }
    PE_ALIGNED(64) double s[PE_TALLY_LANES], m[PE_TALLY_LANES];
    for (int k = 0; k < VECTORS; k++) st_f64(s + k * DL, sum[k]), st_f64(m + k * DL, moment[k]);
    pe_tally_finish(s, m, (double)steps, sums);
    return d_any_negative(signs);
}

#undef PE_WIDE
#undef PE_E
#undef PE_T
