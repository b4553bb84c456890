/* Additions of the core against their definition, element by element: included by core_test.c. */
#ifndef POSENC_TESTS_CORE_ADD_H
#define POSENC_TESTS_CORE_ADD_H

#include "cases.h"

struct add_case {
    pe_addition how;
    pe_added rows;
    pe_sinusoid sinusoid;
    struct row_case made; /* positions, and the frequencies of a sinusoid */
    struct strided x, y, table;
    int64_t skipped;
    bool in_place;
};

static bool draw_added_table(struct source *s, struct add_case *c, enum pe_dtype dtype, ptrdiff_t batch,
                             ptrdiff_t seq) {
    enum pe_dtype wide = dtype == PE_F64 ? PE_F64 : PE_F32;
    ptrdiff_t height = seq + 1 + (ptrdiff_t)draw(s, 9), dim = (ptrdiff_t)c->rows.dim;
    c->table.view = (pe_view){.ndim = 2, .dtype = one_in(s, 3) ? dtype : wide, .shape = {height, dim}};
    if (!draw_array(s, &c->table, UNIT, true)) return false;
    const pe_view *v = &c->table.view;
    c->rows.table = v->data, c->rows.table_dtype = v->dtype;
    c->rows.table_row = height > 1 ? v->stride[0] : 0, c->rows.table_element = dim > 1 ? v->stride[1] : 0;
    return draw_positions(s, &c->made, 1, batch, seq, (size_t)height);
}

static bool draw_sinusoid(struct source *s, struct add_case *c, enum pe_dtype dtype, ptrdiff_t batch, ptrdiff_t seq) {
    size_t dim = c->rows.dim, pairs = dim > 1 && one_in(s, 2) ? dim / 2 : (dim + 1) / 2;
    draw_frequencies(s, &c->made, pairs);
    c->made.freq.axes = 1, c->made.freq.axis_of_freq = NULL;
    pe_frequencies_seal(&c->made.freq);
    c->sinusoid = (pe_sinusoid){&c->made.freq, pe_arrange((enum pe_order)draw(s, 3), dim, pairs),
                                dtype == PE_F64 ? PE_F64 : PE_F32};
    c->rows.sinusoid = &c->sinusoid;
    c->made.rows.pairs = pairs, c->made.rows.dtype = c->sinusoid.dtype;
    return draw_positions(s, &c->made, 1, batch, seq, 0);
}

static bool draw_addition(struct source *s, struct add_case *c) {
    memset(c, 0, sizeof *c);
    arenas_used = 0;
    enum pe_dtype dtype = (enum pe_dtype)draw(s, PE_DTYPES);
    c->rows.dim = one_in(s, 40) ? 2000 + draw(s, 200) : 1 + draw(s, 70);
    pe_view shape = {.ndim = 2 + (int)draw(s, 3), .dtype = dtype};
    c->how = (pe_addition){.seq_axis = (int)draw(s, (size_t)shape.ndim - 1), .scale = one_in(s, 2) ? 1 : draw_unit(s)};
    c->how.stream = one_in(s, 3);
    for (int i = 0; i < shape.ndim - 1; i++) shape.shape[i] = one_in(s, 30) ? 0 : 1 + (ptrdiff_t)draw(s, MAX_BATCH);
    shape.shape[shape.ndim - 1] = (ptrdiff_t)c->rows.dim;
    ptrdiff_t seq = shape.shape[c->how.seq_axis] = 1 + (ptrdiff_t)draw(s, c->rows.dim > 999 ? 4 : MAX_ROWS);
    ptrdiff_t batch = c->how.seq_axis > 0 && shape.shape[0] > 0 && one_in(s, 2) ? shape.shape[0] : 1;
    c->rows.per_batch = c->how.seq_axis > 0 && (batch > 1 || (shape.shape[0] == 1 && one_in(s, 2)));
    if (!(one_in(s, 2) ? draw_sinusoid : draw_added_table)(s, c, dtype, batch, seq)) return false;
    c->rows.positions = c->made.rows.positions;
    if (one_in(s, 3)) { /* some position of the call */
        position_of(&c->rows.positions, 0, 0, draw(s, (size_t)seq), &c->skipped);
        c->rows.skipped = &c->skipped;
    }
    c->x.view = c->y.view = shape;
    c->in_place = one_in(s, 2);
    if (!draw_array(s, &c->x, one_in(s, 3) ? SPECIAL : UNIT, !c->in_place)) return false;
    if (c->in_place) c->y = c->x;
    return c->in_place || draw_array(s, &c->y, UNIT, false);
}

/* column k of the row of (batch row, j), as kernels take it */
static void added_value(const struct add_case *c, size_t batch, size_t j, size_t k, void *value) {
    const pe_arrangement *how = &c->sinusoid.how;
    char cos[8], sin[8];
    if (!c->rows.sinusoid) {
        int64_t row = 0;
        position_of(&c->rows.positions, 0, batch, j, &row);
        const char *at = c->rows.table + row * c->rows.table_row + (ptrdiff_t)k * c->rows.table_element;
        float wide = c->rows.table_dtype == PE_F64 ? 0 : widen(at, c->rows.table_dtype);
        memcpy(value, c->rows.table_dtype == PE_F64 ? (const void *)at : &wide, c->rows.table_dtype == PE_F64 ? 8 : 4);
        return;
    }
    size_t size = pe_itemsize(c->sinusoid.dtype);
    memset(value, 0, size);
    for (int which = 0; which < 2; which++) {
        size_t first = which ? how->cos_at : how->sin_at, n = which ? how->cosines : how->sines;
        if (k < first || (k - first) % how->step || (k - first) / how->step >= n) continue;
        cos_sin_of(&c->made.rows, batch, j, (k - first) / how->step, cos, sin);
        memcpy(value, which ? cos : sin, size);
    }
}

static void add_by_definition(const struct add_case *c, const char *x_data, char *y_data) {
    size_t index[PE_MAX_DIM] = {0}, size = pe_itemsize(c->x.view.dtype);
    const pe_view *x = &c->x.view, *y = &c->y.view;
    if (pe_elements(x) == 0) return;
    for (int i = 0; i >= 0;) {
        const char *from = x_data;
        char *to = y_data, value[8];
        for (i = 0; i < x->ndim; i++)
            if (x->shape[i] > 1) from += (ptrdiff_t)index[i] * x->stride[i], to += (ptrdiff_t)index[i] * y->stride[i];
        size_t batch = c->rows.per_batch ? index[0] : 0, j = index[c->how.seq_axis];
        int64_t whole = 0;
        double place = position_of(&c->rows.positions, 0, batch, j, &whole);
        added_value(c, batch, j, index[x->ndim - 1], value);
        bool skipped = c->rows.skipped && place == (double)c->skipped;
        store_bits(to, size, skipped ? load_bits(from, size) : sum_of(x->dtype, from, value, c->how.scale));
        i = x->ndim - 1;
        while (i >= 0 && ++index[i] == (size_t)x->shape[i]) index[i--] = 0;
    }
}

/* Run it on a level; true where every byte of the output, and between its elements, is as it should be. */
static bool addition_is_right(const struct add_case *c, const struct pe_kernels *kernels) {
    const struct strided *x = &c->x, *y = &c->y;
    pe_operand operand = {&x->view, &y->view};
    memcpy(in_twin(y, y->from), y->from, y->bytes);
    add_by_definition(c, c->in_place ? in_twin(x, x->view.data) : x->view.data, in_twin(y, y->view.data));
    if (pe_add_rows(kernels, &c->how, &c->rows, &operand, NULL, NULL) != PE_OK) return false;
    size_t n = y->bytes / pe_itemsize(y->view.dtype);
    size_t at = first_difference(y->from, in_twin(y, y->from), n, y->view.dtype);
    if (at == n) return true;
    fprintf(stderr, "  %s, seq_axis %d, per batch %d, skips %d, stream %d, differs at element %zu\n",
            c->rows.sinusoid ? "sinusoid" : "table", c->how.seq_axis, c->rows.per_batch, c->rows.skipped != NULL,
            c->how.stream, at);
    print_view("x", &x->view), print_view("y", &y->view);
    return false;
}

#endif
