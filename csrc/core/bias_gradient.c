/* The gradients of biases: sums over scores, in float64, in an order that the shape alone decides.
 *
 * A line's slope gathers g * |u| in sixteen sums, element j of a run in sum j % 16, so that a compiler's vectors change
 * nothing. A lookup gathers g by its index.
 */
#include <math.h>
#include <string.h>

#include "bias.h"
#include "rows.h"

enum { LANES = 16, POLL_BYTES = 1 << 20 };

struct gradient {
    const pe_bias *bias;
    const pe_view *g;
    double *sums;
    bool split;
    pe_poll *poll;
    void *context;
    size_t polled;
    struct pe_bias_tile tile;
    double wide[PE_LISTED_WIDTH]; /* a row of g */
    int32_t n[PE_LISTED_WIDTH];
};

static void widen(double *to, const char *from, ptrdiff_t step, size_t n, enum pe_dtype dtype) {
    if (dtype == PE_F32 && step == 4)
        for (size_t j = 0; j < n; j++) to[j] = (double)((const float *)(const void *)from)[j];
    else
        for (size_t j = 0; j < n; j++) to[j] = pe_load(from + (ptrdiff_t)j * step, dtype);
}

/* sum of g[j] * |u + j| */
static double dot_counted(const double *g, double u, size_t n) {
    double lane[LANES] = {0}, sum = 0;
    size_t j = 0;
    for (; j + LANES <= n; j += LANES)
        for (size_t k = 0; k < LANES; k++) lane[k] += g[j + k] * fabs(u + (double)(j + k));
    for (size_t k = 0; j < n; j++, k++) lane[k] += g[j] * fabs(u + (double)j);
    for (size_t k = 0; k < LANES; k++) sum += lane[k];
    return sum;
}

static double dot_listed(const struct gradient *d, const double *g, size_t row, size_t at, size_t n) {
    double sum = 0;
    for (size_t j = 0; j < n; j++) sum += g[j] * fabs(pe_bias_measure(d->bias, &d->tile, row, at + j));
    return sum;
}

static void sum_run(struct gradient *d, const struct pe_place *place, size_t row, uint32_t kind, size_t at, size_t n) {
    const pe_bias *bias = d->bias;
    const double *g = d->wide + at;
    if (bias->line) {
        double *sum = d->sums + 2 * (place->batch * bias->line->batch_step + place->head) + (kind == PE_RUN_HIGH);
        *sum += d->tile.counted ? dot_counted(g, pe_bias_measure(bias, &d->tile, row, at), n)
                                : dot_listed(d, g, row, at, n);
    } else {
        double *sums = d->sums + place->head * bias->lookup->length;
        for (size_t j = 0; j < n; j++) sums[d->n[at + j]] += bias->lookup->scale * g[j];
    }
}

static void sum_row(struct gradient *d, const struct pe_place *place, size_t row) {
    const struct pe_bias_tile *tile = &d->tile;
    const pe_view *g = d->g;
    struct pe_seen local[PE_MOST_RUNS];
    const struct pe_seen *runs;
    size_t count = pe_bias_runs(d->bias, d->split, tile, row, local, &runs), at = 0;
    widen(d->wide,
          place->x + (ptrdiff_t)(tile->i + row) * g->stride[g->ndim - 2] + (ptrdiff_t)tile->j * g->stride[g->ndim - 1],
          g->shape[g->ndim - 1] == 1 ? (ptrdiff_t)pe_itemsize(g->dtype) : g->stride[g->ndim - 1], tile->columns,
          g->dtype);
    if (d->bias->lookup) pe_bias_indices(d->bias, tile, row, d->n);
    for (size_t r = 0; r < count; at = runs[r++].end)
        if (runs[r].kind >= PE_RUN_LOW) sum_run(d, place, row, runs[r].kind, at, runs[r].end - at);
}

static bool stop(struct gradient *d) {
    d->polled += d->tile.columns * pe_itemsize(d->g->dtype);
    if (d->poll == NULL || d->polled < POLL_BYTES) return false;
    d->polled = 0;
    return d->poll(d->context);
}

static bool sum_tile(struct gradient *d) {
    struct pe_place place;
    if (!d->tile.counted) pe_bias_list_runs(d->bias, d->split, &d->tile);
    pe_place_begin(d->g, NULL, d->bias->per_batch, d->tile.batch, &place);
    do
        for (size_t row = 0; row < d->tile.rows; row++) {
            sum_row(d, &place, row);
            if (stop(d)) return true;
        }
    while (pe_place_next(d->g, NULL, d->bias->per_batch, &place));
    return false;
}

enum pe_status pe_bias_gradient(const pe_bias *bias, const pe_view *g, double *sums, pe_poll *poll, void *context) {
    struct gradient d;
    if (pe_elements(g) == 0) return PE_OK;
    d.bias = bias, d.g = g, d.sums = sums, d.poll = poll, d.context = context, d.polled = 0;
    size_t batch = g->ndim >= 4 ? (size_t)g->shape[0] : 1, heads = g->ndim >= 3 ? (size_t)g->shape[g->ndim - 3] : 1;
    size_t queries = (size_t)g->shape[g->ndim - 2], keys = (size_t)g->shape[g->ndim - 1];
    d.split = bias->line && pe_line_splits(bias->line, batch, heads);
    pe_bias_tile_begin(bias, true, queries, keys, &d.tile);
    struct pe_bias_tile *tile = &d.tile;
    size_t rows = tile->rows, columns = tile->columns, batches = bias->per_batch && g->ndim >= 4 ? batch : 1;
    for (tile->batch = 0; tile->batch < batches; tile->batch++)
        for (tile->i = 0; tile->i < queries; tile->i += rows)
            for (tile->j = 0; tile->j < keys; tile->j += columns) {
                tile->rows = pe_min(rows, queries - tile->i), tile->columns = pe_min(columns, keys - tile->j);
                if (sum_tile(&d)) return PE_STOPPED;
            }
    return PE_OK;
}
