/* Biases that the content of a query or a key decides: a tile of values for the driver in bias.c.
 *
 * A disentangled bias (DeBERTa) takes one entry of a row that belongs to the query and one of a row that belongs to the
 * key, both chosen by their distance: here one after the other, for listed positions, indices that leap, and float64;
 * relative_pick.c has the rest.
 *
 * A projected bias (Transformer-XL) is the product of a query with the row of its distance to the key. The rows that a
 * tile meets are turned into columns, some dimensions at a time, and each query's sums run along its keys: one product
 * after the other in the order of the dimensions, whatever the width of a vector.
 */
#include <string.h>

#include "../kernels/half.h"
#include "bias.h"
#include "rows.h"

enum {
    ROWS = 64,     /* of a tile */
    COLUMNS = 256, /* of it */
    WINDOW = ROWS + COLUMNS,
    DEPTH = 32, /* dimensions at a time */
};

struct pe_relative_size pe_relative_size_of(bool wide, bool counted) {
    struct pe_relative_size size = {wide ? ROWS / 2 : ROWS, COLUMNS};
    if (!counted) size.rows = PE_LISTED / size.columns;
    return size;
}

static size_t length_of(const pe_view *v) {
    return (size_t)v->shape[v->ndim - 1];
}

static ptrdiff_t element_step(const pe_view *v) {
    return v->stride[v->ndim - 1];
}

/* ---- disentangled: one entry after the other ---- */

int32_t pe_disentangled_entry(const pe_disentangled *d, int64_t u) {
    return d->index[(u < d->low ? d->low : u > d->high ? d->high : u) - d->low];
}

static void fill_listed(const pe_bias *bias, const struct pe_bias_tile *tile, const struct pe_place *place, bool wide,
                        void *values) {
    const pe_disentangled *d = bias->disentangled;
    const pe_view *query = d->of_query, *key = d->of_key;
    for (size_t r = 0; r < tile->rows; r++) {
        const char *of_query = query ? pe_place_row(query, place, tile->i + r) : NULL;
        for (size_t c = 0; c < tile->columns; c++) {
            int32_t n = pe_disentangled_entry(d, pe_bias_distance(bias, tile, r, c));
            double a = query ? pe_load(of_query + n * element_step(query), query->dtype) : 0, b = 0;
            if (key) b = pe_load(pe_place_row(key, place, tile->j + c) + n * element_step(key), key->dtype);
            if (wide)
                ((double *)values)[r * COLUMNS + c] = a + b;
            else
                ((float *)values)[r * COLUMNS + c] = (float)a + (float)b;
        }
    }
}

/* ---- projected ---- */

/* Dimensions at .. at + depth of the rows from `first` on become columns; rows that are not there are zeros. */
static void turn_rows(const struct pe_kernels *kernels, const pe_view *v, const struct pe_place *place, int64_t first,
                      size_t at, size_t depth, float *columns) {
    PE_ALIGNED(64) float stage[PE_BLOCK * DEPTH];
    for (size_t w = 0; w < WINDOW; w += PE_BLOCK) {
        memset(stage, 0, sizeof stage);
        for (size_t k = 0; k < PE_BLOCK; k++) {
            int64_t row = first + (int64_t)(w + k);
            if (row < 0 || row >= v->shape[v->ndim - 2]) continue;
            const char *from = pe_place_row(v, place, (size_t)row) + (ptrdiff_t)at * element_step(v);
            pe_floats(kernels, stage + k * DEPTH, from, element_step(v), depth, v->dtype);
        }
        kernels->transpose(stage, DEPTH, columns + w, WINDOW, PE_BLOCK, DEPTH);
    }
}

/* dimensions of query + addend, rounded to float32 */
static void load_query(const struct pe_kernels *kernels, const pe_projected *p, const struct pe_place *place,
                       size_t row, size_t at, size_t n, float *to) {
    float addend[DEPTH];
    const pe_view *q = p->query, *v = p->addend;
    pe_floats(kernels, to, pe_place_row(q, place, row) + (ptrdiff_t)at * element_step(q), element_step(q), n, q->dtype);
    if (v == NULL) return;
    pe_floats(kernels, addend, pe_place_row(v, place, row) + (ptrdiff_t)at * element_step(v), element_step(v), n,
              v->dtype);
    for (size_t d = 0; d < n; d++) to[d] += addend[d];
}

static void fill_products(const struct pe_kernels *kernels, const pe_projected *p, const struct pe_bias_tile *tile,
                          const struct pe_place *place, int64_t u, float *values) {
    PE_ALIGNED(64) float columns[DEPTH * WINDOW];
    float query[DEPTH];
    size_t dimensions = length_of(p->query), last = tile->rows - 1;
    int64_t first = p->origin + u - (int64_t)last; /* what the last query of the tile meets first */
    memset(values, 0, ROWS * COLUMNS * sizeof *values);
    for (size_t at = 0; at < dimensions; at += DEPTH) {
        size_t depth = pe_min(DEPTH, dimensions - at);
        turn_rows(kernels, p->rows, place, first, at, depth, columns);
        for (size_t r = 0; r < tile->rows; r++) {
            load_query(kernels, p, place, tile->i + r, at, depth, query);
            struct pe_weigh_f32 job = {.y = values + r * COLUMNS,
                                       .a = query,
                                       .a_step = 1,
                                       .b = columns + (last - r),
                                       .b_step = WINDOW,
                                       .n = tile->columns,
                                       .count = depth};
            kernels->weigh_f32(&job);
        }
    }
}

/* one product after the other: listed positions, float64 */
static double product(const pe_projected *p, const struct pe_place *place, size_t row, int64_t n, bool wide) {
    const pe_view *q = p->query, *v = p->addend;
    double sum = 0;
    float narrow_sum = 0;
    if (n < 0 || n >= p->rows->shape[p->rows->ndim - 2]) return 0;
    const char *x = pe_place_row(q, place, row), *a = v ? pe_place_row(v, place, row) : NULL,
               *b = pe_place_row(p->rows, place, (size_t)n);
    for (size_t d = 0; d < length_of(q); d++) {
        double c = pe_load(x, q->dtype), e = a ? pe_load(a, v->dtype) : 0, f = pe_load(b, p->rows->dtype);
        float g = (float)c + (float)e, narrow_product = g * (float)f;
        double wide_query = c + e, wide_product = wide_query * f;
        narrow_sum += narrow_product, sum += wide_product;
        x += element_step(q), b += element_step(p->rows);
        if (a) a += element_step(v);
    }
    return wide ? sum : (double)narrow_sum;
}

static void fill_products_listed(const pe_bias *bias, const struct pe_bias_tile *tile, const struct pe_place *place,
                                 bool wide, void *values) {
    const pe_projected *p = bias->projected;
    for (size_t r = 0; r < tile->rows; r++)
        for (size_t c = 0; c < tile->columns; c++) {
            double value = product(p, place, tile->i + r, p->origin + pe_bias_distance(bias, tile, r, c), wide);
            if (wide)
                ((double *)values)[r * COLUMNS + c] = value;
            else
                ((float *)values)[r * COLUMNS + c] = (float)value;
        }
}

/* ---- either ---- */

void pe_relative_fill(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                      const struct pe_place *place, bool wide, void *values) {
    int64_t u = pe_bias_distance(bias, tile, 0, 0);
    if (bias->grid)
        pe_grid_fill(bias->grid, tile, place, wide, values);
    else if (bias->projected && tile->counted && !wide)
        fill_products(kernels, bias->projected, tile, place, u, values);
    else if (bias->projected)
        fill_products_listed(bias, tile, place, wide, values);
    else
        fill_listed(bias, tile, place, wide, values);
}
