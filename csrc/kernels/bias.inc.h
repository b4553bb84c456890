/* Rows of a bias added to rows of scores, float32, float64 and float16: a template, included by element.inc.h.
 *
 * Needs, besides what is named there,
 *     v_abs(x)
 *     v_count(start)           start, start + 1, .. as floating-point numbers
 *     v_gather(t, index)       t[index[0]], t[index[1]], ..
 * Each element is one product and one sum, each rounded, so a row's bits do not depend on where a vector ends.
 */
PE_FN void PE_NAME(line_step)(const PE_T *x, PE_T *y, PE_VEC slope, int32_t first, size_t n) {
    PE_VEC term = PE_OP(mul)(slope, PE_OP(abs)(PE_OP(count)(first)));
    PE_NAME(store)(y, PE_OP(add)(PE_LD(x, n), term), n, 0);
}

PE_KERNEL void PE_NAME(line)(const struct pe_line_run *run) {
    const PE_T *x = (const PE_T *)run->x;
    PE_T *y = (PE_T *)run->y;
    PE_VEC slope = PE_OP(set)((PE_R)run->slope);
    size_t i = 0, n = run->n;
    for (; i + PE_LANES <= n; i += PE_LANES) PE_NAME(line_step)(x + i, y + i, slope, run->first + (int32_t)i, PE_LANES);
    if (i < n) PE_NAME(line_step)(x + i, y + i, slope, run->first + (int32_t)i, n - i);
}

PE_FN void PE_NAME(lookup_step)(const PE_T *x, PE_T *y, const PE_R *t, const int32_t *index, PE_VEC scale, size_t n) {
    PE_VEC term = PE_OP(mul)(scale, PE_OP(gather)(t, index));
    PE_NAME(store)(y, PE_OP(add)(PE_LD(x, n), term), n, 0);
}

PE_KERNEL void PE_NAME(lookup)(const struct pe_lookup_run *run) {
    const PE_T *x = (const PE_T *)run->x;
    PE_T *y = (PE_T *)run->y;
    const PE_R *t = (const PE_R *)run->t;
    PE_VEC scale = PE_OP(set)((PE_R)run->scale);
    size_t i = 0, n = run->n;
    for (; i + PE_LANES <= n; i += PE_LANES) PE_NAME(lookup_step)(x + i, y + i, t, run->index + i, scale, PE_LANES);
    if (i == n) return;
    int32_t last[PE_LANES];
    for (size_t k = 0; k < PE_LANES; k++) last[k] = run->index[i + k < n ? i + k : n - 1];
    PE_NAME(lookup_step)(x + i, y + i, t, last, scale, n - i);
}
