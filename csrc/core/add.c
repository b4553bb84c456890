/* The driver of the addition: which tokens meet which row. The order in which it goes is that of walk.h.
 *
 * A tile is a few positions in sequence. Rows that are made lie on the stack; rows of a table are used where they lie as
 * long as the positions count up by one, else the tile ends, or, where rows are short, strided or of 16 bits, they are
 * gathered. A tile also ends where tokens that are skipped begin or end.
 */
#include <string.h>

#include "walk.h"

/* Rows of the batch meet a row of the table PE_TOGETHER at once: on (8, 2048, 1024) float32 1.1 times an in-place scale, where
 * one row after the other takes 1.4, two at once 1.25 and all eight, by their alignment, up to 1.7.
 * TABLE_BYTES: of a tile's rows, which stay in the cache for the whole batch. Where rows come one after the other a fourth
 * of it takes 1.6 to 2: the prefetchers start anew for each run, and fetching ahead in software costs more still.
 * GATHER_BYTES: rows shorter than this are gathered before a kernel is called for each alone. */
enum { TABLE_BYTES = 1 << 20, GATHER_BYTES = 1024, GATHER_COLUMNS = 2048 };

struct call {
    struct pe_walk walk;     /* first: a walk is a call */
    struct pe_plan plans[2]; /* the second one: rows of the batch that are left over */
    int n_plans;
    const pe_added *rows;
    double scale;
    enum pe_dtype row_dtype;   /* of the rows as kernels take them */
    bool borrows;              /* the table's rows can be used where they lie */
    struct pe_segment segment; /* what is being added */
    struct pe_sinusoid_tile tile;
};

static void plan_add(struct pe_plan *plan, const pe_addition *how, const pe_added *rows, const pe_operand *operand) {
    const pe_rotation nothing = {.layout = PE_HALF, .seq_axis = how->seq_axis};
    pe_plan_operand(plan, &nothing, 0, rows->per_batch, operand->x, operand->y);
    size_t bytes = rows->dim * plan->size;
    plan->stream = how->stream && plan->whole && !plan->in_place && bytes <= PE_STAGE_BYTES &&
                   plan->axes[plan->n_axes - 1].y == (ptrdiff_t)bytes;
    plan->direct = pe_is_aligned(operand->y, 0);
}

/* ---- visits ---- */

static void add_whole(const struct call *call, const struct pe_plan *plan, const struct pe_visit *run, bool stream) {
    const struct pe_segment *segment = &call->segment;
    ptrdiff_t skip = (ptrdiff_t)(segment->first * plan->size);
    struct pe_add job = {.x = run->x + skip,
                         .y = run->y + skip,
                         .x_step = run->x_step,
                         .y_step = run->y_step,
                         .table = run->cos,
                         .table_step = run->row_step,
                         .x_apart = plan->x_apart,
                         .y_apart = plan->y_apart,
                         .scale = call->scale,
                         .rows = run->n,
                         .together = plan->together,
                         .n = segment->count,
                         .stream = stream};
    call->walk.kernels->add[plan->dtype](&job);
}

/* whole rows through a buffer in L1, then past the caches */
static void add_streamed(const struct call *call, const struct pe_plan *plan, const struct pe_visit *run) {
    PE_ALIGNED(64) char stage[PE_STAGE_BYTES];
    size_t bytes = plan->head_dim * plan->size, at_once = pe_staged_heads(bytes);
    for (size_t j = 0; j < run->n; j += at_once) {
        struct pe_visit part = *run;
        part.x += (ptrdiff_t)j * run->x_step, part.cos += (ptrdiff_t)j * run->row_step;
        part.y = stage, part.y_step = (ptrdiff_t)bytes;
        part.n = pe_min(at_once, run->n - j);
        add_whole(call, plan, &part, false);
        call->walk.kernels->stream(run->y + j * bytes, stage, part.n * bytes);
    }
}

/* any strides: elements are gathered on the stack, added to there, and put where they belong */
static void add_gathered(const struct call *call, const struct pe_plan *plan, const struct pe_visit *run) {
    PE_ALIGNED(64) char elements[GATHER_COLUMNS * sizeof(double)];
    ptrdiff_t size = (ptrdiff_t)plan->size;
    size_t row_size = pe_itemsize(call->row_dtype);
    for (size_t j = 0; j < run->n; j++)
        for (size_t done = 0; done < call->segment.count; done += GATHER_COLUMNS) {
            size_t n = pe_min(GATHER_COLUMNS, call->segment.count - done);
            ptrdiff_t at = (ptrdiff_t)(call->segment.first + done), row = (ptrdiff_t)j;
            pe_move_elements(elements, size, run->x + row * run->x_step + at * plan->x_element, plan->x_element, n,
                             plan->size);
            struct pe_add job = {.x = elements,
                                 .y = elements,
                                 .table = run->cos + row * run->row_step + (ptrdiff_t)(done * row_size),
                                 .scale = call->scale,
                                 .rows = 1,
                                 .together = 1,
                                 .n = n};
            call->walk.kernels->add[plan->dtype](&job);
            pe_move_elements(run->y + row * run->y_step + at * plan->y_element, plan->y_element, elements, size, n,
                             plan->size);
        }
}

static void add_run(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    const struct call *call = (const struct call *)walk;
    if (!plan->whole)
        add_gathered(call, plan, run);
    else if (plan->stream && call->segment.count == plan->head_dim && !plan->direct)
        add_streamed(call, plan, run);
    else
        add_whole(call, plan, run, plan->stream && plan->direct && call->segment.count == plan->head_dim);
}

/* tokens that are skipped */
static void copy_run(const struct pe_walk *walk, const struct pe_plan *plan, const struct pe_visit *run) {
    (void)walk;
    for (size_t j = 0; j < run->n; j++)
        for (size_t k = 0; k < plan->together; k++)
            pe_move_elements(run->y + (ptrdiff_t)j * run->y_step + (ptrdiff_t)k * plan->y_apart, plan->y_element,
                             run->x + (ptrdiff_t)j * run->x_step + (ptrdiff_t)k * plan->x_apart, plan->x_element,
                             plan->head_dim, plan->size);
}

/* ---- rows of a table ---- */

static const char *table_row(const pe_added *rows, size_t batch, size_t j) {
    return rows->table + (ptrdiff_t)pe_int_position(&rows->positions, 0, batch, j) * rows->table_row;
}

/* rows j .. j + n, columns first .. first + count, side by side in the tile */
static void gather_rows(struct call *call, size_t batch, size_t j, size_t n, size_t first, size_t count) {
    const pe_added *rows = call->rows;
    size_t bytes = count * pe_itemsize(call->row_dtype);
    for (size_t i = 0; i < n; i++)
        pe_widen(call->walk.kernels, call->tile.rows + i * bytes, call->row_dtype,
                 table_row(rows, batch, j + i) + (ptrdiff_t)first * rows->table_element, rows->table_element,
                 rows->table_dtype, count);
    call->segment = (struct pe_segment){call->tile.rows, (ptrdiff_t)bytes, first, count};
}

/* ---- tiles ---- */

static bool is_skipped(const pe_added *rows, size_t batch, size_t j) {
    return rows->skipped && pe_position(&rows->positions, 0, batch, j) == (double)*rows->skipped;
}

/* how many positions from j on, at most n, are skipped or not as j is */
static size_t alike(const pe_added *rows, size_t batch, size_t j, size_t n, bool skipped) {
    size_t i = 1;
    if (rows->skipped == NULL) return n;
    while (i < n && is_skipped(rows, batch, j + i) == skipped) i++;
    return i;
}

/* how many positions from j on, at most n, count up by one */
static size_t consecutive(const pe_positions *positions, size_t batch, size_t j, size_t n) {
    size_t i = 1;
    if (positions->kind == PE_RANGE) return n;
    int64_t start = pe_int_position(positions, 0, batch, j);
    while (i < n && pe_int_position(positions, 0, batch, j + i) == start + (int64_t)i) i++;
    return i;
}

static void enter(struct pe_walk *walk, const struct pe_plan *plan, size_t batch, size_t j, size_t n,
                  struct pe_visit *run) {
    const struct call *call = (const struct call *)walk;
    (void)plan, (void)batch, (void)j, (void)n;
    run->cos = run->sin = call->segment.rows;
    run->row_step = call->segment.step;
}

static bool add_segment(struct call *call, size_t batch, size_t j, size_t n) {
    call->walk.visit = add_run;
    return pe_walk_tile(&call->walk, call->plans, call->n_plans, batch, j, n);
}

static bool add_made(struct call *call, size_t batch, size_t j, size_t n) {
    const pe_sinusoid *s = call->rows->sinusoid;
    for (size_t first = 0; first < s->freq->pairs; first += PE_CHUNK_PAIRS) {
        size_t count = pe_min(PE_CHUNK_PAIRS, s->freq->pairs - first);
        int found =
            pe_sinusoid_fill(call->walk.kernels, s, &call->rows->positions, batch, j, n, first, count, &call->tile);
        for (int i = 0; i < found; i++) {
            call->segment = call->tile.segments[i];
            if (call->segment.count && add_segment(call, batch, j, n)) return true;
        }
    }
    return false;
}

/* Returns how many positions were done, 0 where it was stopped. */
static size_t add_from_table(struct call *call, size_t batch, size_t j, size_t n) {
    const pe_added *rows = call->rows;
    size_t dim = rows->dim, row_bytes = dim * pe_itemsize(call->row_dtype);
    size_t together = call->borrows ? consecutive(&rows->positions, batch, j, n) : 0;
    if (together > 1 || (together && (n == 1 || row_bytes >= GATHER_BYTES))) {
        call->segment = (struct pe_segment){table_row(rows, batch, j), rows->table_row, 0, dim};
        return add_segment(call, batch, j, together) ? 0 : together;
    }
    size_t columns = pe_min(dim, GATHER_COLUMNS);
    n = pe_min(n, 2 * PE_TILE_BYTES / (columns * pe_itemsize(call->row_dtype)));
    for (size_t first = 0; first < dim; first += columns) {
        gather_rows(call, batch, j, n, first, pe_min(columns, dim - first));
        if (add_segment(call, batch, j, n)) return 0;
    }
    return n;
}

/* A tile of at most n positions from j on; returns how many it had, 0 where it was stopped. */
static size_t add_tile(struct call *call, size_t batch, size_t j, size_t n) {
    bool skipped = is_skipped(call->rows, batch, j);
    n = alike(call->rows, batch, j, n, skipped);
    if (skipped) {
        call->walk.visit = copy_run;
        call->segment = (struct pe_segment){.rows = call->tile.rows}; /* stepped over, not read */
        return !call->plans->in_place && pe_walk_tile(&call->walk, call->plans, call->n_plans, batch, j, n) ? 0 : n;
    }
    if (!call->rows->sinusoid) return add_from_table(call, batch, j, n);
    return add_made(call, batch, j, n) ? 0 : n;
}

/* a batch of single tokens with positions of their own is a sequence along the batch axis */
static void fold_single_tokens(pe_addition *how, pe_added *rows) {
    if (rows->positions.kind == PE_RANGE) rows->positions.kind = PE_INT64;
    rows->positions.stride = rows->positions.batch_stride;
    rows->positions.batch_stride = 0;
    rows->per_batch = false;
    how->seq_axis = 0;
}

enum pe_status pe_add_rows(const struct pe_kernels *kernels, const pe_addition *given_how, const pe_added *given_rows,
                           const pe_operand *operand, pe_poll *poll, void *context) {
    const pe_view *x = operand->x;
    pe_addition how = *given_how;
    pe_added rows = *given_rows;
    struct call call;
    if (pe_elements(x) == 0) return PE_OK;
    if (rows.per_batch && x->shape[how.seq_axis] == 1 && rows.positions.from == 0) fold_single_tokens(&how, &rows);
    plan_add(call.plans, &how, &rows, operand);
    call.n_plans = call.plans->stream ? 1 : pe_group_runs(call.plans, PE_TOGETHER);
    call.walk = (struct pe_walk){.kernels = kernels,
                                 .batch = rows.per_batch ? (size_t)x->shape[0] : 1,
                                 .seq = (size_t)x->shape[how.seq_axis],
                                 .count = (rows.dim + 1) / 2,
                                 .enter = enter,
                                 .poll = poll,
                                 .context = context};
    call.rows = &rows, call.scale = how.scale, call.row_dtype = x->dtype == PE_F64 ? PE_F64 : PE_F32;
    size_t size = pe_itemsize(call.row_dtype);
    call.borrows = !rows.sinusoid && rows.table_dtype == call.row_dtype &&
                   (rows.table_element == (ptrdiff_t)size || rows.dim == 1);
    size_t most = rows.sinusoid ? pe_sinusoid_tile_rows(rows.sinusoid) : TABLE_BYTES / (rows.dim * size);
    if (most == 0) most = 1;
    bool stopped = false;
    for (size_t b = 0; b < call.walk.batch && !stopped; b++)
        for (size_t j = 0, n; j < call.walk.seq && !stopped; j += n) {
            n = add_tile(&call, b, j, pe_min(most, call.walk.seq - j));
            stopped = n == 0;
        }
    if (call.plans->stream) kernels->stream_end();
    return stopped ? PE_STOPPED : PE_OK;
}
