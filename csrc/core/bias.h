/* What the two directions of a bias share: which keys a query sees, run by run, and which value belongs to which key. */
#ifndef PE_BIAS_H
#define PE_BIAS_H

#include "posenc.h"

/* What becomes of a run of keys. The slope of a seen one is that of u < 0 (PE_RUN_LOW) or u >= 0. */
enum pe_run_kind { PE_RUN_SKIP, PE_RUN_MASK, PE_RUN_LOW, PE_RUN_HIGH };
struct pe_seen {
    uint32_t end : 30; /* column behind the run, counted from the tile's first */
    uint32_t kind : 2;
};

/* A tile of a matrix (queries, keys): what all heads share is made once for it. */
enum { PE_COUNTED_WIDTH = 1 << 18, PE_LISTED_WIDTH = 2048, PE_LISTED = 4096, PE_MOST_RUNS = 8 };
struct pe_bias_tile {
    size_t batch, i, rows, j, columns;
    bool counted;                  /* positions count up: the runs of a row follow from its position alone */
    uint16_t first[PE_LISTED + 1]; /* where the runs of a row begin; listed positions only */
    struct pe_seen runs[PE_LISTED];
};

/* The size of tiles; `counted` and `listed` say whether the terms need an element of memory for each of theirs. */
void pe_bias_tile_begin(const pe_bias *bias, bool listed, size_t queries, size_t keys, struct pe_bias_tile *tile);
/* Runs of a tile with listed positions; split tells LOW from HIGH. */
void pe_bias_list_runs(const pe_bias *bias, bool split, struct pe_bias_tile *tile);
/* The runs of a row of the tile, and how many; local has room for PE_MOST_RUNS. */
size_t pe_bias_runs(const pe_bias *bias, bool split, const struct pe_bias_tile *tile, size_t row, struct pe_seen *local,
                    const struct pe_seen **runs);

/* u of a row's column: what a line multiplies, with its sign */
double pe_bias_measure(const pe_bias *bias, const struct pe_bias_tile *tile, size_t row, size_t column);
/* key position - query position, of integers */
int64_t pe_bias_distance(const pe_bias *bias, const struct pe_bias_tile *tile, size_t row, size_t column);
/* n of a row's columns from `column` on */
void pe_bias_indices(const pe_bias *bias, const struct pe_bias_tile *tile, size_t row, int32_t *n);

bool pe_line_splits(const pe_line *line, size_t batch, size_t heads); /* slopes of u < 0 and of others differ */
double pe_load(const char *p, enum pe_dtype dtype);

/* One matrix (queries, keys) after the other: place.x, place.y at its first element. */
struct pe_place {
    const char *x;
    char *y;
    size_t batch, head, index[PE_MAX_DIM];
};
void pe_place_begin(const pe_view *x, const pe_view *y, bool per_batch, size_t batch, struct pe_place *place);
bool pe_place_next(const pe_view *x, const pe_view *y, bool per_batch, struct pe_place *place);
/* where a row of an array with as many axes begins, under the place's leading indices */
char *pe_place_row(const pe_view *v, const struct pe_place *place, size_t row);

/* relative.c: the values of a tile, unscaled, float64 where wide, else float32; from row to row `columns` of the size, which
 * is that of a whole tile. Whole rows of scores are read best; the products of a projection want many rows. */
enum { PE_RELATIVE_BYTES = 65536 };
struct pe_relative_size {
    size_t rows, columns;
};
struct pe_relative_size pe_relative_size_of(bool wide, bool counted);
void pe_relative_fill(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                      const struct pe_place *place, bool wide, void *values);
/* Those of a disentangled bias added to float32 scores at once, whose keys lie side by side and are all seen; returns
 * whether that was possible. */
bool pe_relative_add(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                     const struct pe_place *place, const pe_view *x, const pe_view *y);
int32_t pe_disentangled_entry(const pe_disentangled *d, int64_t distance);

#endif
