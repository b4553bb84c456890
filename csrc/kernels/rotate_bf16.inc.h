/* The rotation of bfloat16 rows: a template, included once per ISA.
 *
 * A 32-bit word holds two neighbours. Its low 16 bits shifted up are the even element as a float32, its high 16 bits
 * alone are the odd one: two widened vectors for two cheap operations, where widening loads and narrowing stores would
 * cost shuffles. Interleaved pairs are exactly one word each. In halves a word holds elements 2i and 2i + 1 of the same
 * half, so the table rows come with even pairs first (unzip4).
 *
 * Needs, besides element.inc.h's float32 operations, a vector type W of FL words:
 *     w_load(p)  w_loadn(p, n)  w_store(p, w)  w_storen(p, w, n)   2*FL elements, or the first n < 2*FL
 *     w_stores(p, w)           an aligned store past the caches
 *     f_even(w)  f_odd(w)      widened elements
 *     w_pack(even, odd)        rounded to nearest even, NaN quiet
 */
#define PE_W_LANES (2 * FL)

PE_FN F bf16_table(const float *p, size_t n) {
    return n == FL ? ld_f32(p) : ldn_f32(p, n);
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

/* `vectors` vectors of n pairs each; ce, se begin at the even ones, co, so at the odd ones. vectors, n where it is PE_W_LANES,
 * and stream are constants wherever this is expanded. */
PE_FN void half_step_bf16(const char *x, char *y, ptrdiff_t gap, const float *ce, const float *co, const float *se,
                          const float *so, size_t vectors, size_t n, int stream) {
    size_t n_even = n == PE_W_LANES ? FL : (n + 1) / 2, n_odd = n == PE_W_LANES ? FL : n / 2;
    const uint16_t *first = (const uint16_t *)x, *second = (const uint16_t *)(x + gap);
    W wa[PE_TURN_VECTORS], wb[PE_TURN_VECTORS];
    for (size_t k = 0; k < vectors; k++) wa[k] = bf16_load(first + k * PE_W_LANES, n);
    for (size_t k = 0; k < vectors; k++) wb[k] = bf16_load(second + k * PE_W_LANES, n);
    for (size_t k = 0; k < vectors; k++) {
        F c = bf16_table(ce + k * FL, n_even), s = bf16_table(se + k * FL, n_even), a = f_even(wa[k]),
          b = f_even(wb[k]);
        F first_even = f_sub(f_mul(a, c), f_mul(b, s)), second_even = f_add(f_mul(b, c), f_mul(a, s));
        c = bf16_table(co + k * FL, n_odd), s = bf16_table(so + k * FL, n_odd), a = f_odd(wa[k]), b = f_odd(wb[k]);
        F first_odd = f_sub(f_mul(a, c), f_mul(b, s)), second_odd = f_add(f_mul(b, c), f_mul(a, s));
        wa[k] = w_pack(first_even, first_odd), wb[k] = w_pack(second_even, second_odd);
    }
    for (size_t k = 0; k < vectors; k++) bf16_store((uint16_t *)y + k * PE_W_LANES, wa[k], n, stream);
    for (size_t k = 0; k < vectors; k++) bf16_store((uint16_t *)(y + gap) + k * PE_W_LANES, wb[k], n, stream);
}

PE_FN void half_head_bf16(const char *x, char *y, ptrdiff_t gap, const float *cos, const float *sin, size_t pairs,
                          int stream) {
    enum { VECTORS = PE_TURN_VECTORS / 2, TURN = VECTORS * PE_W_LANES };
    const float *ce = cos, *co = cos + (pairs + 1) / 2, *se = sin, *so = sin + (pairs + 1) / 2;
    size_t i = 0;
#define PE_STEP(vectors, n, stream) \
    half_step_bf16(x + 2 * i, y + 2 * i, gap, ce + i / 2, co + i / 2, se + i / 2, so + i / 2, vectors, n, stream)
    for (; i + TURN <= pairs; i += TURN) PE_STEP(VECTORS, PE_W_LANES, stream);
    for (; i + PE_W_LANES <= pairs; i += PE_W_LANES) PE_STEP(1, PE_W_LANES, stream);
    if (i < pairs) PE_STEP(1, pairs - i, 0);
#undef PE_STEP
}

/* n elements, n/2 pairs */
PE_FN void interleaved_step_bf16(const uint16_t *x, uint16_t *y, const float *cos, const float *sin, size_t n,
                                 int stream) {
    W w = bf16_load(x, n);
    size_t pairs = n == PE_W_LANES ? FL : n / 2;
    F a = f_even(w), b = f_odd(w), c = bf16_table(cos, pairs), s = bf16_table(sin, pairs);
    bf16_store(y, w_pack(f_sub(f_mul(a, c), f_mul(b, s)), f_add(f_mul(b, c), f_mul(a, s))), n, stream);
}

PE_FN void interleaved_head_bf16(const char *x, char *y, ptrdiff_t gap, const float *cos, const float *sin,
                                 size_t pairs, int stream) {
    const uint16_t *from = (const uint16_t *)x;
    uint16_t *to = (uint16_t *)y;
    size_t i = 0, n = 2 * pairs;
    (void)gap;
    for (; i + PE_W_LANES <= n; i += PE_W_LANES)
        interleaved_step_bf16(from + i, to + i, cos + i / 2, sin + i / 2, PE_W_LANES, stream);
    if (i < n) interleaved_step_bf16(from + i, to + i, cos + i / 2, sin + i / 2, n - i, 0);
}

/* all heads of a run; `head` is one of those above */
#define PE_RUN(head, pairs, stream)                                                                     \
    {                                                                                                   \
        const char *row_x = run->x, *cos = run->cos, *sin = run->sin;                                   \
        char *row_y = run->y;                                                                           \
        for (size_t left = run->rows; left > 0; left--) {                                               \
            const char *x = row_x;                                                                      \
            char *y = row_y;                                                                            \
            for (size_t t = run->together; t > 0; t--, x += run->x_apart, y += run->y_apart) {          \
                pe_fetch_ahead(run, x, 2 * (pairs) * sizeof(uint16_t));                                 \
                head(x, y, run->gap, (const float *)cos, (const float *)sin, pairs, stream);            \
            }                                                                                           \
            row_x += run->x_step, row_y += run->y_step, cos += run->table_step, sin += run->table_step; \
        }                                                                                               \
    }
/* A head of the usual size, 128 elements, is expanded on its own: it takes less time without loops. */
#define PE_RUNS(head)               \
    if (run->stream)                \
        PE_RUN(head, run->pairs, 1) \
    else if (run->pairs == 64)      \
        PE_RUN(head, 64, 0)         \
    else                            \
        PE_RUN(head, run->pairs, 0)

PE_KERNEL void half_bf16(const struct pe_run *run){PE_RUNS(half_head_bf16)}

PE_KERNEL void interleaved_bf16(const struct pe_run *run) {
    PE_RUNS(interleaved_head_bf16)
}

#undef PE_RUNS
#undef PE_RUN
#undef PE_W_LANES
