/* The two ways to rotate from Python: rows made from positions, and rows taken from ready tables. */
#include "operation.h"

#include "../core/cut.h"

static enum pe_status rotate(const pe_operation *op, const pe_piece *piece, pe_poll *poll, void *context) {
    pe_rows rows = pe_rows_from(&op->rows, piece->batch, piece->seq);
    return pe_rotate(op->state->kernels, &op->how, &rows, piece->operands, op->n, poll, context);
}

/* ---- rotate(spec, q, k, out, positions, offset, seq_axis, defer_above, threads) ---- */

static int parse_rotate(pe_operation *op, PyObject *const *args) {
    const pe_spec *spec = pe_spec_from(args[0]);
    if (spec == NULL) return -1;
    op->width = spec->head_dim;
    op->how.layout = spec->layout;
    op->how.rotary_offset = spec->rotary_offset;
    if (pe_operation_input(op, args[1], args[2] == Py_None ? "x" : "q", args[6]) < 0) return -1;
    if (args[2] != Py_None && (pe_operation_input(op, args[2], "k", args[6]) < 0 || pe_operation_check_pair(op) < 0))
        return -1;
    if (pe_parse_positions(op->state, args[4], args[5], spec->freq.axes, pe_operation_seq(op), pe_operation_batch(op),
                           &op->positions) < 0)
        return -1;
    op->rows = (pe_rows){.freq = &spec->freq,
                         .positions = op->positions.positions,
                         .pairs = spec->freq.pairs,
                         .dtype = op->x[0].dtype == PE_F64 ? PE_F64 : PE_F32,
                         .per_batch = op->positions.per_batch};
    if (pe_operation_check_batch(op) < 0) return -1;
    size_t batch = op->rows.per_batch ? (size_t)pe_operation_batch(op) : 1;
    if (pe_require_positions(&spec->freq, &op->rows.positions, batch, (size_t)pe_operation_seq(op)) < 0) return -1;
    return pe_operation_outputs(op, args[3]);
}

static PyObject *run_rotate(PyObject *module, PyObject *const *args, bool onto) {
    pe_operation op;
    pe_operation_init(&op, pe_get_state(module), rotate, "head_dim");
    op.how.onto = onto;
    PyObject *result = parse_rotate(&op, args) < 0 ? NULL : pe_operation_finish(&op, args[7], args[8]);
    pe_operation_clear(&op);
    return result;
}

PyObject *pe_py_rotate(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    return run_rotate(module, args, false);
}

/* the same arguments: out += the rotation */
PyObject *pe_py_rotate_onto(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    return run_rotate(module, args, true);
}

/* ---- apply(x, cos, sin, out, positions, offset, seq_axis, layout, rotary_offset, conjugate, defer_above, threads) ---- */

static int parse_table(pe_operation *op, PyObject *object, const char *name, pe_array *table) {
    if (pe_array_any(op->state, object, name, table) < 0) return -1;
    int wanted = op->x[0].dtype == PE_F64 ? PE_F64 : PE_F32;
    if (table->dtype != wanted) {
        PyObject *dtype = pe_array_dtype(table);
        if (dtype)
            PyErr_Format(PyExc_TypeError,
                         "%s must be %s for this x (half-width tables are float32, and float64 for float64 "
                         "x), got %S",
                         name, wanted == PE_F64 ? "float64" : "float32", dtype);
        Py_XDECREF(dtype);
        return -1;
    }
    if (table->view.ndim == 2 || table->view.ndim == 3) return 0;
    char text[256];
    PyErr_Format(PyExc_ValueError, "%s must have shape (rows, rotary_dim/2) or (batch, rows, rotary_dim/2), got %s",
                 name, pe_shape_text(&table->view, text, sizeof text));
    return -1;
}

static ptrdiff_t table_batch(const pe_view *v) {
    return v->ndim == 3 && v->shape[0] != 1 ? v->stride[0] : 0;
}

/* how many elements a table of `pairs` rotates must fit behind rotary_offset; one more only as the zero of an odd head */
static int check_width(const pe_operation *op, size_t pairs) {
    size_t from = op->how.rotary_offset;
    bool odd = from == 0 && 2 * pairs == op->width + 1;
    if (pairs > 0 && from <= op->width && (2 * pairs <= op->width - from || odd)) return 0;
    PyErr_Format(PyExc_ValueError,
                 "cos and sin of width %zu rotate %zu elements from rotary_offset %zu on, but head_dim is "
                 "%zu; tables are half width, one column per pair",
                 pairs, 2 * pairs, op->how.rotary_offset, op->width);
    return -1;
}

static int check_table_batch(pe_operation *op, const pe_view *v) {
    if (v->ndim < 3 || v->shape[0] == 1) return 0;
    if (pe_operation_batch(op) == v->shape[0]) {
        op->rows.per_batch = true;
        return 0;
    }
    char text[256];
    if (pe_operation_batch(op) < 0)
        PyErr_Format(PyExc_ValueError, "cos has a batch axis, shape %s, but x has none before its sequence axis",
                     pe_shape_text(v, text, sizeof text));
    else
        PyErr_Format(PyExc_ValueError, "cos must have batch 1 or %zd (x's first axis), got shape %s",
                     (Py_ssize_t)pe_operation_batch(op), pe_shape_text(v, text, sizeof text));
    return -1;
}

static int check_table_rows(const pe_operation *op, size_t table_rows) {
    size_t batch = op->positions.per_batch ? (size_t)pe_operation_batch(op) : 1;
    return pe_require_rows(&op->rows.positions, batch, (size_t)pe_operation_seq(op), table_rows, NULL);
}

static int use_tables(pe_operation *op, pe_array tables[2], PyObject *positions, PyObject *offset) {
    const pe_view *cos = &tables[0].view, *sin = &tables[1].view;
    int last = cos->ndim - 1, row = last - 1;
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(cos->dtype);
    bool single = cos->shape[last] == 1;
    op->rows = (pe_rows){.cos = cos->data,
                         .sin = sin->data,
                         .cos_batch = table_batch(cos),
                         .sin_batch = table_batch(sin),
                         .cos_row = cos->stride[row],
                         .sin_row = sin->stride[row],
                         .cos_pair = single ? size : cos->stride[last],
                         .sin_pair = single ? size : sin->stride[last],
                         .conjugate = op->rows.conjugate,
                         .pairs = (size_t)cos->shape[last],
                         .dtype = cos->dtype};
    if (check_width(op, op->rows.pairs) < 0 || check_table_batch(op, cos) < 0) return -1;
    if (pe_parse_positions(op->state, positions, offset, 1, pe_operation_seq(op), pe_operation_batch(op),
                           &op->positions) < 0)
        return -1;
    if (!op->positions.integral) {
        PyErr_SetString(PyExc_TypeError, "positions that select table rows must be integers, got floats");
        return -1;
    }
    op->rows.positions = op->positions.positions;
    op->rows.per_batch |= op->positions.per_batch;
    op->rows.by_position = true;
    if (check_table_rows(op, (size_t)cos->shape[row]) < 0) return -1;
    if (op->rows.positions.kind == PE_RANGE && !op->positions.per_batch &&
        pe_operation_seq(op) > 0) { /* consecutive rows: the table from there on */
        ptrdiff_t start = (ptrdiff_t)*(const int64_t *)op->rows.positions.data;
        op->rows.by_position = false;
        op->rows.cos += start * op->rows.cos_row;
        op->rows.sin += start * op->rows.sin_row;
    }
    return 0;
}

static int parse_apply(pe_operation *op, pe_array tables[2], PyObject *const *args) {
    op->how.layout = (enum pe_layout)PyLong_AsLong(args[7]);
    op->how.rotary_offset = PyLong_AsSize_t(args[8]);
    op->rows.conjugate = PyObject_IsTrue(args[9]);
    if (PyErr_Occurred()) return -1;
    if (pe_operation_input(op, args[0], "x", args[6]) < 0) return -1;
    for (int i = 0; i < 2; i++)
        if (parse_table(op, args[1 + i], i ? "sin" : "cos", &tables[i]) < 0) return -1;
    if (pe_check_same_shape(&tables[0], "cos", &tables[1], "sin") < 0) return -1;
    if (use_tables(op, tables, args[4], args[5]) < 0) return -1;
    if (pe_operation_outputs(op, args[3]) < 0) return -1;
    for (int i = 0; op->have_y && i < 2; i++)
        if (pe_check_disjoint(op->y[0], "out", &tables[i], i ? "sin" : "cos") < 0) return -1;
    return 0;
}

static PyObject *run_apply(PyObject *module, PyObject *const *args, bool onto) {
    pe_operation op;
    pe_array tables[2] = {{.owner = NULL}, {.owner = NULL}};
    pe_operation_init(&op, pe_get_state(module), rotate, "head_dim");
    op.how.onto = onto;
    PyObject *result = parse_apply(&op, tables, args) < 0 ? NULL : pe_operation_finish(&op, args[10], args[11]);
    pe_operation_clear(&op);
    for (int i = 0; i < 2; i++) pe_array_clear(&tables[i]);
    return result;
}

PyObject *pe_py_apply(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    return run_apply(module, args, false);
}

/* the same arguments: out += the rotation */
PyObject *pe_py_apply_onto(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    return run_apply(module, args, true);
}
