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

/* n pairs; ce, se hold the (n+1)/2 even ones, co, so the n/2 odd ones */
PE_FN void half_step_bf16(const uint16_t *a, const uint16_t *b, uint16_t *ya, uint16_t *yb, const float *ce,
                          const float *co, const float *se, const float *so, size_t n, int stream) {
    W wa = bf16_load(a, n), wb = bf16_load(b, n);
    size_t n_even = n == PE_W_LANES ? FL : (n + 1) / 2, n_odd = n == PE_W_LANES ? FL : n / 2;
    F c = bf16_table(ce, n_even), s = bf16_table(se, n_even), va = f_even(wa), vb = f_even(wb);
    F first_even = f_sub(f_mul(va, c), f_mul(vb, s)), second_even = f_add(f_mul(vb, c), f_mul(va, s));
    c = bf16_table(co, n_odd), s = bf16_table(so, n_odd), va = f_odd(wa), vb = f_odd(wb);
    F first_odd = f_sub(f_mul(va, c), f_mul(vb, s)), second_odd = f_add(f_mul(vb, c), f_mul(va, s));
    bf16_store(ya, w_pack(first_even, first_odd), n, stream);
    bf16_store(yb, w_pack(second_even, second_odd), n, stream);
}

PE_FN void half_rows_bf16(struct pe_run run, int stream) {
    size_t evens = (run.pairs + 1) / 2;
    for (size_t j = 0; j < run.rows; j++)
        for (size_t t = 0; t < run.together; t++) {
            const uint16_t *a = (const uint16_t *)(run.x + (ptrdiff_t)j * run.x_step + (ptrdiff_t)t * run.x_apart);
            const uint16_t *b = (const uint16_t *)((const char *)a + run.gap);
            uint16_t *ya = (uint16_t *)(run.y + (ptrdiff_t)j * run.y_step + (ptrdiff_t)t * run.y_apart),
                     *yb = (uint16_t *)((char *)ya + run.gap);
            const float *ce = (const float *)(run.cos + (ptrdiff_t)j * run.table_step), *co = ce + evens;
            const float *se = (const float *)(run.sin + (ptrdiff_t)j * run.table_step), *so = se + evens;
            pe_fetch_ahead(&run, (const char *)a, 2 * run.pairs * sizeof(uint16_t));
            size_t i = 0;
            for (; i + PE_W_LANES <= run.pairs; i += PE_W_LANES)
                half_step_bf16(a + i, b + i, ya + i, yb + i, ce + i / 2, co + i / 2, se + i / 2, so + i / 2, PE_W_LANES,
                               stream);
            if (i < run.pairs)
                half_step_bf16(a + i, b + i, ya + i, yb + i, ce + i / 2, co + i / 2, se + i / 2, so + i / 2,
                               run.pairs - i, 0);
        }
}

PE_KERNEL void half_bf16(const struct pe_run *run) {
    if (run->stream)
        half_rows_bf16(*run, 1);
    else
        half_rows_bf16(*run, 0);
}

/* n elements, n/2 pairs */
PE_FN void interleaved_step_bf16(const uint16_t *x, uint16_t *y, const float *cos, const float *sin, size_t n,
                                 int stream) {
    W w = bf16_load(x, n);
    size_t pairs = n == PE_W_LANES ? FL : n / 2;
    F a = f_even(w), b = f_odd(w), c = bf16_table(cos, pairs), s = bf16_table(sin, pairs);
    bf16_store(y, w_pack(f_sub(f_mul(a, c), f_mul(b, s)), f_add(f_mul(b, c), f_mul(a, s))), n, stream);
}

PE_FN void interleaved_rows_bf16(struct pe_run run, int stream) {
    size_t n = 2 * run.pairs;
    for (size_t j = 0; j < run.rows; j++)
        for (size_t t = 0; t < run.together; t++) {
            const uint16_t *x = (const uint16_t *)(run.x + (ptrdiff_t)j * run.x_step + (ptrdiff_t)t * run.x_apart);
            uint16_t *y = (uint16_t *)(run.y + (ptrdiff_t)j * run.y_step + (ptrdiff_t)t * run.y_apart);
            const float *c = (const float *)(run.cos + (ptrdiff_t)j * run.table_step);
            const float *s = (const float *)(run.sin + (ptrdiff_t)j * run.table_step);
            pe_fetch_ahead(&run, (const char *)x, n * sizeof(uint16_t));
            size_t i = 0;
            for (; i + PE_W_LANES <= n; i += PE_W_LANES)
                interleaved_step_bf16(x + i, y + i, c + i / 2, s + i / 2, PE_W_LANES, stream);
            if (i < n) interleaved_step_bf16(x + i, y + i, c + i / 2, s + i / 2, n - i, 0);
        }
}

PE_KERNEL void interleaved_bf16(const struct pe_run *run) {
    if (run->stream)
        interleaved_rows_bf16(*run, 1);
    else
        interleaved_rows_bf16(*run, 0);
}

#undef PE_W_LANES
