/* The walk: see walk.h. */
#include <string.h>

#include "walk.h"

static ptrdiff_t magnitude(ptrdiff_t stride) {
    return stride < 0 ? -stride : stride;
}

/* ---- planning ---- */

static void add_axis(struct pe_plan *plan, struct pe_axis axis) {
    int i = plan->n_axes++;
    for (; i > 0 && magnitude(plan->axes[i - 1].x) < magnitude(axis.x); i--) plan->axes[i] = plan->axes[i - 1];
    plan->axes[i] = axis;
}

/* two neighbouring axes that step through memory as one become one */
static void merge_axes(struct pe_plan *plan) {
    int last = 0;
    for (int i = 1; i < plan->n_axes; i++) {
        struct pe_axis *outer = &plan->axes[last], inner = plan->axes[i];
        ptrdiff_t n = (ptrdiff_t)inner.n;
        if (!outer->row && !inner.row && outer->x == n * inner.x && outer->y == n * inner.y)
            *outer = (struct pe_axis){outer->n * inner.n, inner.x, inner.y, 0};
        else
            plan->axes[++last] = inner;
    }
    if (plan->n_axes) plan->n_axes = last + 1;
}

static void plan_axes(struct pe_plan *plan, const pe_view *x, const pe_view *y, int seq_axis, bool per_batch) {
    plan->n_axes = 0;
    for (int i = per_batch ? 1 : 0; i < x->ndim - 1; i++)
        if (x->shape[i] != 1)
            add_axis(plan, (struct pe_axis){(size_t)x->shape[i], x->stride[i], y->stride[i], i == seq_axis});
    merge_axes(plan);
    plan->seq_index = -1;
    for (int i = 0; i < plan->n_axes; i++)
        if (plan->axes[i].row) plan->seq_index = i;
    if (plan->n_axes == 0) plan->axes[plan->n_axes++] = (struct pe_axis){1, 0, 0, 0};
}

void pe_plan_operand(struct pe_plan *plan, const pe_rotation *how, size_t pairs, bool per_batch, const pe_view *x,
                     const pe_view *y) {
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
    plan->pairs = pairs;
    plan->offset = how->rotary_offset;
    plan->layout = how->layout;
    plan->dtype = x->dtype;
    plan->in_place = x->data == y->data;
    plan_axes(plan, x, y, how->seq_axis, per_batch);
    bool contiguous =
        (plan->x_element == (ptrdiff_t)plan->size && plan->y_element == (ptrdiff_t)plan->size) || plan->head_dim == 1;
    bool moves = pe_reads_halves(how->layout) != pe_writes_halves(how->layout);
    plan->whole = contiguous && !moves && how->rotary_offset + 2 * pairs <= plan->head_dim;
    plan->together = 1, plan->x_apart = plan->y_apart = 0;
    plan->gaps = plan->stream = plan->direct = false;
    plan->soon = 0;
}

bool pe_is_aligned(const pe_view *y, size_t also) {
    uintptr_t bits = (uintptr_t)y->data | also;
    for (int i = 0; i < y->ndim - 1; i++)
        if (y->shape[i] > 1) bits |= (uintptr_t)y->stride[i];
    return bits % pe_stream_alignment(y->dtype) == 0;
}

size_t pe_plan_run_rows(const struct pe_plan *plan, size_t bytes) {
    size_t head_bytes = plan->head_dim * plan->size;
    return head_bytes < bytes ? bytes / head_bytes : 1;
}

int pe_group_runs(struct pe_plan *plans, size_t most) {
    struct pe_plan *plan = &plans[0], *rest = &plans[1];
    int last = plan->n_axes - 1;
    if (last < 1 || !plan->axes[last].row || !plan->whole) return 1;
    struct pe_axis all = plan->axes[last - 1];
    size_t groups = (all.n + most - 1) / most, size = (all.n + groups - 1) / groups; /* as even as can be */
    ptrdiff_t n = (ptrdiff_t)(all.n / size), x_group = (ptrdiff_t)size * all.x, y_group = (ptrdiff_t)size * all.y;
    plan->x_apart = all.x, plan->y_apart = all.y;
    *rest = *plan;
    rest->together = all.n % size;
    rest->axes[last - 1].n = 1;
    rest->x += n * x_group, rest->y += n * y_group;
    plan->together = size;
    plan->axes[last - 1] = (struct pe_axis){(size_t)n, x_group, y_group, 0};
    return rest->together == 0 ? 1 : 2;
}

void pe_join_heads(struct pe_plan *plan) {
    struct pe_axis heads = plan->axes[plan->n_axes - 1];
    if (heads.row || !plan->whole || heads.n * plan->head_dim * plan->size > PE_POLL_BYTES) return;
    plan->together = heads.n, plan->x_apart = heads.x, plan->y_apart = heads.y;
    if (plan->n_axes > 1) {
        plan->n_axes--;
        plan->gaps = plan->axes[plan->n_axes - 1].x != (ptrdiff_t)heads.n * heads.x;
    } else
        plan->axes[0] = (struct pe_axis){1, 0, 0, 0};
}

size_t pe_staged_heads(size_t head_bytes) {
    return head_bytes < PE_STAGED_BYTES ? PE_STAGED_BYTES / head_bytes : 1;
}

/* ---- members ---- */

struct pe_members pe_find_members(const struct pe_walk *walk, const struct pe_plan *plan, bool halves) {
    struct pe_members m = {.step = halves ? 1 : 2};
    for (size_t which = 0; which < 2; which++) {
        m.start[which] = plan->offset + (halves ? walk->first + which * plan->pairs : 2 * walk->first + which);
        m.n[which] = walk->count;
        size_t last = m.start[which] + (walk->count - 1) * (size_t)m.step;
        if (last >= plan->head_dim) m.n[which]--;
    }
    return m;
}

void pe_move_elements(char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step, size_t n, size_t size) {
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

void pe_widen(const struct pe_kernels *kernels, char *to, enum pe_dtype to_dtype, const char *from, ptrdiff_t step,
              enum pe_dtype dtype, size_t n) {
    enum { AT_ONCE = 256 };
    uint16_t halves[AT_ONCE];
    if (dtype == to_dtype) {
        pe_move_elements(to, (ptrdiff_t)pe_itemsize(dtype), from, step, n, pe_itemsize(dtype));
        return;
    }
    void (*widen)(const uint16_t *, float *, size_t) = dtype == PE_F16 ? kernels->widen_f16 : kernels->widen_bf16;
    float *wide = (float *)(void *)to;
    if (step == sizeof *halves) {
        widen((const uint16_t *)(const void *)from, wide, n);
        return;
    }
    for (size_t done = 0; done < n; done += AT_ONCE, from += AT_ONCE * step) {
        size_t part = pe_min(AT_ONCE, n - done);
        pe_move_elements((char *)halves, sizeof *halves, from, step, part, sizeof *halves);
        widen(halves, wide + done, part);
    }
}

/* ---- walking ---- */

/* The last axis, in pieces small enough that a poll is never far. */
static bool walk_run(struct pe_walk *walk, const struct pe_plan *plan, struct pe_visit run,
                     const struct pe_axis *axis) {
    /* what is only copied takes time too */
    size_t bytes = (plan->in_place ? 2 * walk->count : plan->head_dim) * plan->size * plan->together,
           at_once = PE_POLL_BYTES / bytes + 1;
    run.row_step *= axis->row;
    run.x_step = axis->x, run.y_step = axis->y;
    for (size_t j = 0; j < axis->n; j += at_once) {
        struct pe_visit part = run;
        part.x += (ptrdiff_t)j * run.x_step, part.y += (ptrdiff_t)j * run.y_step;
        if (part.ahead) part.ahead += (ptrdiff_t)j * run.x_step;
        part.cos += (ptrdiff_t)j * run.row_step, part.sin += (ptrdiff_t)j * run.row_step;
        part.n = pe_min(at_once, axis->n - j);
        walk->visit(walk, plan, &part);
        if (pe_stop(walk->poll, walk->context, &walk->polled, part.n * bytes)) return true;
    }
    return false;
}

/* position j of a batch row in an operand's input */
static const char *place(const struct pe_plan *plan, size_t batch, size_t j) {
    return plan->x + (ptrdiff_t)batch * plan->x_batch + (ptrdiff_t)j * plan->x_seq;
}

/* to the next run of an operand; false where there is none */
static bool advance(const struct pe_plan *plan, const struct pe_axis *axes, size_t *index, struct pe_visit *run) {
    for (int i = plan->n_axes - 2; i >= 0; i--) {
        const struct pe_axis *a = &axes[i];
        ptrdiff_t row = a->row * run->row_step, n = (ptrdiff_t)a->n;
        run->x += a->x, run->y += a->y, run->cos += row, run->sin += row;
        if (++index[i] < a->n) return true;
        run->x -= n * a->x, run->y -= n * a->y, run->cos -= n * row, run->sin -= n * row;
        index[i] = 0;
    }
    return false;
}

/* All of one operand that the tile's rows meet; run stands on its first element, run.ahead on what follows the operand.
 * What lies right behind a run is left to the prefetchers of the processor: they are there already, and asking for it again
 * costs an eighth of the time. So are runs that go together, which are long, and many at once. */
static bool walk_operand(struct pe_walk *walk, const struct pe_plan *plan, const struct pe_axis *axes,
                         struct pe_visit run) {
    const struct pe_axis *last = &axes[plan->n_axes - 1];
    const char *after = run.ahead;
    size_t index[PE_MAX_DIM];
    for (int i = 0; i < plan->n_axes - 1; i++) index[i] = 0;
    for (bool more = true; more;) {
        struct pe_visit next = run;
        more = advance(plan, axes, index, &next);
        const char *behind = run.x + (ptrdiff_t)last->n * last->x, *follows = more ? next.x : after;
        run.ahead = after && follows != behind && plan->together == 1 ? follows : NULL;
        if (walk_run(walk, plan, run, last)) return true;
        run = next;
    }
    return false;
}

/* Where the walk goes after operand k of this tile: the next operand, the next tile, the next batch row. Past the end it
 * is an address like any other, and only a hint. */
static const char *after_operand(const struct pe_walk *walk, const struct pe_plan *plans, int n_plans, int k,
                                 size_t batch, size_t j, size_t n) {
    if (k + 1 < n_plans) return place(&plans[k + 1], batch, j);
    return j + n < walk->seq ? place(&plans[0], batch, j + n) : place(&plans[0], batch + 1, 0);
}

bool pe_walk_tile(struct pe_walk *walk, const struct pe_plan *plans, int n_plans, size_t batch, size_t j, size_t n) {
    for (int k = 0; k < n_plans; k++) {
        const struct pe_plan *plan = &plans[k];
        const struct pe_axis *axes = plan->axes;
        struct pe_axis of_tile[PE_MAX_DIM];
        if (plan->seq_index >= 0) {
            memcpy(of_tile, plan->axes, (size_t)plan->n_axes * sizeof *of_tile);
            of_tile[plan->seq_index].n = n;
            axes = of_tile;
        }
        struct pe_visit run = {.x = place(plan, batch, j),
                               .ahead = walk->fetch ? after_operand(walk, plans, n_plans, k, batch, j, n) : NULL,
                               .y = plan->y + (ptrdiff_t)batch * plan->y_batch + (ptrdiff_t)j * plan->y_seq};
        walk->enter(walk, plan, batch, j, n, &run);
        if (walk_operand(walk, plan, axes, run)) return true;
    }
    if (walk->leave) walk->leave(walk, batch, j, n);
    return false;
}

bool pe_walk_all(struct pe_walk *walk, size_t pairs, const struct pe_plan *plans, int n_plans) {
    for (walk->first = 0; walk->first < pairs; walk->first += PE_CHUNK_PAIRS) {
        walk->count = pe_min(PE_CHUNK_PAIRS, pairs - walk->first);
        for (size_t b = 0; b < walk->batch; b++)
            for (size_t j = 0; j < walk->seq; j += walk->tile_rows)
                if (pe_walk_tile(walk, plans, n_plans, b, j, pe_min(walk->tile_rows, walk->seq - j))) return true;
    }
    return false;
}
