/* The gradients of what a rotation is made of: tables, frequencies, positions. (That of x is the transposed rotation.)
 *
 * The same walk as the rotation's, but the rows of a tile are sums that grow: for each position and pair, products of x
 * and its gradient over all heads. When a tile has met all heads, its sums become gradients of cosines and sines, and
 * those what is wanted. The order of every sum is that in which the walk comes by, along the elements as they lie.
 */
#include <string.h>

#include "walk.h"

/* SUMS: of a tile, which with those of the other kind and the elements fit L1; one row of a chunk is as many as 2048 */
enum { SUMS = 1024, SUMS_OF_A_ROW = 2 * PE_CHUNK_PAIRS };

struct call {
    struct pe_walk walk; /* first: a walk is a call */
    const pe_rows *rows;
    const pe_gradient *wanted;
    bool interleaved; /* how sums lie in their row */
    PE_ALIGNED(64) double straight[SUMS_OF_A_ROW];
    PE_ALIGNED(64) double crossed[SUMS_OF_A_ROW];
    struct pe_tile tile;
};

/* ---- runs ---- */

static double *sums(const char *row) { /* enter() made them from memory that may be written */
    return (double *)(uintptr_t)row;
}

static void add_products(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_products *job) {
    (plan->dtype == PE_F64 ? walk->kernels->products_f64 : walk->kernels->products_f32)(job);
}

/* rows that lie as kernels want them */
static void add_whole(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    bool half = plan->layout == PE_HALF;
    size_t skip = (plan->offset + (half ? walk->first : 2 * walk->first)) * plan->size;
    struct pe_products job = {.x = run->x + skip,
                              .g = run->y + skip,
                              .x_step = run->x_step,
                              .g_step = run->y_step,
                              .gap = half ? (ptrdiff_t)(plan->pairs * plan->size) : 0,
                              .straight = sums(run->cos),
                              .crossed = sums(run->sin),
                              .sum_step = run->row_step,
                              .rows = run->n,
                              .pairs = walk->count};
    add_products(walk, plan, &job);
}

/* the members of a chunk of a head as halves of float32 or float64; a member past the head is zero */
static void gather(const struct pe_walk *walk, const struct pe_plan *plan, const char *head, ptrdiff_t element,
                   bool halves, char *to) {
    PE_ALIGNED(64) uint16_t narrow[PE_CHUNK_PAIRS];
    struct pe_members from = pe_find_members(walk, plan, halves);
    bool widens = plan->size == 2;
    size_t size = widens ? sizeof(float) : plan->size;
    memset(to + (2 * walk->count - 1) * size, 0, size);
    for (int which = 0; which < 2; which++) {
        const char *source = head + (ptrdiff_t)from.start[which] * element;
        char *target = to + (size_t)which * walk->count * size;
        pe_move_elements(widens ? (char *)narrow : target, (ptrdiff_t)plan->size, source, from.step * element,
                         from.n[which], plan->size);
        if (widens)
            (plan->dtype == PE_F16 ? walk->kernels->widen_f16 : walk->kernels->widen_bf16)(
                narrow, (float *)(void *)target, from.n[which]);
    }
}

/* any strides, any layout, any dtype, an appended zero */
static void add_gathered(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    PE_ALIGNED(64) char x[2 * PE_CHUNK_PAIRS * sizeof(double)];
    PE_ALIGNED(64) char g[2 * PE_CHUNK_PAIRS * sizeof(double)];
    size_t size = plan->size == 2 ? sizeof(float) : plan->size;
    for (size_t j = 0; j < run->n; j++) {
        ptrdiff_t row = (ptrdiff_t)j * run->row_step;
        gather(walk, plan, run->x + (ptrdiff_t)j * run->x_step, plan->x_element, pe_reads_halves(plan->layout), x);
        gather(walk, plan, run->y + (ptrdiff_t)j * run->y_step, plan->y_element, pe_writes_halves(plan->layout), g);
        struct pe_products job = {.x = x,
                                  .g = g,
                                  .gap = (ptrdiff_t)(walk->count * size),
                                  .straight = sums(run->cos + row),
                                  .crossed = sums(run->sin + row),
                                  .rows = 1,
                                  .pairs = walk->count};
        add_products(walk, plan, &job);
    }
}

/* ---- tiles ---- */

static void enter(struct pe_walk *walk, const struct pe_plan *plan, size_t batch, size_t j, size_t n,
                  struct pe_visit *run) {
    struct call *call = (struct call *)walk;
    (void)plan, (void)batch, (void)j;
    size_t row = 2 * walk->count * sizeof(double);
    memset(call->straight, 0, n * row);
    memset(call->crossed, 0, n * row);
    run->cos = (const char *)call->straight, run->sin = (const char *)call->crossed, run->row_step = (ptrdiff_t)row;
}

/* a row of sums to the gradients of its cosines and sines, in the first half of each */
static void combine(const struct call *call, double *straight, double *crossed) {
    size_t n = call->walk.count, second = call->interleaved ? 1 : n, step = call->interleaved ? 2 : 1;
    for (size_t i = 0; i < n; i++) { /* element i is written where it, or what is smaller, was read */
        straight[i] = straight[i * step] + straight[i * step + second];
        crossed[i] = crossed[i * step + second] - crossed[i * step];
    }
}

static void add_to_table(const struct call *call, const pe_view *table, size_t batch, size_t j, const double *gradient,
                         double sign) {
    char *to = table->data + (ptrdiff_t)batch * table->stride[0] + (ptrdiff_t)j * table->stride[1] +
               (ptrdiff_t)call->walk.first * table->stride[2];
    for (size_t i = 0; i < call->walk.count; i++, to += table->stride[2]) {
        if (table->dtype == PE_F64)
            *(double *)to += sign * gradient[i];
        else
            *(float *)to = (float)((double)*(float *)to + sign * gradient[i]);
    }
}

/* what the angles of one row had to do with the loss, to frequencies and positions */
static void add_angles(struct call *call, size_t batch, size_t j, const double *of_cos, const double *of_sin,
                       const double *cos, const double *sin) {
    const pe_frequencies *freq = call->rows->freq;
    const pe_gradient *wanted = call->wanted;
    for (size_t i = 0; i < call->walk.count; i++) {
        size_t pair = call->walk.first + i;
        int axis = freq->axis_of_freq ? freq->axis_of_freq[pair] : 0;
        double angle = cos[i] * of_sin[i] - sin[i] * of_cos[i];
        if (wanted->inv_freq) wanted->inv_freq[pair] += pe_position(&call->rows->positions, axis, batch, j) * angle;
        if (wanted->positions) {
            const ptrdiff_t *stride = wanted->positions->stride;
            char *to =
                wanted->positions->data + axis * stride[0] + (ptrdiff_t)batch * stride[1] + (ptrdiff_t)j * stride[2];
            *(double *)(void *)to += freq->inv_freq[pair] * angle;
        }
    }
}

static void leave(struct pe_walk *walk, size_t batch, size_t j, size_t n) {
    struct call *call = (struct call *)walk;
    const pe_gradient *wanted = call->wanted;
    bool angles = wanted->inv_freq || wanted->positions;
    if (angles) pe_tile_fill(walk->kernels, call->rows, NULL, batch, j, n, walk->first, walk->count, &call->tile);
    for (size_t i = 0; i < n; i++) {
        double *of_cos = call->straight + 2 * i * walk->count, *of_sin = call->crossed + 2 * i * walk->count;
        ptrdiff_t row = (ptrdiff_t)i * call->tile.step;
        combine(call, of_cos, of_sin);
        if (wanted->cos) add_to_table(call, wanted->cos, batch, j + i, of_cos, 1);
        if (wanted->sin) add_to_table(call, wanted->sin, batch, j + i, of_sin, call->rows->conjugate ? -1 : 1);
        if (angles)
            add_angles(call, batch, j + i, of_cos, of_sin, (const double *)(const void *)(call->tile.cos + row),
                       (const double *)(const void *)(call->tile.sin + row));
    }
}

enum pe_status pe_rotate_gradient(const struct pe_kernels *kernels, const pe_rotation *how, const pe_rows *rows,
                                  const pe_gradient *wanted, pe_poll *poll, void *context) {
    struct pe_plan plan;
    struct call call; /* its buffers stay as they are */
    if (pe_elements(wanted->x) == 0) return PE_OK;
    pe_plan_operand(&plan, how, rows->pairs, rows->per_batch, wanted->x, wanted->grad);
    plan.in_place = false; /* x may be its own gradient: nothing here writes to either */
    bool straight = plan.whole && plan.size != 2;
    size_t count = pe_min(rows->pairs, PE_CHUNK_PAIRS);
    call.walk = (struct pe_walk){.kernels = kernels,
                                 .batch = rows->per_batch ? (size_t)wanted->x->shape[0] : 1,
                                 .seq = (size_t)wanted->x->shape[how->seq_axis],
                                 .tile_rows = pe_min(PE_TILE_ROWS, SUMS / (2 * count) ? SUMS / (2 * count) : 1),
                                 .enter = enter,
                                 .visit = straight ? add_whole : add_gathered,
                                 .leave = leave,
                                 .poll = poll,
                                 .context = context};
    call.rows = rows, call.wanted = wanted, call.tile.step = 0;
    call.interleaved = straight && how->layout == PE_INTERLEAVED;
    return pe_walk_all(&call.walk, rows->pairs, &plan, 1) ? PE_STOPPED : PE_OK;
}
