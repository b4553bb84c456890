/* The verb add from Python: rows of a table, rows made from frequencies, and the gradient of a table. */
#include "operation.h"

#include "../core/cut.h"

/* An operation, and what is added. */
typedef struct {
    pe_operation op; /* first: the work gets it by this address */
    pe_added rows;
    pe_addition how;
    pe_sinusoid sinusoid;
    pe_array table;
    int64_t skipped;
} add_call;

static enum pe_status add(const pe_operation *op, const pe_piece *piece, pe_poll *poll, void *context) {
    const add_call *call = (const add_call *)op;
    pe_addition how = call->how;
    pe_added rows = call->rows;
    how.stream = op->how.stream;
    rows.positions = pe_positions_from(&call->rows.positions, piece->batch, piece->seq);
    return pe_add_rows(op->state->kernels, &how, &rows, piece->operands, poll, context);
}

/* ---- what the calls share ---- */

/* padding_idx: None, or an int64 */
static int parse_padding(PyObject *object, int64_t *skipped, const int64_t **result) {
    *result = NULL;
    if (object == Py_None) return 0;
    *skipped = PyLong_AsLongLong(object);
    *result = skipped;
    return *skipped == -1 && PyErr_Occurred() ? -1 : 0;
}

static int parse_how(add_call *call, PyObject *scale, PyObject *padding_idx) {
    call->how.scale = PyFloat_AsDouble(scale);
    if (PyErr_Occurred()) return -1;
    return parse_padding(padding_idx, &call->skipped, &call->rows.skipped);
}

static size_t batch_of(const pe_operation *op) {
    return op->positions.per_batch ? (size_t)pe_operation_batch(op) : 1;
}

static int parse_places(add_call *call, PyObject *positions, PyObject *offset) {
    pe_operation *op = &call->op;
    if (pe_parse_positions(op->state, positions, offset, 1, pe_operation_seq(op), pe_operation_batch(op),
                           &op->positions) < 0)
        return -1;
    call->how.seq_axis = op->how.seq_axis;
    call->rows.positions = op->positions.positions;
    call->rows.per_batch = op->positions.per_batch;
    return 0;
}

static int require_rows(const add_call *call, size_t table_rows) {
    const pe_operation *op = &call->op;
    if (!op->positions.integral) {
        PyErr_SetString(PyExc_TypeError, "positions that select table rows must be integers, got floats");
        return -1;
    }
    return pe_require_rows(&call->rows.positions, batch_of(op), (size_t)pe_operation_seq(op), table_rows,
                           call->rows.skipped);
}

static const char *wide_name(const pe_array *x) {
    return x->dtype == PE_F64 ? "float64" : "float32";
}

/* table, of the rows' dtype or of x's own, as (rows, dim) */
static int parse_table(add_call *call, PyObject *object) {
    pe_array *table = &call->table;
    const pe_array *x = &call->op.x[0];
    if (pe_array_any(call->op.state, object, "table", table) < 0) return -1;
    if (table->dtype != x->dtype && table->dtype != (x->dtype == PE_F64 ? PE_F64 : PE_F32)) {
        PyObject *dtype = pe_array_dtype(table);
        if (dtype) PyErr_Format(PyExc_TypeError, "table must be %s, or of the dtype of x, got %S", wide_name(x), dtype);
        Py_XDECREF(dtype);
        return -1;
    }
    size_t dim = call->op.width;
    const pe_view *v = &table->view;
    if (v->ndim == 2 && (size_t)v->shape[1] == dim) return 0;
    char text[256];
    PyErr_Format(PyExc_ValueError, "table must have shape (rows, dim) = (rows, %zu), got %s", dim,
                 pe_shape_text(v, text, sizeof text));
    return -1;
}

/* the last axis of x may have any length: it is the table's or the sinusoid's that must fit */
static void begin(add_call *call, PyObject *module) {
    pe_operation_init(&call->op, pe_get_state(module), add, "dim");
    call->table.owner = NULL;
    call->rows = (pe_added){.sinusoid = NULL};
}

static void end(add_call *call) {
    pe_operation_clear(&call->op);
    pe_array_clear(&call->table);
}

/* ---- add(x, table, out, positions, offset, seq_axis, scale, padding_idx, defer_above, threads) ---- */

static int parse_add(add_call *call, PyObject *const *args) {
    pe_operation *op = &call->op;
    if (parse_how(call, args[6], args[7]) < 0 || pe_operation_input(op, args[0], "x", args[5]) < 0) return -1;
    if (parse_table(call, args[1]) < 0 || parse_places(call, args[3], args[4]) < 0) return -1;
    const pe_view *table = &call->table.view;
    call->rows.table = table->data;
    call->rows.table_row = table->stride[0], call->rows.table_element = table->stride[1];
    call->rows.table_dtype = table->dtype;
    call->rows.dim = op->width;
    if (require_rows(call, (size_t)table->shape[0]) < 0 || pe_operation_outputs(op, args[2]) < 0) return -1;
    return op->have_y ? pe_check_disjoint(op->y[0], "out", &call->table, "table") : 0;
}

PyObject *pe_py_add(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    add_call call;
    begin(&call, module);
    PyObject *result = parse_add(&call, args) < 0 ? NULL : pe_operation_finish(&call.op, args[8], args[9]);
    end(&call);
    return result;
}

/* ---- add_sinusoid(spec, order, x, out, positions, offset, seq_axis, scale, padding_idx, defer_above, threads) ---- */

static int parse_sinusoid(PyObject *capsule, PyObject *order, pe_sinusoid *sinusoid) {
    const pe_spec *spec = pe_spec_from(capsule);
    long code = spec ? PyLong_AsLong(order) : -1;
    if (PyErr_Occurred()) return -1;
    sinusoid->freq = &spec->freq;
    sinusoid->how = pe_arrange((enum pe_order)code, spec->head_dim, spec->freq.pairs);
    return 0;
}

static int parse_add_sinusoid(add_call *call, PyObject *const *args) {
    pe_operation *op = &call->op;
    if (parse_sinusoid(args[0], args[1], &call->sinusoid) < 0 || parse_how(call, args[7], args[8]) < 0) return -1;
    op->width = call->rows.dim = call->sinusoid.how.dim;
    if (pe_operation_input(op, args[2], "x", args[6]) < 0 || parse_places(call, args[4], args[5]) < 0) return -1;
    call->sinusoid.dtype = op->x[0].dtype == PE_F64 ? PE_F64 : PE_F32;
    call->rows.sinusoid = &call->sinusoid;
    if (pe_require_positions(call->sinusoid.freq, &call->rows.positions, batch_of(op), (size_t)pe_operation_seq(op)) <
        0)
        return -1;
    return pe_operation_outputs(op, args[3]);
}

PyObject *pe_py_add_sinusoid(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    add_call call;
    begin(&call, module);
    PyObject *result = parse_add_sinusoid(&call, args) < 0 ? NULL : pe_operation_finish(&call.op, args[9], args[10]);
    end(&call);
    return result;
}

/* ---- scatter(grad, out, positions, offset, seq_axis, scale, padding_idx, defer_above, threads) ---- */

static int parse_scatter(add_call *call, PyObject *const *args) {
    pe_operation *op = &call->op;
    if (parse_how(call, args[5], args[6]) < 0 || pe_operation_input(op, args[0], "grad", args[4]) < 0) return -1;
    if (pe_array_any(op->state, args[1], "out", &call->table) < 0) return -1;
    const pe_view *out = &call->table.view;
    char text[256];
    if (call->table.dtype != (op->x[0].dtype == PE_F64 ? PE_F64 : PE_F32)) {
        PyErr_Format(PyExc_TypeError, "out must be %s for this grad", wide_name(&op->x[0]));
        return -1;
    }
    if (out->ndim != 2 || (size_t)out->shape[1] != op->width) {
        PyErr_Format(PyExc_ValueError, "out must have shape (rows, dim) = (rows, %zu), got %s", op->width,
                     pe_shape_text(out, text, sizeof text));
        return -1;
    }
    if (parse_places(call, args[2], args[3]) < 0 || require_rows(call, (size_t)out->shape[0]) < 0) return -1;
    call->rows.dim = op->width;
    if (pe_check_output(&call->table, "out") < 0) return -1;
    if (pe_check_positions_disjoint(&op->positions, &call->table, "out") < 0) return -1;
    return pe_check_disjoint(&call->table, "out", &op->x[0], "grad");
}

/* every column's sum is formed as in one call */
static enum pe_status scatter_columns(void *context, size_t start, size_t stop, pe_poll *poll, void *release) {
    const add_call *call = context;
    const pe_view *whole = &call->op.x[0].view;
    pe_added rows = call->rows;
    pe_view grad = pe_cut(whole, whole->ndim - 1, start, stop), table = pe_cut(&call->table.view, 1, start, stop);
    rows.dim = stop - start;
    return pe_scatter_rows(call->op.state->kernels, &call->how, &rows, &grad, &table, poll, release);
}

static PyObject *run_scatter(add_call *call, PyObject *const *args) {
    const pe_operation *op = &call->op;
    if (parse_scatter(call, args) < 0) return NULL;
    size_t bytes = pe_elements(&op->x[0].view) * pe_itemsize(op->x[0].view.dtype), threads;
    PyObject *deferred = pe_defer(args[7], args[8], bytes, 1, &threads);
    if (deferred || PyErr_Occurred()) return deferred;
    size_t step = threads > 1 ? op->width / threads + 1 : op->width; /* a few columns each would be read badly */
    if (pe_run_steps(scatter_columns, call, op->width, step, bytes, threads) < 0) return NULL;
    bool tensor = call->table.kind == PE_KIND_TORCH;
    if (pe_tensors_written(op->state, &call->table.object, tensor) < 0) return NULL;
    return Py_NewRef(args[1]);
}

PyObject *pe_py_scatter(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    add_call call;
    begin(&call, module);
    PyObject *result = run_scatter(&call, args);
    end(&call);
    return result;
}

/* ---- sinusoid(spec, order, positions, float64, out, padding_idx, defer_above, threads) ---- */

typedef struct {
    pe_state *state;
    pe_sinusoid sinusoid;
    pe_position_args positions;
    int64_t storage;
    const int64_t *skipped;
    pe_array out;
    bool stream;
    PyObject *result; /* owned */
} table_call;

static int parse_out(table_call *call, PyObject *object) {
    pe_view wanted = {.ndim = 0, .dtype = call->sinusoid.dtype};
    if (call->positions.batch >= 0) wanted.shape[wanted.ndim++] = call->positions.batch;
    wanted.shape[wanted.ndim++] = call->positions.seq;
    wanted.shape[wanted.ndim++] = (ptrdiff_t)call->sinusoid.how.dim;
    if (object == Py_None) {
        npy_intp shape[3];
        for (int i = 0; i < wanted.ndim; i++) shape[i] = wanted.shape[i];
        call->result = PyArray_SimpleNew(wanted.ndim, shape, wanted.dtype == PE_F64 ? NPY_DOUBLE : NPY_FLOAT);
        return call->result == NULL ? -1 : pe_array_any(call->state, call->result, "out", &call->out);
    }
    call->result = Py_NewRef(object);
    return pe_require_table("out", object, &wanted, call->state, &call->positions, &call->out);
}

/* everything but a new array, which is made only where the work is done here */
static int parse_sinusoid_table(table_call *call, PyObject *const *args) {
    if (parse_sinusoid(args[0], args[1], &call->sinusoid) < 0) return -1;
    if (parse_padding(args[5], &call->storage, &call->skipped) < 0) return -1;
    if (pe_parse_table_positions(call->state, args[2], 1, &call->positions) < 0) return -1;
    call->sinusoid.dtype = PyObject_IsTrue(args[3]) ? PE_F64 : PE_F32;
    size_t batch = call->positions.batch < 0 ? 1 : (size_t)call->positions.batch;
    if (pe_require_positions(call->sinusoid.freq, &call->positions.positions, batch, (size_t)call->positions.seq) < 0)
        return -1;
    return args[4] == Py_None ? 0 : parse_out(call, args[4]);
}

static enum pe_status fill_sinusoid(void *context, size_t start, size_t stop, pe_poll *poll, void *release) {
    const table_call *call = context;
    pe_view whole = pe_three_axes(&call->out.view), out = pe_cut(&whole, 1, start, stop);
    pe_positions positions = pe_positions_from(&call->positions.positions, 0, start);
    return pe_sinusoid_table(call->state->kernels, &call->sinusoid, &positions, call->skipped, &out, call->stream, poll,
                             release);
}

static PyObject *run_sinusoid(table_call *call, PyObject *const *args) {
    if (parse_sinusoid_table(call, args) < 0) return NULL;
    size_t batch = call->positions.batch < 0 ? 1 : (size_t)call->positions.batch;
    size_t seq = (size_t)call->positions.seq,
           bytes = batch * seq * call->sinusoid.how.dim * pe_itemsize(call->sinusoid.dtype);
    size_t threads;
    size_t parts = pe_table_parts(batch, seq, bytes, args[4] == Py_None ? NULL : &call->out.view);
    PyObject *deferred = pe_defer(args[6], args[7], bytes, parts, &threads);
    if (deferred || PyErr_Occurred()) return deferred;
    if (args[4] == Py_None && parse_out(call, Py_None) < 0) return NULL;
    call->stream = bytes > PE_STREAM_TABLE_BYTES;
    if (pe_run(fill_sinusoid, call, seq, bytes, threads) < 0) return NULL;
    if (pe_tensors_written(call->state, &call->out.object, call->out.kind == PE_KIND_TORCH) < 0) return NULL;
    return Py_NewRef(call->result);
}

PyObject *pe_py_sinusoid(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    table_call call = {.state = pe_get_state(module)};
    PyObject *result = run_sinusoid(&call, args);
    Py_XDECREF(call.result);
    pe_array_clear(&call.out);
    pe_positions_clear(&call.positions);
    return result;
}
