/* What relative attention needs beside sums of rows: entries picked by distance.
 *
 * An index that depends on the distance of query and key alone, and moves by at most one from one distance to the next,
 * takes FL neighbours from FL neighbouring entries: one load and one permutation, where a gather would take FL loads. Along
 * the keys of a query that is a row of the result. Along the queries of a key it is a column: FL of them are made, and
 * transposed in registers. Far away the index no longer moves, and a column is one entry.
 *
 * What a block FL rows below will read is fetched meanwhile: so many instructions come between two lines from memory that
 * few of them would be waited for at once. A block is loaded whole before it is stored: rows lie a power of two apart
 * often, and a load waits for a store whose address ends alike.
 *
 * Needs
 *     f_window(t, index, first)    t[index[0] - first] .. t[index[FL - 1] - first]; all lie in t[0] .. t[FL - 1]
 *     f_transpose(v)               of the FL vectors v[0] .. v[FL - 1], in place
 */
PE_FN const float *entry_row(const struct pe_entries *e, size_t row) { /* where entry 0 would lie */
    return e->first + (ptrdiff_t)row * e->step - e->least;
}

/* FL neighbours of a row: from entry `from` on, or the last FL of the row */
PE_FN F window(const struct pe_entries *e, size_t row, const int32_t *index, int32_t from) {
    int32_t last = e->least + (int32_t)e->count - FL, first = from < last ? from : last;
    return f_window(entry_row(e, row) + first, index, first);
}

/* value, or x + scale*value */
PE_FN F sum_with(const struct pe_pick *job, size_t r, size_t c, F value, size_t n) {
    if (job->x == NULL) return value;
    const char *x = job->x + (ptrdiff_t)r * job->x_step + c * sizeof(float);
    PE_PREFETCH2(x + FL * job->x_step);
    F old = n == FL ? ld_f32((const float *)x) : ldn_f32((const float *)x, n);
    return f_add(old, f_mul(f_set(job->scale), value));
}

PE_FN void put_rows(const struct pe_pick *job, size_t r, size_t c, const F *v, size_t rows, size_t n) {
    char *y = job->y + (ptrdiff_t)r * job->y_step + c * sizeof(float);
    for (size_t i = 0; i < rows; i++, y += job->y_step) store_f32((float *)y, v[i], n, 0);
}

/* far away: one entry of each query and of each key */
PE_FN void pick_far(const struct pe_pick *job, size_t r, size_t c, size_t rows, size_t n, int query, int key) {
    int32_t at = job->index[(ptrdiff_t)c - (ptrdiff_t)r];
    F keys = f_set(0), value = keys, v[FL];
    if (key) {
        float entry[FL] = {0};
        for (size_t k = 0; k < n; k++) entry[k] = entry_row(&job->of_key, c + k)[at];
        keys = ld_f32(entry);
    }
    for (size_t i = 0; i < rows; i++) {
        if (query) value = f_set(entry_row(&job->of_query, r + i)[at]);
        v[i] = sum_with(job, r + i, c, key ? f_add(value, keys) : value, n);
    }
    put_rows(job, r, c, v, rows, n);
}

PE_FN void pick_near(const struct pe_pick *job, size_t r, size_t c, size_t rows, size_t n, int query, int key) {
    F v[FL];
    if (key) {
        for (size_t k = 0; k < FL; k++) {
            const int32_t *index = job->reversed + (ptrdiff_t)r - (ptrdiff_t)(c + k);
            size_t row = c + (k < n ? k : n - 1);
            PE_PREFETCH(entry_row(&job->of_key, row) + index[FL]);
            v[k] = window(&job->of_key, row, index, index[0]);
        }
        f_transpose(v);
    }
    for (size_t i = 0; i < rows; i++) {
        const int32_t *index = job->index + (ptrdiff_t)c - (ptrdiff_t)(r + i);
        F value = f_set(0);
        if (query) {
            int32_t first = index[0], last = index[FL - 1];
            PE_PREFETCH2(entry_row(&job->of_query, r + i + FL) + index[-FL]);
            value = window(&job->of_query, r + i, index, first < last ? first : last);
        }
        v[i] = sum_with(job, r + i, c, key ? f_add(value, v[i]) : value, n);
    }
    put_rows(job, r, c, v, rows, n);
}

PE_FN void pick_block(const struct pe_pick *job, size_t r, size_t c, size_t rows, size_t n, int query, int key) {
    const int32_t *index = job->index + (ptrdiff_t)c - (ptrdiff_t)r;
    if (index[1 - FL] == index[FL - 1])
        pick_far(job, r, c, rows, n, query, key);
    else
        pick_near(job, r, c, rows, n, query, key);
}

PE_FN void pick_all(const struct pe_pick *given, int query, int key) {
    const struct pe_pick copy = *given, *job = &copy; /* stores to y cannot change it */
    for (size_t r = 0; r < job->rows; r += FL) {
        size_t rows = job->rows - r < FL ? job->rows - r : FL, c = 0;
        if (rows == FL)
            for (; c + FL <= job->columns; c += FL) pick_block(job, r, c, FL, FL, query, key);
        for (; c < job->columns; c += FL)
            pick_block(job, r, c, rows, job->columns - c < FL ? job->columns - c : FL, query, key);
    }
}

PE_KERNEL void pick(const struct pe_pick *job) {
    if (job->of_query.first == NULL)
        pick_all(job, 0, 1);
    else if (job->of_key.first == NULL)
        pick_all(job, 1, 0);
    else
        pick_all(job, 1, 1);
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
