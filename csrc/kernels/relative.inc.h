/* A matrix turned over, block by block in registers, for products with the rows of distances. Needs f_transpose(v): of the
 * FL vectors v[0] .. v[FL - 1], in place.
 */
PE_KERNEL void transpose(const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step, size_t rows, size_t columns) {
    for (size_t r = 0; r < rows; r += FL)
        for (size_t c = 0; c < columns; c += FL) {
            F v[FL];
            for (size_t k = 0; k < FL; k++) v[k] = ld_f32(x + (ptrdiff_t)(r + k) * x_step + c);
            f_transpose(v);
            for (size_t k = 0; k < FL; k++) st_f32(y + (ptrdiff_t)(c + k) * y_step + r, v[k]);
        }
}
