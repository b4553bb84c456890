/* The addition of table rows to bfloat16 rows: a template, included once per ISA after rotate_bf16.inc.h, whose words it
 * uses.
 */
PE_FN void add_step_bf16(const uint16_t *x, uint16_t *y, const float *t, F s, size_t n, int stream) {
    W w = bf16_load(x, n);
    F even, odd;
    bf16_tables(t, n, &even, &odd);
    even = f_add(f_even(w), f_mul(s, even)), odd = f_add(f_odd(w), f_mul(s, odd));
    w_pack_all(&w, &even, &odd, 1);
    bf16_store(y, w, n, stream);
}

/* as in add.inc.h, both */
PE_FN void add_whole_bf16(const struct pe_add *run, size_t i, F s, int stream) {
    const char *x = run->x + i * sizeof(uint16_t);
    char *y = run->y + i * sizeof(uint16_t);
    F even[PE_ADD_VECTORS], odd[PE_ADD_VECTORS];
    for (size_t v = 0; v < PE_ADD_VECTORS; v++) {
        bf16_tables((const float *)run->table + i + v * 2 * FL, 2 * FL, &even[v], &odd[v]);
        even[v] = f_mul(s, even[v]), odd[v] = f_mul(s, odd[v]);
    }
    for (size_t k = 0; k < run->together; k++, x += run->x_apart, y += run->y_apart)
        for (size_t at = 0, v = 0; v < PE_ADD_VECTORS; v++, at += 2 * FL) {
            W w = bf16_load((const uint16_t *)x + at, 2 * FL);
            F sum_even = f_add(f_even(w), even[v]), sum_odd = f_add(f_odd(w), odd[v]);
            w_pack_all(&w, &sum_even, &sum_odd, 1);
            bf16_store((uint16_t *)y + at, w, 2 * FL, stream);
        }
}

PE_FN void add_rest_bf16(const struct pe_add *run, size_t i, F s, size_t n, int stream) {
    const char *x = run->x + i * sizeof(uint16_t);
    char *y = run->y + i * sizeof(uint16_t);
    const float *t = (const float *)run->table + i;
    for (size_t k = 0; k < run->together; k++, x += run->x_apart, y += run->y_apart) {
        const uint16_t *from = (const uint16_t *)x;
        uint16_t *to = (uint16_t *)y;
        size_t at = 0;
        for (; at + 2 * FL <= n; at += 2 * FL) add_step_bf16(from + at, to + at, t + at, s, 2 * FL, stream);
        if (at < n) add_step_bf16(from + at, to + at, t + at, s, n - at, 0);
    }
}

PE_FN void add_rows_bf16(struct pe_add run, int stream) {
    enum { PIECE = PE_ADD_VECTORS * 2 * FL };
    F s = f_set((float)run.scale);
    for (size_t j = 0; j < run.rows; j++, run.x += run.x_step, run.y += run.y_step, run.table += run.table_step) {
        size_t i = 0;
        for (; i + PIECE <= run.n; i += PIECE) add_whole_bf16(&run, i, s, stream);
        if (i < run.n) add_rest_bf16(&run, i, s, run.n - i, stream);
    }
}

PE_KERNEL void add_bf16(const struct pe_add *run) {
    if (PE_CASES && run->stream)
        add_rows_bf16(*run, 1);
    else
        add_rows_bf16(*run, 0);
}
