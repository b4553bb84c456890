/* A disentangled bias whose positions count up and whose index is smooth: rows of values from runs of neighbours.
 *
 * Far distances have one entry each way. There a row is the query's entry and, from key to key, what a list says that is
 * made once for all queries. Near ones are picked by permutations (pick.inc.h): those of the keys for a tile of queries at
 * once, which takes them as columns; then row by row, in the order in which the scores lie, because it is that one stream
 * through memory that takes most of the time, and the hardware follows it only if no row is left before its end.
 *
 * The kernels take entries side by side, float32 or halves; of other rows those that are met are copied first.
 */
#include <string.h>

#include "bias.h"
#include "walk.h"

enum {
    AROUND = 2 * PE_PICK_ROWS + 2 * PE_BLOCK, /* how much more of an index the kernels may read */
    MET = PE_PICK_ROWS + 2 * PE_BLOCK,        /* entries of a key that a tile's queries can meet, and more */
    FETCHED = 8192,                           /* of a shifted row; a fourth of it takes 1.07 times as long */
    FEW = 4                                   /* queries: fewer are not worth whole blocks */
};

void pe_floats(const struct pe_kernels *kernels, float *to, const char *from, ptrdiff_t step, size_t n,
               enum pe_dtype dtype) {
    if (dtype != PE_F64)
        pe_widen(kernels, (char *)to, PE_F32, from, step, dtype, n);
    else
        for (size_t i = 0; i < n; i++, from += step) to[i] = (float)*(const double *)(const void *)from;
}

/* ---- planning ---- */

/* the last distance, from `from` on in steps of `way`, that has the entry of `from` */
static int64_t plateau(const pe_disentangled *d, int64_t from, int64_t to, int64_t way) {
    while (from != to && d->index[from + way - d->low] == d->index[from - d->low]) from += way;
    return from;
}

static bool is_covered(const pe_bias *bias, const pe_view *y, struct pe_bias_tile *tile) {
    const pe_disentangled *d = bias->disentangled;
    size_t batch = bias->per_batch && y->ndim >= 4 ? (size_t)y->shape[0] : 1;
    size_t queries = (size_t)y->shape[y->ndim - 2], keys = (size_t)y->shape[y->ndim - 1];
    bool covered = true;
    tile->i = tile->j = 0;
    for (tile->batch = 0; tile->batch < batch; tile->batch++) {
        covered &= pe_bias_distance(bias, tile, queries - 1, 0) - AROUND >= d->low;
        covered &= pe_bias_distance(bias, tile, 0, keys - 1) + AROUND <= d->high;
    }
    tile->batch = 0;
    return covered;
}

bool pe_picks_possible(const pe_bias *bias, const pe_view *y, struct pe_bias_tile *tile) {
    const pe_disentangled *d = bias->disentangled;
    return d && d->smooth && tile->counted && y->dtype != PE_F64 && is_covered(bias, y, tile);
}

void pe_picks_begin(const pe_bias *bias, const pe_view *y, struct pe_bias_tile *tile, struct pe_picks *picks) {
    const pe_disentangled *d = bias->disentangled;
    picks->low = plateau(d, d->low, d->high, 1), picks->high = plateau(d, d->high, d->low, -1);
    if (picks->high <= picks->low) picks->high = picks->low + 1; /* one entry for all */
    picks->queries = (size_t)y->shape[y->ndim - 2];
    memset(picks->row, 0, PE_BLOCK * sizeof *picks->row);
    bool fits = !d->of_key || picks->high - picks->low + PE_PICK_ROWS + 2 * PE_BLOCK <= PE_PICK_NEAR;
    tile->rows = pe_min(picks->queries, PE_PICK_ROWS);
    tile->columns = pe_min((size_t)y->shape[y->ndim - 1], fits ? PE_PICK_COLUMNS : PE_PICK_NEAR);
}

/* ---- entries ---- */

static size_t length_of(const pe_view *v) {
    return (size_t)v->shape[v->ndim - 1];
}

static ptrdiff_t element_step(const pe_view *v) {
    return v->stride[v->ndim - 1];
}

/* whether kernels can read the rows where they lie */
static bool is_plain(const pe_view *v) {
    return v->dtype != PE_F64 && element_step(v) == (ptrdiff_t)pe_itemsize(v->dtype) && length_of(v) >= PE_BLOCK;
}

/* those of one row that a smooth index names */
static struct pe_entries copied(const struct pe_kernels *kernels, const pe_view *v, const char *row, int32_t from,
                                int32_t to, float *stage) {
    int32_t least = from < to ? from : to;
    size_t n = (size_t)(from + to - 2 * least) + 1;
    pe_floats(kernels, stage, row + least * element_step(v), element_step(v), n, v->dtype);
    return (struct pe_entries){.first = (const char *)stage, .count = n < PE_BLOCK ? PE_BLOCK : n, .least = least};
}

/* one entry of each key, index[0], index[step], .. */
static void take_each(const pe_view *v, const struct pe_place *place, size_t j, size_t n, const int32_t *index,
                      ptrdiff_t step, float *to) {
    const char *row = pe_place_row(v, place, j);
    for (size_t c = 0; c < n; c++, row += v->stride[v->ndim - 2], index += step)
        to[c] = (float)pe_load(row + *index * element_step(v), v->dtype);
}

/* ---- a tile ---- */

/* columns `begin` .. `end` of the keys' entries, from rows that kernels cannot read */
static void copy_down(const struct pe_kernels *kernels, const pe_view *v, const struct pe_place *place, size_t j,
                      struct pe_pick_down job) {
    PE_ALIGNED(64) float stage[PE_BLOCK * MET] = {0};
    size_t columns = job.columns;
    for (size_t c = 0; c < columns; c += PE_BLOCK, job.index -= PE_BLOCK, job.y += PE_BLOCK) {
        job.columns = pe_min(PE_BLOCK, columns - c);
        int32_t from = job.index[-PE_BLOCK], to = job.index[job.rows + PE_BLOCK - 1];
        for (size_t k = 0; k < job.columns; k++)
            copied(kernels, v, pe_place_row(v, place, j + c + k), from, to, stage + k * MET);
        job.of = (struct pe_entries){(const char *)stage, MET * sizeof(float), MET, from};
        kernels->pick_down[PE_F32](&job);
    }
}

static void pick_near(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                      const struct pe_place *place, struct pe_picks *picks) {
    const pe_view *v = bias->disentangled->of_key;
    size_t n = picks->end - picks->begin, j = tile->j + picks->begin;
    if (n == 0) return;
    if (tile->rows < FEW) {
        for (size_t r = 0; r < tile->rows; r++)
            take_each(v, place, j, n, picks->index + (ptrdiff_t)picks->begin - (ptrdiff_t)r, 1,
                      picks->near + r * PE_PICK_STEP);
        return;
    }
    struct pe_pick_down job = {.index = picks->reversed - (ptrdiff_t)picks->begin,
                               .y = picks->near,
                               .y_step = PE_PICK_STEP,
                               .rows = tile->rows,
                               .columns = n};
    if (!is_plain(v)) {
        copy_down(kernels, v, place, j, job);
        return;
    }
    job.of = (struct pe_entries){pe_place_row(v, place, j), v->stride[v->ndim - 2], length_of(v), 0};
    kernels->pick_down[v->dtype](&job);
}

/* from which column on distances of a row of the tile are above `u`, in whole blocks of what the tile has */
static size_t column_of(const struct pe_bias_tile *tile, int64_t u, size_t row, int64_t round) {
    int64_t column = (u + (int64_t)row + round) / PE_BLOCK * PE_BLOCK;
    return u + (int64_t)row < 0 ? 0 : pe_min((size_t)column, tile->columns);
}

static size_t near_begin(const struct pe_bias_tile *tile, const struct pe_picks *picks, size_t row) {
    return column_of(tile, picks->low + 1 - picks->u, row, 0);
}

static size_t near_end(const struct pe_bias_tile *tile, const struct pe_picks *picks, size_t row) {
    return column_of(tile, picks->high - picks->u, row, PE_BLOCK - 1);
}

void pe_picks_tile(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                   const struct pe_place *place, struct pe_picks *picks) {
    const pe_disentangled *d = bias->disentangled;
    picks->u = pe_bias_distance(bias, tile, 0, 0);
    picks->index = d->index + (picks->u - d->low), picks->reversed = d->reversed + (d->high - picks->u);
    picks->begin = near_begin(tile, picks, 0), picks->end = near_end(tile, picks, tile->rows - 1);
    if (d->of_key == NULL) return;
    if (tile->i == 0) { /* tiles come down the queries: what any of them will need */
        size_t below = near_begin(tile, picks, picks->queries - 1), above = near_end(tile, picks, 0);
        take_each(d->of_key, place, tile->j, below, d->index, 0, picks->far[0]);
        take_each(d->of_key, place, tile->j + above, tile->columns - above, d->index + (d->high - d->low), 0,
                  picks->far[1] + above);
    }
    pick_near(kernels, bias, tile, place, picks);
}

/* ---- a row ---- */

/* The row below begins where no stream of the hardware's goes on. */
PE_INLINE void fetch(const char *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) PE_PREFETCH2(from + i);
}

static void pick_run(const struct pe_kernels *kernels, const pe_view *v, struct pe_pick_across job, const char *row,
                     struct pe_picks *picks) {
    enum pe_dtype dtype = PE_F32;
    if (v && is_plain(v)) {
        job.of = (struct pe_entries){row, v->stride[v->ndim - 2], length_of(v), 0};
        dtype = v->dtype;
        int32_t from = job.index[0], to = job.index[job.n - 1], least = from < to ? from : to;
        size_t met = (size_t)(from + to - 2 * least), size = pe_itemsize(dtype);
        if (met) fetch(row + v->stride[v->ndim - 2] + (ptrdiff_t)((size_t)least * size), met * size);
    } else if (v) {
        job.of = copied(kernels, v, row, job.index[0], job.index[job.n + PE_BLOCK - 1], picks->row);
    }
    kernels->pick_across[dtype](&job);
}

/* the values of a row where neighbouring keys have neighbouring entries and no others: a shifted row */
static const float *values_there(const pe_bias *bias, const struct pe_bias_tile *tile, const struct pe_place *place,
                                 const struct pe_picks *picks, size_t row) {
    const pe_view *v = bias->disentangled->of_query;
    const int32_t *index = picks->index - (ptrdiff_t)row;
    if (bias->disentangled->of_key || v->dtype != PE_F32 || element_step(v) != sizeof(float)) return NULL;
    if (index[tile->columns - 1] - index[0] != (int64_t)tile->columns - 1) return NULL;
    return (const float *)(const void *)pe_place_row(v, place, tile->i + row) + index[0];
}

/* y = x + scale*value, or unscaled values where x is NULL */
static void pick_row(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                     const struct pe_place *place, struct pe_picks *picks, size_t row, const float *x, float *y) {
    const pe_disentangled *d = bias->disentangled;
    const char *entries = d->of_query ? pe_place_row(d->of_query, place, tile->i + row) : NULL;
    size_t at[] = {0, near_begin(tile, picks, row), near_end(tile, picks, row), tile->columns};
    const float *keys[] = {picks->far[0], picks->near + row * PE_PICK_STEP + (at[1] - picks->begin),
                           picks->far[1] + at[2]};
    for (size_t part = 0; part < 3; part++) {
        if (at[part] == at[part + 1]) continue;
        struct pe_pick_across job = {.index = picks->index + (ptrdiff_t)at[part] - (ptrdiff_t)row,
                                     .keys = d->of_key ? keys[part] : NULL,
                                     .x = x ? x + at[part] : NULL,
                                     .y = y + at[part],
                                     .scale = (float)d->scale,
                                     .n = at[part + 1] - at[part]};
        pick_run(kernels, d->of_query, job, entries, picks);
    }
}

const float *pe_picks_values(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                             const struct pe_place *place, struct pe_picks *picks, size_t row, float *values) {
    const float *there = values_there(bias, tile, place, picks, row);
    if (there == NULL) pick_row(kernels, bias, tile, place, picks, row, NULL, values);
    return there ? there : values;
}

void pe_picks_add(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                  const struct pe_place *place, struct pe_picks *picks, size_t row, const char *x, char *y) {
    const float *there = values_there(bias, tile, place, picks, row);
    if (there == NULL) {
        pick_row(kernels, bias, tile, place, picks, row, (const float *)(const void *)x, (float *)(void *)y);
        return;
    }
    int y_query = bias->disentangled->of_query->ndim - 2;
    struct pe_add run = {.x = x,
                         .y = y,
                         .table = (const char *)there,
                         .scale = bias->disentangled->scale,
                         .rows = 1,
                         .together = 1,
                         .n = tile->columns};
    const char *next = run.table + bias->disentangled->of_query->stride[y_query] - sizeof(float);
    fetch(next, pe_min(FETCHED, tile->columns * sizeof(float)));
    kernels->add[PE_F32](&run);
}

/* a frame of its own: other biases need no stack for it */
bool pe_with_picks(bool (*run)(void *call, struct pe_picks *picks), void *call) {
    struct pe_picks picks;
    return run(call, &picks);
}
