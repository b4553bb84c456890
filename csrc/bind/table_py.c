/* Tables of cosines and sines, from Python. */
#include "args.h"

#include "../core/cut.h"

typedef struct {
    pe_state *state;
    const pe_spec *spec;
    pe_position_args positions;
    enum pe_dtype dtype;
    pe_array out[2];
    bool stream;
    PyObject *results[2]; /* owned */
} table_call;

static const char *const out_name[2] = {"out[0]", "out[1]"};

/* (seq, pairs) or (batch, seq, pairs) */
static int wanted_shape(const table_call *call, npy_intp *shape) {
    int ndim = 0;
    if (call->positions.batch >= 0) shape[ndim++] = call->positions.batch;
    shape[ndim++] = call->positions.seq;
    shape[ndim++] = (npy_intp)call->spec->freq.pairs;
    return ndim;
}

static int make_tables(table_call *call) {
    npy_intp shape[3];
    int ndim = wanted_shape(call, shape);
    for (int i = 0; i < 2; i++) {
        call->results[i] = PyArray_SimpleNew(ndim, shape, call->dtype == PE_F64 ? NPY_DOUBLE : NPY_FLOAT);
        if (call->results[i] == NULL) return -1;
        if (pe_array_any(call->state, call->results[i], out_name[i], &call->out[i]) < 0) return -1;
    }
    return 0;
}

/* An output of a table: the dtype and shape that are wanted, able to take results, apart from the positions. */
int pe_require_table(const char *name, PyObject *object, const pe_view *wanted, pe_state *state,
                     const pe_position_args *positions, pe_array *a) {
    if (pe_array_any(state, object, name, a) < 0) return -1;
    if (a->dtype != (int)wanted->dtype) {
        PyObject *got = pe_array_dtype(a);
        if (got)
            PyErr_Format(PyExc_TypeError, "%s must be %s, as dtype says, got %S", name,
                         wanted->dtype == PE_F64 ? "float64" : "float32", got);
        Py_XDECREF(got);
        return -1;
    }
    bool same = a->view.ndim == wanted->ndim;
    for (int k = 0; same && k < wanted->ndim; k++) same = a->view.shape[k] == wanted->shape[k];
    if (same) return pe_check_output(a, name) < 0 ? -1 : pe_check_positions_disjoint(positions, a, name);
    char want[256], got[256];
    PyErr_Format(PyExc_ValueError, "%s must have shape %s for these positions and frequencies, got %s", name,
                 pe_shape_text(wanted, want, sizeof want), pe_shape_text(&a->view, got, sizeof got));
    return -1;
}

static int parse_tables(table_call *call, PyObject *out) {
    if (!(PyTuple_Check(out) || PyList_Check(out)) || PySequence_Size(out) != 2)
        return pe_reject_pair(out, "cos", "sin");
    npy_intp shape[3];
    pe_view wanted = {.ndim = wanted_shape(call, shape), .dtype = call->dtype};
    for (int k = 0; k < wanted.ndim; k++) wanted.shape[k] = shape[k];
    for (int i = 0; i < 2; i++) {
        call->results[i] = PySequence_GetItem(out, i);
        if (call->results[i] == NULL) return -1;
        if (pe_require_table(out_name[i], call->results[i], &wanted, call->state, &call->positions, &call->out[i]) < 0)
            return -1;
    }
    return pe_check_disjoint(&call->out[0], out_name[0], &call->out[1], out_name[1]);
}

static int announce_writes(const table_call *call) {
    PyObject *tensors[2];
    int n = 0;
    for (int i = 0; i < 2; i++)
        if (call->out[i].kind == PE_KIND_TORCH) tensors[n++] = call->out[i].object;
    return pe_tensors_written(call->state, tensors, n);
}

/* Rows are written in strips down the table, and at the end of a part as many rows as are fetched ahead are lost to the other
 * thread: 128 rows take up to 1.5 times as long as on one, 512 as long, 1024 between 0.65 and 0.85 of it. */
size_t pe_table_parts(size_t batch, size_t seq, size_t bytes, const pe_view *out) {
    enum { PART_ROWS = 512, MADE = 4 }; /* what is made takes four times as long as what is read */
    if (batch != 1 || (out && pe_outer_axis(out) != out->ndim - 2)) return 1;
    return pe_parts(MADE * bytes, seq / PART_ROWS);
}

/* as (batch, seq, pairs); a stride of an axis one long means nothing, so the last one is set right */
pe_view pe_three_axes(const pe_view *v) {
    pe_view w = *v;
    if (w.ndim == 2) {
        for (int i = 2; i > 0; i--) w.shape[i] = w.shape[i - 1], w.stride[i] = w.stride[i - 1];
        w.shape[0] = 1, w.stride[0] = 0, w.ndim = 3;
    }
    if (w.shape[2] == 1) w.stride[2] = (ptrdiff_t)pe_itemsize(w.dtype);
    return w;
}

static enum pe_status fill(void *context, size_t start, size_t stop, pe_poll *poll, void *release) {
    const table_call *call = context;
    pe_view cos = pe_three_axes(&call->out[0].view), sin = pe_three_axes(&call->out[1].view);
    cos = pe_cut(&cos, 1, start, stop), sin = pe_cut(&sin, 1, start, stop);
    pe_positions positions = pe_positions_from(&call->positions.positions, 0, start);
    return pe_table(call->state->kernels, &call->spec->freq, &positions, &cos, &sin, call->stream, poll, release);
}

static PyObject *run(table_call *call, PyObject *const *args) {
    call->spec = pe_spec_from(args[0]);
    if (call->spec == NULL) return NULL;
    if (pe_parse_table_positions(call->state, args[1], call->spec->freq.axes, &call->positions) < 0) return NULL;
    call->dtype = PyObject_IsTrue(args[2]) ? PE_F64 : PE_F32;
    size_t seq = (size_t)call->positions.seq, batch = call->positions.batch < 0 ? 1 : (size_t)call->positions.batch;
    if (pe_require_positions(&call->spec->freq, &call->positions.positions, batch, seq) < 0) return NULL;
    if (args[3] != Py_None && parse_tables(call, args[3]) < 0) return NULL;
    size_t bytes = 2 * batch * seq * call->spec->freq.pairs * pe_itemsize(call->dtype);
    size_t threads;
    size_t parts = pe_table_parts(batch, seq, bytes, args[3] == Py_None ? NULL : &call->out[0].view);
    PyObject *deferred = pe_defer(args[4], args[5], bytes, parts, &threads);
    if (deferred || PyErr_Occurred()) return deferred;
    if (args[3] == Py_None && make_tables(call) < 0) return NULL;
    call->stream = bytes > PE_STREAM_TABLE_BYTES;
    if (pe_run(fill, call, seq, bytes, threads) < 0 || announce_writes(call) < 0) return NULL;
    return PyTuple_Pack(2, call->results[0], call->results[1]);
}

/* table(spec, positions or n, float64, out, defer_above, threads) -> (cos, sin), or a number of bytes where that exceeds
 * defer_above */
PyObject *pe_py_table(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    table_call call = {.state = pe_get_state(module)};
    PyObject *result = run(&call, args);
    for (int i = 0; i < 2; i++) {
        Py_XDECREF(call.results[i]);
        pe_array_clear(&call.out[i]);
    }
    pe_positions_clear(&call.positions);
    return result;
}
