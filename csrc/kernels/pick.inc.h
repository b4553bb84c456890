/* Entries picked by distance, float32, float16 and bfloat16: a template, included once per element type and ISA.
 *
 * An index that depends on the distance of query and key alone, and moves by at most one from one distance to the next,
 * takes FL neighbours from FL neighbouring entries: one load and one permutation, where a gather would take FL loads. Along
 * the keys of a query that is a row of the result. Along the queries of a key it is a column: FL of them are made, and
 * transposed in registers. Where distances are far the index no longer moves, and a row is one number.
 *
 * The including file says which element with
 *     PE_E   element name: f32, f16 or bf16       PE_T   its storage type
 * and has defined PE_FN, PE_KERNEL, and
 *     ld_e(p)                      FL elements as float32
 *     f_window(t, index, first)    lanes index[0] - first .. index[FL - 1] - first of t, which are lanes of it
 *     f_transpose(v)               of the FL vectors v[0] .. v[FL - 1], in place
 */
#define PE_PICK(op) PE_CAT(op, PE_E)

/* FL neighbours of a row from entry `from` on, or the last FL of the row */
PE_FN F PE_PICK(window_)(const struct pe_entries *e, const char *row, const int32_t *index, int32_t from) {
    int32_t last = e->least + (int32_t)e->count - FL, first = from < last ? from : last;
    return f_window(PE_PICK(ld_)((const PE_T *)row + (first - e->least)), index, first);
}

/* What the next rows will read of a key: whole lines, as far below as this job goes. */
PE_FN void PE_PICK(fetch_below_)(const struct pe_pick_down *job, const char *row, const int32_t *index) {
    const PE_T *entries = (const PE_T *)row - job->of.least;
    const char *from = (const char *)(entries + index[job->rows]), *to = (const char *)(entries + index[2 * job->rows]);
    for (; from <= to; from += 64) PE_PREFETCH2(from);
}

PE_KERNEL void PE_PICK(pick_down_)(const struct pe_pick_down *given) {
    const struct pe_pick_down copy = *given, *job = &copy; /* stores to y cannot change it */
    for (size_t c = 0; c < job->columns; c += FL) {
        const char *row[FL];
        const int32_t *index[FL];
        for (size_t k = 0; k < FL; k++) {
            size_t column = c + k < job->columns ? c + k : job->columns - 1;
            row[k] = job->of.first + (ptrdiff_t)column * job->of.step, index[k] = job->index - (ptrdiff_t)(c + k);
            PE_PICK(fetch_below_)(job, row[k], index[k]);
        }
        for (size_t r = 0; r < job->rows; r += FL) {
            F v[FL];
            for (size_t k = 0; k < FL; k++) v[k] = PE_PICK(window_)(&job->of, row[k], index[k] + r, index[k][r]);
            f_transpose(v);
            for (size_t k = 0; k < FL; k++) st_f32(job->y + (ptrdiff_t)(r + k) * job->y_step + c, v[k]);
        }
    }
}

/* Entries that move, as everywhere but where distances are far: see relative.inc.h. */
PE_FN F PE_PICK(moving_)(const struct pe_pick_across *job, size_t i) {
    const int32_t *index = job->index + i, first = index[0], last = index[FL - 1];
    return PE_PICK(window_)(&job->of, job->of.first, index, first < last ? first : last);
}

PE_FN void PE_PICK(across_loop_)(const struct pe_pick_across *given, int keys, int add) {
    const struct pe_pick_across copy = *given, *job = &copy;
    size_t i = 0;
    for (; i + FL <= job->n; i += FL) across_step(job, i, PE_PICK(moving_)(job, i), keys, add);
    if (i < job->n) across_rest(job, i, PE_PICK(moving_)(job, i));
}

PE_KERNEL void PE_PICK(pick_across_)(const struct pe_pick_across *job) {
    if (job->n == 0) return;
    if (job->of.first == NULL) {
        across_same(job, f_set(0));
    } else if (job->index[0] == job->index[job->n - 1]) {
        int32_t same[FL];
        for (size_t k = 0; k < FL; k++) same[k] = job->index[0];
        across_same(job, PE_PICK(window_)(&job->of, job->of.first, same, same[0]));
    } else {
        PE_ACROSS(PE_PICK(across_loop_), job)
    }
}

#undef PE_PICK
#undef PE_E
#undef PE_T
