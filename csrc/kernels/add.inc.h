/* The addition of table rows to float32, float64 and float16 rows: a template, included by element.inc.h, which says what
 * it needs. y = x + s*t: the product is rounded, then the sum, and for halves that once more; a tail is one partial step.
 */
PE_FN void PE_NAME(add_step)(const PE_T *x, PE_T *y, const PE_R *t, PE_VEC s, size_t n, int stream) {
    PE_NAME(store)(y, PE_OP(add)(PE_LD(x, n), PE_OP(mul)(s, PE_LDR(t, n))), n, stream);
}

PE_FN void PE_NAME(add_rows)(struct pe_add run, int stream) {
    PE_VEC s = PE_OP(set)((PE_R)run.scale);
    for (size_t j = 0; j < run.rows; j++) {
        const PE_T *x = (const PE_T *)(run.x + (ptrdiff_t)j * run.x_step);
        PE_T *y = (PE_T *)(run.y + (ptrdiff_t)j * run.y_step);
        const PE_R *t = (const PE_R *)(run.table + (ptrdiff_t)j * run.table_step);
        size_t i = 0;
        for (; i + PE_LANES <= run.n; i += PE_LANES) PE_NAME(add_step)(x + i, y + i, t + i, s, PE_LANES, stream);
        if (i < run.n) PE_NAME(add_step)(x + i, y + i, t + i, s, run.n - i, 0);
    }
}

PE_KERNEL void PE_NAME(add)(const struct pe_add *run) {
    if (run->stream)
        PE_NAME(add_rows)(*run, 1);
    else
        PE_NAME(add_rows)(*run, 0);
}
