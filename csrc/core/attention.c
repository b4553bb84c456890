/* Sums over attention weights, by distance and by row, in one pass.
 *
 * Along a row the offset key - query grows with the key, so a row is added to a window of the sums that begins one place
 * further left with every query: a contiguous vector addition. Blocks of a row are gathered on the stack where its
 * elements do not lie side by side.
 */
#include <string.h>

#include "posenc.h"

/* AHEAD_BYTES: how far ahead rows are fetched, into the second cache, since the first one holds the sums. With it the pass
 * runs at the speed of a plain sum (float32, 2048 keys: 29 GB/s), without it or into the first cache at 20. */
enum { POLL_BYTES = 1 << 20, AHEAD_BYTES = 8192 };
#define LARGEST 0x1.fffffffffffffp+1023 /* finite float64 */

static void gather(char *to, const char *from, ptrdiff_t step, size_t n, size_t size) {
    for (size_t i = 0; i < n; i++) memcpy(to + i * size, from + (ptrdiff_t)i * step, size);
}

/* not below zero and finite; -0.0 is fine */
static bool is_weight(const struct pe_kernels *kernels, enum pe_dtype dtype, const char *x) {
    double place = 0.0, sums[2];
    kernels->tally[dtype](x, 1, &place, sums);
    return place >= 0.0 && place <= LARGEST;
}

/* the first key from `start` on, of n, that holds no weight; n where all do */
static size_t find_bad(const struct pe_kernels *kernels, const pe_view *map, const char *x, size_t n) {
    size_t i = 0;
    while (i < n && is_weight(kernels, map->dtype, x + (ptrdiff_t)i * map->stride[1])) i++;
    return i;
}

/* n keys from key j on, at x; false at a weight that is none, whose key *bad receives */
static bool tally_piece(const struct pe_kernels *kernels, const pe_view *map, const char *x, size_t j, size_t n,
                        ptrdiff_t ahead, double *by_offset, double *mass, double *side, size_t *bad) {
    PE_ALIGNED(64) char gathered[PE_TALLY_BLOCK * sizeof(double)];
    size_t size = pe_itemsize(map->dtype);
    const char *from = x + (ptrdiff_t)j * map->stride[1], *source = from;
    if (map->stride[1] != (ptrdiff_t)size)
        gather(gathered, from, map->stride[1], n, size), source = gathered;
    else
        for (size_t at = 0; at < n * size; at += 64) PE_PREFETCH2(from + ahead + (ptrdiff_t)at);
    double sums[2];
    int negative = kernels->tally[map->dtype](source, n, by_offset + j, sums);
    if (negative || !(sums[0] <= LARGEST)) {
        size_t at = find_bad(kernels, map, from, n);
        *bad = j + at;
        if (at < n) return false;
    }
    *mass += sums[0];
    side[0] += sums[0], side[1] += (double)j * sums[0] + sums[1];
    return true;
}

/* One row, `past` of whose keys do not lie behind the diagonal; a block across it is two pieces. */
static bool tally_row(const struct pe_kernels *kernels, const pe_view *map, const pe_tallying *to, size_t i,
                      size_t past, ptrdiff_t ahead, size_t *bad) {
    const char *x = map->data + (ptrdiff_t)i * map->stride[0];
    size_t queries = (size_t)map->shape[0], keys = (size_t)map->shape[1];
    double *by_offset = to->by_offset + (queries - 1 - i), *sides = to->sides[i];
    double *mass = to->mass + i * ((keys + to->width - 1) / to->width);
    memset(sides, 0, sizeof to->sides[i]);
    for (size_t j = 0; j < keys; j += to->width, mass++) {
        size_t end = keys - j < to->width ? keys : j + to->width, middle = past < j ? j : past < end ? past : end;
        *mass = 0.0;
        if (middle > j && !tally_piece(kernels, map, x, j, middle - j, ahead, by_offset, mass, sides, bad))
            return false;
        if (end > middle && !tally_piece(kernels, map, x, middle, end - middle, ahead, by_offset, mass, sides + 2, bad))
            return false;
    }
    return true;
}

/* keys up to the diagonal */
static size_t past_of(ptrdiff_t last, size_t keys) {
    if (last < 0) return 0;
    return (size_t)last < keys ? (size_t)last + 1 : keys;
}

enum pe_status pe_tally(const struct pe_kernels *kernels, const pe_view *map, const pe_tallying *to, size_t bad[2],
                        pe_poll *poll, void *context) {
    size_t queries = (size_t)map->shape[0], keys = (size_t)map->shape[1], polled = 0;
    size_t row_bytes = keys * pe_itemsize(map->dtype);
    ptrdiff_t ahead = map->stride[0] * (ptrdiff_t)(row_bytes ? (AHEAD_BYTES + row_bytes - 1) / row_bytes : 0);
    for (size_t i = 0; i < queries; i++) {
        bad[0] = i;
        if (!tally_row(kernels, map, to, i, past_of((ptrdiff_t)i + to->diagonal, keys), ahead, &bad[1]))
            return PE_WEIGHT;
        polled += row_bytes;
        if (poll == NULL || polled < POLL_BYTES) continue;
        polled = 0;
        if (poll(context)) return PE_STOPPED;
    }
    return PE_OK;
}
