/* The addition of table rows to float32, float64 and float16 rows: a template, included by element.inc.h, which says what
 * it needs. y = x + s*t: the product is rounded, then the sum, and for halves that once more; a tail is partial steps.
 */
PE_FN void PE_NAME(add_step)(const PE_T *x, PE_T *y, const PE_R *t, PE_VEC s, size_t n, int stream) {
    PE_NAME(store)(y, PE_OP(add)(PE_LD(x, n), PE_OP(mul)(s, PE_LDR(t, n))), n, stream);
}

/* PE_ADD_VECTORS vectors from element i on of all rows that share a row of the table. Its terms stay in registers: tables
 * that NumPy made, 16 bytes past a line, would be read across lines for every row again, which on (8, 2048, 1024) takes up
 * to 1.2 times as long in float32, and 1.25 in bfloat16. */
PE_FN void PE_NAME(add_whole)(const struct pe_add *run, size_t i, PE_VEC s, int stream) {
    const char *x = run->x + i * sizeof(PE_T);
    char *y = run->y + i * sizeof(PE_T);
    const PE_R *t = (const PE_R *)run->table + i;
    PE_VEC term[PE_ADD_VECTORS];
    for (size_t v = 0; v < PE_ADD_VECTORS; v++) term[v] = PE_OP(mul)(s, PE_LDR(t + v * PE_LANES, PE_LANES));
    for (size_t k = 0; k < run->together; k++, x += run->x_apart, y += run->y_apart)
        for (size_t at = 0, v = 0; v < PE_ADD_VECTORS; v++, at += PE_LANES) {
            PE_VEC sum = PE_OP(add)(PE_LD((const PE_T *)x + at, PE_LANES), term[v]);
            PE_NAME(store)((PE_T *)y + at, sum, PE_LANES, stream);
        }
}

/* fewer: the n last elements, from element i on */
PE_FN void PE_NAME(add_rest)(const struct pe_add *run, size_t i, PE_VEC s, size_t n, int stream) {
    const char *x = run->x + i * sizeof(PE_T);
    char *y = run->y + i * sizeof(PE_T);
    const PE_R *t = (const PE_R *)run->table + i;
    for (size_t k = 0; k < run->together; k++, x += run->x_apart, y += run->y_apart) {
        const PE_T *from = (const PE_T *)x;
        PE_T *to = (PE_T *)y;
        size_t at = 0;
        for (; at + PE_LANES <= n; at += PE_LANES) PE_NAME(add_step)(from + at, to + at, t + at, s, PE_LANES, stream);
        if (at < n) PE_NAME(add_step)(from + at, to + at, t + at, s, n - at, 0);
    }
}

PE_FN void PE_NAME(add_rows)(struct pe_add run, int stream) {
    enum { PIECE = PE_ADD_VECTORS * PE_LANES };
    PE_VEC s = PE_OP(set)((PE_R)run.scale);
    for (size_t j = 0; j < run.rows; j++, run.x += run.x_step, run.y += run.y_step, run.table += run.table_step) {
        size_t i = 0;
        for (; i + PIECE <= run.n; i += PIECE) PE_NAME(add_whole)(&run, i, s, stream);
        if (i < run.n) PE_NAME(add_rest)(&run, i, s, run.n - i, stream);
    }
}

PE_KERNEL void PE_NAME(add)(const struct pe_add *run) {
    if (PE_CASES && run->stream)
        PE_NAME(add_rows)(*run, 1);
    else
        PE_NAME(add_rows)(*run, 0);
}
