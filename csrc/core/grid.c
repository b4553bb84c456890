/* Biases in two parts, of the row and of the column of a key in an image (SAM, ViTDet): a tile of values for the driver in
 * bias.c, a row of the image at a time.
 */
#include "bias.h"

static void add_f32(float *restrict y, float a, const char *b, ptrdiff_t step, enum pe_dtype dtype, size_t n) {
    if (dtype == PE_F32 && step == sizeof(float)) {
        const float *plain = (const float *)(const void *)b;
        for (size_t i = 0; i < n; i++) y[i] = a + plain[i];
    } else {
        for (size_t i = 0; i < n; i++) y[i] = a + (float)pe_load(b + (ptrdiff_t)i * step, dtype);
    }
}

static void add_f64(double *restrict y, double a, const char *b, ptrdiff_t step, enum pe_dtype dtype, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = a + pe_load(b + (ptrdiff_t)i * step, dtype);
}

enum { COLUMNS = 4096, LANES = 16 };

/* Whole rows of scores, as memory is read best; they begin where a vector does. */
struct pe_relative_size pe_grid_size_of(const pe_grid *grid, bool wide) {
    const pe_view *of_row = grid->of_row, *of_column = grid->of_column;
    size_t keys = (size_t)of_row->shape[of_row->ndim - 1] * (size_t)of_column->shape[of_column->ndim - 1];
    struct pe_relative_size size = {.columns = keys < COLUMNS ? (keys + LANES - 1) / LANES * LANES : COLUMNS};
    size.rows = PE_RELATIVE_BYTES / (size.columns * (wide ? sizeof(double) : sizeof(float)));
    return size;
}

void pe_grid_fill(const pe_grid *grid, const struct pe_bias_tile *tile, const struct pe_place *place, bool wide,
                  void *values) {
    const pe_view *of_row = grid->of_row, *of_column = grid->of_column;
    size_t width = (size_t)of_column->shape[of_column->ndim - 1], step = pe_grid_size_of(grid, wide).columns;
    ptrdiff_t down = of_row->stride[of_row->ndim - 1], along = of_column->stride[of_column->ndim - 1];
    for (size_t r = 0; r < tile->rows; r++) {
        const char *a = pe_place_row(of_row, place, tile->i + r), *b = pe_place_row(of_column, place, tile->i + r);
        size_t row = tile->j / width, column = tile->j % width;
        for (size_t c = 0, n; c < tile->columns; c += n, row++, column = 0) {
            n = width - column < tile->columns - c ? width - column : tile->columns - c;
            double value = pe_load(a + (ptrdiff_t)row * down, of_row->dtype);
            const char *from = b + (ptrdiff_t)column * along;
            if (wide)
                add_f64((double *)values + r * step + c, value, from, along, of_column->dtype, n);
            else
                add_f32((float *)values + r * step + c, (float)value, from, along, of_column->dtype, n);
        }
    }
}
