/* Rows of cosines and sines: the one place where positions become angles.
 *
 * A row depends on its position and the frequencies alone, so nothing is cached: whoever needs rows asks for a tile of
 * them, which lies on the stack of the call, and turns everything of those positions before the next tile. A ready
 * table serves through the same struct; its rows are used where they lie unless they must be gathered or
 * negated.
 */
#include <math.h>
#include <string.h>

#include "rows.h"

size_t pe_tile_rows(enum pe_dtype dtype, size_t pairs) {
    size_t row = pe_min(pairs, PE_CHUNK_PAIRS) * pe_itemsize(dtype);
    return row ? pe_min(PE_TILE_ROWS, PE_TILE_BYTES / row) : PE_TILE_ROWS;
}

void pe_frequencies_seal(pe_frequencies *freq) {
    for (int axis = 0; axis < PE_MAX_AXES; axis++) freq->fastest[axis] = 0;
    for (size_t i = 0; i < freq->pairs; i++) {
        double *fastest = &freq->fastest[freq->axis_of_freq ? freq->axis_of_freq[i] : 0];
        if (fabs(freq->inv_freq[i]) > *fastest) *fastest = fabs(freq->inv_freq[i]);
    }
}

/* Pairs of one axis are made together where they stand in stretches as long as this, on average. */
enum { LONG_STRETCH = 8 };

/* where the stretch of pairs that begins at i ends, all on one axis */
static size_t stretch_end(const pe_frequencies *freq, size_t i, size_t end) {
    if (freq->axis_of_freq == NULL) return end;
    size_t k = i + 1;
    while (k < end && freq->axis_of_freq[k] == freq->axis_of_freq[i]) k++;
    return k;
}

static bool in_stretches(const pe_frequencies *freq, size_t first, size_t count) {
    size_t stretches = 0, end = first + count;
    for (size_t i = first; i < end; i = stretch_end(freq, i, end)) stretches++;
    return stretches == 1 || stretches * LONG_STRETCH <= count;
}

void pe_turns_begin(const struct pe_kernels *kernels, const pe_frequencies *freq, size_t rows, size_t first,
                    size_t count, enum pe_dtype dtype, struct pe_turns *turns) {
    const double times[PE_RUN_TURNS] = {1, 2, 3, 4, PE_RUN_STRIP};
    double scale = fabs(freq->scale);
    turns->ready = dtype == PE_F32 && rows >= PE_WORTH_TURNS && !freq->as_float32 && scale > 0x1p-60 &&
                   scale < 0x1p60 && in_stretches(freq, first, count);
    if (!turns->ready) return;
    ptrdiff_t step = (ptrdiff_t)(2 * count * sizeof *turns->turn);
    struct pe_sincos job = {.position = times,
                            .inv_freq = freq->inv_freq + first,
                            .scale = 1,
                            .cos = (char *)turns->turn,
                            .sin = (char *)(turns->turn + count),
                            .cos_step = step,
                            .sin_step = step,
                            .rows = PE_RUN_TURNS,
                            .pairs = count};
    kernels->sincos_f64(&job);
}

/* Whether positions go up by one, exactly: a fraction may be rounded where the sum passes a power of two, and is then not
 * what it was when the steps are taken away again. */
static bool count_up(enum pe_position_kind kind, const double *at, size_t n) {
    if (kind == PE_RANGE) return true;
    bool up = at[n - 1] == at[0] + (double)(n - 1);
    for (size_t i = 1; i < n && up; i += 32) { /* without a branch for each */
        for (size_t k = i; k < pe_min(n, i + 32); k++) up &= at[k] == at[0] + (double)k;
        if (kind == PE_FLOAT64)
            for (size_t k = i; k < pe_min(n, i + 32); k++) up &= at[k] - (double)k == at[0];
    }
    return up;
}

/* What makes rows and where they go: all pairs of a chunk from `first` on, n positions of a batch row from j on. */
struct making {
    const struct pe_kernels *kernels;
    const pe_frequencies *freq;
    const pe_positions *positions;
    const struct pe_turns *turns;
    const struct pe_row_target *to;
    pe_sincos_kernel *kernel;
    struct pe_sincos job;
    size_t batch, j, first;
};

/* Pairs i .. end, which share an axis: every row has one position. */
static void make_stretch(const struct making *make, size_t i, size_t end) {
    double at[PE_RUN_MOST];
    const struct pe_row_target *to = make->to;
    struct pe_sincos_run run = {.rows = make->job, .turn_step = make->job.pairs, .zipped = to->zipped};
    size_t n = run.rows.rows, skip = i * (to->wide ? sizeof(double) : to->zipped ? 2 * sizeof(float) : sizeof(float));
    int axis = make->freq->axis_of_freq ? make->freq->axis_of_freq[make->first + i] : 0;
    pe_load_positions(make->positions, axis, make->batch, make->j, n, at);
    for (size_t row = 0; row < n && make->freq->as_float32; row++) at[row] = (double)(float)at[row];
    run.rows.position = at, run.rows.inv_freq += i, run.rows.pairs = end - i;
    run.rows.cos += skip, run.rows.sin += skip;
    if (make->turns && make->turns->ready && n > PE_RUN_TURNS && count_up(make->positions->kind, at, n))
        run.turn = make->turns->turn + i, make->kernels->sincos_run(&run);
    else
        make->kernel(&run.rows);
}

/* Pairs whose axes go in turns: a position for each of them, row after row. */
static void make_mixed(const struct making *make) {
    double on[PE_MAX_AXES], each[PE_CHUNK_PAIRS];
    struct pe_sincos job = make->job;
    job.position = job.each = each, job.rows = 1;
    for (size_t row = 0; row < make->job.rows; row++) {
        for (int axis = 0; axis < make->freq->axes; axis++) {
            double p = pe_position(make->positions, axis, make->batch, make->j + row);
            on[axis] = job.as_float32 ? (double)(float)p : p;
        }
        for (size_t i = 0; i < job.pairs; i++) each[i] = on[make->freq->axis_of_freq[make->first + i]];
        make->kernel(&job);
        job.cos += job.cos_step, job.sin += job.sin_step;
    }
}

void pe_make_rows(const struct pe_kernels *kernels, const pe_frequencies *freq, const struct pe_turns *turns,
                  const pe_positions *positions, size_t batch, size_t j, size_t n, size_t first, size_t count,
                  const struct pe_row_target *to) {
    struct making make = {.kernels = kernels,
                          .freq = freq,
                          .positions = positions,
                          .turns = turns,
                          .to = to,
                          .job = {.inv_freq = freq->inv_freq + first,
                                  .scale = freq->as_float32 ? (double)(float)freq->scale : freq->scale,
                                  .as_float32 = freq->as_float32,
                                  .cos = to->cos,
                                  .sin = to->sin,
                                  .cos_step = to->cos_step,
                                  .sin_step = to->sin_step,
                                  .rows = n,
                                  .pairs = count},
                          .batch = batch,
                          .j = j,
                          .first = first};
    make.kernel = to->wide ? kernels->sincos_f64 : to->zipped ? kernels->sincos_zip : kernels->sincos_f32;
    if (!in_stretches(freq, first, count)) {
        make_mixed(&make);
        return;
    }
    for (size_t i = 0, end; i < count; i = end) {
        end = stretch_end(freq, first + i, first + count) - first;
        make_stretch(&make, i, end);
    }
}

static void widen_row(char *row, size_t count) { /* float32 at the start of a row of float64: from the end backwards */
    for (size_t i = count; i-- > 0;) {
        float narrow;
        memcpy(&narrow, row + i * sizeof narrow, sizeof narrow);
        double wide = (double)narrow;
        memcpy(row + i * sizeof wide, &wide, sizeof wide);
    }
}

/* count values of a ready table's row, negated */
static void gather_row(char *row, const char *source, ptrdiff_t pair_stride, size_t count, enum pe_dtype dtype,
                       bool negate) {
    for (size_t i = 0; i < count; i++, source += pair_stride) {
        if (dtype == PE_F64)
            ((double *)row)[i] = negate ? -*(const double *)source : *(const double *)source;
        else
            ((float *)row)[i] = negate ? -*(const float *)source : *(const float *)source;
    }
}

static size_t table_row(const pe_rows *rows, size_t batch, size_t j) {
    return rows->by_position ? (size_t)pe_int_position(&rows->positions, 0, batch, j) : j;
}

/* whether a single row can be used where it lies */
static bool lies_ready(const pe_rows *rows) {
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(rows->dtype);
    return !rows->freq && !rows->conjugate && rows->cos_pair == size && rows->sin_pair == size;
}

bool pe_rows_lie_ready(const pe_rows *rows) {
    return lies_ready(rows) && !rows->by_position && rows->cos_row == rows->sin_row;
}

/* the table's own memory where its rows can be used as they are */
static bool borrow_rows(const pe_rows *rows, size_t batch, size_t j, size_t n, size_t first, struct pe_tile *tile) {
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(rows->dtype);
    if (n > 1 ? !pe_rows_lie_ready(rows) : !lies_ready(rows)) return false;
    ptrdiff_t row = (ptrdiff_t)table_row(rows, batch, j), b = (ptrdiff_t)batch, skip = (ptrdiff_t)first * size;
    tile->cos = rows->cos + b * rows->cos_batch + row * rows->cos_row + skip;
    tile->sin = rows->sin + b * rows->sin_batch + row * rows->sin_row + skip;
    tile->step = rows->cos_row;
    return true;
}

void pe_tile_fill(const struct pe_kernels *kernels, const pe_rows *rows, const struct pe_turns *turns, size_t batch,
                  size_t j, size_t n, size_t first, size_t count, struct pe_tile *tile) {
    if (borrow_rows(rows, batch, j, n, first, tile)) return;
    ptrdiff_t step = (ptrdiff_t)(count * pe_itemsize(rows->dtype));
    bool widen = rows->freq && rows->freq->as_float32 && rows->dtype == PE_F64;
    tile->cos = tile->cos_rows, tile->sin = tile->sin_rows, tile->step = step;
    if (rows->freq) {
        struct pe_row_target to = {tile->cos_rows, tile->sin_rows, step, step, rows->dtype == PE_F64 && !widen, false};
        pe_make_rows(kernels, rows->freq, turns, &rows->positions, batch, j, n, first, count, &to);
    }
    for (size_t i = 0; i < n; i++) {
        char *cos = tile->cos_rows + (ptrdiff_t)i * step, *sin = tile->sin_rows + (ptrdiff_t)i * step;
        if (!rows->freq) {
            ptrdiff_t row = (ptrdiff_t)table_row(rows, batch, j + i), b = (ptrdiff_t)batch, skip = (ptrdiff_t)first;
            gather_row(cos, rows->cos + b * rows->cos_batch + row * rows->cos_row + skip * rows->cos_pair,
                       rows->cos_pair, count, rows->dtype, false);
            gather_row(sin, rows->sin + b * rows->sin_batch + row * rows->sin_row + skip * rows->sin_pair,
                       rows->sin_pair, count, rows->dtype, rows->conjugate);
        }
        if (widen) widen_row(cos, count), widen_row(sin, count);
    }
}

void pe_put_rows(const struct pe_kernels *kernels, const pe_view *out, size_t batch, size_t j, size_t n, size_t first,
                 size_t count, const char *rows, ptrdiff_t step, bool stream) {
    size_t size = pe_itemsize(out->dtype), bytes = count * size;
    char *to = out->data + (ptrdiff_t)batch * out->stride[0] + (ptrdiff_t)j * out->stride[1] +
               (ptrdiff_t)first * out->stride[2];
    bool contiguous = out->stride[2] == (ptrdiff_t)size;
    if (stream && contiguous && out->stride[1] == (ptrdiff_t)bytes && step == (ptrdiff_t)bytes) {
        kernels->stream(to, rows, n * bytes);
        return;
    }
    for (size_t i = 0; i < n; i++, to += out->stride[1], rows += step) {
        if (contiguous)
            memcpy(to, rows, bytes);
        else
            for (size_t k = 0; k < count; k++) memcpy(to + (ptrdiff_t)k * out->stride[2], rows + k * size, size);
    }
}

enum pe_status pe_table(const struct pe_kernels *kernels, const pe_frequencies *freq, const pe_positions *positions,
                        const pe_view *cos, const pe_view *sin, bool stream, pe_poll *poll, void *context) {
    struct pe_tile tile;
    size_t batch = (size_t)cos->shape[0], seq = (size_t)cos->shape[1], polled = 0;
    size_t size = pe_itemsize(cos->dtype);
    struct pe_turns turns;
    pe_rows rows = {.freq = freq, .positions = *positions, .dtype = cos->dtype, .pairs = freq->pairs};
    /* rows go straight to where they belong unless an output is strided, streamed, or float64 of float32 angles */
    bool direct = !stream && cos->stride[2] == (ptrdiff_t)size && sin->stride[2] == (ptrdiff_t)size &&
                  !(freq->as_float32 && cos->dtype == PE_F64);
    size_t tile_rows = direct ? PE_RUN_MOST : pe_tile_rows(cos->dtype, freq->pairs);
    for (size_t first = 0; first < freq->pairs; first += PE_CHUNK_PAIRS) {
        size_t count = pe_min(PE_CHUNK_PAIRS, freq->pairs - first);
        if (direct) pe_turns_begin(kernels, freq, seq, first, count, cos->dtype, &turns);
        for (size_t b = 0; b < batch; b++)
            for (size_t j = 0; j < seq; j += tile_rows) {
                size_t n = pe_min(tile_rows, seq - j);
                if (direct) {
                    ptrdiff_t skip = (ptrdiff_t)(first * size), bs = (ptrdiff_t)b, js = (ptrdiff_t)j;
                    struct pe_row_target to = {.cos = cos->data + bs * cos->stride[0] + js * cos->stride[1] + skip,
                                               .sin = sin->data + bs * sin->stride[0] + js * sin->stride[1] + skip,
                                               .cos_step = cos->stride[1],
                                               .sin_step = sin->stride[1],
                                               .wide = cos->dtype == PE_F64};
                    pe_make_rows(kernels, freq, &turns, positions, b, j, n, first, count, &to);
                } else {
                    pe_tile_fill(kernels, &rows, NULL, b, j, n, first, count, &tile);
                    pe_put_rows(kernels, cos, b, j, n, first, count, tile.cos, tile.step, stream);
                    pe_put_rows(kernels, sin, b, j, n, first, count, tile.sin, tile.step, stream);
                }
                if (pe_stop(poll, context, &polled, 2 * n * count * size)) {
                    if (stream) kernels->stream_end();
                    return PE_STOPPED;
                }
            }
    }
    if (stream) kernels->stream_end();
    return PE_OK;
}
