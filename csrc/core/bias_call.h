/* One call of the driver of biases: what bias_plan.c decides of it, and the memory that bias.c works in. */
#ifndef PE_BIAS_CALL_H
#define PE_BIAS_CALL_H

#include "bias.h"

/* Bytes of a stretch without a choice in it, and of one that is masked by plain stores; elements of a head's diagonal vector. */
enum { PIECE_BYTES = 8192, MASK_BYTES = 64, DIAGONAL = 4096 };

/* How a row's term is had. */
enum pe_bias_method {
    NOTHING,     /* a mask alone */
    LINE,        /* counted in registers */
    LINE_LISTED, /* |u| of listed positions */
    DIAGONALS,   /* values of key - query, from a window on a head's diagonal vector */
    GATHERED,    /* values gathered where they lie: offsets are shared by all heads */
    LISTED,      /* values loaded one by one */
    RELATIVE,    /* values of a tile that each matrix has of its own: relative.c */
    PICKED       /* rows of such values, one by one: relative_pick.c */
};

struct pe_bias_call {
    const struct pe_kernels *kernels;
    const pe_bias *bias;
    const pe_view *x, *y;
    enum pe_bias_method method;
    enum pe_dtype dtype;
    double scale;            /* of values */
    size_t value_step;       /* values from row to row of a tile */
    size_t size, value_size; /* bytes of an element; of a value: float32, or float64 for float64 scores */
    ptrdiff_t x_query, x_key, y_query, y_key;
    size_t queries, keys, rows, columns; /* rows, columns: of a whole tile */
    bool x_plain, y_plain, in_place, split;
    pe_poll *poll;
    void *context;
    size_t polled;
    struct pe_picks *picks;
    struct pe_bias_tile tile;
    PE_ALIGNED(64) char values[PE_RELATIVE_BYTES]; /* of a tile: values, or int32; PE_LISTED float64 fit */
    PE_ALIGNED(64) char row_values[PE_LISTED_WIDTH * sizeof(double)];
    PE_ALIGNED(64) char stage[PIECE_BYTES];
    PE_ALIGNED(64)
    char zeros[PIECE_BYTES]; /* what a bias without scores is added to: negative ones leave all as it is */
    PE_ALIGNED(64) char infinite[PIECE_BYTES]; /* -inf */
};

/* Everything but what it polls: how the terms are had, the size of tiles, -inf and zeros. */
void pe_bias_plan(struct pe_bias_call *c, const struct pe_kernels *kernels, const pe_bias *bias, const pe_view *x,
                  const pe_view *y);

#endif
