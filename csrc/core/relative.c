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
    ROWS = 64,     /* of a tile */
    COLUMNS = 256, /* of it */
    WINDOW = ROWS + COLUMNS,
    DEPTH = 32,         /* dimensions at a time */
    MET = 3 * PE_BLOCK, /* floats of the entries that a block of queries and keys can meet, and more */
};

struct pe_relative_size pe_relative_size_of(bool wide, bool counted) {
    struct pe_relative_size size = {wide ? ROWS / 2 : ROWS, COLUMNS};
    if (!counted) size.rows = PE_LISTED / size.columns;
    return size;
}

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
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

/* whether kernels can read the rows where they lie, or there are none */
static bool is_plain(const pe_view *v) {
    ptrdiff_t size = sizeof(float);
    return v == NULL || (v->dtype == PE_F32 && element_step(v) == size && v->stride[v->ndim - 2] % size == 0 &&
                         length_of(v) >= PE_BLOCK);
}

static struct pe_entries entries_there(const pe_view *v, const struct pe_place *place, size_t row) {
    if (v == NULL) return (struct pe_entries){.first = NULL};
    return (struct pe_entries){.first = (const float *)(const void *)pe_place_row(v, place, row),
                               .step = v->stride[v->ndim - 2] / (ptrdiff_t)sizeof(float),
                               .count = length_of(v)};
}

/* entries from `least` on of n rows, as float32 */
static struct pe_entries entries_widened(const struct pe_kernels *kernels, const pe_view *v,
                                         const struct pe_place *place, size_t row, size_t n, int32_t least,
                                         size_t count, float *stage) {
    if (v == NULL) return (struct pe_entries){.first = NULL};
    const char *from = pe_place_row(v, place, row) + least * element_step(v);
    for (size_t k = 0; k < n; k++, from += v->stride[v->ndim - 2])
        if (v->dtype == PE_F16 && element_step(v) == sizeof(uint16_t))
            kernels->widen_f16((const uint16_t *)(const void *)from, stage + k * MET, count);
        else
            widen(stage + k * MET, from, element_step(v), count, v->dtype);
    return (struct pe_entries){.first = stage, .step = MET, .count = MET, .least = least};
}

/* a block of the tile from rows that kernels cannot read */
static void pick_widened(const struct pe_kernels *kernels, const pe_disentangled *d, const struct pe_bias_tile *tile,
                         const struct pe_place *place, struct pe_pick job, size_t r, size_t c, float *stage) {
    job.rows = min_size(PE_BLOCK, tile->rows - r), job.columns = min_size(PE_BLOCK, tile->columns - c);
    job.index += (ptrdiff_t)c - (ptrdiff_t)r, job.reversed += (ptrdiff_t)r - (ptrdiff_t)c;
    if (job.x) job.x += (ptrdiff_t)r * job.x_step + (ptrdiff_t)(c * sizeof(float));
    job.y += (ptrdiff_t)r * job.y_step + (ptrdiff_t)(c * sizeof(float));
    int32_t first = job.index[1 - PE_BLOCK], last = job.index[PE_BLOCK - 1], least = first < last ? first : last;
    size_t count = (size_t)(first + last - 2 * least) + 1;
    job.of_query = entries_widened(kernels, d->of_query, place, tile->i + r, job.rows, least, count, stage);
    job.of_key =
        entries_widened(kernels, d->of_key, place, tile->j + c, job.columns, least, count, stage + PE_BLOCK * MET);
    kernels->pick(&job);
}

/* u is the distance of row 0 and column 0; the job says to what the values are added */
static void pick(const struct pe_kernels *kernels, const pe_disentangled *d, const struct pe_bias_tile *tile,
                 const struct pe_place *place, int64_t u, struct pe_pick job) {
    job.index = d->index + (u - d->low), job.reversed = d->reversed + (d->high - u);
    if (is_plain(d->of_query) && is_plain(d->of_key)) {
        job.of_query = entries_there(d->of_query, place, tile->i);
        job.of_key = entries_there(d->of_key, place, tile->j);
        job.rows = tile->rows, job.columns = tile->columns;
        kernels->pick(&job);
        return;
    }
    PE_ALIGNED(64) float stage[2 * PE_BLOCK * MET] = {0};
    for (size_t r = 0; r < tile->rows; r += PE_BLOCK)
        for (size_t c = 0; c < tile->columns; c += PE_BLOCK) pick_widened(kernels, d, tile, place, job, r, c, stage);
}

/* whether the index moves as the kernels want it, around all of the tile */
static bool is_smooth(const pe_bias *bias, const struct pe_bias_tile *tile, int64_t u) {
    enum { AROUND = 3 * PE_BLOCK };
    const pe_disentangled *d = bias->disentangled;
    return d && d->smooth && tile->counted && u - ROWS - AROUND >= d->low && u + COLUMNS + AROUND <= d->high;
}

bool pe_relative_add(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                     const struct pe_place *place, const pe_view *x, const pe_view *y) {
    int64_t u = pe_bias_distance(bias, tile, 0, 0);
    if (!is_smooth(bias, tile, u)) return false;
    int query = y->ndim - 2;
    ptrdiff_t i = (ptrdiff_t)tile->i, j = (ptrdiff_t)(tile->j * sizeof(float));
    struct pe_pick job = {.x = place->x + i * x->stride[query] + j,
                          .x_step = x->stride[query],
                          .y = place->y + i * y->stride[query] + j,
                          .y_step = y->stride[query],
                          .scale = (float)bias->disentangled->scale};
    pick(kernels, bias->disentangled, tile, place, u, job);
    return true;
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
    memset(values, 0, ROWS * COLUMNS * sizeof *values);
    for (size_t at = 0; at < dimensions; at += DEPTH) {
        size_t depth = min_size(DEPTH, dimensions - at);
        turn_rows(kernels, p->rows, place, first, at, depth, columns);
        for (size_t r = 0; r < tile->rows; r++) {
            load_query(p, place, tile->i + r, at, depth, query);
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
    if (bias->projected && tile->counted && !wide)
        fill_products(kernels, bias->projected, tile, place, u, values);
    else if (bias->projected)
        fill_products_listed(bias, tile, place, wide, values);
    else if (!wide && is_smooth(bias, tile, u))
        pick(kernels, bias->disentangled, tile, place, u,
             (struct pe_pick){.y = values, .y_step = COLUMNS * sizeof(float)});
    else
        fill_listed(bias, tile, place, wide, values);
}
