/* The rotation of float32, float64 and float16 rows: a template, included by element.inc.h, which says what it needs.
 *
 * A tail is one partial step of the same operations, so a row's bits do not depend on where a vector ends; it never reads
 * an element twice, which would rotate it twice in place.
 */
/* n pairs: a' = a*c - b*s, b' = b*c + a*s. Both members are read before either is written. */
PE_FN void PE_NAME(half_step)(const PE_T *a, const PE_T *b, PE_T *ya, PE_T *yb, const PE_R *cos, const PE_R *sin,
                              size_t n, int stream) {
    PE_VEC va = PE_LD(a, n), vb = PE_LD(b, n), c = PE_LDR(cos, n), s = PE_LDR(sin, n);
    PE_VEC first = PE_OP(sub)(PE_OP(mul)(va, c), PE_OP(mul)(vb, s));
    PE_VEC second = PE_OP(add)(PE_OP(mul)(vb, c), PE_OP(mul)(va, s));
    PE_NAME(store)(ya, first, n, stream);
    PE_NAME(store)(yb, second, n, stream);
}

PE_FN void PE_NAME(half_rows)(struct pe_run run, int stream) {
    for (size_t j = 0; j < run.rows; j++) {
        const PE_T *a = (const PE_T *)(run.x + (ptrdiff_t)j * run.x_step);
        const PE_T *b = (const PE_T *)((const char *)a + run.gap);
        PE_T *ya = (PE_T *)(run.y + (ptrdiff_t)j * run.y_step), *yb = (PE_T *)((char *)ya + run.gap);
        const PE_R *c = (const PE_R *)(run.cos + (ptrdiff_t)j * run.table_step);
        const PE_R *s = (const PE_R *)(run.sin + (ptrdiff_t)j * run.table_step);
        pe_fetch_ahead(run.ahead, run.x_step, j, 2 * run.pairs * sizeof(PE_T));
        size_t i = 0;
        for (; i + PE_LANES <= run.pairs; i += PE_LANES)
            PE_NAME(half_step)(a + i, b + i, ya + i, yb + i, c + i, s + i, PE_LANES, stream);
        if (i < run.pairs) PE_NAME(half_step)(a + i, b + i, ya + i, yb + i, c + i, s + i, run.pairs - i, 0);
    }
}

PE_KERNEL void PE_NAME(half)(const struct pe_run *run) {
    if (run->stream)
        PE_NAME(half_rows)(*run, 1);
    else
        PE_NAME(half_rows)(*run, 0);
}

/* n elements, n/2 pairs: x*(c0 c0 c1 c1 ..) -+ swapped x*(s0 s0 s1 s1 ..), the same products and sums as above. */
PE_FN void PE_NAME(interleaved_step)(const PE_T *x, PE_T *y, const PE_R *cos, const PE_R *sin, size_t n, int stream) {
    PE_VEC v = PE_LD(x, n);
    PE_VEC c = n == PE_LANES ? PE_OP(dup)(cos) : PE_OP(dupn)(cos, n / 2);
    PE_VEC s = n == PE_LANES ? PE_OP(dup)(sin) : PE_OP(dupn)(sin, n / 2);
    PE_NAME(store)(y, PE_OP(addsub)(PE_OP(mul)(v, c), PE_OP(mul)(PE_OP(swap)(v), s)), n, stream);
}

PE_FN void PE_NAME(interleaved_rows)(struct pe_run run, int stream) {
    size_t n = 2 * run.pairs;
    for (size_t j = 0; j < run.rows; j++) {
        const PE_T *x = (const PE_T *)(run.x + (ptrdiff_t)j * run.x_step);
        PE_T *y = (PE_T *)(run.y + (ptrdiff_t)j * run.y_step);
        const PE_R *c = (const PE_R *)(run.cos + (ptrdiff_t)j * run.table_step);
        const PE_R *s = (const PE_R *)(run.sin + (ptrdiff_t)j * run.table_step);
        pe_fetch_ahead(run.ahead, run.x_step, j, n * sizeof(PE_T));
        size_t i = 0;
        for (; i + PE_LANES <= n; i += PE_LANES)
            PE_NAME(interleaved_step)(x + i, y + i, c + i / 2, s + i / 2, PE_LANES, stream);
        if (i < n) PE_NAME(interleaved_step)(x + i, y + i, c + i / 2, s + i / 2, n - i, 0);
    }
}

PE_KERNEL void PE_NAME(interleaved)(const struct pe_run *run) {
    if (run->stream)
        PE_NAME(interleaved_rows)(*run, 1);
    else
        PE_NAME(interleaved_rows)(*run, 0);
}
