/* The rotation of float32, float64 and float16 rows: a template, included by element.inc.h, which says what it needs.
 *
 * A tail is one partial step of the same operations, so a row's bits do not depend on where a vector ends; it never reads
 * an element twice, which would rotate it twice in place.
 *
 * Each head is read and written from front to back, as prefetchers and stores past the caches want it: in halves, a few
 * vectors of the first members, then as many of the second ones.
 */
typedef struct {
    PE_VEC c[2 * TURN_VECTORS], s[2 * TURN_VECTORS];
} PE_NAME(angles);

/* Of `vectors` vectors, n pairs each. vectors, n where it is PE_LANES, and stream are constants wherever this is expanded. */
PE_FN void PE_NAME(half_angles)(PE_NAME(angles) * by, const PE_R *cos, const PE_R *sin, size_t vectors, size_t n) {
    for (size_t k = 0; k < vectors; k++)
        by->c[k] = PE_LDR(cos + k * PE_LANES, n), by->s[k] = PE_LDR(sin + k * PE_LANES, n);
}

/* `vectors` vectors of n elements each */
PE_FN void PE_NAME(load_all)(PE_VEC *v, const char *x, size_t vectors, size_t n) {
    for (size_t k = 0; k < vectors; k++) v[k] = PE_LD((const PE_T *)x + k * PE_LANES, n);
}

PE_FN void PE_NAME(store_all)(char *y, const PE_VEC *v, size_t vectors, size_t n, int stream) {
    for (size_t k = 0; k < vectors; k++) PE_NAME(store)((PE_T *)y + k * PE_LANES, v[k], n, stream);
}

/* a' = a*c - b*s, b' = b*c + a*s */
PE_FN void PE_NAME(half_turn)(PE_VEC *a, PE_VEC *b, const PE_NAME(angles) * by, size_t vectors) {
    for (size_t k = 0; k < vectors; k++) {
        PE_VEC second = PE_OP(add)(PE_OP(mul)(b[k], by->c[k]), PE_OP(mul)(a[k], by->s[k]));
        a[k] = PE_OP(sub)(PE_OP(mul)(a[k], by->c[k]), PE_OP(mul)(b[k], by->s[k]));
        b[k] = second;
    }
}

/* Both members are read before either is written. */
PE_FN void PE_NAME(half_step)(const char *x, char *y, ptrdiff_t gap, const PE_NAME(angles) * by, size_t vectors,
                              size_t n, int stream) {
    PE_VEC a[TURN_VECTORS], b[TURN_VECTORS];
    PE_NAME(load_all)(a, x, vectors, n), PE_NAME(load_all)(b, x + gap, vectors, n);
    PE_NAME(half_turn)(a, b, by, vectors);
    PE_NAME(store_all)(y, a, vectors, n, stream), PE_NAME(store_all)(y + gap, b, vectors, n, stream);
}

PE_FN void PE_NAME(half_head)(const char *x, char *y, ptrdiff_t gap, const PE_R *cos, const PE_R *sin, size_t pairs,
                              int stream) {
    enum { TURN = TURN_VECTORS * PE_LANES };
    size_t i = 0;
    for (; i + TURN <= pairs; i += TURN) {
        PE_NAME(angles) by;
        PE_NAME(half_angles)(&by, cos + i, sin + i, TURN_VECTORS, PE_LANES);
        PE_NAME(half_step)(x + i * sizeof(PE_T), y + i * sizeof(PE_T), gap, &by, TURN_VECTORS, PE_LANES, stream);
    }
    for (; i + PE_LANES <= pairs; i += PE_LANES) {
        PE_NAME(angles) by;
        PE_NAME(half_angles)(&by, cos + i, sin + i, 1, PE_LANES);
        PE_NAME(half_step)(x + i * sizeof(PE_T), y + i * sizeof(PE_T), gap, &by, 1, PE_LANES, stream);
    }
    if (i < pairs) {
        PE_NAME(angles) by;
        PE_NAME(half_angles)(&by, cos + i, sin + i, 1, pairs - i);
        PE_NAME(half_step)(x + i * sizeof(PE_T), y + i * sizeof(PE_T), gap, &by, 1, pairs - i, 0);
    }
}

/* x*(c0 c0 c1 c1 ..) -+ swapped x*(s0 s0 s1 s1 ..), the same products and sums as above. */
PE_FN PE_VEC PE_NAME(interleaved_turn)(PE_VEC v, PE_VEC c, PE_VEC s) {
    return PE_OP(addsub)(PE_OP(mul)(v, c), PE_OP(mul)(PE_OP(swap)(v), s));
}

/* n elements, n/2 pairs */
PE_FN void PE_NAME(interleaved_step)(const PE_T *x, PE_T *y, PE_VEC c, PE_VEC s, size_t n, int stream) {
    PE_NAME(store)(y, PE_NAME(interleaved_turn)(PE_LD(x, n), c, s), n, stream);
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

/* The heads of a run, row by row: `enter` has (const PE_R *)cos and sin of the row, `turn` x and y of each head that shares
 * them, and pairs and gap. What a store might change as far as a compiler knows is kept in variables. */
#define PE_EACH_HEAD(pairs_, enter, turn)                                               \
    {                                                                                   \
        const size_t pairs = (pairs_), together = run->together;                        \
        const ptrdiff_t gap = run->gap, x_apart = run->x_apart, y_apart = run->y_apart; \
        const ptrdiff_t ahead = run->ahead ? run->ahead - run->x : 0;                   \
        const char *row_x = run->x, *row_cos = run->cos, *row_sin = run->sin;           \
        char *row_y = run->y;                                                           \
        (void)gap;                                                                      \
        for (size_t left = run->rows; left > 0; left--) {                               \
            const PE_R *cos = (const PE_R *)row_cos, *sin = (const PE_R *)row_sin;      \
            const char *x = row_x;                                                      \
            char *y = row_y;                                                            \
            enter;                                                                      \
            for (size_t t = together; t > 0; t--, x += x_apart, y += y_apart) {         \
                pe_fetch_ahead(x, ahead, 2 * pairs * sizeof(PE_T));                     \
                turn;                                                                   \
            }                                                                           \
            row_x += run->x_step, row_y += run->y_step;                                 \
            row_cos += run->table_step, row_sin += run->table_step;                     \
        }                                                                               \
    }

/* Vectors of a head; those of the next one are read, before any of this one are written: see rotate_bf16.inc.h. That pays where
 * more time goes into computing than into memory (float16 takes 0.91 to 0.96 of the time on a Zen 4); wider elements are read
 * when it is their turn. */
PE_FN void PE_NAME(read_ahead)(PE_VEC *v, PE_VEC *ahead, const char *x, const char *next_x, size_t vectors) {
    if (sizeof(PE_T) != 2) {
        PE_NAME(load_all)(v, x, vectors, PE_LANES);
        return;
    }
    for (size_t k = 0; k < vectors; k++) v[k] = ahead[k];
    PE_NAME(load_all)(ahead, next_x, vectors, PE_LANES);
}

PE_FN void PE_NAME(half_next)(const char *x, const char *next_x, char *y, ptrdiff_t gap, const PE_NAME(angles) * by,
                              PE_VEC *a_ahead, PE_VEC *b_ahead, size_t vectors) {
    PE_VEC a[TURN_VECTORS], b[TURN_VECTORS];
    PE_NAME(read_ahead)(a, a_ahead, x, next_x, vectors);
    PE_NAME(read_ahead)(b, b_ahead, x + gap, next_x + gap, vectors);
    PE_NAME(half_turn)(a, b, by, vectors);
    PE_NAME(store_all)(y, a, vectors, PE_LANES, 0), PE_NAME(store_all)(y + gap, b, vectors, PE_LANES, 0);
}

/* Heads of just `vectors` vectors a half: their angles stay in registers for all that share them. */
PE_FN void PE_NAME(half_shared)(const struct pe_run *run, size_t vectors) {
    PE_NAME(angles) by;
    PE_VEC a[TURN_VECTORS], b[TURN_VECTORS];
    PE_EACH_HEAD(vectors * PE_LANES,
                 (PE_NAME(half_angles)(&by, cos, sin, vectors, PE_LANES), PE_NAME(load_all)(a, x, vectors, PE_LANES),
                  PE_NAME(load_all)(b, x + gap, vectors, PE_LANES)),
                 PE_NAME(half_next)(x, t > 1 ? x + x_apart : x, y, gap, &by, a, b, vectors))
}

PE_FN void PE_NAME(interleaved_angles)(PE_NAME(angles) * by, const PE_R *cos, const PE_R *sin, size_t vectors) {
    for (size_t k = 0; k < vectors; k++, cos += PE_LANES / 2, sin += PE_LANES / 2)
        by->c[k] = PE_OP(dup)(cos), by->s[k] = PE_OP(dup)(sin);
}

PE_FN void PE_NAME(interleaved_next)(const char *x, const char *next_x, char *y, const PE_NAME(angles) * by,
                                     PE_VEC *ahead, size_t vectors) {
    PE_VEC v[2 * TURN_VECTORS];
    if (sizeof(PE_T) != 2) { /* a vector at a time: all at once take 1.1 times as long in (B,H,S,D) */
        for (size_t k = 0; k < vectors; k++)
            PE_NAME(interleaved_step)((const PE_T *)x + k * PE_LANES, (PE_T *)y + k * PE_LANES, by->c[k], by->s[k],
                                      PE_LANES, 0);
        return;
    }
    PE_NAME(read_ahead)(v, ahead, x, next_x, vectors);
    for (size_t k = 0; k < vectors; k++) v[k] = PE_NAME(interleaved_turn)(v[k], by->c[k], by->s[k]);
    PE_NAME(store_all)(y, v, vectors, PE_LANES, 0);
}

PE_FN void PE_NAME(interleaved_shared)(const struct pe_run *run, size_t vectors) {
    PE_NAME(angles) by;
    PE_VEC v[2 * TURN_VECTORS];
    PE_EACH_HEAD(
        vectors * PE_LANES,
        (PE_NAME(interleaved_angles)(&by, cos, sin, 2 * vectors), PE_NAME(load_all)(v, x, 2 * vectors, PE_LANES)),
        PE_NAME(interleaved_next)(x, t > 1 ? x + x_apart : x, y, &by, v, 2 * vectors))
}

/* A head of the usual size, 128 elements, takes less time without loops. */
#define PE_RUN(head, pairs_, stream) PE_EACH_HEAD(pairs_, (void)0, head(x, y, gap, cos, sin, pairs, stream))
#define PE_RUNS(head, shared)                                       \
    if (PE_CASES && run->stream)                                    \
        PE_RUN(head, run->pairs, 1)                                 \
    else if (PE_CASES && run->pairs == TURN_VECTORS * PE_LANES)     \
        shared(run, TURN_VECTORS);                                  \
    else if (PE_CASES && run->pairs == TURN_VECTORS / 2 * PE_LANES) \
        shared(run, TURN_VECTORS / 2);                              \
    else if (PE_CASES && run->pairs == 64)                          \
        PE_RUN(head, 64, 0)                                         \
    else                                                            \
        PE_RUN(head, run->pairs, 0)

PE_KERNEL void PE_NAME(half)(const struct pe_run *run){PE_RUNS(PE_NAME(half_head), PE_NAME(half_shared))}

PE_KERNEL void PE_NAME(interleaved)(const struct pe_run *run) {
    PE_RUNS(PE_NAME(interleaved_head), PE_NAME(interleaved_shared))
}
#undef PE_RUNS
#undef PE_RUN
#undef PE_EACH_HEAD
