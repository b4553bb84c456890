/* Sums over attention weights: a template, included once per element type and ISA.
 *
 * A row is read once, block by block. Each weight is added to the sum of its place, in float64; a block's sum and first
 * moment run in eight lanes, whatever the ISA's vectors hold, so that every ISA adds in the same order. The first moment
 * costs an addition and no product: with s_v the lane's sum after vector v of V, the sum of all s_v counts vector v
 * V - v times. Between blocks nothing is summed across lanes but the mass.
 *
 * The including file says which element with
 *     PE_E   element name: f32, f64, f16 or bf16       PE_T   its storage type
 * and has defined PE_FN, PE_KERNEL, ld_f64, ldn_f64, st_f64, stn_f64, d_set, d_add, d_sub, d_mul, d_or,
 * d_any_negative and
 *     d_ld_e(p)      DL elements widened to float64
 */
/* d_add again, in units that d_add leaves idle where there are such */
#ifndef d_add_too
#define d_add_too d_add
#endif
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
    *moment = d_add_too(*moment, *sum);
}

enum { PE_WIDE(VECTORS_) = PE_TALLY_LANES / DL, PE_WIDE(LINE_) = 64 / sizeof(PE_T) };

/* Whether all bytes are zero: above the diagonal of a causal map, and outside a window, they are. A block of them adds
 * nothing, and this runs at the speed of memory. A line at a time with its fetch: four lines of vectors at a time are 1.4
 * times as fast in the second cache, and take 1.16 of the time of the whole check on maps in memory. */
PE_FN int PE_WIDE(tally_nothing_)(const PE_T *x, size_t n, ptrdiff_t ahead) {
    if (n == 0 || x[0] != 0 || x[n - 1] != 0) return n == 0;
    uint64_t any = 0, word[8], rest[8] = {0}; /* bits: -0.0 is no zero here */
    size_t i = 0;
    for (; i + PE_WIDE(LINE_) <= n; i += PE_WIDE(LINE_)) {
        PE_PREFETCH2((const char *)(x + i) + ahead);
        memcpy(word, x + i, sizeof word);
        for (int k = 0; k < 8; k++) any |= word[k];
    }
    memcpy(rest, x + i, (n - i) * sizeof *x);
    for (int k = 0; k < 8; k++) any |= rest[k];
    return any == 0;
}

/* All keys of a block, the line that comes so many bytes later fetched with each. Four lines at a time: a block of 256 keys
 * takes 0.84 of the time that it takes line by line. */
PE_FN void PE_WIDE(tally_keys_)(const PE_T *x, size_t n, ptrdiff_t ahead, double *by_offset, D *sum, D *moment,
                                D *signs) {
    enum { AT_ONCE = 4 * PE_WIDE(LINE_) };
    size_t j = 0;
    for (; j + AT_ONCE <= n; j += AT_ONCE) {
        for (size_t i = j; i < j + AT_ONCE; i += PE_WIDE(LINE_)) PE_PREFETCH2((const char *)(x + i) + ahead);
        for (size_t i = j; i < j + AT_ONCE; i += PE_TALLY_LANES)
            for (int k = 0; k < PE_WIDE(VECTORS_); k++)
                PE_WIDE(tally_step_)(x + i + k * DL, by_offset + i + k * DL, DL, &sum[k], &moment[k], signs);
    }
    for (; j < n; j += PE_TALLY_LANES) {
        PE_PREFETCH2((const char *)(x + j) + ahead); /* a line or less: at the diagonal every row has some of these */
        for (int k = 0; k < PE_WIDE(VECTORS_); k++) {
            size_t at = j + (size_t)k * DL, left = at < n ? n - at : 0;
            PE_WIDE(tally_step_)(x + at, by_offset + at, left < DL ? left : DL, &sum[k], &moment[k], signs);
        }
    }
}

/* n keys of one block, the first at this place in the row */
PE_FN void PE_WIDE(tally_block_)(const struct pe_tally_run *run, const PE_T *x, size_t n, size_t at, double *mass,
                                 D *total, D *first_moment, D *signs) {
    static const double lane[PE_TALLY_LANES] = {0, 1, 2, 3, 4, 5, 6, 7};
    PE_ALIGNED(64) double sums[PE_TALLY_LANES];
    D sum[PE_WIDE(VECTORS_)], moment[PE_WIDE(VECTORS_)];
    D steps = d_set((double)((n + PE_TALLY_LANES - 1) / PE_TALLY_LANES)), place = d_set((double)(run->place + at));
    if (PE_WIDE(tally_nothing_)(x, n, run->ahead)) return;
    for (int k = 0; k < PE_WIDE(VECTORS_); k++) sum[k] = moment[k] = d_set(0.0);
    PE_WIDE(tally_keys_)(x, n, run->ahead, run->by_offset + at, sum, moment, signs);
    for (int k = 0; k < PE_WIDE(VECTORS_); k++) {
        D behind = d_mul(d_set(PE_TALLY_LANES), d_sub(d_mul(steps, sum[k]), moment[k]));
        D before = d_mul(d_add(place, ld_f64(lane + k * DL)), sum[k]);
        st_f64(sums + k * DL, sum[k]);
        total[k] = d_add(total[k], sum[k]), first_moment[k] = d_add(first_moment[k], d_add(before, behind));
    }
    *mass += pe_tally_sum(sums);
}

PE_KERNEL int PE_WIDE(tally_)(const struct pe_tally_run *run) {
    const PE_T *x = (const PE_T *)(const void *)run->x;
    D total[PE_WIDE(VECTORS_)], first_moment[PE_WIDE(VECTORS_)], signs = d_set(0.0);
    for (int k = 0; k < PE_WIDE(VECTORS_); k++)
        total[k] = ld_f64(run->sum + k * DL), first_moment[k] = ld_f64(run->moment + k * DL);
    size_t n = run->width - run->place % run->width;
    double *mass = run->mass;
    for (size_t at = 0; at < run->n; at += n, n = run->width, mass++) {
        if (n > run->n - at) n = run->n - at;
        PE_WIDE(tally_block_)(run, x + at, n, at, mass, total, first_moment, &signs);
    }
    for (int k = 0; k < PE_WIDE(VECTORS_); k++)
        st_f64(run->sum + k * DL, total[k]), st_f64(run->moment + k * DL, first_moment[k]);
    return d_any_negative(signs);
}

#undef PE_WIDE
#undef PE_E
#undef PE_T
