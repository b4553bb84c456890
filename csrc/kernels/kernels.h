/* The row kernels: what each computes and what its caller must guarantee.
 *
 * A kernel is void and total over its contract: it checks nothing, allocates nothing, calls nothing. Every instruction
 * set (ISA) fills one struct pe_kernels from the same templates, and every ISA gives the same bits for finite input.
 * A NaN stays a NaN; which NaN is the processor's own affair.
 *
 * Common to all: counts may be zero; pointers need no alignment beyond their element's; nothing outside the stated
 * elements is read or written, whatever the count.
 */
#ifndef PE_KERNELS_H
#define PE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

/* The element types. Halves are storage only: they are widened to float32, and rounded once on the way back. */
enum pe_dtype { PE_F32, PE_F64, PE_F16, PE_BF16, PE_DTYPES };

/* What stores past the caches want y, and steps in it, to be multiples of. Large arrays from malloc lie 16 bytes past a page:
 * float32 and float64 are stored in pieces of 16 bytes, which the processor puts together to lines (as fast as whole vectors
 * on a Zen 4; through a stage such an array takes 1.4 times as long). There are twice as many pieces of 16-bit elements for the
 * same work, and those take longer than the stage. */
PE_INLINE size_t pe_stream_alignment(enum pe_dtype dtype) {
    return dtype == PE_F32 || dtype == PE_F64 ? 16 : 64;
}

/* One run of the rotation: `rows` rows of `pairs` pairs each.
 *
 *     half         members i and i + gap:    [a0 a1 a2 .. | b0 b1 b2 ..]
 *     interleaved  members 2i and 2i + 1:    [a0 b0 a1 b1 a2 b2 ..]
 *
 *     a' = a*cos - b*sin        b' = b*cos + a*sin
 *
 * y is x itself (same pointer, same steps) or does not overlap it. cos and sin hold one float32 per pair (float64 for
 * float64 elements) and overlap nothing that is written. A table step of zero turns every row by the same angles. */
struct pe_run {
    const char *x;
    char *y;
    ptrdiff_t x_step, y_step; /* bytes from one row to the next */
    const char *cos, *sin;
    ptrdiff_t table_step; /* bytes */
    ptrdiff_t gap;        /* bytes between the two members of a pair, `half` only */
    size_t rows, pairs;
    size_t together;            /* at least 1 */
    ptrdiff_t x_apart, y_apart; /* bytes */
    /* What comes after x, laid out as this is, or NULL: fetched into the second cache head by head while these are turned.
     * Where memory jumps every few KiB prefetchers would start anew each time (1.3 times as long where it is the first cache
     * that is asked, on a Zen 4). Never dereferenced. */
    const char *ahead;
    /* Bytes from each head to one that is turned soon, or 0: fetched into the first cache meanwhile, by kernels that gain by it.
     * Never dereferenced either. */
    ptrdiff_t soon;
    /* Whole vectors of y are written past the caches; y, y_step, y_apart and gap are then multiples of
     * pe_stream_alignment. */
    int stream;
};
typedef void pe_rotate_kernel(const struct pe_run *run);

PE_INLINE void pe_fetch_ahead(const char *x, ptrdiff_t ahead, size_t bytes) {
    for (size_t i = 0; ahead && i < bytes; i += 64) PE_PREFETCH2(x + ahead + i);
}
PE_INLINE void pe_fetch_soon(const char *x, ptrdiff_t soon, size_t bytes) {
    if (soon)
        for (size_t i = 0; i < bytes; i += 64) PE_PREFETCH(x + soon + i);
}

/* One run of an addition: `rows` rows of n elements each.
 *
 *     y = x + scale*table        the product rounded before the sum
 *
 * y is x itself or does not overlap it. The table holds float32 (float64 for float64 elements, else scale is rounded to
 * float32) and overlaps nothing that is written. A table step of zero adds the same row to every row.
 * Each of the rows stands for `together` of them (at least 1), apart by x_apart and y_apart, which meet the table's row
 * side by side, a few vectors of each in turn. `stream` is that of a rotation. There is no `ahead`: rows of some KiB
 * follow each other, as prefetchers want them. */
struct pe_add {
    const char *x;
    char *y;
    ptrdiff_t x_step, y_step; /* bytes from one row to the next */
    const char *table;
    ptrdiff_t table_step;       /* bytes */
    ptrdiff_t x_apart, y_apart; /* bytes */
    double scale;
    size_t rows, together, n;
    int stream;
};
enum { PE_ADD_VECTORS = 4 }; /* of each row in turn */
typedef void pe_add_kernel(const struct pe_add *run);

/* Rows of cosines and sines.
 *
 * angle = position * inv_freq, kept exactly; cos and sin are computed in double, multiplied by scale, rounded once.
 * One position a row; or, where a row mixes position axes, `each` points to one position per pair (and rows is 1).
 * as_float32 makes the angle as a float32 model does: position and inv_freq hold float32 values, their product is
 * rounded to float32, cos and sin are rounded to float32 before a float32 multiplication by scale.
 * |position * inv_freq| < 2^31. Rows do not overlap.
 *
 * sincos_zip writes sine and cosine of pair i to elements 2i and 2i + 1 of the row at `sin`; cos is the element behind
 * sin, cos_step is sin_step, and `each` is NULL. */
struct pe_sincos {
    const double *position; /* (rows,); readable though unused where each is set */
    const double *each;     /* (pairs,) or NULL */
    const double *inv_freq; /* (pairs,) */
    double scale;
    int as_float32;
    char *cos, *sin;
    ptrdiff_t cos_step, sin_step; /* bytes from one row to the next */
    size_t rows, pairs;
};
typedef void pe_sincos_kernel(const struct pe_sincos *rows);

/* Rows of float32 cosines and sines at positions that count up by one, with the bits of sincos_f32 (sincos_zip where zipped
 * is set). rows.position holds all of them, PE_RUN_MOST at most; each is NULL, as_float32 zero, 2^-60 < |scale| < 2^60.
 * `turn` holds the cosines, then the sines, of inv_freq, in float64 as sincos_f64 makes them, then those of 2, 3, 4 and
 * PE_RUN_STRIP times inv_freq; turn_step from one to the next. Unlike other rows those of a run may not overlap. */
enum { PE_RUN_MOST = 256, PE_RUN_STRIP = 16, PE_RUN_TURNS = 5 };
struct pe_sincos_run {
    struct pe_sincos rows;
    const double *turn;
    size_t turn_step;
    int zipped;
};
typedef void pe_sincos_run_kernel(const struct pe_sincos_run *run);

/* Entries picked from rows by an index of the distance. Neighbours in an index differ by at most one. A row has PE_BLOCK
 * entries at least, float32, float16 or bfloat16, and every entry that the index names. */
enum { PE_BLOCK = 16 };
struct pe_entries {
    const char *first; /* of row 0 */
    ptrdiff_t step;    /* bytes from row to row */
    size_t count;      /* of a row */
    int32_t least;     /* the number of its first entry */
};

/* Entries of keys, which are columns:  y[r][c] = row c [index[r - c]]
 *
 * Whole blocks are written: rows and columns rounded up to multiples of PE_BLOCK, what lies behind the last row's and
 * column's own may be any number. The index goes up, and can be read from -(columns + PE_BLOCK) to 2*rows + PE_BLOCK. */
struct pe_pick_down {
    struct pe_entries of;
    const int32_t *index;
    float *y;
    ptrdiff_t y_step; /* floats */
    size_t rows, columns;
};
typedef void pe_pick_down_kernel(const struct pe_pick_down *job);

/* Entries of a query, which are a row, and those of keys, picked before:
 *
 *     v = row[index[c]] + keys[c]        y[c] = x[c] + scale*v, or v itself where x is NULL
 *
 * Sums and the product are rounded. Without `keys` v is the entry of the query, without it (of.first NULL) 0 + that of the
 * key. The index goes up or down all the way, and can be read up to PE_BLOCK behind n. y is x or overlaps nothing. */
struct pe_pick_across {
    struct pe_entries of; /* of one row */
    const int32_t *index;
    const float *keys, *x;
    float *y;
    float scale;
    size_t n;
};
typedef void pe_pick_across_kernel(const struct pe_pick_across *job);

/* y[i] = y[i] + a[0]*b[0][i] + a[a_step]*b[b_step + i] + .., i < n, in this order, `count` products each rounded before
 * its sum. Steps are elements. y overlaps neither a nor b. */
struct pe_weigh_f32 {
    float *y;
    const float *a, *b;
    ptrdiff_t a_step, b_step;
    size_t n, count;
};
struct pe_weigh_f64 {
    double *y;
    const double *a, *b;
    ptrdiff_t a_step, b_step;
    size_t n, count;
};
/* Sums over a run of attention weights, n keys of one row, in float64.
 *
 *     by_offset[j] += x[j]        mass[b] += their sum in each block of `width` keys, the first of which may be a rest
 *     sum += x[j]                 moment += (place + j) * x[j]          both in lane j % 8 of element j of a block
 *
 * The same bits on every ISA, and for a run in pieces that end where blocks do. Returns nonzero where a sign bit is set
 * (-0.0 has one too). What lies `ahead` bytes behind each line is fetched into the second cache: the first one holds the
 * sums. The arrays do not overlap. */
enum { PE_TALLY_LANES = 8 };
struct pe_tally_run {
    const char *x;
    double *by_offset, *mass, *sum, *moment; /* sum, moment: PE_TALLY_LANES of each */
    size_t n, place, width;                  /* place: of the first key in the row, whose blocks begin at 0 */
    ptrdiff_t ahead;
};
typedef int pe_tally_kernel(const struct pe_tally_run *run);

PE_INLINE double pe_tally_sum(const double *lane) {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Products of the pairs (a, b) of x and (u, v) of g, summed in float64 over whoever shares the sums.
 *
 *     straight += a*u, b*v      crossed += b*u, a*v      each product rounded before the sum
 *
 * In `half` order (gap set, bytes between the members of a pair, the same in x and g): the sums of all first products,
 * `pairs` of them, then those of the second ones. Interleaved (gap zero): the two of a pair side by side. A step of zero
 * adds all rows to the same sums, in order. Nothing overlaps. */
struct pe_products {
    const char *x, *g;
    ptrdiff_t x_step, g_step, gap; /* bytes */
    double *straight, *crossed;    /* (rows, 2*pairs) */
    ptrdiff_t sum_step;            /* bytes, of both */
    size_t rows, pairs;
};
typedef void pe_products_kernel(const struct pe_products *run);

/* One row of a bias that is a line of the distance:  y[j] = x[j] + slope * |first + j|
 *
 * |first + j| becomes float32 (float64 for float64 elements), slope is rounded likewise, the product is rounded, then
 * the sum. |first + j| < 2^31. y is x or does not overlap it. */
struct pe_line_run {
    const char *x;
    char *y;
    double slope;
    int32_t first;
    size_t n;
};
typedef void pe_line_kernel(const struct pe_line_run *run);

/* One row of a bias that is looked up:  y[j] = x[j] + scale * t[index[j]]
 *
 * t holds float32 (float64 for float64 elements), scale is rounded likewise, the product is rounded, then the sum. y is
 * x or does not overlap it, nor t and index. */
struct pe_lookup_run {
    const char *x;
    char *y;
    const char *t;
    const int32_t *index; /* may be negative: any element around t */
    double scale;
    size_t n;
};
typedef void pe_lookup_kernel(const struct pe_lookup_run *run);

/* A level that betters another in a few kernels leaves the rest empty: see dispatch.c. */
struct pe_kernels {
    const char *name;
    pe_rotate_kernel *half[PE_DTYPES];
    pe_rotate_kernel *interleaved[PE_DTYPES];
    pe_add_kernel *add[PE_DTYPES];
    pe_line_kernel *line[PE_DTYPES];
    pe_lookup_kernel *lookup[PE_DTYPES];
    pe_sincos_kernel *sincos_f32; /* writes float32 */
    pe_sincos_kernel *sincos_f64; /* writes float64 */
    pe_sincos_kernel *sincos_zip; /* float32, sine and cosine of each pair in turn; see pe_sincos */
    pe_sincos_run_kernel *sincos_run;
    pe_products_kernel *products_f32, *products_f64;
    /* y = x as float32; no overlap */
    void (*widen_f16)(const uint16_t *x, float *y, size_t n);
    void (*widen_bf16)(const uint16_t *x, float *y, size_t n);
    pe_tally_kernel *tally[PE_DTYPES];
    pe_pick_down_kernel *pick_down[PE_DTYPES]; /* none for float64 */
    pe_pick_across_kernel *pick_across[PE_DTYPES];
    void (*weigh_f32)(const struct pe_weigh_f32 *job);
    void (*weigh_f64)(const struct pe_weigh_f64 *job);
    /* y[c][r] = x[r][c]; rows and columns are multiples of PE_BLOCK, steps are elements; no overlap */
    void (*transpose)(const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step, size_t rows, size_t columns);
    /* copy past the caches where the ISA can; no overlap. stream_end orders the stores before what follows. */
    void (*stream)(char *y, const char *x, size_t bytes);
    void (*stream_end)(void);
};

/* One line for each ISA; a file of another architecture compiles to nothing. */
extern const struct pe_kernels pe_kernels_scalar;
#ifdef PE_X86_64
extern const struct pe_kernels pe_kernels_x86_v3;
extern const struct pe_kernels pe_kernels_x86_v4;
extern const struct pe_kernels pe_kernels_x86_v4_bf16;
#endif
#ifdef PE_ARM64
extern const struct pe_kernels pe_kernels_neon;
#endif

#endif
