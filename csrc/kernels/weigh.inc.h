/* Sums of rows, each times a number: a template, included by element.inc.h for float32 and float64, which says what it
 * needs. y = (y + a[0]*b[0]) + a[1]*b[1] + ..: in this order for every element, each product and each sum rounded, so the
 * bits depend neither on the vectors' width nor on what lies beside an element.
 */
PE_FN void PE_NAME(weigh_block)(const PE_CAT(struct pe_weigh_, PE_E) * job, size_t at, size_t vectors, size_t n) {
    PE_VEC sum[4];
    const PE_T *a = job->a, *b = job->b + at;
    for (size_t v = 0; v < vectors; v++) sum[v] = PE_LD(job->y + at + v * PE_LANES, n);
    for (size_t k = 0; k < job->count; k++, a += job->a_step, b += job->b_step) {
        PE_VEC weight = PE_OP(set)(*a);
        for (size_t v = 0; v < vectors; v++)
            sum[v] = PE_OP(add)(sum[v], PE_OP(mul)(weight, PE_LD(b + v * PE_LANES, n)));
    }
    for (size_t v = 0; v < vectors; v++) PE_NAME(store)(job->y + at + v * PE_LANES, sum[v], n, 0);
}

PE_KERNEL void PE_NAME(weigh)(const PE_CAT(struct pe_weigh_, PE_E) * job) {
    size_t i = 0;
    for (; i + 4 * PE_LANES <= job->n; i += 4 * PE_LANES) PE_NAME(weigh_block)(job, i, 4, PE_LANES);
    for (; i + PE_LANES <= job->n; i += PE_LANES) PE_NAME(weigh_block)(job, i, 1, PE_LANES);
    if (i < job->n) PE_NAME(weigh_block)(job, i, 1, job->n - i);
}
