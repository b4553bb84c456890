/* Inside core: how rows are made and put where they belong. */
#ifndef PE_ROWS_H
#define PE_ROWS_H

#include "posenc.h"

static inline size_t pe_min(size_t a, size_t b) {
    return a < b ? a : b;
}

/* After so many bytes of work: whether the poll asks to stop; it is asked about every PE_POLL_BYTES. */
enum { PE_POLL_BYTES = 1 << 20 };
static inline bool pe_stop(pe_poll *poll, void *context, size_t *polled, size_t bytes) {
    *polled += bytes;
    if (poll == NULL || *polled < PE_POLL_BYTES) return false;
    *polled = 0;
    return poll(context);
}

/* Whether kernels can read any number of rows in a row where they lie: contiguous, cos and sin with the same step. */
bool pe_rows_lie_ready(const pe_rows *rows);
int64_t pe_int_position(const pe_positions *positions, int axis, size_t batch, size_t j);
/* n positions from j on as float64 */
void pe_load_positions(const pe_positions *positions, int axis, size_t batch, size_t j, size_t n, double *at);

/* Where n rows of cosines and sines go, in float64 or float32; zipped as sincos_zip does it (one axis, float32). */
struct pe_row_target {
    char *cos, *sin;
    ptrdiff_t cos_step, sin_step;
    bool wide, zipped;
};
/* What turns rows of float32 one into the next where positions count up, for a chunk of pairs; ready says if it can. */
struct pe_turns {
    bool ready;
    PE_ALIGNED(64) double turn[2 * PE_RUN_TURNS * PE_CHUNK_PAIRS];
};
/* For calls that make `rows` of them; fewer than PE_WORTH_TURNS are not worth it, which takes five. */
enum { PE_WORTH_TURNS = 32 };
void pe_turns_begin(const struct pe_kernels *kernels, const pe_frequencies *freq, size_t rows, size_t first,
                    size_t count, enum pe_dtype dtype, struct pe_turns *turns);
/* n <= PE_RUN_MOST rows from position j on, pairs `first` .. first + count, count <= PE_CHUNK_PAIRS. `turns` is NULL, or
 * made for this chunk; then rows do not overlap. */
void pe_make_rows(const struct pe_kernels *kernels, const pe_frequencies *freq, const struct pe_turns *turns,
                  const pe_positions *positions, size_t batch, size_t j, size_t n, size_t first, size_t count,
                  const struct pe_row_target *to);
/* n elements, `step` bytes apart, side by side in another dtype: their own, or float32 for halves */
void pe_widen(const struct pe_kernels *kernels, char *to, enum pe_dtype to_dtype, const char *from, ptrdiff_t step,
              enum pe_dtype dtype, size_t n);
/* n rows of count elements, `step` bytes apart, into columns `first` .. of an output (batch, seq, columns) whose elements
 * may lie anywhere */
void pe_put_rows(const struct pe_kernels *kernels, const pe_view *out, size_t batch, size_t j, size_t n, size_t first,
                 size_t count, const char *rows, ptrdiff_t step, bool stream);

#endif
