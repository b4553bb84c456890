/* The gradients of a rotation's numbers, from Python. Nothing is returned: what is wanted is added to. */
#include "operation.h"

#include "../core/cut.h"

typedef struct {
    pe_operation op;
    pe_array grad, wanted[2]; /* wanted: (inv_freq, positions) or (cos, sin) */
    const char *name[2];
    bool has[2];
    int axis; /* along which it is cut: the batch's or the sequence's */
    bool along_batch;
    size_t step;  /* of a block of a sum over frequencies */
    double *sums; /* (blocks, pairs) */
    pe_view cos, sin;
} gradient_call;

static void begin(gradient_call *call, pe_state *state, const char *first, const char *second) {
    pe_operation_init(&call->op, state, NULL, "head_dim");
    call->name[0] = first, call->name[1] = second;
    call->grad.owner = call->wanted[0].owner = call->wanted[1].owner = NULL;
    call->has[0] = call->has[1] = call->along_batch = false;
    call->sums = NULL;
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
        PyObject *got = pe_array_dtype(a);
        if (got)
            PyErr_Format(PyExc_TypeError, "%s must be %s, got %S", call->name[i],
                         float32_too ? "float32 or float64" : "float64", got);
        Py_XDECREF(got);
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

/* x and grad of a piece; where it begins, in the batch or in the sequence */
typedef struct {
    pe_view x, grad;
    size_t batch, seq;
} piece;

static piece cut(const gradient_call *call, size_t start, size_t stop) {
    return (piece){.x = pe_cut(&call->op.x[0].view, call->axis, start, stop),
                   .grad = pe_cut(&call->grad.view, call->axis, start, stop),
                   .batch = call->along_batch ? start : 0,
                   .seq = call->along_batch ? 0 : start};
}

static size_t bytes_of(const gradient_call *call) {
    const pe_view *x = &call->op.x[0].view;
    return 2 * pe_elements(x) * pe_itemsize(x->dtype);
}

static PyObject *announce(const gradient_call *call) {
    PyObject *tensors[2];
    int n = 0;
    for (int i = 0; i < 2; i++)
        if (call->has[i] && call->wanted[i].kind == PE_KIND_TORCH) tensors[n++] = call->wanted[i].object;
    return pe_tensors_written(call->op.state, tensors, n) < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- rotate_gradient(spec, x, grad, positions, offset, seq_axis, inv_freq, positions_gradient, defer_above, threads) ---- */

/* A block of a sum is about so many bytes of its inputs, whatever the number of threads, and so are its bits. */
enum { BLOCK_BYTES = 2 << 20 };

static enum pe_status rotate_block(void *context, size_t start, size_t stop, pe_poll *poll, void *release) {
    const gradient_call *call = context;
    const pe_operation *op = &call->op;
    piece p = cut(call, start, stop);
    pe_rows rows = pe_rows_from(&op->rows, p.batch, p.seq);
    pe_gradient wanted = {.x = &p.x, .grad = &p.grad};
    pe_view positions;
    if (call->has[0]) wanted.inv_freq = call->sums + start / call->step * op->rows.pairs;
    if (call->has[1]) {
        positions = pe_cut(&call->wanted[1].view, call->along_batch ? 1 : 2, start, stop);
        wanted.positions = &positions;
    }
    return pe_rotate_gradient(op->state->kernels, &op->how, &rows, &wanted, poll, release);
}

/* along the sequence, or along the batch where that is longer and no two blocks add to one position */
static void choose_axis(gradient_call *call) {
    const pe_operation *op = &call->op;
    bool shared = call->has[1] && call->wanted[1].view.shape[1] == 1;
    call->along_batch = !shared && pe_operation_batch(op) > pe_operation_seq(op);
    call->axis = call->along_batch ? 0 : op->how.seq_axis;
}

/* the sums of the blocks are added in order */
static int run_blocks(gradient_call *call, size_t bytes, size_t threads) {
    const pe_operation *op = &call->op;
    choose_axis(call);
    size_t length = (size_t)op->x[0].view.shape[call->axis], blocks = bytes / BLOCK_BYTES + (bytes % BLOCK_BYTES != 0);
    if (length == 0) return 0;
    call->step = blocks > 1 ? length / blocks + (length % blocks != 0) : length;
    blocks = (length - 1) / call->step + 1;
    if (call->has[0]) call->sums = PyMem_Calloc(blocks * op->rows.pairs, sizeof *call->sums);
    if (call->has[0] && call->sums == NULL) return PyErr_NoMemory(), -1;
    int failed = pe_run_steps(rotate_block, call, length, call->step, bytes, threads);
    double *inv_freq = call->has[0] ? (double *)(void *)call->wanted[0].view.data : NULL;
    for (size_t b = 0; inv_freq && !failed && b < blocks; b++)
        for (size_t i = 0; i < op->rows.pairs; i++) inv_freq[i] += call->sums[b * op->rows.pairs + i];
    PyMem_Free(call->sums);
    return failed;
}

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
        PyErr_Format(PyExc_ValueError, "%s must be contiguous, got a stride of %zd bytes", call->name[0],
                     (Py_ssize_t)call->wanted[0].view.stride[0]);
        return NULL;
    }
    size_t bytes = bytes_of(call), threads;
    PyObject *deferred = pe_defer(args[8], args[9], bytes, 1, &threads);
    if (deferred || PyErr_Occurred()) return deferred;
    return run_blocks(call, bytes, threads) < 0 ? NULL : announce(call);
}

PyObject *pe_py_rotate_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    gradient_call call;
    begin(&call, pe_get_state(module), "out", "positions");
    PyObject *result = rotate_gradient(&call, args);
    end(&call);
    return result;
}

/* ---- table_gradient(x, grad, cos, sin, seq_axis, layout, rotary_offset, conjugate, defer_above, threads) ---- */

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

static enum pe_status fill_rows(void *context, size_t start, size_t stop, pe_poll *poll, void *release) {
    const gradient_call *call = context;
    piece p = cut(call, start, stop);
    pe_view cos = pe_cut(&call->cos, 1, start, stop), sin = pe_cut(&call->sin, 1, start, stop);
    pe_gradient wanted = {.x = &p.x, .grad = &p.grad, .cos = &cos, .sin = &sin};
    return pe_rotate_gradient(call->op.state->kernels, &call->op.how, &call->op.rows, &wanted, poll, release);
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
    call->cos = pe_three_axes(&call->wanted[0].view), call->sin = pe_three_axes(&call->wanted[1].view);
    call->axis = op->how.seq_axis;
    size_t bytes = bytes_of(call), threads;
    PyObject *deferred = pe_defer(args[8], args[9], bytes, 1, &threads);
    if (deferred || PyErr_Occurred()) return deferred;
    if (pe_run(fill_rows, call, (size_t)pe_operation_seq(op), bytes, threads) < 0) return NULL;
    return announce(call);
}

PyObject *pe_py_table_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    gradient_call call;
    begin(&call, pe_get_state(module), "cos", "sin");
    PyObject *result = table_gradient(&call, args);
    end(&call);
    return result;
}
