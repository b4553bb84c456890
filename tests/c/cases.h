/* Calls of the core that its contract allows, drawn from a seed or from a fuzzer's bytes, and what each must do.
 *
 * Every array is drawn as it may come: any order of axes, gaps, negative strides, zero strides where it is only read,
 * axes of length 1 with meaningless strides; and lies against a page that traps. The expected result is made head by
 * head, pair by pair, in memory beside it, gaps included.
 */
#ifndef POSENC_TESTS_CASES_H
#define POSENC_TESTS_CASES_H

#include "guard.h"
#include "testing.h"

#include <math.h>

#include "../../csrc/core/dispatch.h"

enum { ARENA = 1 << 20, MAX_HEAD = 4200, MAX_ROWS = 40, MAX_BATCH = 4, ARENAS = 16 };

struct arena {
    struct guard guard;
    char *twin; /* ordinary memory of the same size */
};
static struct arena arenas[ARENAS];
static int arenas_used;

static inline void arenas_make(void) {
    for (int i = 0; i < ARENAS; i++) arenas[i] = (struct arena){guard_make(ARENA), calloc(1, ARENA)};
}

/* ---- a strided array ---- */

struct strided {
    pe_view view;
    struct arena *arena;
    char *from; /* lowest byte, and how many from there on */
    size_t bytes;
};

static inline char *in_twin(const struct strided *a, const char *p) {
    return a->arena->twin + (p - a->arena->guard.begin);
}

/* Strides for v's shape that store every element once: each axis steps over all that lies inside of it. */
static inline void draw_strides(struct source *s, pe_view *v, bool plain, bool repeat) {
    int order[PE_MAX_DIM], at = 0;
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(v->dtype), reach = size;
    for (int i = v->ndim - 1; i >= 0; i--) order[at++] = i;
    for (int i = 1; i < v->ndim && !plain; i++) {
        int j = (int)draw(s, (size_t)i + 1), swapped = order[i];
        order[i] = order[j], order[j] = swapped;
    }
    for (int i = 0; i < v->ndim; i++) {
        ptrdiff_t n = v->shape[order[i]], *stride = &v->stride[order[i]];
        *stride = reach + (plain || !one_in(s, 3) ? 0 : (ptrdiff_t)draw(s, 5) * size);
        if (n > 0) reach = *stride * n;
        if (repeat && one_in(s, 6)) *stride = 0;
        if (!plain && one_in(s, 4)) *stride = -*stride;
        if (n == 1 && one_in(s, 2)) *stride = (ptrdiff_t)draw_bits(s) >> 20;
    }
}

/* Lay it against a guard page; false where it is too large. */
static inline bool lay(struct source *s, struct strided *a) {
    pe_view *v = &a->view;
    ptrdiff_t low = 0, high = (ptrdiff_t)pe_itemsize(v->dtype);
    for (int i = 0; i < v->ndim; i++) {
        if (v->shape[i] < 2) continue;
        ptrdiff_t reach = (v->shape[i] - 1) * v->stride[i];
        *(reach < 0 ? &low : &high) += reach;
    }
    a->bytes = pe_elements(v) ? (size_t)(high - low) : 0;
    if (a->bytes > ARENA || arenas_used == ARENAS) return false;
    a->arena = &arenas[arenas_used++];
    a->from = guard_place(&a->arena->guard, (enum place)draw(s, 2), a->bytes, 0);
    v->data = a->bytes ? a->from - low : a->from;
    return true;
}

static inline bool draw_array(struct source *s, struct strided *a, enum values values, bool repeat) {
    bool plain = one_in(s, 3);
    draw_strides(s, &a->view, plain, repeat);
    if (!lay(s, a)) { /* too large with its gaps */
        draw_strides(s, &a->view, true, false);
        if (!lay(s, a)) return false;
    }
    fill(s, a->from, a->bytes / pe_itemsize(a->view.dtype), a->view.dtype, values);
    return true;
}

/* ---- rows ---- */

struct row_case {
    pe_rows rows;
    pe_frequencies freq;
    struct strided cos, sin, positions;
    int64_t starts[MAX_ROWS];
};
static double case_inv_freq[MAX_HEAD];
static unsigned char case_axes[MAX_HEAD];

/* |position * frequency| stays below 2^31: frequencies are at most 1 */
static inline double draw_position(struct source *s) {
    double far = draw_unit(s) * (one_in(s, 4) ? 0x1p31 * (1 - 0x1p-20) : 5000);
    return one_in(s, 3) ? -far : far;
}

static inline void draw_frequencies(struct source *s, struct row_case *c, size_t pairs) {
    c->freq = (pe_frequencies){.inv_freq = case_inv_freq, .pairs = pairs, .axes = 1, .as_float32 = one_in(s, 3)};
    c->freq.scale = one_in(s, 2) ? 1 : 0.5 + draw_unit(s);
    if (one_in(s, 3)) c->freq.axes = 1 + (int)draw(s, 3), c->freq.axis_of_freq = case_axes;
    for (size_t i = 0; i < pairs; i++) {
        case_inv_freq[i] = one_in(s, 9) ? -draw_unit(s) : draw_unit(s);
        if (c->freq.as_float32) case_inv_freq[i] = (double)(float)case_inv_freq[i];
        case_axes[i] = (unsigned char)draw(s, (size_t)c->freq.axes);
    }
    pe_frequencies_seal(&c->freq);
    c->rows.freq = &c->freq;
}

static inline void put_position(pe_positions *p, char *at, double value) {
    int32_t narrow = (int32_t)value;
    int64_t wide = (int64_t)value;
    memcpy(at,
           p->kind == PE_INT32     ? (void *)&narrow
           : p->kind == PE_FLOAT64 ? (void *)&value
                                   : (void *)&wide,
           p->kind == PE_INT32 ? 4 : 8);
}

/* Positions of (axes, batch, seq) values; table_rows > 0 makes them rows of a table. */
static inline bool draw_positions(struct source *s, struct row_case *c, int axes, ptrdiff_t batch, ptrdiff_t seq,
                                  size_t table_rows) {
    pe_positions *p = &c->rows.positions;
    p->kind = (enum pe_position_kind)draw(s, table_rows ? 3 : 4);
    struct strided *a = &c->positions;
    a->view = (pe_view){.ndim = 3, .dtype = p->kind == PE_INT32 ? PE_F32 : PE_F64};
    a->view.shape[0] = axes, a->view.shape[1] = batch, a->view.shape[2] = p->kind == PE_RANGE ? 1 : seq;
    if (!draw_array(s, a, UNIT, false)) return false;
    const pe_view *v = &a->view;
    p->data = v->data;
    p->axis_stride = axes > 1 ? v->stride[0] : 0;
    p->batch_stride = batch > 1 ? v->stride[1] : 0;
    p->stride = v->shape[2] > 1 ? v->stride[2] : 0;
    for (int i = 0; i < axes; i++)
        for (ptrdiff_t b = 0; b < batch; b++)
            for (ptrdiff_t j = 0; j < v->shape[2]; j++) {
                double value = table_rows ? (double)draw(s, table_rows) : draw_position(s);
                if (table_rows && p->kind == PE_RANGE) value = (double)draw(s, table_rows - (size_t)seq + 1);
                if (!table_rows && p->kind == PE_RANGE) value = floor(value / 2);
                put_position(p, v->data + i * p->axis_stride + b * p->batch_stride + j * p->stride, value);
            }
    return true;
}

static inline bool draw_table(struct source *s, struct row_case *c, ptrdiff_t batch, ptrdiff_t seq) {
    pe_rows *r = &c->rows;
    r->by_position = one_in(s, 2), r->conjugate = one_in(s, 3);
    ptrdiff_t height = r->by_position ? seq + (ptrdiff_t)draw(s, 9) + (seq == 0) : seq;
    c->cos.view = (pe_view){.ndim = 3, .dtype = r->dtype, .shape = {batch, height, (ptrdiff_t)r->pairs}};
    c->sin.view = c->cos.view;
    if (!draw_array(s, &c->cos, UNIT, true) || !draw_array(s, &c->sin, UNIT, true)) return false;
    if (one_in(s, 2)) { /* both laid out alike, as they mostly are */
        memcpy(c->sin.view.stride, c->cos.view.stride, sizeof c->cos.view.stride);
        arenas_used--;
        if (!lay(s, &c->sin)) return false;
        fill(s, c->sin.from, c->sin.bytes / pe_itemsize(r->dtype), r->dtype, UNIT);
    }
    const pe_view *cos = &c->cos.view, *sin = &c->sin.view;
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(r->dtype);
    r->cos = cos->data, r->sin = sin->data;
    r->cos_batch = batch > 1 ? cos->stride[0] : 0, r->sin_batch = batch > 1 ? sin->stride[0] : 0;
    r->cos_row = height > 1 ? cos->stride[1] : 0, r->sin_row = height > 1 ? sin->stride[1] : 0;
    r->cos_pair = r->pairs > 1 ? cos->stride[2] : size, r->sin_pair = r->pairs > 1 ? sin->stride[2] : size;
    return !r->by_position || draw_positions(s, c, 1, batch, seq, (size_t)height);
}

static inline bool draw_rows(struct source *s, struct row_case *c, ptrdiff_t batch, ptrdiff_t seq, size_t pairs,
                             enum pe_dtype dtype) {
    memset(c, 0, sizeof *c);
    c->rows.pairs = pairs, c->rows.dtype = dtype == PE_F64 ? PE_F64 : PE_F32;
    c->rows.per_batch = batch > 1 || one_in(s, 2);
    if (one_in(s, 2)) return draw_table(s, c, batch, seq);
    draw_frequencies(s, c, pairs);
    if (!draw_positions(s, c, c->freq.axes, batch, seq, 0)) return false;
    return pe_check_positions(&c->freq, &c->rows.positions, (size_t)batch, (size_t)seq, NULL, NULL) == PE_OK;
}

/* ---- what a row should hold, one pair at a time ---- */

static inline double position_of(const pe_positions *p, int axis, size_t batch, size_t j, int64_t *index) {
    const char *at = p->data + axis * p->axis_stride + (ptrdiff_t)batch * p->batch_stride + (ptrdiff_t)j * p->stride;
    int32_t narrow;
    double real;
    if (p->kind == PE_FLOAT64) return memcpy(&real, at, 8), real;
    if (p->kind == PE_INT32)
        memcpy(&narrow, at, 4), *index = narrow;
    else
        memcpy(index, at, 8);
    if (p->kind == PE_RANGE) *index += (int64_t)j;
    return (double)*index;
}

/* The angle's cosine and sine through the scalar level, or the table's; in the element type of the rows. */
static inline void cos_sin_of(const pe_rows *r, size_t batch, size_t j, size_t i, void *cos, void *sin) {
    int64_t index = (int64_t)j;
    if (r->freq == NULL) {
        size_t size = pe_itemsize(r->dtype);
        if (r->by_position) position_of(&r->positions, 0, batch, j, &index);
        ptrdiff_t b = (ptrdiff_t)batch, row = (ptrdiff_t)index, k = (ptrdiff_t)i;
        memcpy(cos, r->cos + b * r->cos_batch + row * r->cos_row + k * r->cos_pair, size);
        uint64_t bits = load_bits(r->sin + b * r->sin_batch + row * r->sin_row + k * r->sin_pair, size);
        store_bits(sin, size, r->conjugate ? bits ^ 1ull << (8 * size - 1) : bits);
        return;
    }
    const pe_frequencies *f = r->freq;
    double p = position_of(&r->positions, f->axis_of_freq ? f->axis_of_freq[i] : 0, batch, j, &index);
    if (f->as_float32) p = (double)(float)p;
    struct pe_sincos job = {.position = &p,
                            .inv_freq = f->inv_freq + i,
                            .scale = f->as_float32 ? (double)(float)f->scale : f->scale,
                            .as_float32 = f->as_float32,
                            .cos = cos,
                            .sin = sin,
                            .rows = 1,
                            .pairs = 1};
    if (r->dtype == PE_F64 && !f->as_float32) {
        pe_level(0)->sincos_f64(&job);
        return;
    }
    float c, s;
    job.cos = (char *)&c, job.sin = (char *)&s;
    pe_level(0)->sincos_f32(&job);
    double wide_c = (double)c, wide_s = (double)s;
    bool wide = r->dtype == PE_F64;
    memcpy(cos, wide ? (void *)&wide_c : (void *)&c, wide ? 8 : 4);
    memcpy(sin, wide ? (void *)&wide_s : (void *)&s, wide ? 8 : 4);
}

/* ---- the rotation by its definition ---- */

static char case_cos[MAX_BATCH * MAX_ROWS][8 * (MAX_HEAD / 2 + 1)],
    case_sin[MAX_BATCH * MAX_ROWS][8 * (MAX_HEAD / 2 + 1)];

static inline void find_rows(const pe_rows *r, size_t batch, size_t seq) {
    size_t size = pe_itemsize(r->dtype);
    for (size_t b = 0; b < (r->per_batch ? batch : 1); b++)
        for (size_t j = 0; j < seq; j++)
            for (size_t i = 0; i < r->pairs; i++)
                cos_sin_of(r, b, j, i, case_cos[b * MAX_ROWS + j] + i * size, case_sin[b * MAX_ROWS + j] + i * size);
}

/* Elements of a head that pair i reads or writes, of halves or of neighbours. */
static inline void members(const pe_rotation *how, size_t pairs, size_t i, bool halves, size_t at[2]) {
    at[0] = how->rotary_offset + (halves ? i : 2 * i);
    at[1] = at[0] + (halves ? pairs : 1);
}

/* x_head and y_head may be the same */
static inline void rotate_head(const pe_rotation *how, const pe_rows *r, size_t batch, size_t j, const pe_view *x,
                               const char *x_head, const pe_view *y, char *y_head) {
    static uint64_t head[MAX_HEAD + 2], out[MAX_HEAD + 2];
    size_t size = pe_itemsize(x->dtype), row_size = pe_itemsize(r->dtype), n = (size_t)x->shape[x->ndim - 1];
    const char *cos = case_cos[(r->per_batch ? batch : 0) * MAX_ROWS + j];
    const char *sin = case_sin[(r->per_batch ? batch : 0) * MAX_ROWS + j];
    ptrdiff_t x_step = n > 1 ? x->stride[x->ndim - 1] : 0, y_step = n > 1 ? y->stride[y->ndim - 1] : 0;
    for (size_t i = 0; i < n; i++) out[i] = head[i] = load_bits(x_head + (ptrdiff_t)i * x_step, size);
    head[n] = 0; /* the zero of an odd head_dim */
    for (size_t i = 0; i < r->pairs; i++) {
        char a[8], b[8];
        size_t from[2], to[2];
        members(how, r->pairs, i, how->layout == PE_HALF || how->layout == PE_HALF_TO_INTERLEAVED, from);
        members(how, r->pairs, i, how->layout == PE_HALF || how->layout == PE_INTERLEAVED_TO_HALF, to);
        store_bits(a, size, head[from[0]]), store_bits(b, size, head[from[1]]);
        turn(x->dtype, a, b, cos + i * row_size, sin + i * row_size, &out[to[0]], &out[to[1]]);
    }
    for (size_t i = 0; i < n; i++) store_bits(y_head + (ptrdiff_t)i * y_step, size, out[i]);
}

/* x at x_data, the result at y_data */
static inline void rotate_by_definition(const pe_rotation *how, const pe_rows *r, const pe_view *x, const char *x_data,
                                        const pe_view *y, char *y_data) {
    size_t index[PE_MAX_DIM] = {0};
    if (pe_elements(x) == 0) return;
    find_rows(r, (size_t)x->shape[0], (size_t)x->shape[how->seq_axis]);
    for (;;) {
        const char *x_head = x_data;
        char *y_head = y_data;
        for (int i = 0; i < x->ndim - 1; i++)
            if (x->shape[i] > 1)
                x_head += (ptrdiff_t)index[i] * x->stride[i], y_head += (ptrdiff_t)index[i] * y->stride[i];
        rotate_head(how, r, index[0], index[how->seq_axis], x, x_head, y, y_head);
        int i = x->ndim - 2;
        while (i >= 0 && ++index[i] == (size_t)x->shape[i]) index[i--] = 0;
        if (i < 0) return;
    }
}

/* ---- a whole call ---- */

struct rotation_case {
    pe_rotation how;
    struct row_case rows;
    struct strided x[2], y[2];
    bool in_place[2];
    int n;
};

static inline void draw_head(struct source *s, struct rotation_case *c, size_t *head_dim, size_t *pairs) {
    static const size_t usual[] = {64, 128, 16, 32, 80, 96, 256};
    *head_dim = one_in(s, 3) ? usual[draw(s, 7)] : 1 + draw(s, one_in(s, 40) ? MAX_HEAD : 40);
    *pairs = (*head_dim + 1) / 2; /* all of it, odd or even */
    c->how.rotary_offset = 0;
    if (*head_dim < 2 || one_in(s, 2)) return;
    *pairs = 1 + draw(s, *head_dim / 2);
    c->how.rotary_offset = draw(s, *head_dim - 2 * *pairs + 1);
}

static inline bool draw_operand(struct source *s, struct rotation_case *c, const pe_view *shape, enum values values) {
    struct strided *x = &c->x[c->n], *y = &c->y[c->n];
    bool *in_place = &c->in_place[c->n];
    bool moves = c->how.layout == PE_INTERLEAVED_TO_HALF || c->how.layout == PE_HALF_TO_INTERLEAVED;
    *in_place = one_in(s, 2) && !(moves && 2 * c->rows.rows.pairs > PE_MAX_IN_PLACE_MOVE);
    x->view = y->view = *shape;
    if (!draw_array(s, x, values, !*in_place)) return false;
    if (*in_place)
        *y = *x;
    else if (!draw_array(s, y, UNIT, false))
        return false;
    c->n++;
    return true;
}

/* false: what was drawn does not fit the memory; draw again */
static inline bool draw_rotation(struct source *s, struct rotation_case *c) {
    size_t head_dim, pairs;
    memset(&c->how, 0, sizeof c->how);
    c->n = 0, arenas_used = 0;
    enum pe_dtype dtype = (enum pe_dtype)draw(s, PE_DTYPES);
    enum values values = one_in(s, 3) ? (enum values)draw(s, VALUES) : UNIT;
    c->how.layout = (enum pe_layout)draw(s, 4);
    c->how.stream = one_in(s, 3);
    draw_head(s, c, &head_dim, &pairs);
    pe_view shape = {.ndim = 2 + (int)draw(s, 3), .dtype = dtype};
    c->how.seq_axis = (int)draw(s, (size_t)shape.ndim - 1);
    for (int i = 0; i < shape.ndim - 1; i++) shape.shape[i] = one_in(s, 30) ? 0 : 1 + (ptrdiff_t)draw(s, MAX_BATCH);
    shape.shape[shape.ndim - 1] = (ptrdiff_t)head_dim;
    ptrdiff_t seq = shape.shape[c->how.seq_axis] = one_in(s, 30) ? 0 : 1 + (ptrdiff_t)draw(s, MAX_ROWS);
    ptrdiff_t batch = c->how.seq_axis > 0 && shape.shape[0] > 0 && one_in(s, 2) ? shape.shape[0] : 1;
    if (!draw_rows(s, &c->rows, batch, seq, pairs, dtype)) return false;
    if (c->how.seq_axis == 0) c->rows.rows.per_batch = false;
    if (!draw_operand(s, c, &shape, values)) return false;
    if (one_in(s, 2)) return true;
    for (int i = c->rows.rows.per_batch; i < shape.ndim - 1; i++)
        if (i != c->how.seq_axis) shape.shape[i] = 1 + (ptrdiff_t)draw(s, 7);
    return draw_operand(s, c, &shape, values);
}

static inline void print_view(const char *name, const pe_view *v) {
    fprintf(stderr, "  %s %s, shape and strides", name, dtype_name[v->dtype]);
    for (int i = 0; i < v->ndim; i++) fprintf(stderr, " %td:%td", v->shape[i], v->stride[i]);
    fprintf(stderr, "\n");
}

static inline void print_rotation(const struct rotation_case *c) {
    static const char *const layouts[] = {"half", "interleaved", "interleaved_to_half", "half_to_interleaved"};
    const pe_rows *r = &c->rows.rows;
    fprintf(stderr, "  %s, seq_axis %d, rotary_offset %zu, pairs %zu, stream %d\n", layouts[c->how.layout],
            c->how.seq_axis, c->how.rotary_offset, r->pairs, c->how.stream);
    fprintf(stderr, "  rows from %s, per batch %d, by position %d, conjugate %d, axes %d, as_float32 %d, scale %a\n",
            r->freq ? "frequencies" : "a table", r->per_batch, r->by_position, r->conjugate, c->rows.freq.axes,
            c->rows.freq.as_float32, c->rows.freq.scale);
    for (int i = 0; i < c->n; i++) print_view("x", &c->x[i].view), print_view("y", &c->y[i].view);
}

/* Run it on a level; true where every byte of the outputs, and between their elements, is as it should be. */
static inline bool rotation_is_right(const struct rotation_case *c, const struct pe_kernels *kernels) {
    pe_operand operands[2];
    for (int i = 0; i < c->n; i++) {
        const struct strided *x = &c->x[i], *y = &c->y[i];
        memcpy(in_twin(y, y->from), y->from, y->bytes);
        rotate_by_definition(&c->how, &c->rows.rows, &x->view, c->in_place[i] ? in_twin(x, x->view.data) : x->view.data,
                             &y->view, in_twin(y, y->view.data));
        operands[i] = (pe_operand){&x->view, &y->view};
    }
    if (pe_rotate(kernels, &c->how, &c->rows.rows, operands, c->n, NULL, NULL) != PE_OK) return false;
    for (int i = 0; i < c->n; i++) {
        const struct strided *y = &c->y[i];
        size_t n = y->bytes / pe_itemsize(y->view.dtype);
        size_t at = first_difference(y->from, in_twin(y, y->from), n, y->view.dtype);
        if (at == n) continue;
        fprintf(stderr, "  operand %d differs at element %zu of its memory\n", i, at);
        return false;
    }
    return true;
}

/* ---- overlap by marking bytes ---- */

enum { MARKED = 4096 };

/* Mark the bytes of v, whose data is an offset into marks; false where one was marked before. */
static inline bool mark(const pe_view *v, const char *base, unsigned char *marks) {
    size_t index[PE_MAX_DIM] = {0}, size = pe_itemsize(v->dtype);
    bool fresh = true;
    if (pe_elements(v) == 0) return true;
    for (;;) {
        const char *p = v->data;
        for (int i = 0; i < v->ndim; i++)
            if (v->shape[i] > 1) p += (ptrdiff_t)index[i] * v->stride[i];
        for (size_t k = 0; k < size; k++) fresh &= !marks[p - base + (ptrdiff_t)k]++;
        int i = v->ndim - 1;
        while (i >= 0 && ++index[i] == (size_t)v->shape[i]) index[i--] = 0;
        if (i < 0) return fresh;
    }
}

/* Any strides at all, of bytes, around the middle of MARKED bytes. */
static inline pe_view draw_overlapping(struct source *s, char *base) {
    pe_view v = {.ndim = (int)draw(s, 5), .dtype = (enum pe_dtype)draw(s, PE_DTYPES)};
    ptrdiff_t unit = one_in(s, 2) ? (ptrdiff_t)pe_itemsize(v.dtype) : 1;
    for (int i = 0; i < v.ndim; i++) {
        v.shape[i] = one_in(s, 40) ? 0 : 1 + (ptrdiff_t)draw(s, 5);
        v.stride[i] = ((ptrdiff_t)draw(s, 201) - 100) / unit * unit;
        if (v.shape[i] == 1) v.stride[i] = (ptrdiff_t)draw_bits(s) >> 20; /* meaningless */
    }
    v.data = base + MARKED / 2 + (ptrdiff_t)draw(s, 256) - 128;
    return v;
}

/* Both answers of overlap.c are exact for arrays this small. */
static inline bool overlap_is_right(struct source *s) {
    static char base[MARKED];
    static unsigned char marks_a[MARKED], marks_b[MARKED];
    memset(marks_a, 0, sizeof marks_a), memset(marks_b, 0, sizeof marks_b);
    pe_view a = draw_overlapping(s, base), b = draw_overlapping(s, base);
    bool itself = !mark(&a, base, marks_a), both = false;
    mark(&b, base, marks_b);
    for (int i = 0; i < MARKED; i++) both |= marks_a[i] && marks_b[i];
    if (pe_overlaps_itself(&a) == itself && pe_overlap(&a, &b) == both && pe_overlap(&b, &a) == both) return true;
    fprintf(stderr, "overlap: itself %d, both %d, distance %td bytes\n", itself, both, b.data - a.data);
    print_view("a", &a), print_view("b", &b);
    return false;
}

#endif
