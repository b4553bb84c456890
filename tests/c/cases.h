/* Calls of the core that its contract allows, drawn from a seed or from a fuzzer's bytes, and what each must do.
 *
 * Every array is drawn as it may come: any order of axes, gaps, negative strides, zero strides where it is only read,
 * axes of length 1 with meaningless strides; and lies against a page that traps. The expected result is made head by
 * head, pair by pair, in memory beside it, gaps included.
 */
#ifndef POSENC_TESTS_CASES_H
#define POSENC_TESTS_CASES_H

#include "cases_rows.h"

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
