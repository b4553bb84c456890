/* The gradients of biases that content decides: what each entry, query and row gathers from the gradient of the scores.
 *
 * Everything is summed in float64. An entry, a query, a row receives its terms tile by tile and within a tile row by row,
 * so the order depends on the shape alone. What a mask hides is zero before the sums begin.
 */
#include <string.h>

#include "bias.h"
#include "rows.h"

enum { ROWS = 32, COLUMNS = 128, DEPTH = 32, WINDOW = COLUMNS + ROWS, POLL_BYTES = 1 << 20 };

struct sums {
    const struct pe_kernels *kernels;
    const pe_bias *bias;
    const pe_view *g;
    const pe_relative_sums *to;
    struct pe_bias_tile tile;
    double tile_g[ROWS * COLUMNS]; /* scaled, zero where a mask hides */
    double query[ROWS * DEPTH], rows[WINDOW * DEPTH];
};

static double *sums_of(const pe_view *v, const struct pe_place *place, size_t row) {
    return (double *)(void *)pe_place_row(v, place, row);
}

static void load_tile(struct sums *s, const struct pe_place *place) {
    const struct pe_bias_tile *tile = &s->tile;
    const pe_view *g = s->g;
    double scale = s->bias->disentangled ? s->bias->disentangled->scale : s->bias->projected->scale;
    ptrdiff_t step = g->stride[g->ndim - 1];
    memset(s->tile_g, 0, sizeof s->tile_g);
    for (size_t r = 0; r < tile->rows; r++) {
        struct pe_seen local[PE_MOST_RUNS];
        const struct pe_seen *runs;
        size_t count = pe_bias_runs(s->bias, false, tile, r, local, &runs), at = 0;
        const char *from = place->x + (ptrdiff_t)(tile->i + r) * g->stride[g->ndim - 2] + (ptrdiff_t)tile->j * step;
        for (size_t k = 0; k < count; k++)
            for (; at < runs[k].end; at++)
                if (runs[k].kind >= PE_RUN_LOW)
                    s->tile_g[r * COLUMNS + at] = scale * pe_load(from + (ptrdiff_t)at * step, g->dtype);
    }
}

static void sum_entries(struct sums *s, const struct pe_place *place) {
    const pe_disentangled *d = s->bias->disentangled;
    const struct pe_bias_tile *tile = &s->tile;
    int32_t entry[ROWS * COLUMNS];
    for (size_t r = 0; r < tile->rows; r++)
        for (size_t c = 0; c < tile->columns; c++)
            entry[r * COLUMNS + c] = pe_disentangled_entry(d, pe_bias_distance(s->bias, &s->tile, r, c));
    for (size_t r = 0; d->of_query && r < tile->rows; r++) {
        double *to = sums_of(&s->to->first, place, tile->i + r);
        for (size_t c = 0; c < tile->columns; c++) to[entry[r * COLUMNS + c]] += s->tile_g[r * COLUMNS + c];
    }
    for (size_t c = 0; d->of_key && c < tile->columns; c++) {
        double *to = sums_of(&s->to->second, place, tile->j + c);
        for (size_t r = 0; r < tile->rows; r++) to[entry[r * COLUMNS + c]] += s->tile_g[r * COLUMNS + c];
    }
}

/* dimensions of a row as float64; zeros for a row that is not there */
static void load_row(double *to, const pe_view *v, const struct pe_place *place, int64_t row, size_t at, size_t n) {
    ptrdiff_t step = v->stride[v->ndim - 1];
    memset(to, 0, DEPTH * sizeof *to);
    if (row < 0 || row >= v->shape[v->ndim - 2]) return;
    const char *from = pe_place_row(v, place, (size_t)row) + (ptrdiff_t)at * step;
    for (size_t d = 0; d < n; d++) to[d] = pe_load(from + (ptrdiff_t)d * step, v->dtype);
}

/* query + addend, in the precision of the forward pass */
static void load_query(struct sums *s, const struct pe_place *place, size_t r, size_t at, size_t n) {
    const pe_projected *p = s->bias->projected;
    double *to = s->query + r * DEPTH, addend[DEPTH];
    int64_t row = (int64_t)(s->tile.i + r);
    load_row(to, p->query, place, row, at, n);
    if (p->addend == NULL) return;
    load_row(addend, p->addend, place, row, at, n);
    for (size_t d = 0; d < n; d++) {
        to[d] += addend[d];
        if (s->g->dtype != PE_F64) to[d] = (double)(float)to[d];
    }
}

/* of the rows that lie between `first` and the end of the window: each meets one key of some queries */
static void sum_rows(struct sums *s, const struct pe_place *place, int64_t first, size_t at, size_t depth) {
    const struct pe_bias_tile *tile = &s->tile;
    const pe_view *to = &s->to->second;
    size_t last = tile->rows - 1;
    for (size_t w = 0; w < last + tile->columns; w++) {
        int64_t row = first + (int64_t)w;
        if (row < 0 || row >= to->shape[to->ndim - 2]) continue;
        size_t r = w < last ? last - w : 0, c = w < last ? 0 : w - last;
        struct pe_weigh_f64 job = {.y = sums_of(to, place, (size_t)row) + at,
                                   .a = s->tile_g + r * COLUMNS + c,
                                   .a_step = COLUMNS + 1,
                                   .b = s->query + r * DEPTH,
                                   .b_step = DEPTH,
                                   .n = depth,
                                   .count = pe_min(tile->rows - r, tile->columns - c)};
        s->kernels->weigh_f64(&job);
    }
}

static void sum_products(struct sums *s, const struct pe_place *place) {
    const pe_projected *p = s->bias->projected;
    const struct pe_bias_tile *tile = &s->tile;
    size_t dimensions = (size_t)p->query->shape[p->query->ndim - 1], last = tile->rows - 1;
    int64_t first = p->origin + pe_bias_distance(s->bias, &s->tile, 0, 0) - (int64_t)last;
    for (size_t at = 0; at < dimensions; at += DEPTH) {
        size_t depth = pe_min(DEPTH, dimensions - at);
        for (size_t w = 0; w < last + tile->columns; w++)
            load_row(s->rows + w * DEPTH, p->rows, place, first + (int64_t)w, at, depth);
        for (size_t r = 0; r < tile->rows; r++) {
            load_query(s, place, r, at, depth);
            struct pe_weigh_f64 job = {.y = sums_of(&s->to->first, place, tile->i + r) + at,
                                       .a = s->tile_g + r * COLUMNS,
                                       .a_step = 1,
                                       .b = s->rows + (last - r) * DEPTH,
                                       .b_step = DEPTH,
                                       .n = depth,
                                       .count = tile->columns};
            s->kernels->weigh_f64(&job);
        }
        sum_rows(s, place, first, at, depth);
    }
}

/* Listed positions have no windows: one pair after the other. */
static void sum_products_listed(struct sums *s, const struct pe_place *place) {
    const pe_projected *p = s->bias->projected;
    const struct pe_bias_tile *tile = &s->tile;
    size_t dimensions = (size_t)p->query->shape[p->query->ndim - 1];
    for (size_t at = 0; at < dimensions; at += DEPTH) {
        size_t depth = pe_min(DEPTH, dimensions - at);
        for (size_t r = 0; r < tile->rows; r++) {
            load_query(s, place, r, at, depth);
            for (size_t c = 0; c < tile->columns; c++) {
                int64_t row = p->origin + pe_bias_distance(s->bias, &s->tile, r, c);
                if (row < 0 || row >= p->rows->shape[p->rows->ndim - 2]) continue;
                load_row(s->rows, p->rows, place, row, at, depth);
                double *query = sums_of(&s->to->first, place, tile->i + r) + at;
                double *rows = sums_of(&s->to->second, place, (size_t)row) + at, g = s->tile_g[r * COLUMNS + c];
                for (size_t d = 0; d < depth; d++) {
                    double of_query = g * s->rows[d], of_row = g * s->query[r * DEPTH + d];
                    query[d] += of_query, rows[d] += of_row;
                }
            }
        }
    }
}

static bool sum_tile(struct sums *s, pe_poll *poll, void *context, size_t *polled) {
    struct pe_place place;
    if (!s->tile.counted) pe_bias_list_runs(s->bias, false, &s->tile);
    pe_place_begin(s->g, NULL, s->bias->per_batch, s->tile.batch, &place);
    do {
        load_tile(s, &place);
        if (s->bias->disentangled)
            sum_entries(s, &place);
        else if (s->tile.counted)
            sum_products(s, &place);
        else
            sum_products_listed(s, &place);
        *polled += s->tile.rows * s->tile.columns * sizeof(double) * (s->bias->projected ? 16 : 1);
        if (poll == NULL || *polled < POLL_BYTES) continue;
        *polled = 0;
        if (poll(context)) return true;
    } while (pe_place_next(s->g, NULL, s->bias->per_batch, &place));
    return false;
}

enum pe_status pe_relative_gradient(const struct pe_kernels *kernels, const pe_bias *bias, const pe_view *g,
                                    const pe_relative_sums *to, pe_poll *poll, void *context) {
    struct sums s;
    if (pe_elements(g) == 0) return PE_OK;
    s.kernels = kernels, s.bias = bias, s.g = g, s.to = to;
    size_t queries = (size_t)g->shape[g->ndim - 2], keys = (size_t)g->shape[g->ndim - 1], polled = 0;
    size_t batches = bias->per_batch && g->ndim >= 4 ? (size_t)g->shape[0] : 1;
    struct pe_bias_tile *tile = &s.tile;
    pe_bias_tile_begin(bias, true, queries, keys, tile);
    for (tile->batch = 0; tile->batch < batches; tile->batch++)
        for (tile->i = 0; tile->i < queries; tile->i += ROWS)
            for (tile->j = 0; tile->j < keys; tile->j += COLUMNS) {
                tile->rows = pe_min(ROWS, queries - tile->i), tile->columns = pe_min(COLUMNS, keys - tile->j);
                if (sum_tile(&s, poll, context, &polled)) return PE_STOPPED;
            }
    return PE_OK;
}
