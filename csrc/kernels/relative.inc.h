/* What the terms of relative positions need for any type of entries: a template, included once per ISA before pick.inc.h.
 * Needs f_transpose(v): of the FL vectors v[0] .. v[FL - 1], in place.
 */

/* A matrix turned over, block by block in registers, for products with the rows of distances. */
PE_KERNEL void transpose(const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step, size_t rows, size_t columns) {
    for (size_t r = 0; r < rows; r += FL)
        for (size_t c = 0; c < columns; c += FL) {
            F v[FL];
            for (size_t k = 0; k < FL; k++) v[k] = ld_f32(x + (ptrdiff_t)(r + k) * x_step + c);
            f_transpose(v);
            for (size_t k = 0; k < FL; k++) st_f32(y + (ptrdiff_t)(c + k) * y_step + r, v[k]);
        }
}

/* FL entries along the keys of a query, and what is there already. keys and add are constants wherever this is expanded. */
PE_FN void across_step(const struct pe_pick_across *job, size_t i, F entry, int keys, int add) {
    if (keys) entry = f_add(entry, ld_f32(job->keys + i));
    if (add) entry = f_add(ld_f32(job->x + i), f_mul(f_set(job->scale), entry));
    st_f32(job->y + i, entry);
}

/* the same for the last of them, fewer than FL */
PE_KERNEL PE_NOINLINE void across_rest(const struct pe_pick_across *job, size_t i, F entry) {
    size_t n = job->n - i;
    if (job->keys) entry = f_add(entry, ldn_f32(job->keys + i, n));
    if (job->x) entry = f_add(ldn_f32(job->x + i, n), f_mul(f_set(job->scale), entry));
    stn_f32(job->y + i, entry, n);
}

/* loop(.., keys, add), with constants where there are PE_CASES */
#define PE_ACROSS(loop, ...)                                      \
    {                                                             \
        if (!PE_CASES)                                            \
            loop(__VA_ARGS__, job->keys != NULL, job->x != NULL); \
        else if (job->keys && job->x)                             \
            loop(__VA_ARGS__, 1, 1);                              \
        else if (job->keys)                                       \
            loop(__VA_ARGS__, 1, 0);                              \
        else if (job->x)                                          \
            loop(__VA_ARGS__, 0, 1);                              \
        else                                                      \
            loop(__VA_ARGS__, 0, 0);                              \
    }

PE_FN void across_same_loop(const struct pe_pick_across *given, F entry, int keys, int add) {
    const struct pe_pick_across copy = *given, *job = &copy; /* stores to y cannot change it */
    size_t i = 0;
    for (; i + FL <= job->n; i += FL) across_step(job, i, entry, keys, add);
    if (i < job->n) across_rest(job, i, entry);
}

/* where distances are far: one entry for all keys */
PE_KERNEL PE_NOINLINE void across_same(const struct pe_pick_across *job, F entry) {
    PE_ACROSS(across_same_loop, job, entry)
}
