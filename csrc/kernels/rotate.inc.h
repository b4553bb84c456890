/* The rotation of float32, float64 and float16 rows: a template, included by element.inc.h, which says what it needs.
 *
 * A tail is one partial step of the same operations, so a row's bits do not depend on where a vector ends; it never reads
 * an element twice, which would rotate it twice in place.
 *
 * The angles of a few vectors are read once for all heads that share them, and each head is read and written from its front
 * to its back: prefetchers, and stores past the caches, want it so.
 */
/* `vectors` vectors of n pairs each: a' = a*c - b*s, b' = b*c + a*s. Both members are read before either is written.
 * vectors, n where it is PE_LANES, and stream are constants wherever this is expanded. */
PE_FN void PE_NAME(half_turn)(const struct pe_run *run, const char *x, char *y, const PE_R *cos, const PE_R *sin,
                              size_t vectors, size_t n, int stream) {
    PE_VEC c[PE_TURN_VECTORS], s[PE_TURN_VECTORS], a[PE_TURN_VECTORS], b[PE_TURN_VECTORS];
    for (size_t k = 0; k < vectors; k++) c[k] = PE_LDR(cos + k * PE_LANES, n), s[k] = PE_LDR(sin + k * PE_LANES, n);
    for (size_t t = 0; t < run->together; t++, x += run->x_apart, y += run->y_apart) {
        const PE_T *xa = (const PE_T *)x, *xb = (const PE_T *)(x + run->gap);
        PE_T *ya = (PE_T *)y, *yb = (PE_T *)(y + run->gap);
        for (size_t k = 0; k < vectors; k++) a[k] = PE_LD(xa + k * PE_LANES, n);
        for (size_t k = 0; k < vectors; k++) b[k] = PE_LD(xb + k * PE_LANES, n);
        for (size_t k = 0; k < vectors; k++)
            PE_NAME(store)(ya + k * PE_LANES, PE_OP(sub)(PE_OP(mul)(a[k], c[k]), PE_OP(mul)(b[k], s[k])), n, stream);
        for (size_t k = 0; k < vectors; k++)
            PE_NAME(store)(yb + k * PE_LANES, PE_OP(add)(PE_OP(mul)(b[k], c[k]), PE_OP(mul)(a[k], s[k])), n, stream);
    }
}

PE_FN void PE_NAME(half_rows)(const struct pe_run *run, int stream) {
    const char *x = run->x, *c = run->cos, *s = run->sin;
    char *y = run->y;
    for (size_t j = 0; j < run->rows; j++) {
        const PE_R *cos = (const PE_R *)c, *sin = (const PE_R *)s;
        pe_fetch_ahead(run->ahead, run->x_step, j, 2 * run->pairs * sizeof(PE_T));
        size_t i = 0, n;
#define PE_TURN(vectors, n, stream) \
    PE_NAME(half_turn)(run, x + i * sizeof(PE_T), y + i * sizeof(PE_T), cos + i, sin + i, vectors, n, stream)
        for (; (n = run->pairs - i) >= PE_TURN_VECTORS * PE_LANES; i += PE_TURN_VECTORS * PE_LANES)
            PE_TURN(PE_TURN_VECTORS, PE_LANES, stream);
        for (; (n = run->pairs - i) >= PE_LANES; i += PE_LANES) PE_TURN(1, PE_LANES, stream);
        if (n > 0) PE_TURN(1, n, 0);
#undef PE_TURN
        x += run->x_step, y += run->y_step, c += run->table_step, s += run->table_step;
    }
}

PE_KERNEL void PE_NAME(half)(const struct pe_run *run) {
    if (run->stream)
        PE_NAME(half_rows)(run, 1);
    else
        PE_NAME(half_rows)(run, 0);
}

/* `vectors` vectors of n elements each, n/2 pairs: x*(c0 c0 c1 c1 ..) -+ swapped x*(s0 s0 s1 s1 ..), the same products and
 * sums as above, and constants likewise. */
PE_FN void PE_NAME(interleaved_turn)(const struct pe_run *run, const char *x, char *y, const PE_R *cos, const PE_R *sin,
                                     size_t vectors, size_t n, int stream) {
    PE_VEC c[PE_TURN_VECTORS], s[PE_TURN_VECTORS];
    for (size_t k = 0; k < vectors; k++, cos += PE_LANES / 2, sin += PE_LANES / 2) {
        c[k] = n == PE_LANES ? PE_OP(dup)(cos) : PE_OP(dupn)(cos, n / 2);
        s[k] = n == PE_LANES ? PE_OP(dup)(sin) : PE_OP(dupn)(sin, n / 2);
    }
    for (size_t t = 0; t < run->together; t++, x += run->x_apart, y += run->y_apart)
        for (size_t k = 0; k < vectors; k++) {
            PE_VEC v = PE_LD((const PE_T *)x + k * PE_LANES, n);
            v = PE_OP(addsub)(PE_OP(mul)(v, c[k]), PE_OP(mul)(PE_OP(swap)(v), s[k]));
            PE_NAME(store)((PE_T *)y + k * PE_LANES, v, n, stream);
        }
}

PE_FN void PE_NAME(interleaved_rows)(const struct pe_run *run, int stream) {
    const char *x = run->x, *c = run->cos, *s = run->sin;
    char *y = run->y;
    for (size_t j = 0; j < run->rows; j++) {
        const PE_R *cos = (const PE_R *)c, *sin = (const PE_R *)s;
        pe_fetch_ahead(run->ahead, run->x_step, j, 2 * run->pairs * sizeof(PE_T));
        size_t i = 0, n;
#define PE_TURN(vectors, n, stream)                                                                                  \
    PE_NAME(interleaved_turn)(run, x + i * sizeof(PE_T), y + i * sizeof(PE_T), cos + i / 2, sin + i / 2, vectors, n, \
                              stream)
        for (; (n = 2 * run->pairs - i) >= PE_TURN_VECTORS * PE_LANES; i += PE_TURN_VECTORS * PE_LANES)
            PE_TURN(PE_TURN_VECTORS, PE_LANES, stream);
        for (; (n = 2 * run->pairs - i) >= PE_LANES; i += PE_LANES) PE_TURN(1, PE_LANES, stream);
        if (n > 0) PE_TURN(1, n, 0);
#undef PE_TURN
        x += run->x_step, y += run->y_step, c += run->table_step, s += run->table_step;
    }
}

PE_KERNEL void PE_NAME(interleaved)(const struct pe_run *run) {
    if (run->stream)
        PE_NAME(interleaved_rows)(run, 1);
    else
        PE_NAME(interleaved_rows)(run, 0);
}
