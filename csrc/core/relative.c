/* Biases that the content of a query or a key decides: a tile of values for the driver in bias.c.
 *
 * A disentangled bias (DeBERTa) takes one entry of a row that belongs to the query and one of a row that belongs to the
 * key, both chosen by their distance. Where positions count up and the index is smooth, both are picked by permutations
 * in registers (relative.inc.h); what a pick may read beyond a row is copied next to it first. Everything else (listed
 * positions, other indices, float64) takes one entry after the other.
 *
 * A projected bias (Transformer-XL) is the product of a query with the row of its distance to the key. The rows that a
 * tile meets are turned into columns, some dimensions at a time, and each query's sums run along its keys: one product
 * after the other in the order of the dimensions, whatever the width of a vector.
 */
#include <string.h>

#include "../kernels/half.h"
#include "bias.h"

enum {
    ROWS = 16,            /* of a disentangled tile: whole rows of scores are read one after the other */
    COLUMNS = 1024,       /* of it */
    STAGE = COLUMNS + 32, /* floats of the entries that a row of it can meet */
    MANY_ROWS = 64,       /* of a projected tile: its window of distances is turned for all of them */
    FEW_COLUMNS = 256,    /* of it */
    WINDOW = FEW_COLUMNS + MANY_ROWS,
    DEPTH = 32 /* dimensions at a time */
};

struct pe_relative_size pe_relative_size_of(const pe_bias *bias, bool wide, bool counted) {
    struct pe_relative_size size = {bias->projected ? MANY_ROWS : ROWS, bias->projected ? FEW_COLUMNS : COLUMNS};
    if (wide) size.rows /= 2;
    if (!counted) size.rows = PE_LISTED / size.columns;
    return size;
}

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t whole_blocks(size_t n) {
    return (n + PE_BLOCK - 1) / PE_BLOCK * PE_BLOCK;
}

static size_t length_of(const pe_view *v) {
    return (size_t)v->shape[v->ndim - 1];
}

static ptrdiff_t element_step(const pe_view *v) {
    return v->stride[v->ndim - 1];
}

/* n elements as float32 */
static void widen(float *to, const char *from, ptrdiff_t step, size_t n, enum pe_dtype dtype) {
    switch (dtype) {
        case PE_F16:
            for (size_t i = 0; i < n; i++, from += step)
                to[i] = pe_float_from_f16(*(const uint16_t *)(const void *)from);
            break;
        case PE_BF16:
            for (size_t i = 0; i < n; i++, from += step)
                to[i] = pe_float_from_bf16(*(const uint16_t *)(const void *)from);
            break;
        case PE_F64:
            for (size_t i = 0; i < n; i++, from += step) to[i] = (float)*(const double *)(const void *)from;
            break;
        default:
            if (step == sizeof(float))
                memcpy(to, from, n * sizeof(float));
            else
                for (size_t i = 0; i < n; i++, from += step) to[i] = *(const float *)(const void *)from;
    }
}

/* ---- disentangled: entries picked ---- */

/* whether kernels can read the rows where they lie */
static bool is_plain(const pe_view *v) {
    ptrdiff_t size = sizeof(float);
    return v->dtype == PE_F32 && element_step(v) == size && v->stride[v->ndim - 2] % size == 0 &&
           length_of(v) >= PE_BLOCK;
}

static ptrdiff_t float_step(const pe_view *v) {
    return v->stride[v->ndim - 2] / (ptrdiff_t)sizeof(float);
}

/* index points to row 0, column 0; the next row's begins one element before */
static void pick_query_rows(const struct pe_kernels *kernels, const pe_view *v, const struct pe_bias_tile *tile,
                            const struct pe_place *place, const int32_t *index, float *values) {
    PE_ALIGNED(64) float stage[STAGE];
    const char *from = pe_place_row(v, place, tile->i);
    struct pe_pick job = {.index = index, .y = values, .y_step = COLUMNS, .columns = whole_blocks(tile->columns)};
    if (is_plain(v)) {
        job.table = (const float *)(const void *)from;
        job.table_step = float_step(v), job.entries = length_of(v), job.rows = tile->rows;
        kernels->pick(&job);
        return;
    }
    memset(stage, 0, sizeof stage);
    job.table = stage, job.entries = STAGE, job.rows = 1;
    for (size_t r = 0; r < tile->rows; r++, job.index--, job.y += COLUMNS, from += v->stride[v->ndim - 2]) {
        int32_t first = job.index[0], last = job.index[job.columns - 1];
        job.least = first < last ? first : last;
        widen(stage, from + job.least * element_step(v), element_step(v), (size_t)(first + last - 2 * job.least) + 1,
              v->dtype);
        kernels->pick(&job);
    }
}

/* what the picks of some keys will read, into the cache meanwhile */
static void fetch_entries(const pe_view *v, const char *from, size_t keys, const int32_t *index) {
    ptrdiff_t bytes = ROWS * (ptrdiff_t)pe_itemsize(v->dtype);
    for (size_t k = 0; k < keys; k++, from += v->stride[v->ndim - 2]) {
        const char *first = from + index[-(ptrdiff_t)k] * element_step(v);
        PE_PREFETCH(first);
        PE_PREFETCH(first + bytes);
    }
}

/* index points to row 0, column 0, in the order of the rows; the next column's begins one element before */
static void pick_key_rows(const struct pe_kernels *kernels, const pe_view *v, const struct pe_bias_tile *tile,
                          const struct pe_place *place, const int32_t *index, float *values) {
    enum { STEP = ROWS + 2 * PE_BLOCK }; /* floats of the entries that a block of keys can meet, and more */
    PE_ALIGNED(64) float stage[PE_BLOCK * STEP];
    bool plain = is_plain(v);
    ptrdiff_t key = v->stride[v->ndim - 2];
    const char *from = pe_place_row(v, place, tile->j);
    struct pe_pick job = {.index = index, .y = values, .y_step = COLUMNS, .rows = ROWS, .columns = PE_BLOCK};
    memset(stage, 0, sizeof stage);
    for (size_t c = 0; c < tile->columns; c += PE_BLOCK, job.index -= PE_BLOCK, job.y += PE_BLOCK) {
        size_t keys = min_size(PE_BLOCK, tile->columns - c), next = min_size(PE_BLOCK, tile->columns - c - keys);
        if (plain) fetch_entries(v, from + PE_BLOCK * key, next, job.index - PE_BLOCK);
        if (plain && keys == PE_BLOCK) {
            job.table = (const float *)(const void *)from;
            job.table_step = float_step(v), job.entries = length_of(v), job.least = 0;
        } else { /* to be widened, or too few keys for a block */
            job.table = stage, job.table_step = STEP, job.entries = STEP, job.least = job.index[1 - PE_BLOCK];
            size_t n = (size_t)(job.index[job.rows - 1] - job.least) + 1;
            for (size_t k = 0; k < keys; k++)
                widen(stage + k * STEP, from + (ptrdiff_t)k * key + job.least * element_step(v), element_step(v), n,
                      v->dtype);
        }
        kernels->pick_columns(&job);
        from += PE_BLOCK * key;
    }
}

static void fill_smooth(const struct pe_kernels *kernels, const pe_disentangled *d, const struct pe_bias_tile *tile,
                        const struct pe_place *place, int64_t u, float *values) {
    const int32_t *index = d->index + (u - d->low), *reversed = d->reversed + (d->high - u);
    if (d->of_query)
        pick_query_rows(kernels, d->of_query, tile, place, index, values);
    else
        memset(values, 0, ROWS * COLUMNS * sizeof *values);
    if (d->of_key) pick_key_rows(kernels, d->of_key, tile, place, reversed, values);
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
            widen(stage + k * DEPTH, from, element_step(v), depth, v->dtype);
        }
        kernels->transpose(stage, DEPTH, columns + w, WINDOW, PE_BLOCK, DEPTH);
    }
}

/* dimensions of query + addend, rounded to float32 */
static void load_query(const pe_projected *p, const struct pe_place *place, size_t row, size_t at, size_t n,
                       float *to) {
    float addend[DEPTH];
    const pe_view *q = p->query, *v = p->addend;
    widen(to, pe_place_row(q, place, row) + (ptrdiff_t)at * element_step(q), element_step(q), n, q->dtype);
    if (v == NULL) return;
    widen(addend, pe_place_row(v, place, row) + (ptrdiff_t)at * element_step(v), element_step(v), n, v->dtype);
    for (size_t d = 0; d < n; d++) to[d] += addend[d];
}

static void fill_products(const struct pe_kernels *kernels, const pe_projected *p, const struct pe_bias_tile *tile,
                          const struct pe_place *place, int64_t u, float *values) {
    PE_ALIGNED(64) float columns[DEPTH * WINDOW];
    float query[DEPTH];
    size_t dimensions = length_of(p->query), last = tile->rows - 1;
    int64_t first = p->origin + u - (int64_t)last; /* what the last query of the tile meets first */
    memset(values, 0, MANY_ROWS * FEW_COLUMNS * sizeof *values);
    for (size_t at = 0; at < dimensions; at += DEPTH) {
        size_t depth = min_size(DEPTH, dimensions - at);
        turn_rows(kernels, p->rows, place, first, at, depth, columns);
        for (size_t r = 0; r < tile->rows; r++) {
            load_query(p, place, tile->i + r, at, depth, query);
            struct pe_weigh_f32 job = {.y = values + r * FEW_COLUMNS,
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
                ((double *)values)[r * FEW_COLUMNS + c] = value;
            else
                ((float *)values)[r * FEW_COLUMNS + c] = (float)value;
        }
}

/* ---- either ---- */

void pe_relative_fill(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                      const struct pe_place *place, bool wide, void *values) {
    const pe_disentangled *d = bias->disentangled;
    int64_t u = pe_bias_distance(bias, tile, 0, 0);
    if (bias->projected && tile->counted && !wide)
        fill_products(kernels, bias->projected, tile, place, u, values);
    else if (bias->projected)
        fill_products_listed(bias, tile, place, wide, values);
    else if (d->smooth && tile->counted && !wide && u - ROWS >= d->low && u + COLUMNS <= d->high)
        fill_smooth(kernels, d, tile, place, u, values);
    else
        fill_listed(bias, tile, place, wide, values);
}
