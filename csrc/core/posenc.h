/* posenc's core: the whole C API, and what each call promises.
 *
 * Core knows shapes and byte strides, never a Python object. It allocates nothing on an apply path, keeps no state
 * but a pool of threads (pool.h), and can be called from any number of threads. Callers own every buffer. Sizes are checked by the caller (bind), contracts
 * are stated here, and a call whose contract holds either does all of its work or reports why it stopped.
 */
#ifndef POSENC_H
#define POSENC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../kernels/kernels.h"

enum { PE_MAX_DIM = 32, PE_MAX_AXES = 8 };

/* A pair of elements of `interleaved_to_half` moves within its row, so a row rotated in place passes through the stack. */
enum { PE_MAX_IN_PLACE_MOVE = 2048 };

enum pe_status {
    PE_OK,
    PE_STOPPED,      /* the poll function asked to stop; outputs are partly written */
    PE_POSITION,     /* a position is NaN, or it or its angle reaches 2^31 */
    PE_OUT_OF_TABLE, /* a position is not a row of the given table */
    PE_WEIGHT        /* an attention weight is negative or not finite */
};

/* Which elements of a head form a pair, read -> written. */
enum pe_layout {
    PE_HALF,                /* [a a a | b b b] -> the same */
    PE_INTERLEAVED,         /* [a b a b a b]   -> the same */
    PE_INTERLEAVED_TO_HALF, /* [a b a b a b]   -> [a a a | b b b] */
    PE_HALF_TO_INTERLEAVED  /* its inverse */
};

/* An array as it lies in memory: strides in bytes, of any sign; those of axes of length 1 mean nothing. */
typedef struct {
    char *data;
    int ndim;
    enum pe_dtype dtype;
    ptrdiff_t shape[PE_MAX_DIM], stride[PE_MAX_DIM];
} pe_view;

static inline size_t pe_itemsize(enum pe_dtype dtype) {
    return dtype == PE_F64 ? 8 : dtype == PE_F32 ? 4 : 2;
}

/* shapes whose product overflows are never made by NumPy or torch */
static inline size_t pe_elements(const pe_view *v) {
    size_t n = 1;
    for (int i = 0; i < v->ndim; i++) n *= (size_t)v->shape[i];
    return n;
}

/* ---- frequencies.c ---- */

/* inv_freq[i] = the float64 nearest to base**(-2i/rotary_dim), i < rotary_dim/2. 1e-300 <= base <= 1e300, rotary_dim even. */
void pe_inv_freq(double base, size_t rotary_dim, double *inv_freq);

/* What model code divides by in float32: base**(2i/rotary_dim) with base and exponent rounded to float32 and the power
 * rounded correctly (torch's own misses that by an ulp in about one frequency of a hundred). Written as float64. */
void pe_float32_powers(double base, size_t rotary_dim, double *powers);

/* ---- overlap.c: exact answers up to a bound of work, `true` beyond it ---- */

bool pe_overlap(const pe_view *a, const pe_view *b); /* some byte belongs to both */
bool pe_overlaps_itself(const pe_view *v);           /* some byte belongs to two elements */

/* ---- positions.c and rows.c ---- */

/* The positions of a call: an array, or ranges that count up by one.
 * Position of (axis, batch row, j) = element at data + axis*axis_stride + batch*batch_stride + j*stride; for a range the
 * element is the batch row's start, and from + j is added. Strides are zero where positions do not vary. */
enum pe_position_kind { PE_RANGE, PE_INT32, PE_INT64, PE_FLOAT64 };
typedef struct {
    enum pe_position_kind kind;
    const char *data; /* int64 for a range */
    ptrdiff_t axis_stride, batch_stride, stride;
    int64_t from; /* 0 but in a part of a call */
} pe_positions;

/* What turns a pair: angle of pair i = position on axis_of_freq[i] * inv_freq[i]. */
typedef struct {
    const double *inv_freq;            /* (pairs,) */
    const unsigned char *axis_of_freq; /* (pairs,), or NULL for one axis */
    size_t pairs;
    int axes;
    double fastest[PE_MAX_AXES]; /* largest |inv_freq| on each axis, see pe_frequencies_seal */
    double scale;                /* multiplies cos and sin */
    bool as_float32;             /* inv_freq holds float32 values and the angles are rounded to float32 (kernels.h) */
} pe_frequencies;

/* Rows of cosines and sines, made from positions (freq set) or taken from a ready table (freq NULL): row of (batch row, j)
 * at cos + batch*batch_stride + row*row_stride, row = j, or the position of j where by_position is set. */
typedef struct {
    const pe_frequencies *freq;
    pe_positions positions;
    const char *cos, *sin;
    ptrdiff_t cos_batch, cos_row, cos_pair, sin_batch, sin_row, sin_pair;
    bool by_position, conjugate; /* conjugate negates the sine */
    size_t pairs;
    enum pe_dtype dtype; /* PE_F32 or PE_F64 */
    bool per_batch;      /* rows differ between batch rows */
} pe_rows;

double pe_position(const pe_positions *positions, int axis, size_t batch, size_t j);
/* Set `fastest` from inv_freq and axis_of_freq. */
void pe_frequencies_seal(pe_frequencies *freq);

/* Asked about every MiB of work, where it is not NULL; when it returns true the call stops, with PE_STOPPED. */
typedef bool pe_poll(void *context);

/* How many positions pe_check_positions and pe_check_rows read, for batch rows and seq positions each on so many axes. */
size_t pe_positions_read(const pe_positions *positions, int axes, size_t batch, size_t seq);
/* PE_POSITION unless every position is finite and |position| and |position * inv_freq| are below 2^31; *bad receives the
 * first that is not. */
enum pe_status pe_check_positions(const pe_frequencies *freq, const pe_positions *positions, size_t batch, size_t seq,
                                  double *bad, pe_poll *poll, void *context);
/* PE_OUT_OF_TABLE unless every position is at least 0 and below table_rows; *bad receives the first that is not. A listed
 * position that equals *skipped, where that is not NULL, need not be one. */
enum pe_status pe_check_rows(const pe_positions *positions, size_t batch, size_t seq, size_t table_rows,
                             const int64_t *skipped, int64_t *bad, pe_poll *poll, void *context);

/* Fill tables: positions (batch, seq) -> cos and sin (batch, seq, pairs), strided views of float32 or float64.
 * Positions are checked. `stream` writes past the caches. */
enum pe_status pe_table(const struct pe_kernels *kernels, const pe_frequencies *freq, const pe_positions *positions,
                        const pe_view *cos, const pe_view *sin, bool stream, pe_poll *poll, void *context);

/* The rows of one tile, on the stack of the call that walks the tiles. */
enum { PE_TILE_BYTES = 16384, PE_TILE_ROWS = 64, PE_CHUNK_PAIRS = 1024 };
struct pe_tile {
    PE_ALIGNED(64) char cos_rows[PE_TILE_BYTES];
    PE_ALIGNED(64) char sin_rows[PE_TILE_BYTES];
    const char *cos, *sin; /* the first row: in the buffers above, or in the caller's table */
    ptrdiff_t step;        /* bytes from one row to the next */
};
/* Rows j .. j + n of a batch row, pairs `first` .. first + count. n rows of count pairs fit the buffers. Turns: see rows.h. */
struct pe_turns;
void pe_tile_fill(const struct pe_kernels *kernels, const pe_rows *rows, const struct pe_turns *turns, size_t batch,
                  size_t j, size_t n, size_t first, size_t count, struct pe_tile *tile);
size_t pe_tile_rows(enum pe_dtype dtype, size_t pairs); /* how many rows of that many pairs fit, at least 1 */

/* ---- rotate.c ---- */

/* One array to rotate, and where the result goes. x and y have the same shape; y is x (same data, same strides) or does
 * not overlap it, nor any other operand's y. */
typedef struct {
    const pe_view *x, *y;
} pe_operand;

/* Rotate elements rotary_offset .. rotary_offset + 2*pairs of the last axis, copy the others. Where 2*pairs is head_dim + 1
 * (an odd head_dim), a zero is appended to each head in thought and what would be written there is dropped.
 *
 * rows.pairs > 0. In place, `interleaved_to_half` and its inverse take at most PE_MAX_IN_PLACE_MOVE elements.
 * seq_axis counts from 0 and is not the last. All operands have the sequence length of rows; where rows.per_batch is set
 * their first axis is the batch. Operands need dtype float64 exactly where rows.dtype is PE_F64. `stream` writes past
 * the caches, for large results that are not in place. `onto` adds to what y holds: y += the rotation, the sum formed in
 * float32 (float64 for float64) and rounded once. Positions are checked (pe_check_*). */
typedef struct {
    enum pe_layout layout;
    size_t rotary_offset;
    int seq_axis;
    bool stream, onto;
} pe_rotation;

enum pe_status pe_rotate(const struct pe_kernels *kernels, const pe_rotation *how, const pe_rows *rows,
                         const pe_operand *operands, int n_operands, pe_poll *poll, void *context);

/* ---- gradient.c ---- */

/* What a rotation's numbers had to do with a loss. x is what was rotated and grad the gradient of what came out, of the
 * same shape and dtype; every product and sum is float64. What is wanted is added to, so that calls on parts add up.
 *
 * For a pair (a, b) of x and (u, v) of grad the gradient of its cosine is a*u + b*v and that of its sine a*v - b*u; of its
 * angle, -sin times the first plus cos times the second. */
typedef struct {
    const pe_view *x, *grad;
    const pe_view *cos,
        *sin;         /* of a table's rows, (batch or 1, seq, pairs) float32 or float64, rounded once; or NULL */
    double *inv_freq; /* (pairs,), or NULL */
    const pe_view *positions; /* (axes, batch or 1, seq) float64, or NULL */
} pe_gradient;

/* rows.freq is set where inv_freq or positions are wanted, and rows.dtype is then PE_F64, whatever x is. */
enum pe_status pe_rotate_gradient(const struct pe_kernels *kernels, const pe_rotation *how, const pe_rows *rows,
                                  const pe_gradient *wanted, pe_poll *poll, void *context);

/* ---- bias.c ---- */

/* Which keys a query may see, by their positions. What it may not see becomes -inf. */
enum pe_causal { PE_SEE_LATER, PE_MASK_LATER, PE_SKIP_LATER }; /* keys after the query: seen, -inf, y = x */
typedef struct {
    enum pe_causal causal;
    double left, right; /* -inf where query - key > left or key - query > right; INFINITY for no bound */
    double sinks;       /* keys at positions below this are seen however far to the left they lie */
} pe_mask;

/* A line: slope * |u|, where u is key position - query position, or the key position itself (of_key). Slopes of u < 0 and
 * of u >= 0 lie side by side: slopes[(batch row * batch_step + head) * 2 + (u >= 0)], batch_step 0 or the heads. */
typedef struct {
    const double *slopes;
    size_t batch_step;
    bool of_key;
} pe_line;

/* A value looked up: scale * (element at data + batch row * batch + head * head + query * query + key * key + n * step,
 * strides in bytes), where n is index[clamp(key position - query position, low, high) - low], or an element of the
 * matrix (queries, keys) where there is one. Every n is an element of the table: the caller has checked. */
typedef struct {
    const char *data;
    enum pe_dtype dtype; /* any; read as float32, and as float64 for float64 scores */
    ptrdiff_t batch, head, query, key, step;
    size_t length; /* n < length */
    const int32_t *index;
    int64_t low, high; /* -2^31 < low <= high < 2^31 */
    const char *matrix;
    ptrdiff_t matrix_query, matrix_key; /* bytes between int32 */
    double scale;
} pe_lookup;

/* Entries that belong to a query and to a key, chosen by their distance: scale * (of_query[.., i, n] + of_key[.., j, n])
 * where n is index[clamp(key position - query position, low, high) - low]. The arrays have as many axes as the scores,
 * strides 0 where an entry serves a whole axis, any dtype; either may be NULL. Every n is an entry of both: the caller
 * has checked. `reversed` is the index backwards; `smooth` says that the index goes down, by at most one from entry to entry,
 * or goes up likewise and of_key is NULL. */
typedef struct {
    const pe_view *of_query, *of_key; /* (.., queries, entries), (.., keys, entries) */
    const int32_t *index, *reversed;
    int64_t low, high; /* -2^31 < low <= high < 2^31 */
    bool smooth;
    double scale;
} pe_disentangled;

/* Products of a query with the row of a distance: scale * ((query[.., i, :] + addend[.., i, :]) . rows[.., n, :]), where
 * n is origin + key position - query position; 0 where there is no such row. Arrays as above; addend may be NULL. */
typedef struct {
    const pe_view *query, *addend, *rows; /* (.., queries, dimensions) twice, (.., distances, dimensions) */
    int64_t origin;
    double scale;
} pe_projected;

/* Keys of an image, row by row: key j is at row j / width and column j % width, width being the length of of_column's last
 * axis. of_row[.., i, row] + of_column[.., i, column]. Arrays as above; neither is NULL. */
typedef struct {
    const pe_view *of_row, *of_column; /* (.., queries, rows), (.., queries, columns) */
} pe_grid;

/* Scores (.., heads, queries, keys), two axes at least; where there are four, the first is the batch.
 * y = x + bias wherever the mask sees the key. x is NULL (the bias itself), y itself, or does not overlap y. The terms
 * exclude each other; without any the call only masks. Positions are checked, below 2^30 in size, integers for all
 * but a line; where per_batch is set they differ between batch rows. `stream` writes what is not read past the caches. */
typedef struct {
    pe_positions query, key;
    bool per_batch;
    pe_mask mask;
    const pe_line *line;
    const pe_lookup *lookup;
    const pe_disentangled *disentangled;
    const pe_projected *projected;
    const pe_grid *grid;
    bool stream;
} pe_bias;

enum pe_status pe_add_bias(const struct pe_kernels *kernels, const pe_bias *bias, const pe_view *x, const pe_view *y,
                           pe_poll *poll, void *context);

/* The gradient of what was added, of the gradient g of the scores: added to sums, in float64, each sum in an order that
 * depends on the shape alone. Of a line: (batch rows or 1, heads, 2), as its slopes lie. Of a lookup whose table knows no
 * batch, query or key: (heads, length). What the mask hides counts for nothing. */
enum pe_status pe_bias_gradient(const pe_bias *bias, const pe_view *g, double *sums, pe_poll *poll, void *context);
/* ---- attention.c ---- */

/* Sums over one map of attention weights, (queries, keys) with any strides, read once.
 *
 *     by_offset[j - i + queries - 1] += weight of key j for query i       queries + keys - 1 of them
 *     mass[i][b]  = the row's sum over block b of `width` keys            ceil(keys / width) a row, contiguous
 *     sides[i]    = sum and first moment (of j * weight) of keys j <= i + diagonal, then of those behind it
 *
 * in float64, rows in order: the same bits on every ISA. 1 <= width <= PE_TALLY_BLOCK. Results overlap nothing.
 * PE_WEIGHT at the first weight that is negative or not finite: bad[] receives its query and key, and what was written
 * means nothing. */
enum { PE_TALLY_BLOCK = 1024 };
typedef struct {
    double *by_offset, *mass, (*sides)[4];
    size_t width;
    ptrdiff_t diagonal;
} pe_tallying;
enum pe_status pe_tally(const struct pe_kernels *kernels, const pe_view *map, const pe_tallying *to, size_t bad[2],
                        pe_poll *poll, void *context);

/* ---- sinusoid.c ---- */

/* How the columns of a row hold sines and cosines. */
enum pe_order {
    PE_IN_TURN,      /* s0 c0 s1 c1 .. */
    PE_SIN_THEN_COS, /* s0 s1 .. c0 c1 .. */
    PE_COS_THEN_SIN  /* c0 c1 .. s0 s1 .. */
};

/* Sine of pair i in column sin_at + i*step, i < sines; its cosine in cos_at + i*step, i < cosines; the last column of an
 * odd dim is zero where neither reaches it. */
typedef struct {
    size_t dim, sin_at, sines, cos_at, cosines, step;
} pe_arrangement;

/* dim is 2*pairs, or one less (what comes second ends early) or one more (a column of zeros). */
pe_arrangement pe_arrange(enum pe_order order, size_t dim, size_t pairs);

typedef struct {
    const pe_frequencies *freq; /* one axis */
    pe_arrangement how;
    enum pe_dtype dtype; /* PE_F32 or PE_F64 */
} pe_sinusoid;

/* Fill a table: positions (batch, seq) -> out (batch, seq, dim), a strided view. Positions are checked. Rows of the
 * position *skipped, where that is not NULL, are zero. `stream` writes past the caches. */
enum pe_status pe_sinusoid_table(const struct pe_kernels *kernels, const pe_sinusoid *sinusoid,
                                 const pe_positions *positions, const int64_t *skipped, const pe_view *out, bool stream,
                                 pe_poll *poll, void *context);

/* Columns `first` .. first + count of some rows, `step` bytes apart. */
struct pe_segment {
    const char *rows;
    ptrdiff_t step;
    size_t first, count;
};
struct pe_sinusoid_tile {
    PE_ALIGNED(64) char rows[2 * PE_TILE_BYTES + 64];
    struct pe_tile pairs;
    struct pe_segment segments[3];
};
/* Rows j .. j + n of a batch row, those columns that belong to pairs first .. first + count, as segments in the tile;
 * returns how many. All pairs at once where they are at most PE_CHUNK_PAIRS. */
int pe_sinusoid_fill(const struct pe_kernels *kernels, const pe_sinusoid *sinusoid, const pe_positions *positions,
                     size_t batch, size_t j, size_t n, size_t first, size_t count, struct pe_sinusoid_tile *tile);
size_t pe_sinusoid_tile_rows(const pe_sinusoid *sinusoid); /* how many rows fit, at least 1 */

/* ---- add.c ---- */

/* Rows to add: made (sinusoid set), or row `position` of a table. The table is float32, float64 or of x's own dtype. */
typedef struct {
    const pe_sinusoid *sinusoid;
    const char *table;
    ptrdiff_t table_row, table_element;
    enum pe_dtype table_dtype;
    pe_positions positions;
    const int64_t *skipped; /* what has this position stays as it is; or NULL */
    size_t dim;
    bool per_batch; /* positions differ between batch rows */
} pe_added;

typedef struct {
    int seq_axis; /* from 0, not the last */
    double scale;
    bool stream;
} pe_addition;

/* y = x + scale * row, where both products and sums are rounded in float32 (float64 for float64 x) and halves once more.
 * The last axis of x has rows->dim elements. x and y as in pe_rotate. Positions are checked. */
enum pe_status pe_add_rows(const struct pe_kernels *kernels, const pe_addition *how, const pe_added *rows,
                           const pe_operand *operand, pe_poll *poll, void *context);

/* The gradient of a table: table (rows, dim), float32 (float64 for float64 grad), += scale * grad for each token of grad
 * (.., dim) at its position; `how` and the positions are those of the addition. Tokens come in the order of the sequence,
 * for each position of it those of the other axes in their order; each product and each sum is rounded. */
enum pe_status pe_scatter_rows(const struct pe_kernels *kernels, const pe_addition *how, const pe_added *rows,
                               const pe_view *grad, const pe_view *table, pe_poll *poll, void *context);

/* The same of a disentangled or projected bias: float64 arrays of the shapes of of_query and of_key, or of query (and of
 * addend, whose gradient it is too) and rows, with as many axes as g, strides 0 where all of an axis is one sum; the last
 * axis is contiguous. For those that the bias does not have, they are not looked at. */
typedef struct {
    pe_view first, second;
} pe_relative_sums;
enum pe_status pe_relative_gradient(const struct pe_kernels *kernels, const pe_bias *bias, const pe_view *g,
                                    const pe_relative_sums *to, pe_poll *poll, void *context);

#endif
