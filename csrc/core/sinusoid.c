/* Rows of sines and cosines in one: a table's, and those that an addition makes on its way.
 *
 * A row of up to 2*PE_CHUNK_PAIRS columns is made as it will lie, sines and cosines written where they belong. A wider one
 * is made in chunks of pairs, whose sines and cosines are segments of their own unless they come in turn. An odd row has a
 * column more, for the cosine that does not belong to it.
 */
#include <string.h>

#include "walk.h"

pe_arrangement pe_arrange(enum pe_order order, size_t dim, size_t pairs) {
    size_t second = pe_min(pairs, dim - pairs);
    if (order == PE_IN_TURN) return (pe_arrangement){dim, 0, pairs, 1, second, 2};
    if (order == PE_SIN_THEN_COS) return (pe_arrangement){dim, 0, pairs, pairs, second, 1};
    return (pe_arrangement){dim, pairs, second, 0, pairs, 1};
}

static bool is_whole(const pe_sinusoid *s) {
    return s->freq->pairs <= PE_CHUNK_PAIRS;
}

static size_t whole_columns(const pe_sinusoid *s) {
    size_t made = 2 * s->freq->pairs;
    return made > s->how.dim ? made : s->how.dim;
}

size_t pe_sinusoid_tile_rows(const pe_sinusoid *s) {
    size_t columns = is_whole(s) ? whole_columns(s) : 2 * PE_CHUNK_PAIRS + 1;
    return pe_min(PE_TILE_ROWS, 2 * PE_TILE_BYTES / (columns * pe_itemsize(s->dtype)));
}

/* Where a chunk lies in the tile: a row of `columns`, sines from sin_at on, cosines from cos_at on. */
struct place {
    size_t columns, sin_at, cos_at;
};

static struct place place_chunk(const pe_sinusoid *s, size_t count) {
    const pe_arrangement *how = &s->how;
    if (is_whole(s)) return (struct place){whole_columns(s), how->sin_at, how->cos_at};
    if (how->step == 2) return (struct place){2 * count, 0, 1};
    return (struct place){2 * count, 0, count};
}

/* The kernels write float32 rows in any arrangement, and float64 ones of sines then cosines. */
static bool kernels_can(const pe_sinusoid *s) {
    return s->dtype == PE_F32 || (!s->freq->as_float32 && s->how.step == 1);
}

static void make_chunk(const struct pe_kernels *kernels, const pe_sinusoid *s, const pe_positions *positions,
                       size_t batch, size_t j, size_t n, size_t first, size_t count, const struct place *place,
                       struct pe_sinusoid_tile *tile) {
    size_t size = pe_itemsize(s->dtype);
    ptrdiff_t step = (ptrdiff_t)(place->columns * size), element = (ptrdiff_t)(s->how.step * size);
    char *sin = tile->rows + place->sin_at * size, *cos = tile->rows + place->cos_at * size;
    if (kernels_can(s)) {
        struct pe_row_target to = {cos, sin, step, step, s->dtype == PE_F64, s->how.step == 2};
        pe_make_rows(kernels, s->freq, NULL, positions, batch, j, n, first, count, &to);
        return;
    }
    pe_rows rows = {.freq = s->freq, .positions = *positions, .pairs = s->freq->pairs, .dtype = s->dtype};
    size_t at_once = pe_tile_rows(s->dtype, count);
    for (size_t done = 0; done < n; done += at_once) {
        size_t part = pe_min(at_once, n - done);
        pe_tile_fill(kernels, &rows, NULL, batch, j + done, part, first, count, &tile->pairs);
        for (size_t i = 0; i < part; i++, sin += step, cos += step) {
            const struct pe_tile *made = &tile->pairs;
            pe_move_elements(sin, element, made->sin + (ptrdiff_t)i * made->step, (ptrdiff_t)size, count, size);
            pe_move_elements(cos, element, made->cos + (ptrdiff_t)i * made->step, (ptrdiff_t)size, count, size);
        }
    }
}

static const double zero;

int pe_sinusoid_fill(const struct pe_kernels *kernels, const pe_sinusoid *s, const pe_positions *positions,
                     size_t batch, size_t j, size_t n, size_t first, size_t count, struct pe_sinusoid_tile *tile) {
    const pe_arrangement *how = &s->how;
    size_t size = pe_itemsize(s->dtype);
    struct place place = place_chunk(s, count);
    struct pe_segment *segments = tile->segments, rest = {(const char *)&zero, 0, how->sines + how->cosines, 0};
    ptrdiff_t step = (ptrdiff_t)(place.columns * size);
    int found = 0;
    make_chunk(kernels, s, positions, batch, j, n, first, count, &place, tile);
    if (first + count == s->freq->pairs) rest.count = how->dim - rest.first;
    if (is_whole(s)) {
        for (size_t i = 0; rest.count && i < n; i++)
            memset(tile->rows + (i + 1) * place.columns * size - size, 0, size);
        segments[0] = (struct pe_segment){tile->rows, step, 0, how->dim};
        return 1;
    }
    if (how->step == 2) {
        segments[found++] = (struct pe_segment){tile->rows, step, 2 * first, pe_min(2 * count, how->dim - 2 * first)};
    } else {
        size_t sines = first < how->sines ? pe_min(count, how->sines - first) : 0;
        size_t cosines = first < how->cosines ? pe_min(count, how->cosines - first) : 0;
        segments[found++] = (struct pe_segment){tile->rows, step, how->sin_at + first, sines};
        segments[found++] = (struct pe_segment){tile->rows + count * size, step, how->cos_at + first, cosines};
    }
    if (rest.count) segments[found++] = rest;
    return found;
}

/* ---- tables ---- */

/* rows straight to where they belong */
static void make_in_place(const struct pe_kernels *kernels, const pe_sinusoid *s, const struct pe_turns *turns,
                          const pe_positions *positions, const pe_view *out, size_t batch, size_t j, size_t n,
                          size_t first, size_t count) {
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(s->dtype), skip = (ptrdiff_t)(first * s->how.step) * size;
    char *row = out->data + (ptrdiff_t)batch * out->stride[0] + (ptrdiff_t)j * out->stride[1] + skip;
    struct pe_row_target to = {.sin = row + (ptrdiff_t)s->how.sin_at * size,
                               .cos = row + (ptrdiff_t)s->how.cos_at * size,
                               .sin_step = out->stride[1],
                               .cos_step = out->stride[1],
                               .wide = s->dtype == PE_F64,
                               .zipped = s->how.step == 2};
    pe_make_rows(kernels, s->freq, turns, positions, batch, j, n, first, count, &to);
}

static void zero_row(const pe_view *out, size_t batch, size_t j, size_t first) {
    char *row = out->data + (ptrdiff_t)batch * out->stride[0] + (ptrdiff_t)j * out->stride[1];
    for (size_t i = first; i < (size_t)out->shape[2]; i++)
        memset(row + (ptrdiff_t)i * out->stride[2], 0, pe_itemsize(out->dtype));
}

/* the column that has neither sine nor cosine, and the rows of the position that is skipped */
static void put_zeros(const pe_sinusoid *s, const pe_positions *positions, const int64_t *skipped, const pe_view *out) {
    size_t columns = s->how.sines + s->how.cosines;
    if (columns == s->how.dim && skipped == NULL) return;
    for (size_t b = 0; b < (size_t)out->shape[0]; b++)
        for (size_t j = 0; j < (size_t)out->shape[1]; j++) {
            bool whole = skipped && pe_position(positions, 0, b, j) == (double)*skipped;
            zero_row(out, b, j, whole ? 0 : columns);
        }
}

enum pe_status pe_sinusoid_table(const struct pe_kernels *kernels, const pe_sinusoid *s, const pe_positions *positions,
                                 const int64_t *skipped, const pe_view *out, bool stream, pe_poll *poll,
                                 void *context) {
    struct pe_sinusoid_tile tile;
    size_t polled = 0, size = pe_itemsize(s->dtype), seq = (size_t)out->shape[1], pairs = s->freq->pairs;
    bool direct = !stream && out->stride[2] == (ptrdiff_t)size && s->how.sines == s->how.cosines && kernels_can(s);
    size_t tile_rows = direct ? PE_RUN_MOST : pe_sinusoid_tile_rows(s);
    struct pe_turns turns; /* for one chunk */
    turns.ready = false;
    if (direct && is_whole(s)) pe_turns_begin(kernels, s->freq, seq, 0, pairs, s->dtype, &turns);
    for (size_t b = 0; b < (size_t)out->shape[0]; b++)
        for (size_t j = 0; j < seq; j += tile_rows) {
            size_t n = pe_min(tile_rows, seq - j);
            for (size_t first = 0; first < pairs; first += PE_CHUNK_PAIRS) {
                size_t count = pe_min(PE_CHUNK_PAIRS, pairs - first);
                if (direct) {
                    make_in_place(kernels, s, &turns, positions, out, b, j, n, first, count);
                    continue;
                }
                int found = pe_sinusoid_fill(kernels, s, positions, b, j, n, first, count, &tile);
                for (const struct pe_segment *part = tile.segments; part < tile.segments + found; part++)
                    pe_put_rows(kernels, out, b, j, n, part->first, part->count, part->rows, part->step, stream);
            }
            if (!pe_stop(poll, context, &polled, n * s->how.dim * size)) continue;
            if (stream) kernels->stream_end();
            return PE_STOPPED;
        }
    if (stream) kernels->stream_end();
    put_zeros(s, positions, skipped, out);
    return PE_OK;
}
