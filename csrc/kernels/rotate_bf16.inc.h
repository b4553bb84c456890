/* The rotation of bfloat16 rows: a template, included once per ISA.
 *
 * A 32-bit word holds two neighbours. Its low 16 bits shifted up are the even element as a float32, its high 16 bits
 * alone are the odd one: two widened vectors for two cheap operations, where widening loads and narrowing stores would
 * cost shuffles. Interleaved pairs are exactly one word each. In halves a word holds elements 2i and 2i + 1 of the same
 * half: the angles are taken apart in the same way, once for all heads that share them.
 *
 * Needs, besides element.inc.h's float32 operations, a vector type W of FL words:
 *     w_load(p)  w_loadn(p, n)  w_store(p, w)  w_storen(p, w, n)   2*FL elements, or the first n < 2*FL
 *     w_stores(p, w)           a store past the caches, p a multiple of 64
 *     f_even(w)  f_odd(w)      widened elements
 *     w_pack_all(w, even, odd, n)   the n vectors of w, rounded to nearest even, NaN quiet; a head at once, as what is rare is
 *                              looked for in all of them together
 *     f_unzip(x, y, &even, &odd)   every other one of the 2*FL lanes of x and y
 */
#define PE_W_LANES (2 * FL)
/* a head of 128 elements at once */
enum { USUAL_PAIRS = 64, HALF_VECTORS = USUAL_PAIRS / PE_W_LANES, WHOLE_VECTORS = 2 * HALF_VECTORS };

PE_FN F bf16_table(const float *p, size_t n) {
    return n == FL ? ld_f32(p) : ldn_f32(p, n);
}

/* n <= 2*FL values of a table; what is behind them is any number */
PE_FN void bf16_tables(const float *p, size_t n, F *even, F *odd) {
    F low = bf16_table(p, n < FL ? n : FL), high = n > FL ? bf16_table(p + FL, n - FL) : low;
    f_unzip(low, high, even, odd);
}

PE_FN W bf16_load(const uint16_t *p, size_t n) {
    return n == PE_W_LANES ? w_load(p) : w_loadn(p, n);
}

PE_FN void bf16_store(uint16_t *p, W w, size_t n, int stream) {
    if (n == PE_W_LANES && stream)
        w_stores(p, w);
    else if (n == PE_W_LANES)
        w_store(p, w);
    else
        w_storen(p, w, n);
}

/* `vectors` vectors of n elements each */
PE_FN void bf16_load_all(W *w, const char *x, size_t vectors, size_t n) {
    for (size_t k = 0; k < vectors; k++) w[k] = bf16_load((const uint16_t *)x + k * PE_W_LANES, n);
}

PE_FN void bf16_store_all(char *y, const W *w, size_t vectors, size_t n, int stream) {
    for (size_t k = 0; k < vectors; k++) bf16_store((uint16_t *)y + k * PE_W_LANES, w[k], n, stream);
}

/* `vectors` vectors of n pairs each, in all heads of a row. vectors, n where it is PE_W_LANES, and stream are constants
 * wherever this is expanded.
 *
 * A head is read before the one ahead of it is written: where heads lie a multiple of 4 KiB apart, as in (B,H,S,D), a processor
 * takes the load for one of what was just stored, and waits (0.94 of the time, interleaved 0.89, on a Zen 4). */
PE_FN void half_step_bf16(const struct pe_run *run, const char *x, char *y, const float *cos, const float *sin,
                          size_t vectors, size_t n, int stream) {
    const ptrdiff_t soon = run->soon;
    F ce[HALF_VECTORS], co[HALF_VECTORS], se[HALF_VECTORS], so[HALF_VECTORS];
    F even[2 * HALF_VECTORS], odd[2 * HALF_VECTORS];
    W a[HALF_VECTORS], b[HALF_VECTORS], next_a[HALF_VECTORS], next_b[HALF_VECTORS], turned[2 * HALF_VECTORS];
    for (size_t k = 0; k < vectors; k++) {
        bf16_tables(cos + k * PE_W_LANES, n, &ce[k], &co[k]);
        bf16_tables(sin + k * PE_W_LANES, n, &se[k], &so[k]);
    }
    bf16_load_all(next_a, x, vectors, n), bf16_load_all(next_b, x + run->gap, vectors, n);
    for (size_t t = run->together; t > 0; t--, y += run->y_apart) {
        pe_fetch_soon(x, soon, vectors * sizeof(W)), pe_fetch_soon(x + run->gap, soon, vectors * sizeof(W));
        for (size_t k = 0; k < vectors; k++) a[k] = next_a[k], b[k] = next_b[k];
        if (t > 1) x += run->x_apart;
        bf16_load_all(next_a, x, vectors, n), bf16_load_all(next_b, x + run->gap, vectors, n);
        for (size_t k = 0; k < vectors; k++) {
            F ae = f_even(a[k]), be = f_even(b[k]), ao = f_odd(a[k]), bo = f_odd(b[k]);
            even[k] = f_sub(f_mul(ae, ce[k]), f_mul(be, se[k])), odd[k] = f_sub(f_mul(ao, co[k]), f_mul(bo, so[k]));
            even[vectors + k] = f_add(f_mul(be, ce[k]), f_mul(ae, se[k]));
            odd[vectors + k] = f_add(f_mul(bo, co[k]), f_mul(ao, so[k]));
        }
        w_pack_all(turned, even, odd, 2 * vectors);
        bf16_store_all(y, turned, vectors, n, stream);
        bf16_store_all(y + run->gap, turned + vectors, vectors, n, stream);
    }
}

PE_FN void half_row_bf16(const struct pe_run *run, const char *x, char *y, const float *cos, const float *sin,
                         size_t pairs, int stream) {
    size_t i = 0;
#define PE_STEP(vectors, n, stream) half_step_bf16(run, x + 2 * i, y + 2 * i, cos + i, sin + i, vectors, n, stream)
    for (; PE_CASES && i + USUAL_PAIRS <= pairs; i += USUAL_PAIRS) PE_STEP(HALF_VECTORS, PE_W_LANES, stream);
    for (; i + PE_W_LANES <= pairs; i += PE_W_LANES) PE_STEP(1, PE_W_LANES, stream);
    if (i < pairs) PE_STEP(1, pairs - i, 0);
#undef PE_STEP
}

/* `vectors` vectors of n elements each, n/2 pairs, in all heads of a row; as above */
PE_FN void interleaved_step_bf16(const struct pe_run *run, const char *x, char *y, const float *cos, const float *sin,
                                 size_t vectors, size_t n, int stream) {
    const ptrdiff_t soon = run->soon;
    F c[WHOLE_VECTORS], s[WHOLE_VECTORS], even[WHOLE_VECTORS], odd[WHOLE_VECTORS];
    W w[WHOLE_VECTORS], next[WHOLE_VECTORS];
    for (size_t k = 0; k < vectors; k++) c[k] = bf16_table(cos + k * FL, n / 2), s[k] = bf16_table(sin + k * FL, n / 2);
    bf16_load_all(next, x, vectors, n);
    for (size_t t = run->together; t > 0; t--, y += run->y_apart) {
        pe_fetch_soon(x, soon, vectors * sizeof(W));
        for (size_t k = 0; k < vectors; k++) w[k] = next[k];
        if (t > 1) x += run->x_apart;
        bf16_load_all(next, x, vectors, n);
        for (size_t k = 0; k < vectors; k++) {
            F a = f_even(w[k]), b = f_odd(w[k]);
            even[k] = f_sub(f_mul(a, c[k]), f_mul(b, s[k])), odd[k] = f_add(f_mul(b, c[k]), f_mul(a, s[k]));
        }
        w_pack_all(w, even, odd, vectors);
        bf16_store_all(y, w, vectors, n, stream);
    }
}

PE_FN void interleaved_row_bf16(const struct pe_run *run, const char *x, char *y, const float *cos, const float *sin,
                                size_t pairs, int stream) {
    size_t i = 0;
#define PE_STEP(vectors, n, stream) \
    interleaved_step_bf16(run, x + 4 * i, y + 4 * i, cos + i, sin + i, vectors, n, stream)
    for (; PE_CASES && i + USUAL_PAIRS <= pairs; i += USUAL_PAIRS) PE_STEP(WHOLE_VECTORS, PE_W_LANES, stream);
    for (; i + FL <= pairs; i += FL) PE_STEP(1, PE_W_LANES, stream);
    if (i < pairs) PE_STEP(1, 2 * (pairs - i), 0);
#undef PE_STEP
}

/* What comes after the heads of a row. */
PE_FN void fetch_row_bf16(const struct pe_run *run, const char *x) {
    if (run->ahead == NULL) return;
    for (size_t t = run->together; t > 0; t--, x += run->x_apart)
        pe_fetch_ahead(x, run->ahead - run->x, 2 * run->pairs * sizeof(uint16_t));
}

/* all rows of a run; `turn` is one of those above */
#define PE_RUN(turn, pairs, stream)                                                             \
    do {                                                                                        \
        const char *x = run->x, *cos = run->cos, *sin = run->sin;                               \
        char *y = run->y;                                                                       \
        for (size_t left = run->rows; left > 0; left--) {                                       \
            fetch_row_bf16(run, x);                                                             \
            turn(run, x, y, (const float *)cos, (const float *)sin, pairs, stream);             \
            x += run->x_step, y += run->y_step, cos += run->table_step, sin += run->table_step; \
        }                                                                                       \
    } while (0)

/* heads of 128 elements without loops within a head: a tenth less time */
#define PE_RUNS(turn)                                             \
    do {                                                          \
        if (PE_CASES && run->pairs == USUAL_PAIRS && run->stream) \
            PE_RUN(turn, USUAL_PAIRS, 1);                         \
        else if (PE_CASES && run->pairs == USUAL_PAIRS)           \
            PE_RUN(turn, USUAL_PAIRS, 0);                         \
        else                                                      \
            PE_RUN(turn, run->pairs, run->stream);                \
    } while (0)

PE_KERNEL void half_bf16(const struct pe_run *run) {
    PE_RUNS(half_row_bf16);
}

PE_KERNEL void interleaved_bf16(const struct pe_run *run) {
    PE_RUNS(interleaved_row_bf16);
}

#undef PE_RUNS
#undef PE_RUN
#undef PE_W_LANES
