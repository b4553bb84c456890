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
    double place = 0.0, mass = 0.0, sum[PE_TALLY_LANES] = {0}, moment[PE_TALLY_LANES] = {0};
    kernels->tally[dtype](&(struct pe_tally_run){
        .x = x, .by_offset = &place, .mass = &mass, .sum = sum, .moment = moment, .n = 1, .width = 1});
    return place >= 0.0 && place <= LARGEST;
}

/* the first key from `start` on, of n, that holds no weight; n where all do */
static size_t find_bad(const struct pe_kernels *kernels, const pe_view *map, const char *x, size_t n) {
    size_t i = 0;
    while (i < n && is_weight(kernels, map->dtype, x + (ptrdiff_t)i * map->stride[1])) i++;
    return i;
}

/* the keys of a run that do not lie side by side, gathered block by block */
static int tally_gathered(const struct pe_kernels *kernels, const pe_view *map, const struct pe_tally_run *run) {
    PE_ALIGNED(64) char block[PE_TALLY_BLOCK * sizeof(double)];
    struct pe_tally_run part = *run;
    int negative = 0;
    part.x = block, part.ahead = 0;
    for (size_t at = 0; at < run->n; at += part.n, part.place += part.n, part.by_offset += part.n, part.mass++) {
        size_t left = run->n - at, rest = run->width - part.place % run->width;
        part.n = left < rest ? left : rest;
        gather(block, run->x + (ptrdiff_t)at * map->stride[1], map->stride[1], part.n, pe_itemsize(map->dtype));
        negative |= kernels->tally[map->dtype](&part);
    }
    return negative;
}

/* One side of a row: its sum and first moment go to side[]. false at a weight that is none, whose key *bad receives. */
static bool tally_side(const struct pe_kernels *kernels, const pe_view *map, struct pe_tally_run *run, double *side,
                       size_t *bad) {
    PE_ALIGNED(64) double sum[PE_TALLY_LANES] = {0}, moment[PE_TALLY_LANES] = {0};
    run->sum = sum, run->moment = moment;
    bool contiguous = map->stride[1] == (ptrdiff_t)pe_itemsize(map->dtype);
    int negative = contiguous ? kernels->tally[map->dtype](run) : tally_gathered(kernels, map, run);
    side[0] = pe_tally_sum(sum), side[1] = pe_tally_sum(moment);
    if (!negative && side[0] <= LARGEST) return true;
    size_t at = find_bad(kernels, map, run->x, run->n);
    *bad = run->place + at;
    return at == run->n;
}

/* One row, `past` of whose keys do not lie behind the diagonal; a block across it is two pieces. */
static bool tally_row(const struct pe_kernels *kernels, const pe_view *map, const pe_tallying *to, size_t i,
                      size_t past, ptrdiff_t ahead, size_t *bad) {
    size_t queries = (size_t)map->shape[0], keys = (size_t)map->shape[1], blocks = (keys + to->width - 1) / to->width;
    double *mass = to->mass + i * blocks, *sides = to->sides[i];
    struct pe_tally_run run = {.x = map->data + (ptrdiff_t)i * map->stride[0],
                               .by_offset = to->by_offset + (queries - 1 - i),
                               .mass = mass,
                               .n = past,
                               .width = to->width,
                               .ahead = ahead};
    memset(mass, 0, blocks * sizeof *mass);
    memset(sides, 0, sizeof to->sides[i]);
    if (past > 0 && !tally_side(kernels, map, &run, sides, bad)) return false;
    run.x += (ptrdiff_t)past * map->stride[1], run.by_offset += past, run.mass = mass + past / to->width;
    run.n = keys - past, run.place = past;
    return past == keys || tally_side(kernels, map, &run, sides + 2, bad);
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
