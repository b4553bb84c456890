/* Inputs, outputs and work of a call: everything is checked before a byte is written. */
#include "operation.h"

#include "../core/cut.h"

void pe_operation_init(pe_operation *op, pe_state *state, pe_work *work, const char *width_name) {
    op->state = state;
    op->work = work;
    op->width_name = width_name;
    op->width = PE_ANY_WIDTH;
    op->how.layout = PE_HALF; /* no rotation need say more */
    op->how.onto = false;
    op->n = 0;
    op->have_y = false;
    op->pair = NULL;
    for (int i = 0; i < 2; i++) op->x[i].owner = op->others[i].owner = op->results[i] = op->positions.owners[i] = NULL;
    op->positions.borrowed = false;
}

void pe_operation_clear(pe_operation *op) {
    for (int i = 0; i < 2; i++) {
        pe_array_clear(&op->x[i]);
        pe_array_clear(&op->others[i]);
        Py_CLEAR(op->results[i]);
    }
    Py_CLEAR(op->pair);
    pe_positions_clear(&op->positions);
}

/* ---- inputs ---- */

int pe_operation_input(pe_operation *op, PyObject *object, const char *name, PyObject *seq_axis) {
    pe_array *x = &op->x[op->n];
    op->x_name[op->n] = name;
    if (pe_array_float(op->state, object, name, x) < 0) return -1;
    op->n++;
    if (x->view.ndim < 2) {
        PyErr_Format(PyExc_ValueError,
                     "%s must have a sequence axis and a %s axis, (..., seq, %s); got %d "
                     "axes",
                     name, op->width_name, op->width_name, x->view.ndim);
        return -1;
    }
    bool known = op->n == 2 && x->view.ndim == op->x[0].view.ndim;
    int axis = known ? op->how.seq_axis : 0;
    if (!known && pe_parse_seq_axis(seq_axis, x->view.ndim, name, op->width_name, &axis) < 0) return -1;
    if (op->n == 1)
        op->how.seq_axis = axis;
    else if (axis != op->how.seq_axis || x->view.ndim != op->x[0].view.ndim) {
        PyErr_Format(PyExc_ValueError, "q and k must have the same number of axes, got %d and %d", op->x[0].view.ndim,
                     x->view.ndim);
        return -1;
    }
    size_t width = (size_t)x->view.shape[x->view.ndim - 1];
    if (op->width == PE_ANY_WIDTH) op->width = width;
    if (width == op->width) return 0;
    PyErr_Format(PyExc_ValueError, "%s must have %s %zu in its last axis, got %zd", name, op->width_name, op->width,
                 (Py_ssize_t)width);
    return -1;
}

int pe_operation_check_pair(const pe_operation *op) {
    const pe_array *q = &op->x[0], *k = &op->x[1];
    int axis = op->how.seq_axis;
    if (q->dtype != k->dtype) {
        PyObject *first = pe_array_dtype(q), *second = first ? pe_array_dtype(k) : NULL;
        if (second)
            PyErr_Format(PyExc_TypeError, "q and k must have the same dtype, got %S and %S; rotate them in two calls",
                         first, second);
        Py_XDECREF(first);
        Py_XDECREF(second);
        return -1;
    }
    if (q->view.shape[axis] == k->view.shape[axis]) return 0;
    PyErr_Format(PyExc_ValueError,
                 "q and k must have the same sequence length, got %zd and %zd; rotate them in two calls",
                 (Py_ssize_t)q->view.shape[axis], (Py_ssize_t)k->view.shape[axis]);
    return -1;
}

/* length of the batch axis that positions, offsets and tables may have rows for; -1 where there is none */
ptrdiff_t pe_operation_batch(const pe_operation *op) {
    return op->how.seq_axis > 0 ? op->x[0].view.shape[0] : -1;
}

ptrdiff_t pe_operation_seq(const pe_operation *op) {
    return op->x[0].view.shape[op->how.seq_axis];
}

/* rows that differ between batch rows need operands that agree on the batch */
int pe_operation_check_batch(const pe_operation *op) {
    if (!op->rows.per_batch || op->n < 2 || op->x[0].view.shape[0] == op->x[1].view.shape[0]) return 0;
    PyErr_Format(PyExc_ValueError, "q and k must have the same batch for per-row positions, got %zd and %zd",
                 (Py_ssize_t)op->x[0].view.shape[0], (Py_ssize_t)op->x[1].view.shape[0]);
    return -1;
}

/* ---- outputs ---- */

/* what is written for one of q and k shares no memory with the other */
static int check_apart(const pe_operation *op) {
    if (pe_check_disjoint(op->y[0], op->y_name[0], op->y[1], op->y_name[1]) < 0) return -1;
    for (int i = 0; i < 2; i++) {
        const pe_array *other = &op->x[1 - i];
        if (op->y[1 - i] != other && pe_check_disjoint(op->y[i], op->y_name[i], other, op->x_name[1 - i]) < 0)
            return -1;
    }
    return 0;
}

static int parse_output(pe_operation *op, int i, PyObject *object, const char *name) {
    op->y_name[i] = name;
    op->y[i] = object == op->x[i].object ? &op->x[i] : &op->others[i];
    if (op->y[i] == &op->others[i]) {
        if (pe_array_float(op->state, object, name, op->y[i]) < 0) return -1;
        if (pe_check_same_shape(&op->x[i], op->x_name[i], op->y[i], name) < 0) return -1;
        if (pe_same_or_disjoint(&op->x[i], op->x_name[i], op->y[i], name) < 0) return -1;
    }
    op->results[i] = Py_NewRef(object);
    return pe_check_output(op->y[i], name);
}

static int check_in_place_move(const pe_operation *op) {
    bool moves = op->how.layout == PE_INTERLEAVED_TO_HALF || op->how.layout == PE_HALF_TO_INTERLEAVED;
    if (!moves || 2 * op->rows.pairs <= PE_MAX_IN_PLACE_MOVE) return 0;
    for (int i = 0; i < op->n; i++)
        if (op->x[i].view.data == op->y[i]->view.data) {
            PyErr_Format(PyExc_ValueError,
                         "layout interleaved_to_half rotates at most %d elements of a head in place, got "
                         "%zu; pass another out",
                         PE_MAX_IN_PLACE_MOVE, 2 * op->rows.pairs);
            return -1;
        }
    return 0;
}

static int parse_pair(pe_operation *op, PyObject *out) {
    bool sequence = PyTuple_Check(out) || PyList_Check(out);
    if (sequence && (op->pair = PySequence_Tuple(out)) == NULL) return -1;
    if (!sequence || PyTuple_Size(op->pair) != 2) return pe_reject_pair(out, "q", "k");
    for (int i = 0; i < 2; i++)
        if (parse_output(op, i, PyTuple_GetItem(op->pair, i), i ? "out[1]" : "out[0]") < 0) return -1;
    return check_apart(op);
}

int pe_operation_outputs(pe_operation *op, PyObject *out) {
    if (out == Py_None && op->how.onto) {
        PyErr_SetString(PyExc_TypeError, "out must be given where accumulate is set: it is what is added to");
        return -1;
    }
    if (out == Py_None) return 0;
    op->have_y = true;
    if ((op->n == 2 ? parse_pair(op, out) : parse_output(op, 0, out, "out")) < 0) return -1;
    for (int i = 0; i < op->n; i++)
        if (pe_check_positions_disjoint(&op->positions, op->y[i], op->y_name[i]) < 0) return -1;
    return check_in_place_move(op);
}

static int make_outputs(pe_operation *op) {
    for (int i = 0; i < op->n; i++) {
        op->y[i] = &op->others[i];
        op->results[i] = pe_array_like(op->state, &op->x[i]);
        if (op->results[i] == NULL) return -1;
        if (pe_array_float(op->state, op->results[i], "out", op->y[i]) < 0) return -1;
    }
    return 0;
}

/* ---- work ---- */

static size_t total_bytes(const pe_operation *op) {
    size_t bytes = 0;
    for (int i = 0; i < op->n; i++) bytes += pe_elements(&op->x[i].view) * pe_itemsize(op->x[i].view.dtype);
    return bytes;
}

/* The axis that is outermost in all of them; one of length 1 is nobody's. */
static int outer_axis(const pe_operation *op) {
    int axis = pe_outer_axis(&op->x[0].view);
    for (int i = 0; axis >= 0 && i < op->n; i++) {
        const pe_view *x = &op->x[i].view, *y = op->have_y ? &op->y[i]->view : x;
        if (x->shape[axis] > 1 && (pe_outer_axis(x) != axis || pe_outer_axis(y) != axis)) axis = -1;
    }
    return axis;
}

/* elements of 16 bits take as long as those of 32 */
static size_t work_of(const pe_operation *op, size_t bytes) {
    return pe_itemsize(op->x[0].view.dtype) < 4 ? 2 * bytes : bytes;
}

/* Into how many parts a call of medium length may be cut, along `axis`, be it the heads'; of other calls that is -1. */
static size_t choose_parts(pe_operation *op, size_t bytes) {
    size_t work = work_of(op, bytes);
    op->axis = pe_is_medium(bytes, work) ? outer_axis(op) : -1;
    return op->axis < 0 ? 1 : pe_parts(work, (size_t)op->x[0].view.shape[op->axis]);
}

/* Along the batch where that is longer than the sequence, and all operands share it, or else along the sequence: then rows
 * are made once. */
static int long_axis(const pe_operation *op) {
    ptrdiff_t batch = pe_operation_batch(op);
    bool along_batch = batch > pe_operation_seq(op) && (op->n == 1 || op->x[1].view.shape[0] == batch);
    return along_batch ? 0 : op->how.seq_axis;
}

static enum pe_status work_on(void *call, size_t start, size_t stop, pe_poll *poll, void *context) {
    const pe_operation *op = call;
    int axis = op->axis;
    size_t length = (size_t)op->x[0].view.shape[axis];
    bool whole = stop - start == length, along_seq = axis == op->how.seq_axis;
    pe_view x[2], y[2];
    pe_piece piece = {.batch = axis == 0 && !along_seq ? start : 0, .seq = along_seq ? start : 0};
    for (int i = 0; i < op->n; i++) {
        if (!whole) { /* q and k may have different numbers of heads */
            size_t n = (size_t)op->x[i].view.shape[axis], from = start * n / length, to = stop * n / length;
            x[i] = pe_cut(&op->x[i].view, axis, from, to), y[i] = pe_cut(&op->y[i]->view, axis, from, to);
        }
        piece.operands[i].x = whole ? &op->x[i].view : &x[i];
        piece.operands[i].y = whole ? &op->y[i]->view : &y[i];
    }
    return op->work(op, &piece, poll, context);
}

static int work(pe_operation *op, size_t bytes, size_t threads) {
    op->how.stream = bytes > PE_STREAM_BYTES;
    if (op->axis < 0) op->axis = threads > 1 ? long_axis(op) : op->how.seq_axis;
    return pe_run(work_on, op, (size_t)op->x[0].view.shape[op->axis], bytes, threads);
}

static int announce_writes(pe_operation *op) {
    PyObject *tensors[2];
    int n = 0;
    if (!op->have_y) return 0; /* nobody can have saved a fresh tensor */
    for (int i = 0; i < op->n; i++)
        if (op->y[i]->kind == PE_KIND_TORCH) tensors[n++] = op->y[i]->object;
    return n == 2 && op->pair ? pe_tuple_written(op->state, op->pair) : pe_tensors_written(op->state, tensors, n);
}

/* defer_above, then the work, then the result */
PyObject *pe_operation_finish(pe_operation *op, PyObject *defer_above, PyObject *threads) {
    size_t bytes = total_bytes(op), count;
    PyObject *deferred = pe_defer(defer_above, threads, bytes, choose_parts(op, bytes), &count);
    if (deferred || PyErr_Occurred()) return deferred;
    if (!op->have_y && make_outputs(op) < 0) return NULL;
    int failed = work(op, bytes, count); /* an interrupted call has written too */
    if (failed) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        announce_writes(op);
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    if (announce_writes(op) < 0) return NULL;
    if (op->n == 1) return Py_NewRef(op->results[0]);
    return op->pair ? Py_NewRef(op->pair) : PyTuple_Pack(2, op->results[0], op->results[1]);
}

PyObject *pe_py_empty_like(PyObject *module, PyObject *x) {
    pe_state *state = pe_get_state(module);
    pe_array a;
    if (pe_array_any(state, x, "x", &a) < 0) return NULL;
    PyObject *result = pe_array_like(state, &a);
    pe_array_clear(&a);
    return result;
}
