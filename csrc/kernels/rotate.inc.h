/* The rotation of float32, float64 and float16 rows: a template, included by element.inc.h, which says what it needs.
 *
 * A tail is one partial step of the same operations, so a row's bits do not depend on where a vector ends; it never reads
 * an element twice, which would rotate it twice in place.
 *
 * Each head is read and written from front to back, as prefetchers and stores past the caches want it: in halves, a few
 * vectors of the first members, then as many of the second ones.
 */
/* `vectors` vectors of n pairs each: a' = a*c - b*s, b' = b*c + a*s. Both members are read before either is written.
 * vectors, n where it is PE_LANES, and stream are constants wherever this is expanded. */
PE_FN void PE_NAME(half_step)(const PE_T *a, const PE_T *b, PE_T *ya, PE_T *yb, const PE_R *cos, const PE_R *sin,
                              size_t vectors, size_t n, int stream) {
    PE_VEC va[PE_TURN_VECTORS], vb[PE_TURN_VECTORS];
    for (size_t k = 0; k < vectors; k++) va[k] = PE_LD(a + k * PE_LANES, n);
    for (size_t k = 0; k < vectors; k++) vb[k] = PE_LD(b + k * PE_LANES, n);
    for (size_t k = 0; k < vectors; k++) {
        PE_VEC c = PE_LDR(cos + k * PE_LANES, n), s = PE_LDR(sin + k * PE_LANES, n);
        PE_VEC second = PE_OP(add)(PE_OP(mul)(vb[k], c), PE_OP(mul)(va[k], s));
        va[k] = PE_OP(sub)(PE_OP(mul)(va[k], c), PE_OP(mul)(vb[k], s));
        vb[k] = second;
    }
    for (size_t k = 0; k < vectors; k++) PE_NAME(store)(ya + k * PE_LANES, va[k], n, stream);
    for (size_t k = 0; k < vectors; k++) PE_NAME(store)(yb + k * PE_LANES, vb[k], n, stream);
}

PE_FN void PE_NAME(half_head)(const char *x, char *y, ptrdiff_t gap, const PE_R *cos, const PE_R *sin, size_t pairs,
                              int stream) {
    enum { TURN = PE_TURN_VECTORS * PE_LANES };
    const PE_T *a = (const PE_T *)x, *b = (const PE_T *)(x + gap);
    PE_T *ya = (PE_T *)y, *yb = (PE_T *)(y + gap);
    size_t i = 0;
    for (; i + TURN <= pairs; i += TURN)
        PE_NAME(half_step)(a + i, b + i, ya + i, yb + i, cos + i, sin + i, PE_TURN_VECTORS, PE_LANES, stream);
    for (; i + PE_LANES <= pairs; i += PE_LANES)
        PE_NAME(half_step)(a + i, b + i, ya + i, yb + i, cos + i, sin + i, 1, PE_LANES, stream);
    if (i < pairs) PE_NAME(half_step)(a + i, b + i, ya + i, yb + i, cos + i, sin + i, 1, pairs - i, 0);
}

/* n elements, n/2 pairs: x*(c0 c0 c1 c1 ..) -+ swapped x*(s0 s0 s1 s1 ..), the same products and sums as above. */
PE_FN void PE_NAME(interleaved_step)(const PE_T *x, PE_T *y, const PE_R *cos, const PE_R *sin, size_t n, int stream) {
    PE_VEC v = PE_LD(x, n);
    PE_VEC c = n == PE_LANES ? PE_OP(dup)(cos) : PE_OP(dupn)(cos, n / 2);
    PE_VEC s = n == PE_LANES ? PE_OP(dup)(sin) : PE_OP(dupn)(sin, n / 2);
    PE_NAME(store)(y, PE_OP(addsub)(PE_OP(mul)(v, c), PE_OP(mul)(PE_OP(swap)(v), s)), n, stream);
}

PE_FN void PE_NAME(interleaved_head)(const char *x, char *y, ptrdiff_t gap, const PE_R *cos, const PE_R *sin,
                                     size_t pairs, int stream) {
    const PE_T *from = (const PE_T *)x;
    PE_T *to = (PE_T *)y;
    size_t i = 0, n = 2 * pairs;
    (void)gap;
    for (; i + PE_LANES <= n; i += PE_LANES)
        PE_NAME(interleaved_step)(from + i, to + i, cos + i / 2, sin + i / 2, PE_LANES, stream);
    if (i < n) PE_NAME(interleaved_step)(from + i, to + i, cos + i / 2, sin + i / 2, n - i, 0);
}

/* all heads of a run; `head` is one of the two above */
#define PE_RUN(head, stream)                                                             \
    for (size_t j = 0; j < run->rows; j++) {                                             \
        const PE_R *cos = (const PE_R *)(run->cos + (ptrdiff_t)j * run->table_step);     \
        const PE_R *sin = (const PE_R *)(run->sin + (ptrdiff_t)j * run->table_step);     \
        const char *x = run->x + (ptrdiff_t)j * run->x_step;                             \
        char *y = run->y + (ptrdiff_t)j * run->y_step;                                   \
        pe_fetch_ahead(run->ahead, run->x_step, j, 2 * run->pairs * sizeof(PE_T));       \
        for (size_t t = 0; t < run->together; t++, x += run->x_apart, y += run->y_apart) \
            PE_NAME(head)(x, y, run->gap, cos, sin, run->pairs, stream);                 \
    }

PE_KERNEL void PE_NAME(half)(const struct pe_run *run) {
    if (run->stream) {
        PE_RUN(half_head, 1)
    } else {
        PE_RUN(half_head, 0)
    }
}

PE_KERNEL void PE_NAME(interleaved)(const struct pe_run *run) {
    if (run->stream) {
        PE_RUN(interleaved_head, 1)
    } else {
        PE_RUN(interleaved_head, 0)
    }
}
#undef PE_RUN
