/* The addition of table rows to bfloat16 rows: a template, included once per ISA after rotate_bf16.inc.h, whose words it
 * uses. The table's elements come in order and are sorted into even and odd ones on the way, two vectors at a time.
 */
PE_FN void add_step_bf16(const uint16_t *x, uint16_t *y, const float *t, F s, size_t n, int stream) {
    W w = bf16_load(x, n);
    F low = bf16_table(t, n < FL ? n : FL), high = n > FL ? bf16_table(t + FL, n - FL) : f_set(0.0f), even, odd;
    f_unzip(low, high, &even, &odd);
    bf16_store(y, w_pack(f_add(f_even(w), f_mul(s, even)), f_add(f_odd(w), f_mul(s, odd))), n, stream);
}

PE_FN void add_rows_bf16(struct pe_add run, int stream) {
    F s = f_set((float)run.scale);
    for (size_t j = 0; j < run.rows; j++) {
        const uint16_t *x = (const uint16_t *)(run.x + (ptrdiff_t)j * run.x_step);
        uint16_t *y = (uint16_t *)(run.y + (ptrdiff_t)j * run.y_step);
        const float *t = (const float *)(run.table + (ptrdiff_t)j * run.table_step);
        size_t i = 0;
        for (; i + 2 * FL <= run.n; i += 2 * FL) add_step_bf16(x + i, y + i, t + i, s, 2 * FL, stream);
        if (i < run.n) add_step_bf16(x + i, y + i, t + i, s, run.n - i, 0);
    }
}

PE_KERNEL void add_bf16(const struct pe_add *run) {
    if (run->stream)
        add_rows_bf16(*run, 1);
    else
        add_rows_bf16(*run, 0);
}
