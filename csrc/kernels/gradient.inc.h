/* Products summed over heads, for the gradients of angles and tables: a template, included once per ISA.
 *
 * Plain loops: each sum is an element of its own, so that compilers vectorise them and every ISA has the same bits. The
 * products of float32 elements are exact in float64.
 *
 * Needs PE_FN, PE_KERNEL, FL, ld_f16, ldn_f16, st_f32 and stn_f32.
 */
#define PE_PRODUCTS(E, T)                                                                                        \
    PE_FN void products_half_row_##E(const T *restrict a, const T *restrict b, const T *restrict u,              \
                                     const T *restrict v, double *restrict straight, double *restrict crossed,   \
                                     size_t pairs) {                                                             \
        for (size_t i = 0; i < pairs; i++) {                                                                     \
            straight[i] += (double)a[i] * (double)u[i];                                                          \
            crossed[i] += (double)b[i] * (double)u[i];                                                           \
        }                                                                                                        \
        for (size_t i = 0; i < pairs; i++) {                                                                     \
            straight[pairs + i] += (double)b[i] * (double)v[i];                                                  \
            crossed[pairs + i] += (double)a[i] * (double)v[i];                                                   \
        }                                                                                                        \
    }                                                                                                            \
    PE_FN void products_interleaved_row_##E(const T *restrict x, const T *restrict g, double *restrict straight, \
                                            double *restrict crossed, size_t pairs) {                            \
        for (size_t i = 0; i < 2 * pairs; i++) straight[i] += (double)x[i] * (double)g[i];                       \
        for (size_t i = 0; i < 2 * pairs; i += 2) {                                                              \
            crossed[i] += (double)x[i + 1] * (double)g[i];                                                       \
            crossed[i + 1] += (double)x[i] * (double)g[i + 1];                                                   \
        }                                                                                                        \
    }                                                                                                            \
    PE_KERNEL void products_##E(const struct pe_products *run) {                                                 \
        const char *x = run->x, *g = run->g, *straight = (const char *)run->straight;                            \
        ptrdiff_t crossed = (const char *)run->crossed - straight;                                               \
        for (size_t j = 0; j < run->rows; j++, x += run->x_step, g += run->g_step, straight += run->sum_step) {  \
            double *s = (double *)(uintptr_t)straight, *c = (double *)(uintptr_t)(straight + crossed);           \
            if (run->gap)                                                                                        \
                products_half_row_##E((const T *)x, (const T *)(x + run->gap), (const T *)g,                     \
                                      (const T *)(g + run->gap), s, c, run->pairs);                              \
            else                                                                                                 \
                products_interleaved_row_##E((const T *)x, (const T *)g, s, c, run->pairs);                      \
        }                                                                                                        \
    }
PE_PRODUCTS(f32, float)
PE_PRODUCTS(f64, double)

PE_KERNEL void widen_f16(const uint16_t *x, float *y, size_t n) {
    size_t i = 0;
    for (; i + FL <= n; i += FL) st_f32(y + i, ld_f16(x + i));
    if (i < n) stn_f32(y + i, ldn_f16(x + i, n - i), n - i);
}

PE_KERNEL void widen_bf16(const uint16_t *x, float *y, size_t n) {
    uint32_t *bits = (uint32_t *)(void *)y;
    for (size_t i = 0; i < n; i++) bits[i] = (uint32_t)x[i] << 16;
}
