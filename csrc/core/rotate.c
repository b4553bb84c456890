/* The rotation: what is done with the heads that a walk comes to. */
#include <string.h>

#include "walk.h"

struct call {
    struct pe_walk walk; /* first: a walk is a call */
    const pe_rows *rows;
    struct pe_tile tile;
    bool filled;
    bool turning;          /* whether rows are made with `turns` */
    size_t turned;         /* the chunk of pairs that `turns` are of */
    struct pe_turns turns; /* where many rows are made */
};

/* ---- planning ---- */

static void plan_operand(struct pe_plan *plan, const pe_rotation *how, const pe_rows *rows, const pe_operand *operand) {
    pe_plan_operand(plan, how, rows->pairs, rows->per_batch, operand->x, operand->y);
    if (how->onto) return;
    size_t head_bytes = plan->head_dim * plan->size;
    const struct pe_axis *run = &plan->axes[plan->n_axes - 1];
    plan->stream = how->stream && plan->whole && !plan->in_place && rows->pairs <= PE_CHUNK_PAIRS &&
                   head_bytes <= PE_STAGE_BYTES && run->y == (ptrdiff_t)head_bytes;
    plan->direct = pe_is_aligned(operand->y, plan->offset * plan->size | plan->pairs * plan->size);
}

/* whole heads through a buffer in L1, then past the caches: what kernels cannot stream themselves */
static bool is_staged(const struct pe_plan *plan) {
    return plan->stream && !plan->direct;
}

/* ---- runs ---- */

/* a bare rotation between rows that lie contiguous, elements `first` .. of the rotated range */
static void rotate_whole(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    bool half = plan->layout == PE_HALF;
    size_t skip = plan->offset + (half ? walk->first : 2 * walk->first);
    const char *ahead = walk->fetch && plan->gaps ? run->x + 2 * run->x_step : run->ahead;
    struct pe_run job = {.x = run->x + skip * plan->size,
                         .y = run->y + skip * plan->size,
                         .x_step = run->x_step,
                         .y_step = run->y_step,
                         .cos = run->cos,
                         .sin = run->sin,
                         .table_step = run->row_step,
                         .gap = (ptrdiff_t)(plan->pairs * plan->size),
                         .rows = run->n,
                         .pairs = walk->count,
                         .together = plan->together,
                         .x_apart = plan->x_apart,
                         .y_apart = plan->y_apart,
                         .ahead = ahead ? ahead + skip * plan->size : NULL,
                         .soon = walk->fetch ? plan->soon : 0,
                         .stream = plan->stream && plan->direct};
    (half ? walk->kernels->half : walk->kernels->interleaved)[plan->dtype](&job);
}

/* elements that are not rotated, once for all chunks */
static void copy_rest(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    size_t end = pe_min(plan->offset + 2 * plan->pairs, plan->head_dim);
    if (plan->in_place || walk->first != 0 || (plan->offset == 0 && end == plan->head_dim)) return;
    for (size_t i = 0; i < run->n * plan->together; i++) {
        ptrdiff_t j = (ptrdiff_t)(i / plan->together), t = (ptrdiff_t)(i % plan->together);
        const char *x = run->x + j * run->x_step + t * plan->x_apart;
        char *y = run->y + j * run->y_step + t * plan->y_apart;
        pe_move_elements(y, plan->y_element, x, plan->x_element, plan->offset, plan->size);
        pe_move_elements(y + (ptrdiff_t)end * plan->y_element, plan->y_element, x + (ptrdiff_t)end * plan->x_element,
                         plan->x_element, plan->head_dim - end, plan->size);
    }
}

/* Any strides, any layout, an appended zero: both members of each pair are gathered into halves on the stack, turned
 * there, and put where they belong. The missing member of an odd head_dim is a zero, read and not written. */
static void rotate_gathered(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    PE_ALIGNED(64) char halves[2 * PE_CHUNK_PAIRS * sizeof(double)];
    ptrdiff_t size = (ptrdiff_t)plan->size, gap = (ptrdiff_t)walk->count * size;
    struct pe_members from = pe_find_members(walk, plan, pe_reads_halves(plan->layout));
    struct pe_members to = pe_find_members(walk, plan, pe_writes_halves(plan->layout));
    memset(halves + 2 * gap - size, 0, plan->size);
    for (size_t j = 0; j < run->n; j++) {
        const char *x = run->x + (ptrdiff_t)j * run->x_step;
        char *y = run->y + (ptrdiff_t)j * run->y_step;
        for (int which = 0; which < 2; which++)
            pe_move_elements(halves + which * gap, size, x + (ptrdiff_t)from.start[which] * plan->x_element,
                             from.step * plan->x_element, from.n[which], plan->size);
        struct pe_run job = {.x = halves,
                             .y = halves,
                             .cos = run->cos + (ptrdiff_t)j * run->row_step,
                             .sin = run->sin + (ptrdiff_t)j * run->row_step,
                             .gap = gap,
                             .rows = 1,
                             .together = 1,
                             .pairs = walk->count};
        walk->kernels->half[plan->dtype](&job);
        for (int which = 0; which < 2; which++)
            pe_move_elements(y + (ptrdiff_t)to.start[which] * plan->y_element, to.step * plan->y_element,
                             halves + which * gap, size, to.n[which], plan->size);
        if (from.n[1] < walk->count) memset(halves + 2 * gap - size, 0, plan->size);
    }
}

static void rotate_staged(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    PE_ALIGNED(64) char stage[PE_STAGE_BYTES];
    size_t head_bytes = plan->head_dim * plan->size, at_once = pe_staged_heads(head_bytes);
    for (size_t j = 0; j < run->n; j += at_once) {
        struct pe_visit part = {.x = run->x + (ptrdiff_t)j * run->x_step,
                                .ahead = run->ahead ? run->ahead + (ptrdiff_t)j * run->x_step : NULL,
                                .y = stage,
                                .x_step = run->x_step,
                                .y_step = (ptrdiff_t)head_bytes,
                                .row_step = run->row_step,
                                .cos = run->cos + (ptrdiff_t)j * run->row_step,
                                .sin = run->sin + (ptrdiff_t)j * run->row_step,
                                .n = pe_min(at_once, run->n - j)};
        rotate_whole(walk, plan, &part);
        copy_rest(walk, plan, &part);
        walk->kernels->stream(run->y + j * head_bytes, stage, part.n * head_bytes);
    }
}

static void rotate_run(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    if (is_staged(plan)) {
        rotate_staged(walk, plan, run);
        return;
    }
    if (plan->whole)
        rotate_whole(walk, plan, run);
    else
        rotate_gathered(walk, plan, run);
    copy_rest(walk, plan, run);
}

/* ---- the walk ---- */

/* a look at the first two: rows whose positions do not go on like that are made by themselves all the same */
static bool begins_counting(const pe_positions *positions, size_t batch, size_t j, size_t n) {
    return n > 1 && pe_position(positions, 0, batch, j + 1) == pe_position(positions, 0, batch, j) + 1;
}

/* Where many rows are made and positions count up, they are made one from another. */
static void enter(struct pe_walk *walk, const struct pe_plan *plan, size_t batch, size_t j, size_t n,
                  struct pe_visit *run) {
    struct call *call = (struct call *)walk;
    const pe_rows *rows = call->rows;
    (void)plan;
    if (!call->filled) {
        bool turning = call->turning && begins_counting(&rows->positions, batch, j, n);
        if (turning && call->turned != walk->first) {
            pe_turns_begin(walk->kernels, rows->freq, walk->tile_rows, walk->first, walk->count, rows->dtype,
                           &call->turns);
            call->turned = walk->first;
        }
        pe_tile_fill(walk->kernels, rows, turning ? &call->turns : NULL, batch, j, n, walk->first, walk->count,
                     &call->tile);
    }
    call->filled = true;
    run->cos = call->tile.cos, run->sin = call->tile.sin, run->row_step = call->tile.step;
}

static void leave(struct pe_walk *walk, size_t batch, size_t j, size_t n) {
    struct call *call = (struct call *)walk;
    (void)batch, (void)j, (void)n;
    call->filled = false;
}

/* A batch of single tokens with positions of their own is a sequence along the batch axis: its rows are made many at a
 * time. A gather from tables that differ between batch rows has two strides and stays as it is. */
static void fold_single_tokens(pe_rotation *how, pe_rows *rows) {
    if (rows->by_position && (rows->cos_batch || rows->sin_batch)) return;
    if (!rows->by_position) {
        rows->cos_row = rows->cos_batch, rows->sin_row = rows->sin_batch;
        rows->cos_batch = rows->sin_batch = 0;
    }
    if (rows->positions.kind == PE_RANGE) rows->positions.kind = PE_INT64;
    rows->positions.stride = rows->positions.batch_stride;
    rows->positions.batch_stride = 0;
    rows->per_batch = false;
    how->seq_axis = 0;
}

/* Heads that meet a row of angles together. Returns how many plans there are. */
static int share_angles(struct pe_plan *plans) {
    struct pe_axis run = plans->axes[plans->n_axes - 1];
    if (is_staged(plans)) return 1;
    if (run.row) {
        int n = pe_group_runs(plans, PE_TOGETHER);
        for (int k = 0; k < n; k++)
            if (plans->size == 2 && plans[k].together > 1)
                plans[k].soon = (ptrdiff_t)pe_plan_run_rows(plans, PE_SOON_BYTES) * run.x;
        return n;
    }
    pe_join_heads(plans);
    return 1;
}

/* Positions of a tile: as many as its rows have room for, or any number where they are a ready table's own; and not more
 * than a run should hold. */
static size_t tile_rows(const pe_rows *rows, const struct pe_plan *plans, int n_plans) {
    bool staged = false;
    for (int i = 0; i < n_plans; i++) staged |= is_staged(&plans[i]);
    size_t most = pe_rows_lie_ready(rows) ? SIZE_MAX : pe_tile_rows(rows->dtype, rows->pairs);
    return pe_min(most, pe_plan_run_rows(&plans[0], staged ? PE_STAGED_RUN_BYTES : PE_RUN_BYTES));
}

enum pe_status pe_rotate(const struct pe_kernels *kernels, const pe_rotation *how, const pe_rows *rows,
                         const pe_operand *operands, int n_operands, pe_poll *poll, void *context) {
    pe_rotation folded_how;
    pe_rows folded_rows;
    if (rows->per_batch && operands[0].x->shape[how->seq_axis] == 1 && rows->positions.from == 0) {
        folded_how = *how, folded_rows = *rows;
        fold_single_tokens(&folded_how, &folded_rows);
        how = &folded_how, rows = &folded_rows;
    }
    struct pe_plan plans[4];
    struct call call; /* its tile stays as it is */
    int n_plans = 0;
    bool streamed = false;
    size_t bytes = 0;
    for (int i = 0; i < n_operands; i++) {
        if (pe_elements(operands[i].x) == 0) continue;
        plan_operand(&plans[n_plans], how, rows, &operands[i]);
        streamed |= plans[n_plans].stream;
        n_plans += how->onto ? 1 : share_angles(&plans[n_plans]);
        bytes += pe_elements(operands[i].x) * pe_itemsize(operands[i].x->dtype);
    }
    if (n_plans == 0) return PE_OK;
    call.walk = (struct pe_walk){.kernels = kernels,
                                 .batch = rows->per_batch ? (size_t)operands[0].x->shape[0] : 1,
                                 .seq = (size_t)operands[0].x->shape[how->seq_axis],
                                 .tile_rows = tile_rows(rows, plans, n_plans),
                                 .fetch = bytes > PE_FETCH_BYTES,
                                 .enter = enter,
                                 .visit = how->onto ? pe_rotate_onto : rotate_run,
                                 .leave = leave,
                                 .poll = poll,
                                 .context = context};
    call.rows = rows, call.filled = false;
    call.turning = rows->freq && pe_min(call.walk.seq, call.walk.tile_rows) >= PE_WORTH_TURNS;
    call.turned = SIZE_MAX;
    bool stopped = pe_walk_all(&call.walk, rows->pairs, plans, n_plans);
    if (streamed) kernels->stream_end();
    return stopped ? PE_STOPPED : PE_OK;
}
