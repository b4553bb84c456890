/* Rows of a bias added to rows of bfloat16 scores: included once per ISA, after rotate_bf16.inc.h, whose loads and stores
 * of 2*FL elements it uses.
 *
 * Needs, besides what these two name, f_count2(start): start, start + 2, .. as floats.
 */
PE_FN void bias_step_bf16(const uint16_t *x, uint16_t *y, F even, F odd, size_t n) {
    W w = bf16_load(x, n);
    even = f_add(f_even(w), even), odd = f_add(f_odd(w), odd);
    w_pack_all(&w, &even, &odd, 1);
    bf16_store(y, w, n, 0);
}

PE_FN void line_step_bf16(const uint16_t *x, uint16_t *y, F slope, int32_t first, size_t n) {
    F even = f_mul(slope, f_abs(f_count2(first)));
    F odd = f_mul(slope, f_abs(f_count2((int32_t)((uint32_t)first + 1))));
    bias_step_bf16(x, y, even, odd, n);
}

PE_KERNEL void line_bf16(const struct pe_line_run *run) {
    const uint16_t *x = (const uint16_t *)run->x;
    uint16_t *y = (uint16_t *)run->y;
    F slope = f_set((float)run->slope);
    size_t i = 0, n = run->n;
    for (; i + 2 * FL <= n; i += 2 * FL) line_step_bf16(x + i, y + i, slope, run->first + (int32_t)i, 2 * FL);
    if (i < n) line_step_bf16(x + i, y + i, slope, run->first + (int32_t)i, n - i);
}

PE_FN void lookup_step_bf16(const uint16_t *x, uint16_t *y, const float *t, const int32_t *index, F scale, size_t n) {
    F even, odd;
    f_unzip(f_gather(t, index), f_gather(t, index + FL), &even, &odd);
    bias_step_bf16(x, y, f_mul(scale, even), f_mul(scale, odd), n);
}

PE_KERNEL void lookup_bf16(const struct pe_lookup_run *run) {
    const uint16_t *x = (const uint16_t *)run->x;
    uint16_t *y = (uint16_t *)run->y;
    const float *t = (const float *)run->t;
    F scale = f_set((float)run->scale);
    size_t i = 0, n = run->n;
    for (; i + 2 * FL <= n; i += 2 * FL) lookup_step_bf16(x + i, y + i, t, run->index + i, scale, 2 * FL);
    if (i == n) return;
    int32_t last[2 * FL];
    for (size_t k = 0; k < 2 * FL; k++) last[k] = run->index[i + k < n ? i + k : n - 1];
    lookup_step_bf16(x + i, y + i, t, last, scale, n - i);
}
