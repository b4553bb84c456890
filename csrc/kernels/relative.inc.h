/* What relative attention needs beside sums of rows: entries picked by distance.
 *
 * An index that depends on the distance of query and key alone, and moves by at most one from one distance to the next,
 * takes FL neighbours from FL neighbouring entries: one load and one permutation, where a gather would take FL loads. Along
 * the keys of a query that is a row of the result. Along the queries of a key it is a column: FL of them are made, and
 * transposed in registers. Far away the index no longer moves, and a column is one entry.
 *
 * Needs
 *     f_window(t, index, first)    t[index[0] - first] .. t[index[FL - 1] - first]; all lie in t[0] .. t[FL - 1]
 *     f_transpose(v)               of the FL vectors v[0] .. v[FL - 1], in place
 */
/* entries from `from` on, or the last FL of a row */
PE_FN F window(const float *row, size_t entries, int32_t least, const int32_t *index, int32_t from) {
    int32_t last = least + (int32_t)entries - FL, first = from < last ? from : last;
    return f_window(row + (first - least), index, first);
}

PE_KERNEL void pick(const struct pe_pick *given) {
    const struct pe_pick copy = *given, *job = &copy; /* stores to y cannot change it */
    for (size_t r = 0; r < job->rows; r++) {
        const int32_t *index = job->index - r;
        const float *row = job->table + (ptrdiff_t)r * job->table_step;
        float *y = job->y + (ptrdiff_t)r * job->y_step;
        for (size_t c = 0; c < job->columns; c += FL) {
            int32_t first = index[c], last = index[c + FL - 1];
            st_f32(y + c, window(row, job->entries, job->least, index + c, first < last ? first : last));
        }
    }
}

/* FL columns of which each is one entry */
PE_FN void pick_far(const struct pe_pick *job, size_t c) {
    float entry[FL];
    for (size_t k = 0; k < FL; k++)
        entry[k] = job->table[(ptrdiff_t)(c + k) * job->table_step + *job->index - job->least];
    F v = ld_f32(entry);
    for (size_t r = 0; r < job->rows; r++) {
        float *y = job->y + (ptrdiff_t)r * job->y_step + c;
        st_f32(y, f_add(ld_f32(y), v));
    }
}

PE_KERNEL void pick_columns(const struct pe_pick *given) {
    const struct pe_pick copy = *given, *job = &copy;
    int far = job->index[job->rows - 1] == job->index[-(ptrdiff_t)(job->columns - 1)];
    for (size_t c = 0; c < job->columns; c += FL) {
        if (far) {
            pick_far(job, c);
            continue;
        }
        for (size_t r = 0; r < job->rows; r += FL) {
            F v[FL];
            for (size_t k = 0; k < FL; k++) {
                const int32_t *index = job->index + (ptrdiff_t)r - (ptrdiff_t)(c + k);
                const float *row = job->table + (ptrdiff_t)(c + k) * job->table_step;
                v[k] = window(row, job->entries, job->least, index, index[0]);
            }
            f_transpose(v);
            for (size_t k = 0; k < FL; k++) {
                float *y = job->y + (ptrdiff_t)(r + k) * job->y_step + c;
                st_f32(y, f_add(ld_f32(y), v[k]));
            }
        }
    }
}

PE_KERNEL void transpose(const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step, size_t rows, size_t columns) {
    for (size_t r = 0; r < rows; r += FL)
        for (size_t c = 0; c < columns; c += FL) {
            F v[FL];
            for (size_t k = 0; k < FL; k++) v[k] = ld_f32(x + (ptrdiff_t)(r + k) * x_step + c);
            f_transpose(v);
            for (size_t k = 0; k < FL; k++) st_f32(y + (ptrdiff_t)(c + k) * y_step + r, v[k]);
        }
}
