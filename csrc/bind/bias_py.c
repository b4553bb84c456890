/* Biases from Python: scores, where queries and keys are, which keys are seen, and the term that is added.
 *
 * The Python face has made small arrays of what is small (slopes, indices); everything that meets the scores is checked
 * here, before a byte is written.
 */
#include <math.h>
#include <string.h>

#include "bias_args.h"

#include "../core/cut.h"

static const pe_view *scores_of(const pe_bias_call *call) {
    return call->have_x ? &call->x.view : &call->y.view;
}

static ptrdiff_t axis_length(const pe_view *v, int from_end) {
    return v->ndim >= from_end ? v->shape[v->ndim - from_end] : 1;
}

static ptrdiff_t batch_of(const pe_view *v) { /* -1 where there is no such axis */
    return v->ndim >= 4 ? v->shape[0] : -1;
}

static int check_axes(const pe_view *v, const char *name) {
    if (v->ndim >= 2) return 0;
    PyErr_Format(PyExc_ValueError, "%s must have shape (.., heads, queries, keys), got %d axes", name, v->ndim);
    return -1;
}

/* ---- where: (query_positions, key_positions, query_start) ---- */

static int check_positions(const pe_bias_call *call, const pe_position_args *p, size_t n) {
    double twice[1] = {2}; /* which bounds positions by 2^30 */
    pe_frequencies freq = {.inv_freq = twice, .pairs = 1, .axes = 1, .fastest = {2}};
    size_t batch = p->per_batch ? (size_t)batch_of(scores_of(call)) : 1;
    pe_release release;
    pe_poll *poll = pe_release_begin(&release, pe_positions_read(&p->positions, 1, batch, n) * sizeof(double));
    double bad;
    enum pe_status status = pe_check_positions(&freq, &p->positions, batch, n, &bad, poll, &release);
    if (pe_release_end(&release) < 0) return -1;
    if (status == PE_OK) return 0;
    PyErr_Format(PyExc_ValueError, "%s must be finite and below 2**30 in size", p->name);
    return -1;
}

static int parse_where(pe_bias_call *call, PyObject *where) {
    const pe_view *v = scores_of(call);
    ptrdiff_t queries = axis_length(v, 2), keys = axis_length(v, 1);
    long long start = PyLong_AsLongLong(PyTuple_GetItem(where, 2));
    if (start == -1 && PyErr_Occurred()) return -1;
    /* keys first: what is wrong with them is also wrong with queries that Python took from them */
    if (pe_parse_named_positions(call->state, "key_positions", PyTuple_GetItem(where, 1), 0, keys, batch_of(v),
                                 &call->key) < 0)
        return -1;
    if (pe_parse_named_positions(call->state, "query_positions", PyTuple_GetItem(where, 0), start, queries, batch_of(v),
                                 &call->query) < 0)
        return -1;
    if (check_positions(call, &call->key, (size_t)keys) < 0) return -1;
    if (check_positions(call, &call->query, (size_t)queries) < 0) return -1;
    call->bias.query = call->query.positions, call->bias.key = call->key.positions;
    call->bias.per_batch = call->query.per_batch || call->key.per_batch;
    return 0;
}

/* ---- mask: (causal, left, right, sinks) ---- */

static int parse_mask(pe_bias_call *call, PyObject *mask) {
    call->bias.mask = (pe_mask){.causal = (enum pe_causal)PyLong_AsLong(PyTuple_GetItem(mask, 0)),
                                .left = PyFloat_AsDouble(PyTuple_GetItem(mask, 1)),
                                .right = PyFloat_AsDouble(PyTuple_GetItem(mask, 2)),
                                .sinks = PyFloat_AsDouble(PyTuple_GetItem(mask, 3))};
    return PyErr_Occurred() ? -1 : 0;
}

/* ---- term: None, (slopes, of_key), (table, roles, index, low, scale), or that of relative.h ---- */

/* slopes: float64 (1 or batch, heads, 2), contiguous */
static int parse_line(pe_bias_call *call, PyObject *term) {
    PyArrayObject *slopes = (PyArrayObject *)PyTuple_GetItem(term, 0);
    const pe_view *v = scores_of(call);
    ptrdiff_t rows = PyArray_DIM(slopes, 0), heads = PyArray_DIM(slopes, 1), batch = batch_of(v);
    char text[256];
    if (heads != axis_length(v, 3) || (rows != 1 && rows != batch)) {
        pe_shape_text(v, text, sizeof text);
        PyErr_Format(PyExc_ValueError,
                     rows == 1
                         ? "%s of shape %s must have as many heads as there are slopes, %zd"
                         : "%s of shape %s must have as many batch rows and heads as there are slopes, (%zd, %zd)",
                     call->x_name, text, rows == 1 ? heads : rows, heads);
        return -1;
    }
    call->line = (pe_line){.slopes = PyArray_DATA(slopes),
                           .batch_step = rows > 1 ? (size_t)heads : 0,
                           .of_key = PyObject_IsTrue(PyTuple_GetItem(term, 1))};
    call->bias.line = &call->line;
    return 0;
}

/* the stride that a letter of roles names, and how long its axis must be; -1 for any length */
static ptrdiff_t *role(pe_bias_call *call, char letter, ptrdiff_t *length) {
    const pe_view *v = scores_of(call);
    pe_lookup *l = &call->lookup;
    switch (letter) {
        case 'b': return *length = batch_of(v), &l->batch;
        case 'h': return *length = axis_length(v, 3), &l->head;
        case 'q': return *length = axis_length(v, 2), &l->query;
        case 'k': return *length = axis_length(v, 1), &l->key;
        default: return *length = -1, &l->step;
    }
}

static int parse_table(pe_bias_call *call, PyObject *object, const char *roles) {
    if (pe_array_float(call->state, object, "table", &call->table) < 0) return -1;
    const pe_view *t = &call->table.view;
    char text[256], other[256];
    if (t->ndim != (int)strlen(roles)) {
        PyErr_Format(PyExc_ValueError, "table must have %zd axes, got shape %s", (Py_ssize_t)strlen(roles),
                     pe_shape_text(t, text, sizeof text));
        return -1;
    }
    for (int i = 0; i < t->ndim; i++) {
        ptrdiff_t length, *stride = role(call, roles[i], &length);
        if (length >= 0 && t->shape[i] != length) {
            PyErr_Format(PyExc_ValueError,
                         "table of shape %s does not fit %s of shape %s: axis %d must have length %zd",
                         pe_shape_text(t, text, sizeof text), call->x_name,
                         pe_shape_text(scores_of(call), other, sizeof other), i, (Py_ssize_t)length);
            return -1;
        }
        *stride = t->stride[i];
        if (length < 0) call->lookup.length = (size_t)t->shape[i];
    }
    call->lookup.data = t->data, call->lookup.dtype = t->dtype;
    return 0;
}

/* index: int32, (distances,) from low on, contiguous, or (queries, keys) */
static int parse_index(pe_bias_call *call, PyArrayObject *index, int64_t low) {
    pe_lookup *l = &call->lookup;
    const pe_view *v = scores_of(call);
    bool matrix = PyArray_NDIM(index) == 2;
    ptrdiff_t rows = matrix ? PyArray_DIM(index, 0) : 1, columns = PyArray_DIM(index, matrix ? 1 : 0);
    ptrdiff_t row_step = matrix ? PyArray_STRIDE(index, 0) : 0, step = PyArray_STRIDE(index, matrix ? 1 : 0);
    if (matrix && (rows != axis_length(v, 2) || columns != axis_length(v, 1))) {
        PyErr_Format(PyExc_ValueError, "index must have shape (queries, keys) = (%zd, %zd), got (%zd, %zd)",
                     (Py_ssize_t)axis_length(v, 2), (Py_ssize_t)axis_length(v, 1), rows, columns);
        return -1;
    }
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < columns; j++) {
            int32_t n = *(const int32_t *)(PyArray_BYTES(index) + i * row_step + j * step);
            if (n >= 0 && (size_t)n < l->length) continue;
            PyErr_Format(PyExc_IndexError, "index %d is outside the table, which has %zd entries", n,
                         (Py_ssize_t)l->length);
            return -1;
        }
    if (matrix)
        l->matrix = PyArray_BYTES(index), l->matrix_query = row_step, l->matrix_key = step;
    else
        l->index = PyArray_DATA(index), l->low = low, l->high = low + columns - 1;
    return 0;
}

static int check_integral(const pe_bias_call *call) {
    if (call->query.integral && call->key.integral) return 0;
    PyErr_Format(PyExc_TypeError, "%s must be integers, since a difference of positions selects a value; got floats",
                 call->key.integral ? call->query.name : call->key.name);
    return -1;
}

static int parse_lookup(pe_bias_call *call, PyObject *term) {
    char roles[8] = "";
    Py_ssize_t length = 0;
    const char *text = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(term, 1), &length);
    if (text == NULL) return -1;
    memcpy(roles, text, length < 7 ? (size_t)length : 7);
    call->lookup = (pe_lookup){.scale = PyFloat_AsDouble(PyTuple_GetItem(term, 4))};
    long long low = PyLong_AsLongLong(PyTuple_GetItem(term, 3));
    if (PyErr_Occurred()) return -1;
    if (parse_table(call, PyTuple_GetItem(term, 0), roles) < 0) return -1;
    if (check_integral(call) < 0) return -1;
    call->bias.lookup = &call->lookup;
    return parse_index(call, (PyArrayObject *)PyTuple_GetItem(term, 2), low);
}

static int parse_term(pe_bias_call *call, PyObject *term) {
    if (term == Py_None) return 0;
    if (pe_is_relative(term)) {
        if (pe_parse_relative(call->state, term, scores_of(call), call->x_name, &call->relative, &call->bias) < 0)
            return -1;
        return check_integral(call);
    }
    return PyTuple_Size(term) == 2 ? parse_line(call, term) : parse_lookup(call, term);
}

int pe_parse_bias(pe_bias_call *call, PyObject *where, PyObject *mask, PyObject *term) {
    if (check_axes(scores_of(call), call->x_name) < 0) return -1;
    return parse_where(call, where) < 0 || parse_mask(call, mask) < 0 ? -1 : parse_term(call, term);
}

/* ---- outputs ---- */

static int parse_output(pe_bias_call *call, PyObject *object) {
    if (object == Py_None) return 0;
    call->have_y = true;
    if (call->have_x && object == call->x.object) {
        call->y = call->x;
        call->y.owner = NULL;
    } else {
        if (pe_array_float(call->state, object, "out", &call->y) < 0) return -1;
        if (call->have_x && pe_check_same_shape(&call->x, call->x_name, &call->y, "out") < 0) return -1;
        if (call->have_x && pe_same_or_disjoint(&call->x, call->x_name, &call->y, "out") < 0) return -1;
    }
    call->result = Py_NewRef(object);
    return pe_check_output(&call->y, "out");
}

static int check_outputs(const pe_bias_call *call) {
    if (!call->have_y) return 0;
    if (pe_check_positions_disjoint(&call->query, &call->y, "out") < 0) return -1;
    if (pe_check_positions_disjoint(&call->key, &call->y, "out") < 0) return -1;
    if (pe_check_relative_disjoint(&call->relative, &call->y) < 0) return -1;
    return call->bias.lookup ? pe_check_disjoint(&call->y, "out", &call->table, "table") : 0;
}

/* ---- add_bias(scores or None, out or None, where, mask, term, defer_above, threads) ---- */

PyObject *pe_with_bias_call(PyObject *module, PyObject *const *args, pe_bias_runner *run) {
    pe_bias_call call;
    memset(&call, 0, sizeof call);
    call.state = pe_get_state(module);
    PyObject *result = run(&call, args);
    pe_array_clear(&call.x);
    pe_array_clear(&call.y);
    pe_array_clear(&call.table);
    pe_relative_clear(&call.relative);
    pe_positions_clear(&call.query);
    pe_positions_clear(&call.key);
    Py_XDECREF(call.result);
    return result;
}

static int parse(pe_bias_call *call, PyObject *const *args) {
    call->x_name = args[0] == Py_None ? "out" : "scores";
    if (args[0] != Py_None) {
        if (pe_array_float(call->state, args[0], "scores", &call->x) < 0) return -1;
        call->have_x = true;
    }
    if (parse_output(call, args[1]) < 0) return -1;
    if (pe_parse_bias(call, args[2], args[3], args[4]) < 0) return -1;
    return check_outputs(call);
}

/* outermost in what is written, and in what is read */
static int outer_axis(const pe_bias_call *call) {
    const pe_view *v = scores_of(call);
    int axis = pe_outer_axis(v);
    return axis < 0 || (call->have_x && call->have_y && pe_outer_axis(&call->x.view) != axis) ? -1 : axis;
}

/* Into how many parts a call of medium length may be cut, along `axis`; of other calls that is -1. */
static size_t choose_parts(pe_bias_call *call, size_t bytes) {
    call->axis = pe_is_medium(bytes, bytes) ? outer_axis(call) : -1;
    return call->axis < 0 ? 1 : pe_parts(bytes, (size_t)scores_of(call)->shape[call->axis]);
}

/* The first axis that gives every thread a few pieces, or the longest; never that of the keys. */
static int long_axis(const pe_view *v, size_t threads) {
    int longest = 0;
    for (int i = 0; i < v->ndim - 1; i++) {
        if ((size_t)v->shape[i] >= 4 * threads) return i;
        if (v->shape[i] > v->shape[longest]) longest = i;
    }
    return longest;
}

static enum pe_status add(void *context, size_t start, size_t stop, pe_poll *poll, void *release) {
    const pe_bias_call *call = context;
    struct pe_bias_part part;
    pe_view x, y = pe_cut(&call->y.view, call->axis, start, stop);
    if (call->have_x) x = pe_cut(&call->x.view, call->axis, start, stop);
    pe_cut_bias(&call->bias, y.ndim, call->axis, start, stop, &part);
    return pe_add_bias(call->state->kernels, &part.bias, call->have_x ? &x : NULL, &y, poll, release);
}

static int work(pe_bias_call *call, size_t bytes, size_t threads) {
    call->bias.stream = bytes > PE_STREAM_BYTES;
    if (call->axis < 0) call->axis = threads > 1 ? long_axis(&call->y.view, threads) : 0;
    return pe_run(add, call, (size_t)call->y.view.shape[call->axis], bytes, threads);
}

static int announce_write(pe_bias_call *call) {
    if (!call->have_y || call->y.kind != PE_KIND_TORCH) return 0; /* nobody can have saved a fresh tensor */
    return pe_tensors_written(call->state, &call->y.object, 1);
}

static PyObject *run(pe_bias_call *call, PyObject *const *args) {
    if (parse(call, args) < 0) return NULL;
    const pe_view *v = scores_of(call);
    size_t bytes = pe_elements(v) * pe_itemsize(v->dtype), threads;
    PyObject *deferred = pe_defer(args[5], args[6], bytes, choose_parts(call, bytes), &threads);
    if (deferred || PyErr_Occurred()) return deferred;
    if (!call->have_y) {
        call->result = pe_array_like(call->state, &call->x);
        if (call->result == NULL || pe_array_float(call->state, call->result, "out", &call->y) < 0) return NULL;
    }
    if (work(call, bytes, threads) < 0) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        announce_write(call);
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    return announce_write(call) < 0 ? NULL : Py_NewRef(call->result);
}

PyObject *pe_py_add_bias(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    return pe_with_bias_call(module, args, run);
}
