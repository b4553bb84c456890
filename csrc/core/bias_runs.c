/* Which keys a query sees, and which value belongs to which key.
 *
 * Positions that count up give a row of at most a few runs, which follow from a handful of bounds; listed positions are
 * looked at one by one, once for all heads.
 */
#include <math.h>

#include "../kernels/half.h"
#include "bias.h"
#include "rows.h"

double pe_load(const char *p, enum pe_dtype dtype) {
    switch (dtype) {
        case PE_F64: return *(const double *)p;
        case PE_F16: return (double)pe_float_from_f16(*(const uint16_t *)p);
        case PE_BF16: return (double)pe_float_from_bf16(*(const uint16_t *)p);
        default: return (double)*(const float *)p;
    }
}

bool pe_line_splits(const pe_line *line, size_t batch, size_t heads) {
    size_t n = (line->batch_step ? batch : 1) * heads;
    for (size_t i = 0; i < n; i++)
        if (line->slopes[2 * i] != line->slopes[2 * i + 1]) return true;
    return false;
}

/* ---- tiles ---- */

static bool is_counted(const pe_bias *bias) {
    return bias->query.kind == PE_RANGE && bias->key.kind == PE_RANGE;
}

void pe_bias_tile_begin(const pe_bias *bias, bool listed, size_t queries, size_t keys, struct pe_bias_tile *tile) {
    tile->batch = tile->i = tile->j = 0;
    tile->counted = is_counted(bias);
    listed |= !tile->counted;
    tile->columns = pe_min(keys, listed ? PE_LISTED_WIDTH : PE_COUNTED_WIDTH);
    tile->rows = pe_min(queries, listed && keys ? PE_LISTED / tile->columns : queries);
}

/* ---- runs ---- */

/* what becomes of a key at position k for a query at position p */
static enum pe_run_kind look(const pe_bias *bias, bool split, double p, double k) {
    const pe_mask *mask = &bias->mask;
    if (k > p && mask->causal != PE_SEE_LATER) return mask->causal == PE_MASK_LATER ? PE_RUN_MASK : PE_RUN_SKIP;
    if (k - p > mask->right || (p - k > mask->left && k >= mask->sinks)) return PE_RUN_MASK;
    return split && (bias->line->of_key ? k : k - p) < 0 ? PE_RUN_LOW : PE_RUN_HIGH;
}

void pe_bias_list_runs(const pe_bias *bias, bool split, struct pe_bias_tile *tile) {
    size_t n = 0;
    for (size_t row = 0; row < tile->rows; row++) {
        double p = pe_position(&bias->query, 0, tile->batch, tile->i + row);
        tile->first[row] = (uint16_t)n;
        for (size_t c = 0; c < tile->columns; c++) {
            uint32_t kind = look(bias, split, p, pe_position(&bias->key, 0, tile->batch, tile->j + c));
            if (n == tile->first[row] || tile->runs[n - 1].kind != kind) tile->runs[n++].kind = kind;
            tile->runs[n - 1].end = (uint32_t)(c + 1);
        }
    }
    tile->first[tile->rows] = (uint16_t)n;
}

static double nearer(double bound, double k, double next) {
    return bound > k && bound < next ? bound : next;
}

/* from one bound to the next of those at which the answer may change */
static size_t counted_runs(const pe_bias *bias, bool split, double p, double k, size_t columns, struct pe_seen *runs) {
    const pe_mask *mask = &bias->mask;
    double start = k, end = k + (double)columns;
    size_t n = 0;
    while (k < end) {
        double next = end;
        if (mask->causal != PE_SEE_LATER) next = nearer(p + 1, k, next);
        next = nearer(p + mask->right + 1, k, next);
        next = nearer(p - mask->left, k, next);
        if (mask->sinks > 0) next = nearer(mask->sinks, k, next);
        if (split) next = nearer(bias->line->of_key ? 0 : p, k, next);
        uint32_t kind = look(bias, split, p, k);
        if (n == 0 || runs[n - 1].kind != kind) runs[n++].kind = kind;
        runs[n - 1].end = (uint32_t)(next - start);
        k = next;
    }
    return n;
}

size_t pe_bias_runs(const pe_bias *bias, bool split, const struct pe_bias_tile *tile, size_t row, struct pe_seen *local,
                    const struct pe_seen **runs) {
    if (tile->counted) {
        double p = pe_position(&bias->query, 0, tile->batch, tile->i + row);
        double k = pe_position(&bias->key, 0, tile->batch, tile->j);
        *runs = local;
        return counted_runs(bias, split, p, k, tile->columns, local);
    }
    *runs = tile->runs + tile->first[row];
    return tile->first[row + 1] - tile->first[row];
}

/* ---- values ---- */

double pe_bias_measure(const pe_bias *bias, const struct pe_bias_tile *tile, size_t row, size_t column) {
    double k = pe_position(&bias->key, 0, tile->batch, tile->j + column);
    return bias->line->of_key ? k : k - pe_position(&bias->query, 0, tile->batch, tile->i + row);
}

int64_t pe_bias_distance(const pe_bias *bias, const struct pe_bias_tile *tile, size_t row, size_t column) {
    double k = pe_position(&bias->key, 0, tile->batch, tile->j + column);
    return (int64_t)(k - pe_position(&bias->query, 0, tile->batch, tile->i + row));
}

void pe_bias_indices(const pe_bias *bias, const struct pe_bias_tile *tile, size_t row, int32_t *n) {
    const pe_lookup *lookup = bias->lookup;
    if (lookup->matrix) {
        const char *at = lookup->matrix + (ptrdiff_t)(tile->i + row) * lookup->matrix_query +
                         (ptrdiff_t)tile->j * lookup->matrix_key;
        for (size_t c = 0; c < tile->columns; c++, at += lookup->matrix_key) n[c] = *(const int32_t *)at;
        return;
    }
    double p = pe_position(&bias->query, 0, tile->batch, tile->i + row);
    for (size_t c = 0; c < tile->columns; c++) {
        int64_t u = (int64_t)(pe_position(&bias->key, 0, tile->batch, tile->j + c) - p);
        if (u < lookup->low) u = lookup->low;
        if (u > lookup->high) u = lookup->high;
        n[c] = lookup->index[u - lookup->low];
    }
}

/* ---- places ---- */

static int first_axis(const pe_view *y, bool per_batch) {
    return per_batch && y->ndim >= 4 ? 1 : 0;
}

static void tell_batch_and_head(const pe_view *y, struct pe_place *place) {
    if (y->ndim >= 4) place->batch = place->index[0];
    if (y->ndim >= 3) place->head = place->index[y->ndim - 3];
}

void pe_place_begin(const pe_view *x, const pe_view *y, bool per_batch, size_t batch, struct pe_place *place) {
    place->x = x ? x->data : NULL;
    place->y = y ? y->data : NULL;
    const pe_view *shape = y ? y : x;
    place->batch = place->head = 0;
    for (int i = 0; i < shape->ndim; i++) place->index[i] = 0;
    if (first_axis(shape, per_batch)) {
        place->index[0] = batch;
        if (x) place->x += (ptrdiff_t)batch * x->stride[0];
        if (y) place->y += (ptrdiff_t)batch * y->stride[0];
    }
    tell_batch_and_head(shape, place);
}

bool pe_place_next(const pe_view *x, const pe_view *y, bool per_batch, struct pe_place *place) {
    const pe_view *shape = y ? y : x;
    for (int i = shape->ndim - 3; i >= first_axis(shape, per_batch); i--) {
        ptrdiff_t n = shape->shape[i];
        bool more = (ptrdiff_t)++place->index[i] < n;
        ptrdiff_t step = more ? 1 : 1 - n;
        if (x) place->x += step * x->stride[i];
        if (y) place->y += step * y->stride[i];
        if (!more) place->index[i] = 0;
        if (more) {
            tell_batch_and_head(shape, place);
            return true;
        }
    }
    return false;
}

char *pe_place_row(const pe_view *v, const struct pe_place *place, size_t row) {
    char *p = v->data + (ptrdiff_t)row * v->stride[v->ndim - 2];
    for (int i = 0; i < v->ndim - 2; i++) p += (ptrdiff_t)place->index[i] * v->stride[i];
    return p;
}
