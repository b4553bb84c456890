/* The rotation of float32, float64 and float16 rows: a template, included by element.inc.h, which says what it needs.
 *
 * A tail is one partial step of the same operations, so a row's bits do not depend on where a vector ends; it never reads
 * an element twice, which would rotate it twice in place.
 *
 * Each head is read and written from front to back, as prefetchers and stores past the caches want it: in halves, a few
 * vectors of the first members, then as many of the second ones.
 */
typedef struct {
    PE_VEC c[PE_TURN_VECTORS], s[PE_TURN_VECTORS];
} PE_NAME(angles);

/* Of `vectors` vectors, n pairs each. vectors, n where it is PE_LANES, and stream are constants wherever this is expanded. */
PE_FN PE_NAME(angles) PE_NAME(half_angles)(const PE_R *cos, const PE_R *sin, size_t vectors, size_t n) {
    PE_NAME(angles) r;
    for (size_t k = 0; k < vectors; k++) r.c[k] = PE_LDR(cos + k * PE_LANES, n), r.s[k] = PE_LDR(sin + k * PE_LANES, n);
    return r;
}

/* a' = a*c - b*s, b' = b*c + a*s. Both members are read before either is written. */
PE_FN void PE_NAME(half_step)(const char *x, char *y, ptrdiff_t gap, const PE_NAME(angles) * by, size_t vectors,
                              size_t n, int stream) {
    const PE_T *xa = (const PE_T *)x, *xb = (const PE_T *)(x + gap);
    PE_T *ya = (PE_T *)y, *yb = (PE_T *)(y + gap);
    PE_VEC a[PE_TURN_VECTORS], b[PE_TURN_VECTORS];
    for (size_t k = 0; k < vectors; k++) a[k] = PE_LD(xa + k * PE_LANES, n);
    for (size_t k = 0; k < vectors; k++) b[k] = PE_LD(xb + k * PE_LANES, n);
    for (size_t k = 0; k < vectors; k++) {
        PE_VEC second = PE_OP(add)(PE_OP(mul)(b[k], by->c[k]), PE_OP(mul)(a[k], by->s[k]));
        a[k] = PE_OP(sub)(PE_OP(mul)(a[k], by->c[k]), PE_OP(mul)(b[k], by->s[k]));
        b[k] = second;
    }
    for (size_t k = 0; k < vectors; k++) PE_NAME(store)(ya + k * PE_LANES, a[k], n, stream);
    for (size_t k = 0; k < vectors; k++) PE_NAME(store)(yb + k * PE_LANES, b[k], n, stream);
}

PE_FN void PE_NAME(half_head)(const char *x, char *y, ptrdiff_t gap, const PE_R *cos, const PE_R *sin, size_t pairs,
                              int stream) {
    enum { TURN = PE_TURN_VECTORS * PE_LANES };
    size_t i = 0;
    for (; i + TURN <= pairs; i += TURN) {
        PE_NAME(angles) by = PE_NAME(half_angles)(cos + i, sin + i, PE_TURN_VECTORS, PE_LANES);
        PE_NAME(half_step)(x + i * sizeof(PE_T), y + i * sizeof(PE_T), gap, &by, PE_TURN_VECTORS, PE_LANES, stream);
    }
    for (; i + PE_LANES <= pairs; i += PE_LANES) {
        PE_NAME(angles) by = PE_NAME(half_angles)(cos + i, sin + i, 1, PE_LANES);
        PE_NAME(half_step)(x + i * sizeof(PE_T), y + i * sizeof(PE_T), gap, &by, 1, PE_LANES, stream);
    }
    if (i < pairs) {
        PE_NAME(angles) by = PE_NAME(half_angles)(cos + i, sin + i, 1, pairs - i);
        PE_NAME(half_step)(x + i * sizeof(PE_T), y + i * sizeof(PE_T), gap, &by, 1, pairs - i, 0);
    }
}

/* n elements, n/2 pairs: x*(c0 c0 c1 c1 ..) -+ swapped x*(s0 s0 s1 s1 ..), the same products and sums as above. */
PE_FN void PE_NAME(interleaved_step)(const PE_T *x, PE_T *y, PE_VEC c, PE_VEC s, size_t n, int stream) {
    PE_VEC v = PE_LD(x, n);
    PE_NAME(store)(y, PE_OP(addsub)(PE_OP(mul)(v, c), PE_OP(mul)(PE_OP(swap)(v), s)), n, stream);
}

PE_FN void PE_NAME(interleaved_head)(const char *x, char *y, ptrdiff_t gap, const PE_R *cos, const PE_R *sin,
                                     size_t pairs, int stream) {
    const PE_T *from = (const PE_T *)x;
    PE_T *to = (PE_T *)y;
    size_t i = 0, n = 2 * pairs;
    (void)gap;
    for (; i + PE_LANES <= n; i += PE_LANES)
        PE_NAME(interleaved_step)(from + i, to + i, PE_OP(dup)(cos + i / 2), PE_OP(dup)(sin + i / 2), PE_LANES, stream);
    if (i < n) {
        PE_VEC c = PE_OP(dupn)(cos + i / 2, (n - i) / 2), s = PE_OP(dupn)(sin + i / 2, (n - i) / 2);
        PE_NAME(interleaved_step)(from + i, to + i, c, s, n - i, 0);
    }
}

/* Heads of just `vectors` vectors a half: their angles stay in registers. */
PE_FN void PE_NAME(half_shared)(const struct pe_run *run, size_t vectors) {
    for (size_t j = 0; j < run->rows; j++) {
        ptrdiff_t row = (ptrdiff_t)j, angles = row * run->table_step;
        const char *x = run->x + row * run->x_step;
        char *y = run->y + row * run->y_step;
        PE_NAME(angles)
        by = PE_NAME(half_angles)((const PE_R *)(run->cos + angles), (const PE_R *)(run->sin + angles), vectors,
                                  PE_LANES);
        for (size_t t = 0; t < run->together; t++, x += run->x_apart, y += run->y_apart) {
            pe_fetch_ahead(run, x, 2 * run->pairs * sizeof(PE_T));
            PE_NAME(half_step)(x, y, run->gap, &by, vectors, PE_LANES, 0);
        }
    }
}

PE_FN void PE_NAME(interleaved_shared)(const struct pe_run *run, size_t vectors) {
    for (size_t j = 0; j < run->rows; j++) {
        ptrdiff_t row = (ptrdiff_t)j, angles = row * run->table_step;
        const char *x = run->x + row * run->x_step;
        char *y = run->y + row * run->y_step;
        PE_VEC c[2 * PE_TURN_VECTORS], s[2 * PE_TURN_VECTORS];
        for (size_t k = 0; k < 2 * vectors; k++) {
            c[k] = PE_OP(dup)((const PE_R *)(run->cos + angles) + k * PE_LANES / 2);
            s[k] = PE_OP(dup)((const PE_R *)(run->sin + angles) + k * PE_LANES / 2);
        }
        for (size_t t = 0; t < run->together; t++, x += run->x_apart, y += run->y_apart) {
            pe_fetch_ahead(run, x, 2 * run->pairs * sizeof(PE_T));
            for (size_t k = 0; k < 2 * vectors; k++)
                PE_NAME(interleaved_step)((const PE_T *)x + k * PE_LANES, (PE_T *)y + k * PE_LANES, c[k], s[k],
                                          PE_LANES, 0);
        }
    }
}

#define PE_SHARED(run, width) ((run)->pairs == (width) && (run)->together > 1)

/* all heads of a run; `head` is one of those above */
#define PE_RUN(head, stream)                                                               \
    for (size_t j = 0; j < run->rows; j++) {                                               \
        const PE_R *cos = (const PE_R *)(run->cos + (ptrdiff_t)j * run->table_step);       \
        const PE_R *sin = (const PE_R *)(run->sin + (ptrdiff_t)j * run->table_step);       \
        const char *x = run->x + (ptrdiff_t)j * run->x_step;                               \
        char *y = run->y + (ptrdiff_t)j * run->y_step;                                     \
        for (size_t t = 0; t < run->together; t++, x += run->x_apart, y += run->y_apart) { \
            pe_fetch_ahead(run, x, 2 * run->pairs * sizeof(PE_T));                         \
            PE_NAME(head)(x, y, run->gap, cos, sin, run->pairs, stream);                   \
        }                                                                                  \
    }

PE_KERNEL void PE_NAME(half)(const struct pe_run *run) {
    if (run->stream) {
        PE_RUN(half_head, 1)
    } else if (PE_SHARED(run, PE_TURN_VECTORS * PE_LANES)) {
        PE_NAME(half_shared)(run, PE_TURN_VECTORS);
    } else if (PE_SHARED(run, PE_TURN_VECTORS / 2 * PE_LANES)) {
        PE_NAME(half_shared)(run, PE_TURN_VECTORS / 2);
    } else {
        PE_RUN(half_head, 0)
    }
}

PE_KERNEL void PE_NAME(interleaved)(const struct pe_run *run) {
    if (run->stream) {
        PE_RUN(interleaved_head, 1)
    } else if (PE_SHARED(run, PE_TURN_VECTORS * PE_LANES)) {
        PE_NAME(interleaved_shared)(run, PE_TURN_VECTORS);
    } else if (PE_SHARED(run, PE_TURN_VECTORS / 2 * PE_LANES)) {
        PE_NAME(interleaved_shared)(run, PE_TURN_VECTORS / 2);
    } else {
        PE_RUN(interleaved_head, 0)
    }
}
#undef PE_RUN
#undef PE_SHARED
