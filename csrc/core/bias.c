/* The driver of biases: rows of scores, each run of keys with its term, and nothing of the scores' size anywhere.
 *
 * A term is a line of an integer that counts up (computed in registers), or a row of values or indices that lies on the
 * stack of the call. Rows whose values depend on key - query alone are windows on one diagonal vector of a head, each
 * one element before the last one's. Everything else is made for a tile of queries and keys, once for all heads that
 * share it. A bias without scores is the same sum, with a row of zeros.
 */
#include <math.h>
#include <string.h>

#include "bias_call.h"
#include "walk.h"

enum { POLL_BYTES = 1 << 20, GAP_BYTES = 16384, ROWS_AHEAD = 3, SHORT_BYTES = 2048 };

/* The term of a row, at the tile's first column. */
struct term {
    double slope[2];
    int32_t first;
    const char *values;
    const int32_t *index;
};

/* ---- what all heads share ---- */

static void put_value(const struct pe_bias_call *c, char *row, size_t column, double value) {
    if (c->dtype == PE_F64)
        ((double *)(void *)row)[column] = value;
    else
        ((float *)(void *)row)[column] = (float)value;
}

static void fill_tile(struct pe_bias_call *c) {
    struct pe_bias_tile *tile = &c->tile;
    const pe_lookup *l = c->bias->lookup;
    if (!tile->counted) pe_bias_list_runs(c->bias, c->split, tile);
    for (size_t row = 0; row < tile->rows; row++) {
        if (c->method == LINE_LISTED) {
            char *to = c->values + row * tile->columns * c->value_size;
            for (size_t k = 0; k < tile->columns; k++)
                put_value(c, to, k, fabs(pe_bias_measure(c->bias, tile, row, k)));
        } else if (c->method == GATHERED || c->method == LISTED) {
            int32_t *n = (int32_t *)(void *)c->values + row * tile->columns;
            pe_bias_indices(c->bias, tile, row, n);
            if (c->method == LISTED) continue;
            int32_t step = (int32_t)(l->step / (ptrdiff_t)c->value_size);
            int32_t key = (int32_t)(l->key / (ptrdiff_t)c->value_size);
            for (size_t k = 0; k < tile->columns; k++) n[k] = n[k] * step + (int32_t)(tile->j + k) * key;
        }
    }
}

/* ---- what a head has of its own ---- */

static const char *lookup_base(const pe_lookup *l, const struct pe_place *place) {
    return l->data + (ptrdiff_t)place->batch * l->batch + (ptrdiff_t)place->head * l->head;
}

/* values of every key - query of the tile, smallest first */
static void fill_diagonal(struct pe_bias_call *c, const struct pe_place *place) {
    const pe_lookup *l = c->bias->lookup;
    const struct pe_bias_tile *tile = &c->tile;
    const char *base = lookup_base(l, place);
    double p = pe_position(&c->bias->query, 0, tile->batch, tile->i + tile->rows - 1);
    int64_t u = (int64_t)(pe_position(&c->bias->key, 0, tile->batch, tile->j) - p);
    for (size_t k = 0; k < tile->rows + tile->columns - 1; k++, u++) {
        int64_t clamped = u < l->low ? l->low : u > l->high ? l->high : u;
        put_value(c, c->values, k, pe_load(base + l->index[clamped - l->low] * l->step, l->dtype));
    }
}

static void fill_row(struct pe_bias_call *c, const struct pe_place *place, size_t row) {
    const pe_lookup *l = c->bias->lookup;
    const int32_t *n = (const int32_t *)(const void *)c->values + row * c->tile.columns;
    const char *base = lookup_base(l, place) + (ptrdiff_t)(c->tile.i + row) * l->query + (ptrdiff_t)c->tile.j * l->key;
    for (size_t k = 0; k < c->tile.columns; k++, base += l->key)
        put_value(c, c->row_values, k, pe_load(base + n[k] * l->step, l->dtype));
}

static const char *picked_row(struct pe_bias_call *c, const struct pe_place *place, size_t row) {
    float *values = (float *)(void *)c->row_values;
    return (const char *)pe_picks_values(c->kernels, c->bias, &c->tile, place, c->picks, row, values);
}

static struct term row_term(struct pe_bias_call *c, const struct pe_place *place, size_t row) {
    struct term term = {.first = 0};
    const pe_bias *bias = c->bias;
    const struct pe_bias_tile *tile = &c->tile;
    size_t width = tile->columns * c->value_size;
    if (bias->line) {
        const double *slopes = bias->line->slopes + 2 * (place->batch * bias->line->batch_step + place->head);
        term.slope[0] = slopes[0], term.slope[1] = slopes[1];
    }
    switch (c->method) {
        case LINE: term.first = (int32_t)pe_bias_measure(bias, tile, row, 0); break;
        case LINE_LISTED: term.values = c->values + row * width; break;
        case DIAGONALS: term.values = c->values + (tile->rows - 1 - row) * c->value_size; break;
        case GATHERED:
            term.index = (const int32_t *)(const void *)c->values + row * tile->columns;
            term.values = lookup_base(bias->lookup, place) + (ptrdiff_t)(tile->i + row) * bias->lookup->query;
            break;
        case LISTED: fill_row(c, place, row), term.values = c->row_values; break;
        case RELATIVE: term.values = c->values + row * c->value_step * c->value_size; break;
        case PICKED: term.values = picked_row(c, place, row); break;
        default: break;
    }
    return term;
}

/* ---- runs ---- */

/* n elements that lie side by side, from column `at` of the tile on */
static void add_part(const struct pe_bias_call *c, const struct term *term, uint32_t kind, size_t at, const char *x,
                     char *y, size_t n) {
    double slope = term->slope[kind == PE_RUN_HIGH];
    if (kind == PE_RUN_SKIP && c->x == NULL) {
        memset(y, 0, n * c->size);
    } else if (c->method == NOTHING || kind == PE_RUN_SKIP) {
        memcpy(y, x, n * c->size);
    } else if (c->method == LINE) {
        struct pe_line_run run = {.x = x, .y = y, .slope = slope, .first = term->first + (int32_t)at, .n = n};
        c->kernels->line[c->dtype](&run);
    } else if (c->method == GATHERED) {
        struct pe_lookup_run run = {
            .x = x, .y = y, .t = term->values, .index = term->index + at, .scale = c->scale, .n = n};
        c->kernels->lookup[c->dtype](&run);
    } else {
        struct pe_add run = {.x = x,
                             .y = y,
                             .table = term->values + at * c->value_size,
                             .scale = c->bias->line ? slope : c->scale,
                             .rows = 1,
                             .together = 1,
                             .n = n};
        c->kernels->add[c->dtype](&run);
    }
}

/* -inf by plain stores, line by line, where scores are written in place: the line is read like those of seen keys, and
 * the hardware keeps one stream through the whole matrix. Stores past the caches, or what memcpy makes of thousands of
 * bytes, take three times as long between rows that are read. */
static void mask_run(const struct pe_bias_call *c, char *y, size_t n) {
    if (!c->y_plain) {
        pe_move_elements(y, c->y_key, c->infinite, 0, n, c->size);
        return;
    }
    bool stream = c->bias->stream && !c->in_place;
    size_t bytes = n * c->size, done = 0, at_once = stream ? PIECE_BYTES : MASK_BYTES;
    for (; done + at_once <= bytes; done += at_once) {
        if (stream)
            c->kernels->stream(y + done, c->infinite, PIECE_BYTES);
        else
            memcpy(y + done, c->infinite, MASK_BYTES);
    }
    memcpy(y + done, c->infinite, bytes - done);
}

/* Between rows that come from memory a short gap is fetched too: half as much as its rows take, and half of the time that
 * the hardware would need to find its stream again in the next row. Behind a short row it would be the most of what is
 * read: there the row that comes ROWS_AHEAD later is fetched, as much of it as is seen of this one. Into the first cache: it
 * is its misses that the hardware follows. Inlined, because a compiler takes a function that only fetches for one that does
 * nothing. */
PE_INLINE void pass_over(const struct pe_bias_call *c, const char *y, size_t seen, size_t gap) {
    if (!c->bias->stream || !c->y_plain || !c->in_place) return;
    bool is_short = seen <= SHORT_BYTES;
    if (!is_short && gap > GAP_BYTES) return;
    const char *from = is_short ? y - seen + ROWS_AHEAD * c->y_query : y;
    for (size_t i = 0, n = is_short ? seen : gap; i < n; i += 64) PE_PREFETCH(from + i);
}

static void see_run(struct pe_bias_call *c, const struct term *term, uint32_t kind, size_t at, const char *x, char *y,
                    size_t n) {
    bool stream = c->bias->stream && c->y_plain && !c->in_place;
    if ((c->method == NOTHING || kind == PE_RUN_SKIP) && c->in_place) return;
    if (c->x_plain && c->y_plain && !stream) {
        add_part(c, term, kind, at, x, y, n);
        return;
    }
    for (size_t most = PIECE_BYTES / c->size, i = 0; i < n; i += most) {
        size_t part = pe_min(most, n - i);
        const char *from = c->zeros;
        char *to = y + (ptrdiff_t)i * c->y_key;
        if (c->x) from = x + (ptrdiff_t)i * c->x_key;
        if (c->x && !c->x_plain) {
            pe_move_elements(c->stage, (ptrdiff_t)c->size, from, c->x_key, part, c->size);
            from = c->stage;
        }
        add_part(c, term, kind, at + i, from, c->y_plain && !stream ? to : c->stage, part);
        if (stream)
            c->kernels->stream(to, c->stage, part * c->size);
        else if (!c->y_plain)
            pe_move_elements(to, c->y_key, c->stage, (ptrdiff_t)c->size, part, c->size);
    }
}

static void do_row(struct pe_bias_call *c, const struct pe_place *place, size_t row) {
    const struct pe_bias_tile *tile = &c->tile;
    struct pe_seen local[PE_MOST_RUNS];
    const struct pe_seen *runs;
    size_t n = pe_bias_runs(c->bias, c->split, tile, row, local, &runs), at = 0;
    struct term term = row_term(c, place, row);
    ptrdiff_t i = (ptrdiff_t)(tile->i + row), j = (ptrdiff_t)tile->j;
    const char *x = c->x ? place->x + i * c->x_query + j * c->x_key : NULL;
    char *y = place->y + i * c->y_query + j * c->y_key;
    for (size_t r = 0; r < n; at = runs[r++].end) {
        char *to = y + (ptrdiff_t)at * c->y_key;
        const char *from = x ? x + (ptrdiff_t)at * c->x_key : NULL;
        if (runs[r].kind == PE_RUN_SKIP) pass_over(c, to, at * c->size, (runs[r].end - at) * c->size);
        if (runs[r].kind == PE_RUN_MASK)
            mask_run(c, to, runs[r].end - at);
        else
            see_run(c, &term, runs[r].kind, at, from, to, runs[r].end - at);
    }
}

/* ---- walking ---- */

static bool stop(struct pe_bias_call *c, size_t rows) {
    c->polled += rows * c->tile.columns * c->size;
    if (c->poll == NULL || c->polled < POLL_BYTES) return false;
    c->polled = 0;
    return c->poll(c->context);
}

/* Whether every key of the tile is seen: where the first and the last row see all, so do those between. */
static bool sees_all(const struct pe_bias_call *c) {
    struct pe_seen local[PE_MOST_RUNS];
    const struct pe_seen *runs;
    for (size_t end = 0; end < 2; end++) {
        size_t n = pe_bias_runs(c->bias, c->split, &c->tile, end * (c->tile.rows - 1), local, &runs);
        if (n != 1 || runs[0].kind != PE_RUN_HIGH) return false;
    }
    return true;
}

/* picked and added at once, without a row of values between */
static void add_picked(struct pe_bias_call *c, const struct pe_place *place, size_t row) {
    ptrdiff_t i = (ptrdiff_t)(c->tile.i + row), j = (ptrdiff_t)(c->tile.j * sizeof(float));
    pe_picks_add(c->kernels, c->bias, &c->tile, place, c->picks, row, place->x + i * c->x_query + j,
                 place->y + i * c->y_query + j);
}

static bool do_place(struct pe_bias_call *c, const struct pe_place *place) {
    bool at_once = c->method == PICKED && c->dtype == PE_F32 && c->x_plain && c->y_plain &&
                   (c->in_place || !c->bias->stream) && sees_all(c);
    if (c->method == DIAGONALS) fill_diagonal(c, place);
    if (c->method == RELATIVE) pe_relative_fill(c->kernels, c->bias, &c->tile, place, c->dtype == PE_F64, c->values);
    if (c->method == PICKED) pe_picks_tile(c->kernels, c->bias, &c->tile, place, c->picks);
    for (size_t row = 0; row < c->tile.rows; row++) {
        if (at_once)
            add_picked(c, place, row);
        else
            do_row(c, place, row);
        if (stop(c, 1)) return true;
    }
    return false;
}

/* the tile in every matrix */
static bool do_tile(struct pe_bias_call *c) {
    struct pe_place place;
    fill_tile(c);
    pe_place_begin(c->x, c->y, c->bias->per_batch, c->tile.batch, &place);
    do
        if (do_place(c, &place)) return true;
    while (pe_place_next(c->x, c->y, c->bias->per_batch, &place));
    return false;
}

/* Every tile of a matrix, or of all where place is NULL: along the keys, or along the queries where entries of keys are
 * read, which then stay in the caches. */
static bool do_tiles(struct pe_bias_call *c, const struct pe_place *place) {
    struct pe_bias_tile *tile = &c->tile;
    size_t across = (c->keys + c->columns - 1) / c->columns, down = (c->queries + c->rows - 1) / c->rows;
    for (size_t t = 0; t < across * down; t++) {
        tile->i = c->rows * (place ? t % down : t / across);
        tile->j = c->columns * (place ? t / down : t % across);
        tile->rows = pe_min(c->rows, c->queries - tile->i);
        tile->columns = pe_min(c->columns, c->keys - tile->j);
        if (place == NULL) {
            if (do_tile(c)) return true;
        } else {
            fill_tile(c);
            if (do_place(c, place)) return true;
        }
    }
    return false;
}

/* Values that each matrix has of its own are made matrix by matrix: neighbouring tiles read neighbouring entries. */
static bool do_all(struct pe_bias_call *c) {
    struct pe_place place;
    size_t batch = c->bias->per_batch && c->y->ndim >= 4 ? (size_t)c->y->shape[0] : 1;
    c->rows = c->tile.rows, c->columns = c->tile.columns;
    for (c->tile.batch = 0; c->tile.batch < batch; c->tile.batch++) {
        if (c->method != RELATIVE && c->method != PICKED) {
            if (do_tiles(c, NULL)) return true;
            continue;
        }
        pe_place_begin(c->x, c->y, c->bias->per_batch, c->tile.batch, &place);
        do
            if (do_tiles(c, &place)) return true;
        while (pe_place_next(c->x, c->y, c->bias->per_batch, &place));
    }
    return false;
}

static bool do_picked(void *call, struct pe_picks *picks) {
    struct pe_bias_call *c = call;
    c->picks = picks;
    pe_picks_begin(c->bias, c->y, &c->tile, picks);
    return do_all(c);
}

enum pe_status pe_add_bias(const struct pe_kernels *kernels, const pe_bias *bias, const pe_view *x, const pe_view *y,
                           pe_poll *poll, void *context) {
    struct pe_bias_call c;
    if (pe_elements(y) == 0) return PE_OK;
    pe_bias_plan(&c, kernels, bias, x, y);
    c.poll = poll, c.context = context, c.polled = 0;
    bool stopped = c.method == PICKED ? pe_with_picks(do_picked, &c) : do_all(&c);
    if (bias->stream) kernels->stream_end();
    return stopped ? PE_STOPPED : PE_OK;
}
