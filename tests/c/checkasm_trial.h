/* What is being tried, for the report of a failure, and the rows that kernels are given: in guarded memory, with an image of
 * what they should hold after a call.
 */
#ifndef POSENC_TESTS_CHECKASM_TRIAL_H
#define POSENC_TESTS_CHECKASM_TRIAL_H

#include "guard.h"
#include "testing.h"

enum { WIDE_PAIRS = 32768, MEMORY = 1 << 20, MARGIN = 64, CANARY = 0xa5 };

/* ---- what is being tried: for the report, and for whoever lays it out ---- */

static struct trial {
    const char *level, *kernel;
    enum pe_dtype dtype;
    enum place place;
    enum values values;
    size_t rows, pairs, shift, padding, apart; /* shift, padding, apart: elements */
    bool in_place, one_table_row, backwards, stream;
    bool each, as_float32;
    double scale;
} trial;
static unsigned long long seed = 1, tried, failed;
static size_t most_pairs = 257;

static void report_trial(void) {
    fprintf(stderr,
            "  kernel %s, level %s, %s, %s, seed %llu, case %llu\n"
            "  rows %zu, pairs %zu, buffers %s (shift %zu), %zu elements between rows, %zu between halves\n"
            "  in place %d, one table row %d, backwards %d, streamed %d, position for each pair %d, as_float32 %d, "
            "scale %a\n",
            trial.kernel, trial.level, dtype_name[trial.dtype], values_name[trial.values], seed, tried, trial.rows,
            trial.pairs, place_name[trial.place], trial.shift, trial.padding, trial.apart, trial.in_place,
            trial.one_table_row, trial.backwards, trial.stream, trial.each, trial.as_float32, trial.scale);
}

static void fail(const char *what) { /* the first failures in full */
    if (failed++ >= 10) return;
    fprintf(stderr, "FAILED: %s\n", what);
    report_trial();
}

/* ---- rows in guarded memory ---- */

static struct guard memory[4]; /* x or positions, y or frequencies, cosines, sines */
static char *image[4];         /* copies of them: before the call, or as they should be after it */
struct rows {
    char *from, *first; /* lowest byte, row 0 */
    ptrdiff_t step;
    size_t bytes;
    int where; /* index of memory */
};

static size_t whole_lines(size_t bytes) {
    size_t line = pe_stream_alignment(trial.dtype);
    return (bytes + line - 1) / line * line;
}

static struct rows lay_out(int where, size_t n, size_t row_bytes, size_t unit, bool aligned) {
    size_t step = row_bytes + trial.padding * unit, shift = aligned ? 0 : trial.shift * unit;
    if (aligned) step = whole_lines(step);
    size_t bytes = n ? (n - 1) * step + row_bytes : 0;
    struct rows r = {.step = (ptrdiff_t)step, .bytes = bytes, .where = where};
    r.from = guard_place(&memory[where], trial.place, aligned ? whole_lines(bytes) : bytes, shift);
    r.first = r.from;
    if (trial.backwards && n) r.first += (n - 1) * step, r.step = -r.step;
    return r;
}

/* x and y of a trial, y at x where it is in place */
static void lay_out_both(size_t n, size_t row_bytes, size_t unit, struct rows *x, struct rows *y) {
    *x = lay_out(0, n, row_bytes, unit, trial.stream && trial.in_place);
    *y = trial.in_place ? *x : lay_out(1, n, row_bytes, unit, trial.stream);
}

/* Rows that go together follow each other (beside), or lie as far apart as there are rows: bytes from one group to the next,
 * and from row to row of a group. */
static ptrdiff_t group_step(const struct rows *r, size_t together, bool beside) {
    return r->step * (ptrdiff_t)(beside ? together : 1);
}

static ptrdiff_t step_apart(const struct rows *r, bool beside) {
    return r->step * (ptrdiff_t)(beside ? 1 : trial.rows);
}

/* the rows and what lies close around them */
static char *surroundings(const struct rows *r, size_t *bytes) {
    const struct guard *g = &memory[r->where];
    char *low = r->from - g->begin < MARGIN ? g->begin : r->from - MARGIN;
    char *high = g->end - (r->from + r->bytes) < MARGIN ? g->end : r->from + r->bytes + MARGIN;
    *bytes = (size_t)(high - low);
    return low;
}

static char *in_image(const struct rows *r, const char *p) {
    return image[r->where] + (p - memory[r->where].begin);
}

static void clear(const struct rows *r) {
    size_t bytes;
    char *low = surroundings(r, &bytes);
    memset(low, CANARY, bytes);
}

static void keep(const struct rows *r) {
    size_t bytes;
    const char *low = surroundings(r, &bytes);
    memcpy(in_image(r, low), low, bytes);
}

/* rows and surroundings must be as their image is */
static void compare(const struct rows *r, enum pe_dtype dtype, const char *what) {
    size_t bytes, size = pe_itemsize(dtype);
    const char *low = surroundings(r, &bytes), *wanted = in_image(r, low);
    size_t i = first_difference(low, wanted, bytes / size, dtype);
    if (i == bytes / size) return;
    char text[128];
    snprintf(text, sizeof text, "%s: element %td from the lowest row's start is 0x%llx, not 0x%llx", what,
             (ptrdiff_t)i - (r->from - low) / (ptrdiff_t)size, (unsigned long long)load_bits(low + i * size, size),
             (unsigned long long)load_bits(wanted + i * size, size));
    fail(text);
}

#endif
