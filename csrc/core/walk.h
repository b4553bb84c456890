/* Which elements meet which row, in the order that memory likes: what every pass over heads and rows shares.
 *
 * A walk goes over the sequence in tiles of positions. For each tile it has something a row at hand, in L1 (cosines and
 * sines; sums that grow), and visits with it every head of every operand before the next tile; so a row is made, or read,
 * once. Within a tile the axes of an array are walked from the largest stride to the smallest, and the smallest makes the
 * run that a visitor gets: (batch, heads, seq, dim) runs along the sequence, rows in step; (batch, seq, heads, dim) runs
 * along the heads, one row for all.
 */
#ifndef PE_WALK_H
#define PE_WALK_H

#include "rows.h"

struct pe_axis {
    size_t n;
    ptrdiff_t x, y, row; /* strides; row counts rows: 1 on the sequence axis, else 0 */
};

/* One operand, planned: everything that stays the same from tile to tile. */
struct pe_plan {
    const char *x;
    char *y; /* of the same shape; only a visitor reads or writes it */
    ptrdiff_t x_batch, y_batch, x_seq, y_seq, x_element, y_element;
    struct pe_axis axes[PE_MAX_DIM]; /* largest stride first; the last is the run */
    int n_axes, seq_index;           /* seq_index: where the sequence is among them, -1 when it is one long */
    size_t size, head_dim, pairs;    /* bytes of an element, elements of a head, pairs */
    size_t offset;                   /* first rotated element */
    enum pe_layout layout;
    enum pe_dtype dtype;
    bool in_place, whole; /* whole: kernels work on the rows where they lie */
    size_t together; /* heads that a visit takes at once, x_apart and y_apart from each other: 1, or as a driver says */
    ptrdiff_t x_apart, y_apart;
    bool gaps;           /* heads that go together are not followed by those of the next row */
    ptrdiff_t soon;      /* bytes from each head to one that is fetched into L1 while it is turned, or 0 */
    bool stream, direct; /* past the caches: straight from the kernel, or staged in L1 */
};

/* n heads that share a row, or have one each */
struct pe_visit {
    const char *x, *ahead; /* ahead: x of the run that follows, or NULL */
    char *y;
    ptrdiff_t x_step, y_step, row_step;
    const char *cos, *sin; /* the row: whoever enters knows whether it may be written */
    size_t n;
};

struct pe_walk {
    const struct pe_kernels *kernels;
    size_t batch, seq;   /* batch rows with rows of their own, else 1; length of the sequence */
    size_t tile_rows;    /* positions of a tile, at most */
    size_t first, count; /* pairs of this chunk */
    bool fetch;          /* large enough to come from memory; within the caches fetching only costs */
    /* before an operand's first visit in a tile: sets cos, sin and row_step */
    void (*enter)(struct pe_walk *walk, const struct pe_plan *plan, size_t batch, size_t j, size_t n,
                  struct pe_visit *visit);
    void (*visit)(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *visit);
    void (*leave)(struct pe_walk *walk, size_t batch, size_t j, size_t n); /* after a tile, or NULL */
    pe_poll *poll;
    void *context;
    size_t polled;
};

/* PE_TOGETHER runs meet each row of angles or of a table at once. Prefetchers that follow one run beside the rows of a table
 * lose it; four they follow (on a Zen 4 an in-place rotation of heads first takes 1.05 times an in-place scale, where one run
 * after the other takes 1.45, two 1.2, and sixteen, more than a set of the first cache has ways, 1.7). Prefetchers come late
 * for 16-bit elements even so: float16 takes 0.8 of the time, and bfloat16 0.93, where each run asks for what lies PE_SOON_BYTES
 * behind; half or twice that is as good. float32 takes up to 1.3 times as long.
 * PE_RUN_BYTES of each lie one behind the other before the walk goes on to the next: prefetchers start anew there (runs of 8
 * KiB take 1.6 times the scale, of 32 KiB 1.25, of 64 KiB 1.15).
 * The stage holds one head of up to PE_STAGE_BYTES, and as many smaller ones as fit PE_STAGED_BYTES: a fuller one pushes
 * out of L1 what comes in (16 KiB take 1.7 times as long). Staged runs go one after the other, PE_STAGED_RUN_BYTES of each,
 * and the next is fetched ahead: four at once through the stage take 1.5 times as long. */
enum {
    PE_FETCH_BYTES = 4 << 20,
    PE_RUN_BYTES = 256 << 10,
    PE_TOGETHER = 4,
    PE_SOON_BYTES = 1024,
    PE_STAGE_BYTES = 16384,
    PE_STAGED_BYTES = 2048,
    PE_STAGED_RUN_BYTES = 8192
};

/* Everything of a plan but what concerns tables and streams. */
void pe_plan_operand(struct pe_plan *plan, const pe_rotation *how, size_t pairs, bool per_batch, const pe_view *x,
                     const pe_view *y);
/* How many heads in a row a tile should hold where the sequence is the run, for runs of so many bytes. */
size_t pe_plan_run_rows(const struct pe_plan *plan, size_t bytes);
/* Where the sequence is the run, runs of the axis outside it, heads or the batch, go together, at most so many: plans[0]
 * becomes one of groups, plans[1] one of what is left over. Returns how many plans there are, 1 or 2. */
int pe_group_runs(struct pe_plan *plans, size_t most);
/* Where heads are the run, and not too many, they go together, and what is outside them becomes the run. */
void pe_join_heads(struct pe_plan *plan);
/* How many heads of that size are staged at once, at least 1. */
size_t pe_staged_heads(size_t head_bytes);
/* Whether every vector that a kernel writes begins at a multiple of pe_stream_alignment; `also`: offsets, or'ed. */
bool pe_is_aligned(const pe_view *y, size_t also);
/* Positions j .. j + n of a batch row, every operand. Returns true where the poll asked to stop. */
bool pe_walk_tile(struct pe_walk *walk, const struct pe_plan *plans, int n_plans, size_t batch, size_t j, size_t n);
/* Walk all chunks of pairs, tile by tile. Returns true where the poll asked to stop. */
bool pe_walk_all(struct pe_walk *walk, size_t pairs, const struct pe_plan *plans, int n_plans);

/* Members of this chunk's pairs among the elements of a head: first ones start at start[0], second ones at start[1], each
 * `step` elements apart; the last second one may lie past the head, then n[1] is one less. */
struct pe_members {
    size_t start[2], n[2];
    ptrdiff_t step;
};
struct pe_members pe_find_members(const struct pe_walk *walk, const struct pe_plan *plan, bool halves);
/* n elements from one place to another, both strided */
void pe_move_elements(char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step, size_t n, size_t size);

/* rotate_onto.c: the visit that adds the rotation to y */
void pe_rotate_onto(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run);

static inline bool pe_reads_halves(enum pe_layout layout) {
    return layout == PE_HALF || layout == PE_HALF_TO_INTERLEAVED;
}

static inline bool pe_writes_halves(enum pe_layout layout) {
    return layout == PE_HALF || layout == PE_INTERLEAVED_TO_HALF;
}

#endif
