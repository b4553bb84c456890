/* The rotation of float32, float64 and float16 rows: a template, included by element.inc.h, which says what it needs.
 *
 * A tail is one partial step of the same operations, so a row's bits do not depend on where a vector ends; it never reads
 * an element twice, which would rotate it twice in place.
 *
 * Each head is read and written from front to back, as prefetchers and stores past the caches want it: in halves, a few
 * vectors of the first members, then as many of the second ones. float16, which computes longer than memory takes, is turned
 * vector by vector, each read PE_AHEAD vectors before it is written: a processor finds work for all of its units in what is
 * near. All vectors first widened, then turned, then narrowed take 1.1 times as long.
 */
typedef struct {
    PE_VEC c[2 * PE_TURN], s[2 * PE_TURN];
} PE_NAME(angles);

/* Of `vectors` vectors, n pairs each. vectors, n where it is PE_LANES, and stream are constants wherever this is expanded. */
PE_FN void PE_NAME(half_angles)(PE_NAME(angles) * by, const PE_R *cos, const PE_R *sin, size_t vectors, size_t n) {
    for (size_t k = 0; k < vectors; k++)
        by->c[k] = PE_LDR(cos + k * PE_LANES, n), by->s[k] = PE_LDR(sin + k * PE_LANES, n);
}

/* `vectors` vectors of the first members, as many of the second ones, n elements each: a' = a*c - b*s, b' = b*c + a*s. Both
 * members of a pair are read before either is written. */
PE_FN void PE_NAME(half_step)(const char *x, char *y, ptrdiff_t gap, const PE_NAME(angles) * by, size_t vectors,
                              size_t n, int stream) {
    const size_t ahead = stream ? vectors : PE_AHEAD / 2;
    const int whole = ahead >= vectors; /* reading comes first: then one half is written, then the other */
    const PE_T *from = (const PE_T *)x, *from_b = (const PE_T *)(x + gap);
    PE_T *to = (PE_T *)y, *to_b = (PE_T *)(y + gap);
    PE_VEC a[PE_TURN], b[PE_TURN];
    for (size_t k = 0; k < ahead && k < vectors; k++)
        a[k] = PE_LD(from + k * PE_LANES, n), b[k] = PE_LD(from_b + k * PE_LANES, n);
    for (size_t k = 0; k < vectors; k++) {
        size_t next = k + ahead;
        if (next < vectors) a[next] = PE_LD(from + next * PE_LANES, n), b[next] = PE_LD(from_b + next * PE_LANES, n);
        PE_VEC first = PE_OP(sub)(PE_OP(mul)(a[k], by->c[k]), PE_OP(mul)(b[k], by->s[k]));
        PE_VEC second = PE_OP(add)(PE_OP(mul)(b[k], by->c[k]), PE_OP(mul)(a[k], by->s[k]));
        PE_NAME(store)(to + k * PE_LANES, first, n, stream);
        if (whole)
            b[k] = second;
        else
            PE_NAME(store)(to_b + k * PE_LANES, second, n, stream);
    }
    for (size_t k = 0; whole && k < vectors; k++) PE_NAME(store)(to_b + k * PE_LANES, b[k], n, stream);
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

/* `vectors` vectors of n elements, n/2 pairs, each: x*(c0 c0 c1 c1 ..) -+ swapped x*(s0 s0 s1 s1 ..), the same products and
 * sums as above. */
PE_FN void PE_NAME(interleaved_step)(const PE_T *x, PE_T *y, const PE_VEC *c, const PE_VEC *s, size_t vectors, size_t n,
                                     int stream) {
    PE_VEC v[2 * PE_TURN];
    for (size_t k = 0; k < PE_AHEAD && k < vectors; k++) v[k] = PE_LD(x + k * PE_LANES, n);
    for (size_t k = 0; k < vectors; k++) {
        size_t next = k + PE_AHEAD;
        if (next < vectors) v[next] = PE_LD(x + next * PE_LANES, n);
        PE_VEC turned = PE_OP(addsub)(PE_OP(mul)(v[k], c[k]), PE_OP(mul)(PE_OP(swap)(v[k]), s[k]));
        PE_NAME(store)(y + k * PE_LANES, turned, n, stream);
    }
}

PE_FN void PE_NAME(interleaved_head)(const char *x, char *y, ptrdiff_t gap, const PE_R *cos, const PE_R *sin,
                                     size_t pairs, int stream) {
    const PE_T *from = (const PE_T *)x;
    PE_T *to = (PE_T *)y;
    size_t i = 0, n = 2 * pairs;
    (void)gap;
    for (; i + PE_LANES <= n; i += PE_LANES) {
        PE_VEC c = PE_OP(dup)(cos + i / 2), s = PE_OP(dup)(sin + i / 2);
        PE_NAME(interleaved_step)(from + i, to + i, &c, &s, 1, PE_LANES, stream);
    }
    if (i < n) {
        PE_VEC c = PE_OP(dupn)(cos + i / 2, (n - i) / 2), s = PE_OP(dupn)(sin + i / 2, (n - i) / 2);
        PE_NAME(interleaved_step)(from + i, to + i, &c, &s, 1, n - i, 0);
    }
}

/* The heads of a run, row by row: `enter` has (const PE_R *)cos and sin of the row, `turn` x and y of each head that shares
 * them, and pairs and gap. What a store might change as far as a compiler knows is kept in variables. */
#define PE_EACH_HEAD(pairs_, enter, turn)                                                \
    {                                                                                    \
        const size_t pairs = (pairs_), together = run->together;                         \
        const ptrdiff_t gap = run->gap, x_apart = run->x_apart, y_apart = run->y_apart;  \
        const ptrdiff_t ahead = run->ahead ? run->ahead - run->x : 0, soon = run->soon;  \
        const char *row_x = run->x, *row_cos = run->cos, *row_sin = run->sin;            \
        char *row_y = run->y;                                                            \
        (void)gap, (void)soon;                                                           \
        for (size_t left = run->rows; left > 0; left--) {                                \
            const PE_R *cos = (const PE_R *)row_cos, *sin = (const PE_R *)row_sin;       \
            const char *x = row_x;                                                       \
            char *y = row_y;                                                             \
            enter;                                                                       \
            for (size_t t = together; t > 0; t--, x += x_apart, y += y_apart) {          \
                pe_fetch_ahead(x, ahead, 2 * pairs * sizeof(PE_T));                      \
                if (sizeof(PE_T) == 2) pe_fetch_soon(x, soon, 2 * pairs * sizeof(PE_T)); \
                turn;                                                                    \
            }                                                                            \
            row_x += run->x_step, row_y += run->y_step;                                  \
            row_cos += run->table_step, row_sin += run->table_step;                      \
        }                                                                                \
    }

/* Heads of just `vectors` vectors a half: their angles are read, or dealt out to pairs, once for all that share them. */
PE_FN void PE_NAME(half_shared)(const struct pe_run *run, size_t vectors, int stream) {
    PE_NAME(angles) by;
    PE_EACH_HEAD(vectors * PE_LANES, PE_NAME(half_angles)(&by, cos, sin, vectors, PE_LANES),
                 PE_NAME(half_step)(x, y, gap, &by, vectors, PE_LANES, stream))
}

PE_FN void PE_NAME(interleaved_angles)(PE_NAME(angles) * by, const PE_R *cos, const PE_R *sin, size_t vectors) {
    for (size_t k = 0; k < vectors; k++, cos += PE_LANES / 2, sin += PE_LANES / 2)
        by->c[k] = PE_OP(dup)(cos), by->s[k] = PE_OP(dup)(sin);
}

PE_FN void PE_NAME(interleaved_shared)(const struct pe_run *run, size_t vectors, int stream) {
    PE_NAME(angles) by;
    PE_EACH_HEAD(vectors * PE_LANES, PE_NAME(interleaved_angles)(&by, cos, sin, 2 * vectors),
                 PE_NAME(interleaved_step)((const PE_T *)x, (PE_T *)y, by.c, by.s, 2 * vectors, PE_LANES, stream))
}

/* A head of the usual size, 128 elements, takes less time without loops. Where angles are more than registers hold they are
 * worth keeping for a second head only, or for stores past the caches, which want a head in one piece (0.75 to 0.95 of the
 * time). */
#define PE_RUN(head, pairs_, stream) PE_EACH_HEAD(pairs_, (void)0, head(x, y, gap, cos, sin, pairs, stream))
#define PE_IS_WHOLE(run, vectors)    (PE_CASES && (run)->pairs == (vectors) * PE_LANES)
#define PE_RUNS(head, shared)                                                                      \
    if (run->stream && PE_TURN > TURN_VECTORS && PE_IS_WHOLE(run, PE_TURN))                        \
        shared(run, PE_TURN, 1);                                                                   \
    else if (PE_CASES && run->stream)                                                              \
        PE_RUN(head, run->pairs, 1)                                                                \
    else if (PE_IS_WHOLE(run, PE_TURN) && (PE_TURN == TURN_VECTORS || run->together > 1))          \
        shared(run, PE_TURN, 0);                                                                   \
    else if (PE_IS_WHOLE(run, PE_TURN / 2))                                                        \
        shared(run, PE_TURN / 2, 0);                                                               \
    else if (PE_CASES && (PE_TURN * PE_LANES != 64 || PE_TURN > TURN_VECTORS) && run->pairs == 64) \
        PE_RUN(head, 64, 0)                                                                        \
    else                                                                                           \
        PE_RUN(head, run->pairs, 0)

PE_KERNEL void PE_NAME(half)(const struct pe_run *run){PE_RUNS(PE_NAME(half_head), PE_NAME(half_shared))}

PE_KERNEL void PE_NAME(interleaved)(const struct pe_run *run) {
    PE_RUNS(PE_NAME(interleaved_head), PE_NAME(interleaved_shared))
}
#undef PE_RUNS
#undef PE_IS_WHOLE
#undef PE_RUN
#undef PE_EACH_HEAD
