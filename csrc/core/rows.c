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

static int64_t load_int(const pe_positions *p, const char *at) {
    if (p->kind == PE_INT32) return *(const int32_t *)at;
    return *(const int64_t *)at;
}

static const char *position_address(const pe_positions *p, int axis, size_t batch, size_t j) {
    return p->data + axis * p->axis_stride + (ptrdiff_t)batch * p->batch_stride + (ptrdiff_t)j * p->stride;
}

int64_t pe_int_position(const pe_positions *p, int axis, size_t batch, size_t j) {
    int64_t value = load_int(p, position_address(p, axis, batch, j));
    return p->kind == PE_RANGE ? value + p->from + (int64_t)j : value;
}

double pe_position(const pe_positions *p, int axis, size_t batch, size_t j) {
    if (p->kind == PE_FLOAT64) return *(const double *)position_address(p, axis, batch, j);
    return (double)pe_int_position(p, axis, batch, j);
}

void pe_frequencies_seal(pe_frequencies *freq) {
    for (int axis = 0; axis < PE_MAX_AXES; axis++) freq->fastest[axis] = 0;
    for (size_t i = 0; i < freq->pairs; i++) {
        double *fastest = &freq->fastest[freq->axis_of_freq ? freq->axis_of_freq[i] : 0];
        if (fabs(freq->inv_freq[i]) > *fastest) *fastest = fabs(freq->inv_freq[i]);
    }
}

/* ---- checks ---- */

enum { CHECK_AT_ONCE = 1 << 17 }; /* a MiB of int64 or float64 positions */

/* A range is checked by its start and its length, which also keeps its sums from overflowing. */
static size_t read_of_a_row(const pe_positions *positions, size_t seq) {
    return positions->kind == PE_RANGE ? pe_min(seq, 1) : seq;
}

size_t pe_positions_read(const pe_positions *positions, int axes, size_t batch, size_t seq) {
    return (size_t)axes * batch * read_of_a_row(positions, seq);
}

/* What stays the same from part to part of a check. */
struct check {
    const pe_positions *positions;
    size_t seq;
    double fastest; /* on this axis, and at least 1: |position| itself is bounded too */
    int64_t rows;   /* of the table */
    const int64_t *skipped;
    int64_t *bad;
};
typedef enum pe_status check_part(const struct check *check, int axis, size_t batch, size_t j, size_t n);

static enum pe_status check_angles(const struct check *check, int axis, size_t batch, size_t j, size_t n) {
    const double limit = 2147483648.0;
    if (check->positions->kind == PE_RANGE) {
        double start = (double)load_int(check->positions, position_address(check->positions, axis, batch, 0));
        double end = start + (double)(check->seq - 1);
        return fabs(start) * check->fastest < limit && fabs(end) * check->fastest < limit ? PE_OK : PE_POSITION;
    }
    double largest = 0;
    for (; n > 0; n--, j++) {
        double p = fabs(pe_position(check->positions, axis, batch, j));
        largest = p <= largest ? largest : p; /* a NaN stays */
        if (!(largest * check->fastest < limit)) return PE_POSITION;
    }
    return PE_OK;
}

static enum pe_status check_rows(const struct check *check, int axis, size_t batch, size_t j, size_t n) {
    bool range = check->positions->kind == PE_RANGE;
    for (; n > 0; n--, j++) {
        int64_t row = load_int(check->positions, position_address(check->positions, axis, batch, j));
        if (range && row >= 0 && row < check->rows && (int64_t)check->seq > check->rows - row) row = check->rows;
        if (row < 0 || row >= check->rows) {
            if (check->skipped && !range && row == *check->skipped) continue;
            *check->bad = row;
            return PE_OUT_OF_TABLE;
        }
    }
    return PE_OK;
}

/* the check of one axis, in parts between which it may stop */
static enum pe_status check_axis(const struct check *check, check_part *part, int axis, size_t batch, size_t *polled,
                                 pe_poll *poll, void *context) {
    size_t each = read_of_a_row(check->positions, check->seq);
    for (size_t b = 0; b < batch; b++)
        for (size_t j = 0; j < each; j += CHECK_AT_ONCE) {
            size_t n = pe_min(CHECK_AT_ONCE, each - j);
            enum pe_status status = part(check, axis, b, j, n);
            if (status != PE_OK) return status;
            *polled += n;
            if (poll == NULL || *polled < CHECK_AT_ONCE) continue;
            *polled = 0;
            if (poll(context)) return PE_STOPPED;
        }
    return PE_OK;
}

enum pe_status pe_check_positions(const pe_frequencies *freq, const pe_positions *positions, size_t batch, size_t seq,
                                  pe_poll *poll, void *context) {
    struct check check = {.positions = positions, .seq = seq};
    size_t polled = 0;
    enum pe_status status = PE_OK;
    for (int axis = 0; axis < freq->axes && status == PE_OK; axis++) {
        check.fastest = freq->fastest[axis] > 1 ? freq->fastest[axis] : 1;
        status = check_axis(&check, check_angles, axis, batch, &polled, poll, context);
    }
    return status;
}

enum pe_status pe_check_rows(const pe_positions *positions, size_t batch, size_t seq, size_t table_rows,
                             const int64_t *skipped, int64_t *bad, pe_poll *poll, void *context) {
    struct check check = {
        .positions = positions, .seq = seq, .rows = (int64_t)table_rows, .skipped = skipped, .bad = bad};
    size_t polled = 0;
    return check_axis(&check, check_rows, 0, batch, &polled, poll, context);
}

/* ---- rows ---- */

void pe_turns_begin(const struct pe_kernels *kernels, const pe_frequencies *freq, size_t rows, size_t first,
                    size_t count, enum pe_dtype dtype, struct pe_turns *turns) {
    const double times[PE_RUN_TURNS] = {1, 2, 3, 4};
    double scale = fabs(freq->scale);
    turns->ready = dtype == PE_F32 && rows >= PE_WORTH_TURNS && !freq->axis_of_freq && !freq->as_float32 &&
                   scale > 0x1p-60 && scale < 0x1p60;
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
    for (size_t i = 1; i < n; i++)
        if (at[i] != at[0] + (double)i) return false;
    for (size_t i = 1; i < n && kind == PE_FLOAT64; i++)
        if (at[i] - (double)i != at[0]) return false;
    return true;
}

void pe_make_rows(const struct pe_kernels *kernels, const pe_frequencies *freq, const struct pe_turns *turns,
                  const pe_positions *positions, size_t batch, size_t j, size_t n, size_t first, size_t count,
                  const struct pe_row_target *to) {
    double at[PE_TILE_ROWS], each[PE_CHUNK_PAIRS];
    struct pe_sincos job = {.position = at,
                            .inv_freq = freq->inv_freq + first,
                            .scale = freq->as_float32 ? (double)(float)freq->scale : freq->scale,
                            .as_float32 = freq->as_float32,
                            .cos = to->cos,
                            .sin = to->sin,
                            .cos_step = to->cos_step,
                            .sin_step = to->sin_step,
                            .rows = n,
                            .pairs = count};
    pe_sincos_kernel *kernel = to->wide ? kernels->sincos_f64 : to->zipped ? kernels->sincos_zip : kernels->sincos_f32;
    if (freq->axis_of_freq == NULL) {
        for (size_t row = 0; row < n; row++) {
            double p = pe_position(positions, 0, batch, j + row);
            at[row] = freq->as_float32 ? (double)(float)p : p;
        }
        struct pe_sincos_run run = {.rows = job, .turn_step = count, .zipped = to->zipped};
        if (turns && turns->ready && n > PE_RUN_TURNS && count_up(positions->kind, at, n))
            run.turn = turns->turn, kernels->sincos_run(&run);
        else
            kernel(&job);
        return;
    }
    job.each = each, job.rows = 1;
    for (size_t row = 0; row < n; row++) {
        for (size_t i = 0; i < count; i++) {
            double p = pe_position(positions, freq->axis_of_freq[first + i], batch, j + row);
            each[i] = freq->as_float32 ? (double)(float)p : p;
        }
        kernel(&job);
        job.cos += to->cos_step, job.sin += to->sin_step;
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
    size_t tile_rows = direct ? PE_TILE_ROWS : pe_tile_rows(cos->dtype, freq->pairs);
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
