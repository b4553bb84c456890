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
/* grid.c: the same of a grid, whose tiles have a size of their own */
struct pe_relative_size pe_grid_size_of(const pe_grid *grid, bool wide);
void pe_grid_fill(const pe_grid *grid, const struct pe_bias_tile *tile, const struct pe_place *place, bool wide,
                  void *values);
int32_t pe_disentangled_entry(const pe_disentangled *d, int64_t distance);

/* n elements as float32 */
void pe_floats(const struct pe_kernels *kernels, float *to, const char *from, ptrdiff_t step, size_t n,
               enum pe_dtype dtype);

/* relative_pick.c: entries of a disentangled bias where runs of neighbours can be picked. What a tile's rows share, made by
 * pe_picks_tile: float32, the keys' share of each value. */
enum { PE_PICK_ROWS = 48, PE_PICK_NEAR = 1120, PE_PICK_STEP = PE_PICK_NEAR + PE_BLOCK, PE_PICK_COLUMNS = 4096 };
struct pe_picks {
    int64_t low, high;               /* distances up to low, and from high on, have one entry each */
    size_t queries;                  /* of the matrix */
    int64_t u;                       /* distance of the tile's first row and column */
    const int32_t *index, *reversed; /* of this distance */
    size_t begin, end;               /* columns that are near for one of the rows */
    PE_ALIGNED(64) float near[PE_PICK_ROWS * PE_PICK_STEP];
    PE_ALIGNED(64) float far[2][PE_PICK_COLUMNS];             /* of keys far before and far behind the query */
    PE_ALIGNED(64) float row[PE_PICK_COLUMNS + 2 * PE_BLOCK]; /* entries of a query, copied */
};
bool pe_picks_possible(const pe_bias *bias, const pe_view *y, struct pe_bias_tile *tile);
/* The size of tiles too. They come down the queries, then along the keys. */
void pe_picks_begin(const pe_bias *bias, const pe_view *y, struct pe_bias_tile *tile, struct pe_picks *picks);
void pe_picks_tile(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                   const struct pe_place *place, struct pe_picks *picks);
/* The values of a row: where they lie, if they do, else in `values`. */
const float *pe_picks_values(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                             const struct pe_place *place, struct pe_picks *picks, size_t row, float *values);
/* The same added to float32 scores side by side. */
void pe_picks_add(const struct pe_kernels *kernels, const pe_bias *bias, const struct pe_bias_tile *tile,
                  const struct pe_place *place, struct pe_picks *picks, size_t row, const char *x, char *y);
bool pe_with_picks(bool (*run)(void *call, struct pe_picks *picks), void *call);

#endif
