/* What relative attention needs beside sums of rows: entries picked by distance, and sums weighted by entries.
 *
 * An index that depends on the distance of query and key alone, and moves by at most one from one distance to the next,
 * takes FL neighbours from FL neighbouring entries: one load and one permutation, where a gather would take FL loads. Along
 * the keys of a query that is a row of the result. Along the queries of a key it is a column: FL of them are made, and
 * transposed in registers.
 *
 * Needs
 *     f_window(t, index, least)    t[index[0] - least] .. t[index[FL - 1] - least], which lie among FL neighbours
 *     f_transpose(v)               of the FL vectors v[0] .. v[FL - 1], in place
 */
PE_KERNEL void pick(const struct pe_pick *job) {
    for (size_t c = 0; c < job->columns; c += FL) st_f32(job->y + c, f_window(job->table, job->index + c, job->least));
}

PE_KERNEL void pick_columns(const struct pe_pick_columns *job) {
    for (size_t c = 0; c < job->columns; c += FL)
        for (size_t r = 0; r < job->rows; r += FL) {
            F v[FL];
            for (size_t k = 0; k < FL; k++) {
                const int32_t *index = job->index - (ptrdiff_t)(c + k);
                v[k] = f_window(job->table + (ptrdiff_t)(c + k) * job->table_step, index + r, index[0]);
            }
            f_transpose(v);
            for (size_t k = 0; k < FL; k++) {
                float *y = job->y + (ptrdiff_t)(r + k) * job->y_step + c;
                st_f32(y, f_add(ld_f32(y), v[k]));
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
