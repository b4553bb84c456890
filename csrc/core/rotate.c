/* The driver of the rotation: which elements meet which row, in the order that memory likes.
 *
 * The call walks the sequence in tiles of positions. For each tile it has a few rows of cosines and sines at hand, in L1,
 * and turns with them every head of every operand before the next tile; so a row is made, or read, once. Within a tile
 * the axes of an array are walked from the largest stride to the smallest, and the smallest makes the run that a kernel
 * gets: (batch, heads, seq, dim) runs along the sequence, table rows in step; (batch, seq, heads, dim) runs along the
 * heads, one table row for all.
 */
#include <string.h>

#include "posenc.h"

/* RUN_BYTES: of each head in a tile where the sequence is the run. Half of it costs a tenth more (float16, AVX-512), twice
 * of it leaves L1. */
enum { STAGE_BYTES = 16384, RUN_BYTES = 16384, POLL_BYTES = 1 << 20, FETCH_BYTES = 4 << 20 };

struct axis {
    size_t n;
    ptrdiff_t x, y, table; /* strides; table counts rows: 1 on the sequence axis, else 0 */
};

/* One operand, planned: everything that stays the same from tile to tile. */
struct plan {
    const char *x;
    char *y;
    ptrdiff_t x_batch, y_batch, x_seq, y_seq, x_element, y_element;
    struct axis axes[PE_MAX_DIM]; /* largest stride first; the last is the run */
    int n_axes, seq_index;        /* seq_index: where the sequence is among them, -1 when it is one long */
    size_t size, head_dim, pairs; /* bytes of an element, elements of a head, pairs */
    size_t offset;                /* first rotated element */
    enum pe_layout layout;
    enum pe_dtype dtype;
    bool in_place, whole; /* whole: kernels work on the rows where they lie */
    bool evens_first;     /* table rows sorted for bfloat16 halves */
    bool stream, aligned; /* past the caches: straight from the kernel where y is aligned for it, else staged in L1 */
};

struct call {
    const struct pe_kernels *kernels;
    const pe_rows *rows;
    size_t seq;          /* length of the sequence */
    size_t first, count; /* pairs of this chunk */
    bool fetch;          /* large enough to come from memory; within the caches fetching only costs */
    struct pe_tile plain, sorted;
    pe_poll *poll;
    void *context;
    size_t polled;
};

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

static ptrdiff_t magnitude(ptrdiff_t stride) {
    return stride < 0 ? -stride : stride;
}

/* ---- planning ---- */

static void add_axis(struct plan *plan, struct axis axis) {
    int i = plan->n_axes++;
    for (; i > 0 && magnitude(plan->axes[i - 1].x) < magnitude(axis.x); i--) plan->axes[i] = plan->axes[i - 1];
    plan->axes[i] = axis;
}

/* two neighbouring axes that step through memory as one become one */
static void merge_axes(struct plan *plan) {
    int last = 0;
    for (int i = 1; i < plan->n_axes; i++) {
        struct axis *outer = &plan->axes[last], inner = plan->axes[i];
        ptrdiff_t n = (ptrdiff_t)inner.n;
        if (!outer->table && !inner.table && outer->x == n * inner.x && outer->y == n * inner.y)
            *outer = (struct axis){outer->n * inner.n, inner.x, inner.y, 0};
        else
            plan->axes[++last] = inner;
    }
    if (plan->n_axes) plan->n_axes = last + 1;
}

static void plan_axes(struct plan *plan, const pe_operand *operand, int seq_axis, bool per_batch) {
    const pe_view *x = operand->x, *y = operand->y;
    for (int i = per_batch ? 1 : 0; i < x->ndim - 1; i++)
        if (x->shape[i] != 1)
            add_axis(plan, (struct axis){(size_t)x->shape[i], x->stride[i], y->stride[i], i == seq_axis});
    merge_axes(plan);
    plan->seq_index = -1;
    for (int i = 0; i < plan->n_axes; i++)
        if (plan->axes[i].table) plan->seq_index = i;
    if (plan->n_axes == 0) plan->axes[plan->n_axes++] = (struct axis){1, 0, 0, 0};
}

/* every vector that a kernel writes begins at a multiple of PE_STREAM_ALIGNMENT */
static bool is_aligned(const struct plan *plan, const pe_view *y) {
    uintptr_t bits = (uintptr_t)y->data | plan->offset * plan->size | plan->pairs * plan->size;
    for (int i = 0; i < y->ndim - 1; i++)
        if (y->shape[i] > 1) bits |= (uintptr_t)y->stride[i];
    return bits % PE_STREAM_ALIGNMENT == 0;
}

static void plan_operand(struct plan *plan, const pe_rotation *how, const pe_rows *rows, const pe_operand *operand) {
    const pe_view *x = operand->x, *y = operand->y;
    int last = x->ndim - 1;
    plan->x = x->data, plan->y = y->data; /* member by member: clearing all the axes would cost a decode step 5 % */
    plan->x_batch = x->shape[0] > 1 ? x->stride[0] : 0;
    plan->y_batch = x->shape[0] > 1 ? y->stride[0] : 0;
    plan->x_seq = x->stride[how->seq_axis];
    plan->y_seq = y->stride[how->seq_axis];
    plan->x_element = x->stride[last];
    plan->y_element = y->stride[last];
    plan->size = pe_itemsize(x->dtype);
    plan->head_dim = (size_t)x->shape[last];
    plan->pairs = rows->pairs;
    plan->offset = how->rotary_offset;
    plan->layout = how->layout;
    plan->dtype = x->dtype;
    plan->in_place = x->data == y->data;
    plan->n_axes = 0;
    plan_axes(plan, operand, how->seq_axis, rows->per_batch);
    bool contiguous =
        (plan->x_element == (ptrdiff_t)plan->size && plan->y_element == (ptrdiff_t)plan->size) || plan->head_dim == 1;
    bool moves = how->layout == PE_INTERLEAVED_TO_HALF || how->layout == PE_HALF_TO_INTERLEAVED;
    plan->whole = contiguous && !moves && how->rotary_offset + 2 * rows->pairs <= plan->head_dim;
    plan->evens_first = x->dtype == PE_BF16 && !(plan->whole && how->layout == PE_INTERLEAVED);
    size_t head_bytes = plan->head_dim * plan->size;
    plan->stream = how->stream && plan->whole && !plan->in_place && rows->pairs <= PE_CHUNK_PAIRS &&
                   head_bytes <= STAGE_BYTES && plan->axes[plan->n_axes - 1].y == (ptrdiff_t)head_bytes;
    plan->aligned = is_aligned(plan, y);
}

static size_t run_rows(const struct plan *plan) {
    size_t head_bytes = plan->head_dim * plan->size;
    return head_bytes < RUN_BYTES ? RUN_BYTES / head_bytes : 1;
}

/* ---- runs ---- */

struct run {
    const char *x, *ahead; /* ahead: x of the run that follows, or NULL */
    char *y;
    ptrdiff_t x_step, y_step, table_step;
    const char *cos, *sin;
    size_t n;
};

/* a bare rotation between rows that lie contiguous, elements `first` .. of the rotated range */
static void rotate_whole(const struct call *call, const struct plan *plan, const struct run *run) {
    bool half = plan->layout == PE_HALF;
    size_t skip = plan->offset + (half ? call->first : 2 * call->first);
    struct pe_run job = {.x = run->x + skip * plan->size,
                         .y = run->y + skip * plan->size,
                         .x_step = run->x_step,
                         .y_step = run->y_step,
                         .cos = run->cos,
                         .sin = run->sin,
                         .table_step = run->table_step,
                         .gap = (ptrdiff_t)(plan->pairs * plan->size),
                         .rows = run->n,
                         .pairs = call->count,
                         .ahead = run->ahead ? run->ahead + skip * plan->size : NULL,
                         .stream = plan->stream && plan->aligned};
    (half ? call->kernels->half : call->kernels->interleaved)[plan->dtype](&job);
}

/* n elements from one place to another, both strided */
static void move_elements(char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step, size_t n, size_t size) {
    if (to_step == (ptrdiff_t)size && from_step == (ptrdiff_t)size) {
        memcpy(to, from, n * size);
        return;
    }
    for (; n > 0; n--, to += to_step, from += from_step) switch (size) {
            case 2: memcpy(to, from, 2); break;
            case 4: memcpy(to, from, 4); break;
            default: memcpy(to, from, 8); break;
        }
}

/* elements that are not rotated, once for all chunks */
static void copy_rest(const struct call *call, const struct plan *plan, const struct run *run) {
    if (plan->in_place || call->first != 0) return;
    size_t end = min_size(plan->offset + 2 * plan->pairs, plan->head_dim);
    for (size_t j = 0; j < run->n; j++) {
        const char *x = run->x + (ptrdiff_t)j * run->x_step;
        char *y = run->y + (ptrdiff_t)j * run->y_step;
        move_elements(y, plan->y_element, x, plan->x_element, plan->offset, plan->size);
        move_elements(y + (ptrdiff_t)end * plan->y_element, plan->y_element, x + (ptrdiff_t)end * plan->x_element,
                      plan->x_element, plan->head_dim - end, plan->size);
    }
}

/* Members of this chunk's pairs among the elements of a head: first ones start at `first`, second ones at `second`, each
 * `step` elements apart; the last second one may lie past the head. */
struct members {
    size_t start[2], n[2];
    ptrdiff_t step;
};

static struct members find_members(const struct call *call, const struct plan *plan, bool halves) {
    struct members m = {.step = halves ? 1 : 2};
    for (size_t which = 0; which < 2; which++) {
        m.start[which] = plan->offset + (halves ? call->first + which * plan->pairs : 2 * call->first + which);
        m.n[which] = call->count;
        size_t last = m.start[which] + (call->count - 1) * (size_t)m.step;
        if (last >= plan->head_dim) m.n[which]--;
    }
    return m;
}

/* Any strides, any layout, an appended zero: both members of each pair are gathered into halves on the stack, turned
 * there, and put where they belong. The missing member of an odd head_dim is a zero, read and not written. */
static void rotate_gathered(const struct call *call, const struct plan *plan, const struct run *run) {
    PE_ALIGNED(64) char halves[2 * PE_CHUNK_PAIRS * sizeof(double)];
    ptrdiff_t size = (ptrdiff_t)plan->size, gap = (ptrdiff_t)call->count * size;
    bool from_halves = plan->layout == PE_HALF || plan->layout == PE_HALF_TO_INTERLEAVED;
    bool to_halves = plan->layout == PE_HALF || plan->layout == PE_INTERLEAVED_TO_HALF;
    struct members from = find_members(call, plan, from_halves), to = find_members(call, plan, to_halves);
    memset(halves + 2 * gap - size, 0, plan->size);
    for (size_t j = 0; j < run->n; j++) {
        const char *x = run->x + (ptrdiff_t)j * run->x_step;
        char *y = run->y + (ptrdiff_t)j * run->y_step;
        for (int which = 0; which < 2; which++)
            move_elements(halves + which * gap, size, x + (ptrdiff_t)from.start[which] * plan->x_element,
                          from.step * plan->x_element, from.n[which], plan->size);
        struct pe_run job = {.x = halves,
                             .y = halves,
                             .cos = run->cos + (ptrdiff_t)j * run->table_step,
                             .sin = run->sin + (ptrdiff_t)j * run->table_step,
                             .gap = gap,
                             .rows = 1,
                             .pairs = call->count};
        call->kernels->half[plan->dtype](&job);
        for (int which = 0; which < 2; which++)
            move_elements(y + (ptrdiff_t)to.start[which] * plan->y_element, to.step * plan->y_element,
                          halves + which * gap, size, to.n[which], plan->size);
        if (from.n[1] < call->count) memset(halves + 2 * gap - size, 0, plan->size);
    }
}

/* whole heads through a buffer in L1, then past the caches */
static void rotate_streamed(const struct call *call, const struct plan *plan, const struct run *run) {
    PE_ALIGNED(64) char stage[STAGE_BYTES];
    size_t head_bytes = plan->head_dim * plan->size, at_once = STAGE_BYTES / head_bytes;
    for (size_t j = 0; j < run->n; j += at_once) {
        struct run part = {.x = run->x + (ptrdiff_t)j * run->x_step,
                           .ahead = run->ahead ? run->ahead + (ptrdiff_t)j * run->x_step : NULL,
                           .y = stage,
                           .x_step = run->x_step,
                           .y_step = (ptrdiff_t)head_bytes,
                           .table_step = run->table_step,
                           .cos = run->cos + (ptrdiff_t)j * run->table_step,
                           .sin = run->sin + (ptrdiff_t)j * run->table_step,
                           .n = min_size(at_once, run->n - j)};
        rotate_whole(call, plan, &part);
        copy_rest(call, plan, &part);
        call->kernels->stream(run->y + j * head_bytes, stage, part.n * head_bytes);
    }
}

static void rotate_run(const struct call *call, const struct plan *plan, const struct run *run) {
    if (plan->stream && !plan->aligned) {
        rotate_streamed(call, plan, run);
        return;
    }
    if (plan->whole)
        rotate_whole(call, plan, run);
    else
        rotate_gathered(call, plan, run);
    copy_rest(call, plan, run);
}

static bool stop(struct call *call, size_t bytes) {
    call->polled += bytes;
    if (call->poll == NULL || call->polled < POLL_BYTES) return false;
    call->polled = 0;
    return call->poll(call->context);
}

/* ---- walking ---- */

/* The last axis, in pieces small enough that a poll is never far. */
static bool walk_run(struct call *call, const struct plan *plan, struct run run, const struct axis *axis) {
    /* what is only copied takes time too */
    size_t bytes = (plan->in_place ? 2 * call->count : plan->head_dim) * plan->size, at_once = POLL_BYTES / bytes + 1;
    run.table_step *= axis->table;
    run.x_step = axis->x, run.y_step = axis->y;
    for (size_t j = 0; j < axis->n; j += at_once) {
        struct run part = run;
        part.x += (ptrdiff_t)j * run.x_step, part.y += (ptrdiff_t)j * run.y_step;
        if (part.ahead) part.ahead += (ptrdiff_t)j * run.x_step;
        part.cos += (ptrdiff_t)j * run.table_step, part.sin += (ptrdiff_t)j * run.table_step;
        part.n = min_size(at_once, axis->n - j);
        rotate_run(call, plan, &part);
        if (stop(call, part.n * bytes)) return true;
    }
    return false;
}

/* position j of a batch row in an operand's input */
static const char *place(const struct plan *plan, size_t batch, size_t j) {
    return plan->x + (ptrdiff_t)batch * plan->x_batch + (ptrdiff_t)j * plan->x_seq;
}

/* to the next run of an operand; false where there is none */
static bool advance(const struct plan *plan, const struct axis *axes, size_t *index, struct run *run) {
    for (int i = plan->n_axes - 2; i >= 0; i--) {
        const struct axis *a = &axes[i];
        ptrdiff_t row = a->table * run->table_step, n = (ptrdiff_t)a->n;
        run->x += a->x, run->y += a->y, run->cos += row, run->sin += row;
        if (++index[i] < a->n) return true;
        run->x -= n * a->x, run->y -= n * a->y, run->cos -= n * row, run->sin -= n * row;
        index[i] = 0;
    }
    return false;
}

/* All of one operand that the tile's rows turn; run stands on its first element, run.ahead on what follows the operand. */
static bool walk(struct call *call, const struct plan *plan, const struct axis *axes, struct run run) {
    const struct axis *last = &axes[plan->n_axes - 1];
    const char *after = run.ahead;
    size_t index[PE_MAX_DIM];
    for (int i = 0; i < plan->n_axes - 1; i++) index[i] = 0;
    for (bool more = true; more;) {
        struct run next = run;
        more = advance(plan, axes, index, &next);
        run.ahead = after ? (more ? next.x : after) : NULL;
        if (walk_run(call, plan, run, last)) return true;
        run = next;
    }
    return false;
}

/* Where the walk goes after operand k of this tile: the next operand, the next tile, the next batch row. Past the end it
 * is an address like any other, and only a hint. */
static const char *after_operand(const struct call *call, const struct plan *plans, int n_plans, int k, size_t batch,
                                 size_t j, size_t n) {
    if (k + 1 < n_plans) return place(&plans[k + 1], batch, j);
    return j + n < call->seq ? place(&plans[0], batch, j + n) : place(&plans[0], batch + 1, 0);
}

/* positions j .. j + n of a batch row, every operand */
static bool rotate_tile(struct call *call, const struct plan *plans, int n_plans, size_t batch, size_t j, size_t n) {
    bool filled[2] = {false, false};
    for (int k = 0; k < n_plans; k++) {
        const struct plan *plan = &plans[k];
        struct pe_tile *tile = plan->evens_first ? &call->sorted : &call->plain;
        if (!filled[plan->evens_first])
            pe_tile_fill(call->kernels, call->rows, batch, j, n, call->first, call->count, plan->evens_first, tile);
        filled[plan->evens_first] = true;
        struct axis axes[PE_MAX_DIM];
        memcpy(axes, plan->axes, (size_t)plan->n_axes * sizeof *axes);
        if (plan->seq_index >= 0) axes[plan->seq_index].n = n;
        struct run run = {.x = place(plan, batch, j),
                          .ahead = call->fetch ? after_operand(call, plans, n_plans, k, batch, j, n) : NULL,
                          .y = plan->y + (ptrdiff_t)batch * plan->y_batch + (ptrdiff_t)j * plan->y_seq,
                          .table_step = tile->step,
                          .cos = tile->cos,
                          .sin = tile->sin};
        if (walk(call, plan, axes, run)) return true;
    }
    return false;
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

enum pe_status pe_rotate(const struct pe_kernels *kernels, const pe_rotation *given_how, const pe_rows *given_rows,
                         const pe_operand *operands, int n_operands, pe_poll *poll, void *context) {
    pe_rotation how = *given_how;
    pe_rows rows = *given_rows;
    if (rows.per_batch && operands[0].x->shape[how.seq_axis] == 1) fold_single_tokens(&how, &rows);
    struct plan plans[2];
    struct call call;
    int n_plans = 0;
    bool streamed = false, stopped = false;
    size_t bytes = 0;
    for (int i = 0; i < n_operands; i++) {
        if (pe_elements(operands[i].x) == 0) continue;
        plan_operand(&plans[n_plans], &how, &rows, &operands[i]);
        streamed |= plans[n_plans++].stream;
        bytes += pe_elements(operands[i].x) * pe_itemsize(operands[i].x->dtype);
    }
    if (n_plans == 0) return PE_OK;
    call.kernels = kernels, call.rows = &rows, call.poll = poll, call.context = context, call.polled = 0;
    call.fetch = bytes > FETCH_BYTES;
    call.seq = (size_t)operands[0].x->shape[how.seq_axis];
    size_t batch = rows.per_batch ? (size_t)operands[0].x->shape[0] : 1;
    size_t tile_rows = min_size(pe_tile_rows(rows.dtype, rows.pairs), run_rows(&plans[0]));
    for (call.first = 0; call.first < rows.pairs && !stopped; call.first += PE_CHUNK_PAIRS) {
        call.count = min_size(PE_CHUNK_PAIRS, rows.pairs - call.first);
        for (size_t b = 0; b < batch && !stopped; b++)
            for (size_t j = 0; j < call.seq && !stopped; j += tile_rows)
                if (rotate_tile(&call, plans, n_plans, b, j, min_size(tile_rows, call.seq - j))) stopped = true;
    }
    if (streamed) kernels->stream_end();
    return stopped ? PE_STOPPED : PE_OK;
}
