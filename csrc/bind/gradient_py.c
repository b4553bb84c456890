/* The gradients of a rotation's numbers, from Python. Nothing is returned: what is wanted is added to. */
#include "operation.h"

typedef struct {
    pe_operation op;
    pe_array grad, wanted[2]; /* wanted: (inv_freq, positions) or (cos, sin) */
    const char *name[2];
    bool has[2];
} gradient_call;

static void begin(gradient_call *call, pe_state *state, const char *first, const char *second) {
    pe_operation_init(&call->op, state, NULL, "head_dim");
    call->name[0] = first, call->name[1] = second;
    call->grad.owner = call->wanted[0].owner = call->wanted[1].owner = NULL;
    call->has[0] = call->has[1] = false;
}

static void end(gradient_call *call) {
    pe_operation_clear(&call->op);
    pe_array_clear(&call->grad);
    for (int i = 0; i < 2; i++) pe_array_clear(&call->wanted[i]);
}

static int parse_inputs(gradient_call *call, PyObject *x, PyObject *grad, PyObject *seq_axis) {
    if (pe_operation_input(&call->op, x, "x", seq_axis) < 0) return -1;
    if (pe_array_float(call->op.state, grad, "grad", &call->grad) < 0) return -1;
    return pe_check_same_shape(&call->op.x[0], "x", &call->grad, "grad");
}

/* an array to add to: of these dtypes and this shape, and nobody else's memory */
static int parse_wanted(gradient_call *call, int i, PyObject *object, bool float32_too, int ndim,
                        const ptrdiff_t *shape) {
    if (object == Py_None) return 0;
    pe_array *a = &call->wanted[i];
    if (pe_array_any(call->op.state, object, call->name[i], a) < 0) return -1;
    if (a->dtype != PE_F64 && !(float32_too && a->dtype == PE_F32)) {
        PyErr_Format(PyExc_TypeError, "%s must be %s", call->name[i], float32_too ? "float32 or float64" : "float64");
        return -1;
    }
    bool same = a->view.ndim == ndim;
    for (int k = 0; same && k < ndim; k++) same = a->view.shape[k] == shape[k];
    if (!same) {
        pe_view wanted = {.ndim = ndim};
        for (int k = 0; k < ndim; k++) wanted.shape[k] = shape[k];
        char want[256], got[256];
        PyErr_Format(PyExc_ValueError, "%s must have shape %s, got %s", call->name[i],
                     pe_shape_text(&wanted, want, sizeof want), pe_shape_text(&a->view, got, sizeof got));
        return -1;
    }
    call->has[i] = true;
    if (pe_check_output(a, call->name[i]) < 0) return -1;
    if (pe_check_disjoint(a, call->name[i], &call->op.x[0], "x") < 0) return -1;
    if (pe_check_disjoint(a, call->name[i], &call->grad, "grad") < 0) return -1;
    return i == 1 && call->has[0] ? pe_check_disjoint(a, call->name[1], &call->wanted[0], call->name[0]) : 0;
}

static PyObject *work(gradient_call *call, pe_gradient *wanted, PyObject *defer_above) {
    pe_operation *op = &call->op;
    size_t bytes = 2 * pe_elements(&op->x[0].view) * pe_itemsize(op->x[0].view.dtype);
    size_t limit = PyLong_AsSize_t(defer_above);
    if (PyErr_Occurred()) return NULL;
    if (bytes > limit) return PyLong_FromSize_t(bytes);
    wanted->x = &op->x[0].view, wanted->grad = &call->grad.view;
    pe_release release;
    pe_poll *poll = pe_release_begin(&release, bytes);
    pe_rotate_gradient(op->state->kernels, &op->how, &op->rows, wanted, poll, &release);
    if (pe_release_end(&release) < 0) return NULL;
    PyObject *tensors[2];
    int n = 0;
    for (int i = 0; i < 2; i++)
        if (call->has[i] && call->wanted[i].kind == PE_KIND_TORCH) tensors[n++] = call->wanted[i].object;
    return pe_tensors_written(op->state, tensors, n) < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- rotate_gradient(spec, x, grad, positions, offset, seq_axis, inv_freq, positions_gradient, defer_above) ---- */

static PyObject *rotate_gradient(gradient_call *call, PyObject *const *args) {
    pe_operation *op = &call->op;
    const pe_spec *spec = pe_spec_from(args[0]);
    if (spec == NULL) return NULL;
    op->width = spec->head_dim;
    op->how.layout = spec->layout;
    op->how.rotary_offset = spec->rotary_offset;
    if (parse_inputs(call, args[1], args[2], args[5]) < 0) return NULL;
    ptrdiff_t seq = pe_operation_seq(op), x_batch = pe_operation_batch(op);
    if (pe_parse_positions(op->state, args[3], args[4], spec->freq.axes, seq, x_batch, &op->positions) < 0) return NULL;
    op->rows = (pe_rows){.freq = &spec->freq,
                         .positions = op->positions.positions,
                         .pairs = spec->freq.pairs,
                         .dtype = PE_F64,
                         .per_batch = op->positions.per_batch};
    ptrdiff_t batch = op->rows.per_batch ? x_batch : 1, pairs = (ptrdiff_t)spec->freq.pairs;
    if (pe_require_positions(&spec->freq, &op->rows.positions, (size_t)batch, (size_t)seq) < 0) return NULL;
    if (parse_wanted(call, 0, args[6], false, 1, &pairs) < 0) return NULL;
    if (parse_wanted(call, 1, args[7], false, 3, (const ptrdiff_t[]){spec->freq.axes, batch, seq}) < 0) return NULL;
    if (call->has[0] && pairs > 1 && call->wanted[0].view.stride[0] != (ptrdiff_t)sizeof(double)) {
        PyErr_SetString(PyExc_ValueError, "inv_freq must be contiguous");
        return NULL;
    }
    pe_gradient wanted = {.inv_freq = call->has[0] ? (double *)(void *)call->wanted[0].view.data : NULL,
                          .positions = call->has[1] ? &call->wanted[1].view : NULL};
    return work(call, &wanted, args[8]);
}

PyObject *pe_py_rotate_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    gradient_call call;
    begin(&call, pe_get_state(module), "inv_freq", "positions");
    PyObject *result = rotate_gradient(&call, args);
    end(&call);
    return result;
}

/* ---- table_gradient(x, grad, cos, sin, seq_axis, layout, rotary_offset, conjugate, defer_above) ---- */

/* as (batch, seq, pairs), a batch of one with stride zero */
static pe_view three_axes(const pe_view *v) {
    pe_view w = *v;
    if (w.ndim == 2) {
        for (int i = 2; i > 0; i--) w.shape[i] = w.shape[i - 1], w.stride[i] = w.stride[i - 1];
        w.shape[0] = 1, w.stride[0] = 0, w.ndim = 3;
    }
    return w;
}

/* the shape of the gradients of tables: as cos has it, where that fits x */
static int table_shape(gradient_call *call, PyObject *cos, int *ndim, ptrdiff_t shape[3]) {
    pe_operation *op = &call->op;
    pe_array a;
    if (pe_array_any(op->state, cos, "cos", &a) < 0) return -1;
    pe_array_clear(&a);
    const pe_view *v = &a.view;
    ptrdiff_t batch = pe_operation_batch(op), seq = pe_operation_seq(op);
    size_t pairs = v->ndim ? (size_t)v->shape[v->ndim - 1] : 0, from = op->how.rotary_offset;
    bool fits = pairs > 0 && from <= op->width &&
                (pairs <= (op->width - from) / 2 || (from == 0 && 2 * pairs == op->width + 1));
    fits &= v->ndim == 2 || (v->ndim == 3 && (v->shape[0] == 1 || v->shape[0] == batch));
    if (!fits || v->shape[v->ndim - 2] != seq) {
        char text[256];
        PyErr_Format(
            PyExc_ValueError,
            "cos must have shape (seq, pairs) or (batch, seq, pairs) with seq %zd and at most %zu pairs, got %s",
            (Py_ssize_t)seq, (op->width - (from < op->width ? from : op->width) + 1) / 2,
            pe_shape_text(v, text, sizeof text));
        return -1;
    }
    *ndim = v->ndim;
    for (int i = 0; i < v->ndim; i++) shape[i] = v->shape[i];
    op->rows = (pe_rows){.pairs = pairs, .per_batch = v->ndim == 3 && v->shape[0] != 1, .dtype = PE_F64};
    return 0;
}

static PyObject *table_gradient(gradient_call *call, PyObject *const *args) {
    pe_operation *op = &call->op;
    ptrdiff_t shape[3];
    int ndim;
    op->how.layout = (enum pe_layout)PyLong_AsLong(args[5]);
    op->how.rotary_offset = PyLong_AsSize_t(args[6]);
    int conjugate = PyObject_IsTrue(args[7]);
    if (PyErr_Occurred()) return NULL;
    if (parse_inputs(call, args[0], args[1], args[4]) < 0 || table_shape(call, args[2], &ndim, shape) < 0) return NULL;
    op->rows.conjugate = conjugate;
    for (int i = 0; i < 2; i++)
        if (parse_wanted(call, i, args[2 + i], true, ndim, shape) < 0) return NULL;
    pe_view cos = three_axes(&call->wanted[0].view), sin = three_axes(&call->wanted[1].view);
    pe_gradient wanted = {.cos = &cos, .sin = &sin};
    return work(call, &wanted, args[8]);
}

PyObject *pe_py_table_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    gradient_call call;
    begin(&call, pe_get_state(module), "cos", "sin");
    PyObject *result = table_gradient(&call, args);
    end(&call);
    return result;
}
