/* The rotation added to what is there, one head after another: nothing is as large as the input.
 *
 * A head is turned in float32 (float64 for float64) on the stack, then added to its output and rounded there, once.
 */
#include <string.h>

#include "walk.h"

static enum pe_dtype wide(const struct pe_plan *plan) {
    return plan->dtype == PE_F64 ? PE_F64 : PE_F32;
}

/* n turned elements, side by side, to elements that lie `step` bytes apart */
static void add_elements(const struct pe_walk *walk, const struct pe_plan *plan, char *y, ptrdiff_t step,
                         const char *turned, size_t n) {
    PE_ALIGNED(64) char gathered[PE_CHUNK_PAIRS * sizeof(double)];
    ptrdiff_t size = (ptrdiff_t)plan->size;
    struct pe_add job = {.x = y, .y = y, .table = turned, .scale = 1, .rows = 1, .together = 1, .n = n};
    if (step == size) {
        walk->kernels->add[plan->dtype](&job);
        return;
    }
    job.x = job.y = gathered;
    pe_move_elements(gathered, size, y, step, n, plan->size);
    walk->kernels->add[plan->dtype](&job);
    pe_move_elements(y, step, gathered, size, n, plan->size);
}

/* elements from..to of a head, which no rotation turns */
static void add_plain(const struct pe_walk *walk, const struct pe_plan *plan, const char *x, char *y, size_t from,
                      size_t to) {
    PE_ALIGNED(64) char plain[PE_CHUNK_PAIRS * sizeof(double)];
    for (size_t n; from < to; from += n) {
        n = pe_min(PE_CHUNK_PAIRS, to - from);
        pe_widen(walk->kernels, plain, wide(plan), x + (ptrdiff_t)from * plan->x_element, plan->x_element, plan->dtype,
                 n);
        add_elements(walk, plan, y + (ptrdiff_t)from * plan->y_element, plan->y_element, plain, n);
    }
}

static void add_rest(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    size_t end = pe_min(plan->offset + 2 * plan->pairs, plan->head_dim);
    if (walk->first != 0 || (plan->offset == 0 && end == plan->head_dim)) return;
    for (size_t j = 0; j < run->n; j++) {
        const char *x = run->x + (ptrdiff_t)j * run->x_step;
        char *y = run->y + (ptrdiff_t)j * run->y_step;
        add_plain(walk, plan, x, y, 0, plan->offset);
        add_plain(walk, plan, x, y, end, plan->head_dim);
    }
}

/* rows that lie as kernels want them, as many at once as the stage holds; all pairs are one chunk */
static void add_whole(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    PE_ALIGNED(64) char stage[PE_STAGE_BYTES];
    size_t size = pe_itemsize(wide(plan)), n = 2 * walk->count, skip = plan->offset * plan->size;
    size_t at_once = PE_STAGE_BYTES / (n * size);
    ptrdiff_t row = (ptrdiff_t)(n * size);
    for (size_t j = 0, rows; j < run->n; j += rows) {
        rows = pe_min(at_once, run->n - j);
        struct pe_run turn = {.x = run->x + (ptrdiff_t)j * run->x_step + skip,
                              .y = stage,
                              .x_step = run->x_step,
                              .y_step = row,
                              .cos = run->cos + (ptrdiff_t)j * run->row_step,
                              .sin = run->sin + (ptrdiff_t)j * run->row_step,
                              .table_step = run->row_step,
                              .gap = row / 2,
                              .rows = rows,
                              .together = 1,
                              .pairs = walk->count};
        if (size != plan->size) {
            for (size_t i = 0; i < rows; i++)
                pe_widen(walk->kernels, stage + (ptrdiff_t)i * row, PE_F32, turn.x + (ptrdiff_t)i * run->x_step,
                         (ptrdiff_t)plan->size, plan->dtype, n);
            turn.x = stage, turn.x_step = row;
        }
        (plan->layout == PE_HALF ? walk->kernels->half : walk->kernels->interleaved)[wide(plan)](&turn);
        char *y = run->y + (ptrdiff_t)j * run->y_step + skip;
        struct pe_add job = {.x = y,
                             .y = y,
                             .x_step = run->y_step,
                             .y_step = run->y_step,
                             .table = stage,
                             .table_step = row,
                             .scale = 1,
                             .rows = rows,
                             .together = 1,
                             .n = n};
        walk->kernels->add[plan->dtype](&job);
    }
}

/* any strides, any layout, an appended zero, any number of chunks */
static void add_gathered(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    PE_ALIGNED(64) char halves[2 * PE_CHUNK_PAIRS * sizeof(double)];
    size_t size = pe_itemsize(wide(plan));
    ptrdiff_t gap = (ptrdiff_t)(walk->count * size);
    struct pe_members from = pe_find_members(walk, plan, pe_reads_halves(plan->layout));
    struct pe_members to = pe_find_members(walk, plan, pe_writes_halves(plan->layout));
    for (size_t j = 0; j < run->n; j++) {
        const char *x = run->x + (ptrdiff_t)j * run->x_step;
        char *y = run->y + (ptrdiff_t)j * run->y_step;
        memset(halves + 2 * gap - (ptrdiff_t)size, 0, size);
        for (int which = 0; which < 2; which++)
            pe_widen(walk->kernels, halves + which * gap, wide(plan),
                     x + (ptrdiff_t)from.start[which] * plan->x_element, from.step * plan->x_element, plan->dtype,
                     from.n[which]);
        struct pe_run turn = {.x = halves,
                              .y = halves,
                              .cos = run->cos + (ptrdiff_t)j * run->row_step,
                              .sin = run->sin + (ptrdiff_t)j * run->row_step,
                              .gap = gap,
                              .rows = 1,
                              .together = 1,
                              .pairs = walk->count};
        walk->kernels->half[wide(plan)](&turn);
        for (int which = 0; which < 2; which++)
            add_elements(walk, plan, y + (ptrdiff_t)to.start[which] * plan->y_element, to.step * plan->y_element,
                         halves + which * gap, to.n[which]);
    }
}

void pe_rotate_onto(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    (plan->whole && plan->pairs <= PE_CHUNK_PAIRS ? add_whole : add_gathered)(walk, plan, run);
    add_rest(walk, plan, run);
}
