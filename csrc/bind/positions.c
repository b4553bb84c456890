/* positions= and offset=: any array-like in, one strided view out, and the shapes that mean something. */
#include "args.h"

#include <math.h>

/* unsigned 64-bit values as int64; those that do not fit are out of bounds anyway and stay so */
static PyObject *convert_uint64(PyArrayObject *array) {
    PyObject *copy =
        PyArray_FromArray(array, PyArray_DescrFromType(NPY_UINT64), NPY_ARRAY_CARRAY | NPY_ARRAY_ENSURECOPY);
    if (copy == NULL) return NULL;
    uint64_t *values = PyArray_DATA((PyArrayObject *)copy);
    for (npy_intp i = 0; i < PyArray_SIZE((PyArrayObject *)copy); i++)
        if (values[i] > INT64_MAX) values[i] = INT64_MAX;
    PyObject *result = PyArray_View((PyArrayObject *)copy, PyArray_DescrFromType(NPY_INT64), NULL);
    Py_DECREF(copy);
    return result;
}

/* What an argument may be, as its messages say it. */
typedef struct {
    const char *name, *expected;
    bool only_int64;
} argument;
static const argument POSITIONS = {"positions", "integers, float32 or float64", false};
static const argument OFFSET = {"offset", "an integer or one integer per batch row, shape (batch,)", true};

/* got: a dtype, or the type of what is no array */
static void reject_numbers(const argument *wanted, PyObject *got, bool half) {
    PyErr_Format(PyExc_TypeError, "%s must be %s, got %S%s", wanted->name, wanted->expected, got,
                 half ? " (half precision cannot count positions)" : "");
}

/* what NumPy cannot read, rows of different lengths; its own words are what came */
static void reject_rows(const argument *wanted) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_Format(PyExc_ValueError, "%s must be %s: %S", wanted->name, wanted->expected, value ? value : Py_None);
    Py_XDECREF(type), Py_XDECREF(value), Py_XDECREF(traceback);
}

/* int32, int64 and float64 arrays are read where they lie; everything else becomes a small int64 or float64 copy */
static PyObject *convert(PyObject *object, const argument *wanted) {
    PyArrayObject *array = (PyArrayObject *)PyArray_FromAny(object, NULL, 0, 0, 0, NULL);
    if (array == NULL) {
        if (PyErr_ExceptionMatches(PyExc_ValueError)) reject_rows(wanted);
        return NULL;
    }
    PyObject *result = NULL;
    int type = PyArray_TYPE(array), flags = NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST;
    bool nothing = PyArray_SIZE(array) == 0 && type == NPY_DOUBLE; /* an empty list */
    if (PyArray_ISUNSIGNED(array) && PyArray_ITEMSIZE(array) == 8)
        result = convert_uint64(array);
    else if (PyArray_ISINTEGER(array) || nothing)
        result = PyArray_FromArray(array, PyArray_DescrFromType(NPY_INT64), flags);
    else if (type == NPY_FLOAT || type == NPY_DOUBLE)
        result = PyArray_FromArray(array, PyArray_DescrFromType(NPY_DOUBLE), flags);
    else
        reject_numbers(wanted,
                       type == NPY_OBJECT && PyArray_NDIM(array) == 0 ? (PyObject *)Py_TYPE(object)
                                                                      : (PyObject *)PyArray_DESCR(array),
                       type == NPY_HALF);
    Py_DECREF(array);
    return result;
}

/* a tensor that NumPy cannot have: bfloat16, complex with its conjugation pending */
static int reject_tensor(PyObject *tensor, const argument *wanted, bool bfloat16) {
    PyErr_Clear();
    PyObject *dtype = PyObject_GetAttrString(tensor, "dtype");
    if (dtype) reject_numbers(wanted, dtype, bfloat16);
    Py_XDECREF(dtype);
    return -1;
}

/* p->array becomes a view of the object itself where its numbers can be read as they are, else of a converted copy */
static int view_numbers(pe_state *state, PyObject *object, const argument *wanted, pe_position_args *p) {
    pe_array *a = &p->array;
    const char *name = wanted->name;
    bool tensor = false;
    a->dtype = PE_DTYPE_OTHER, a->owner = NULL;
    p->name = name;
    if (PyArray_Check(object)) {
        if (PyArray_ISALIGNED((PyArrayObject *)object) && pe_array_any(state, object, name, a) < 0) return -1;
    } else {
        int found = pe_tensor_view(state, object, name, a);
        if (found < 0) return -1;
        tensor = found;
        p->owners[0] = a->owner; /* what .numpy() gave, for an older torch */
    }
    p->borrowed =
        a->dtype == PE_DTYPE_INT64 || (!wanted->only_int64 && (a->dtype == PE_DTYPE_INT32 || a->dtype == PE_F64));
    if (p->borrowed) return 0;
    PyObject *source = tensor ? PyObject_CallMethod(object, "numpy", NULL) : Py_NewRef(object);
    if (source == NULL) return reject_tensor(object, wanted, a->dtype == PE_BF16);
    p->owners[1] = convert(source, wanted);
    Py_DECREF(source);
    return p->owners[1] == NULL ? -1 : pe_array_any(state, p->owners[1], name, a);
}

/* a batch axis of the positions: 1, or x's own */
static int use_batch_axis(const pe_array *a, int axis, ptrdiff_t x_batch, const char *name, pe_position_args *p) {
    ptrdiff_t n = a->view.shape[axis];
    if (n == 1) return 0;
    char text[256];
    if (x_batch < 0)
        PyErr_Format(PyExc_ValueError,
                     "%s has one row per batch row, shape %s, but the input has no batch axis before "
                     "its sequence axis",
                     name, pe_shape_text(&a->view, text, sizeof text));
    else if (n != x_batch)
        PyErr_Format(PyExc_ValueError, "%s must have batch 1 or %zd (the input's first axis), got shape %s", name,
                     x_batch, pe_shape_text(&a->view, text, sizeof text));
    else {
        p->per_batch = true;
        p->positions.batch_stride = a->view.stride[axis];
        return 0;
    }
    return -1;
}

static int parse_array(pe_state *state, PyObject *object, const argument *wanted, int axes, ptrdiff_t seq,
                       ptrdiff_t x_batch, pe_position_args *p) {
    if (view_numbers(state, object, wanted, p) < 0) return -1;
    const pe_array *a = &p->array;
    const pe_view *v = &a->view;
    int lead = axes > 1, ndim = v->ndim - lead;
    char text[256];
    if ((ndim != 1 && ndim != 2) || (seq >= 0 && v->shape[v->ndim - 1] != seq) || (lead && v->shape[0] != axes)) {
        pe_shape_text(v, text, sizeof text);
        if (seq < 0)
            PyErr_Format(PyExc_ValueError,
                         lead ? "positions must have shape (axes, seq) or (axes, batch, seq) with %d axes, "
                                "got %s"
                              : "positions must have shape (seq,) or (batch, seq) for frequencies of %d axis, got %s",
                         axes, text);
        else if (lead)
            PyErr_Format(PyExc_ValueError,
                         "positions must have shape (axes, seq) = (%d, %zd) or (axes, batch, seq) = "
                         "(%d, batch, %zd), got %s",
                         axes, seq, axes, seq, text);
        else
            PyErr_Format(PyExc_ValueError,
                         "%s must have shape (seq,) = (%zd,) or (batch, seq) = (batch, %zd), "
                         "got %s",
                         p->name, seq, seq, text);
        return -1;
    }
    p->integral = a->dtype != PE_F64;
    p->seq = v->shape[v->ndim - 1];
    p->batch = ndim == 2 ? v->shape[lead] : -1;
    if (seq < 0 && ndim == 2) x_batch = p->batch;
    p->positions = (pe_positions){.kind = a->dtype == PE_DTYPE_INT32   ? PE_INT32
                                          : a->dtype == PE_DTYPE_INT64 ? PE_INT64
                                                                       : PE_FLOAT64,
                                  .data = v->data,
                                  .axis_stride = lead ? v->stride[0] : 0,
                                  .stride = v->stride[v->ndim - 1]};
    return ndim == 2 ? use_batch_axis(a, lead, x_batch, p->name, p) : 0;
}

static int parse_offset(pe_state *state, PyObject *object, ptrdiff_t x_batch, pe_position_args *p) {
    p->integral = true;
    p->positions = (pe_positions){.kind = PE_RANGE, .data = (const char *)&p->start};
    bool several = !PyLong_CheckExact(object) && PyArray_Check(object) && PyArray_NDIM((PyArrayObject *)object) > 0;
    if (PyIndex_Check(object) && !several && !pe_is_boolean(object)) {
        p->start = PyNumber_AsSsize_t(object, NULL); /* clipped: out of bounds either way */
        if (p->start != -1 || !PyErr_Occurred()) return 0;
        /* a tensor has __index__ too, which refuses for several elements and without memory */
        if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_RuntimeError)) return -1;
        PyErr_Clear();
    }
    if (view_numbers(state, object, &OFFSET, p) < 0) return -1;
    const pe_array *a = &p->array;
    char text[256];
    if (a->dtype != PE_DTYPE_INT64 || a->view.ndim != 1) {
        bool integers = a->dtype == PE_DTYPE_INT64;
        PyErr_Format(integers ? PyExc_ValueError : PyExc_TypeError,
                     "offset must be %s, got %s of shape %s; fractional positions go through positions=",
                     OFFSET.expected, integers ? "integers" : "floats", pe_shape_text(&a->view, text, sizeof text));
        return -1;
    }
    p->positions.data = a->view.data;
    return use_batch_axis(a, 0, x_batch, "offset", p);
}

static void begin(pe_position_args *p) {
    p->owners[0] = p->owners[1] = NULL;
    p->per_batch = p->borrowed = false;
    p->start = 0;
}

int pe_parse_positions(pe_state *state, PyObject *positions, PyObject *offset, int axes, ptrdiff_t seq,
                       ptrdiff_t x_batch, pe_position_args *p) {
    begin(p);
    if (positions == Py_None) return parse_offset(state, offset, x_batch, p);
    int given = 1;
    if (PyLong_CheckExact(offset)) {
        long long value = PyLong_AsLongLong(offset);
        given = value != 0;
        if (value == -1) PyErr_Clear();
    }
    if (given) {
        PyErr_SetString(PyExc_ValueError, "positions and offset exclude each other: add the offset to the positions");
        return -1;
    }
    return parse_array(state, positions, &POSITIONS, axes, seq, x_batch, p);
}

int pe_parse_named_positions(pe_state *state, const char *name, PyObject *positions, int64_t start, ptrdiff_t seq,
                             ptrdiff_t x_batch, pe_position_args *p) {
    begin(p);
    p->start = start, p->name = name, p->integral = true;
    p->positions = (pe_positions){.kind = PE_RANGE, .data = (const char *)&p->start};
    if (positions == Py_None) return 0;
    argument wanted = {name, POSITIONS.expected, false};
    return parse_array(state, positions, &wanted, 1, seq, x_batch, p);
}

/* ---- values ---- */

static int raise_position(PyObject *got) { /* steals it */
    if (got)
        PyErr_Format(PyExc_ValueError,
                     "positions must be finite, with |position| and |position * inv_freq| below 2**31, got %S", got);
    Py_XDECREF(got);
    return -1;
}

/* as it came: an integer that int64 does not hold has been clipped, and is not known any more */
static PyObject *describe_position(enum pe_position_kind kind, double position) {
    if (kind == PE_FLOAT64) return PyFloat_FromDouble(position);
    if (fabs(position) < 0x1p63) return PyLong_FromDouble(position);
    return PyUnicode_FromString("an integer of 64 bits or more");
}

int pe_require_positions(const pe_frequencies *freq, const pe_positions *positions, size_t batch, size_t seq) {
    pe_release release;
    pe_poll *poll = pe_release_begin(&release, pe_positions_read(positions, freq->axes, batch, seq) * sizeof(double));
    double bad = 0;
    enum pe_status status = pe_check_positions(freq, positions, batch, seq, &bad, poll, &release);
    if (pe_release_end(&release) < 0) return -1;
    return status == PE_OK ? 0 : raise_position(describe_position(positions->kind, bad));
}

int pe_require_rows(const pe_positions *positions, size_t batch, size_t seq, size_t table_rows,
                    const int64_t *skipped) {
    int64_t bad = 0;
    pe_release release;
    pe_poll *poll = pe_release_begin(&release, pe_positions_read(positions, 1, batch, seq) * sizeof(int64_t));
    enum pe_status status = pe_check_rows(positions, batch, seq, table_rows, skipped, &bad, poll, &release);
    if (pe_release_end(&release) < 0) return -1;
    if (status == PE_OK) return 0;
    PyErr_Format(PyExc_IndexError, "position %lld is outside the table, which has rows 0 to %zd", (long long)bad,
                 (Py_ssize_t)table_rows - 1);
    return -1;
}

int pe_check_positions_disjoint(const pe_position_args *p, const pe_array *out, const char *out_name) {
    return p->borrowed ? pe_check_disjoint(out, out_name, &p->array, p->name) : 0;
}

void pe_positions_clear(pe_position_args *p) {
    Py_CLEAR(p->owners[0]);
    Py_CLEAR(p->owners[1]);
}

int pe_parse_table_positions(pe_state *state, PyObject *object, int axes, pe_position_args *p) {
    begin(p);
    if (!PyLong_Check(object) || PyBool_Check(object)) return parse_array(state, object, &POSITIONS, axes, -1, -1, p);
    p->seq = PyLong_AsSsize_t(object);
    p->batch = -1;
    p->positions = (pe_positions){.kind = PE_RANGE, .data = (const char *)&p->start};
    if (p->seq == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return raise_position(describe_position(PE_RANGE, INFINITY));
    }
    if (p->seq >= 0) return 0;
    PyErr_Format(PyExc_ValueError, "a number of positions must not be negative, got %zd", p->seq);
    return -1;
}
