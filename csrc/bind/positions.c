/* positions= and offset=: any array-like in, one strided view out, and the shapes that mean something. */
#include "args.h"

/* int32, int64 and float64 arrays are read where they lie; everything else becomes a small int64 or float64 copy */
static PyObject *convert(PyObject *object, const char *name) {
    PyArrayObject *array = (PyArrayObject *)PyArray_FromAny(object, NULL, 0, 0, 0, NULL);
    if (array == NULL) return NULL;
    int type = PyArray_TYPE(array), wanted = -1;
    if (PyArray_SIZE(array) == 0 || (PyArray_ISINTEGER(array) && type != NPY_ULONGLONG && type != NPY_ULONG))
        wanted = NPY_INT64;
    else if (PyArray_ISINTEGER(array) || type == NPY_FLOAT || type == NPY_DOUBLE)
        wanted = NPY_FLOAT64; /* unsigned 64-bit values that matter are exact in float64 */
    if (wanted < 0) {
        PyErr_Format(PyExc_TypeError, "%s must be integers, float32 or float64, got %S%s", name,
                     (PyObject *)PyArray_DESCR(array),
                     type == NPY_HALF ? " (half precision cannot count positions)" : "");
        Py_DECREF(array);
        return NULL;
    }
    PyObject *result =
        PyArray_FromArray(array, PyArray_DescrFromType(wanted), NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
    Py_DECREF(array);
    return result;
}

/* a view of the object itself where its numbers can be read as they are, else of a converted copy held by *owner */
static int view_numbers(pe_state *state, PyObject *object, const char *name, bool only_int64, pe_array *a,
                        PyObject **owner) {
    bool tensor = false;
    a->dtype = PE_DTYPE_OTHER;
    if (PyArray_Check(object)) {
        if (PyArray_ISALIGNED((PyArrayObject *)object) && pe_array_any(state, object, name, a) < 0) return -1;
    } else {
        int found = pe_tensor_view(state, object, name, a);
        if (found < 0) return -1;
        tensor = found;
    }
    if (a->dtype == PE_DTYPE_INT64) return 0;
    if (!only_int64 && (a->dtype == PE_DTYPE_INT32 || a->dtype == PE_F64)) return 0;
    if (tensor && a->dtype == PE_BF16) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be integers, float32 or float64, got torch.bfloat16 (half precision "
                     "cannot count positions)",
                     name);
        return -1;
    }
    PyObject *source = tensor ? PyObject_CallMethod(object, "numpy", NULL) : Py_NewRef(object);
    *owner = source ? convert(source, name) : NULL;
    Py_XDECREF(source);
    return *owner == NULL ? -1 : pe_array_any(state, *owner, name, a);
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

static int parse_array(pe_state *state, PyObject *object, int axes, ptrdiff_t seq, ptrdiff_t x_batch,
                       pe_position_args *p) {
    pe_array a;
    if (view_numbers(state, object, "positions", false, &a, &p->owners[0]) < 0) return -1;
    const pe_view *v = &a.view;
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
                         "positions must have shape (seq,) = (%zd,) or (batch, seq) = (batch, %zd), "
                         "got %s",
                         seq, seq, text);
        return -1;
    }
    p->integral = a.dtype != PE_F64;
    p->seq = v->shape[v->ndim - 1];
    p->batch = ndim == 2 ? v->shape[lead] : -1;
    if (seq < 0 && ndim == 2) x_batch = p->batch;
    p->positions = (pe_positions){.kind = a.dtype == PE_DTYPE_INT32   ? PE_INT32
                                          : a.dtype == PE_DTYPE_INT64 ? PE_INT64
                                                                      : PE_FLOAT64,
                                  .data = v->data,
                                  .axis_stride = lead ? v->stride[0] : 0,
                                  .stride = v->stride[v->ndim - 1]};
    return ndim == 2 ? use_batch_axis(&a, lead, x_batch, "positions", p) : 0;
}

static int parse_offset(pe_state *state, PyObject *object, ptrdiff_t x_batch, pe_position_args *p) {
    p->integral = true;
    p->positions = (pe_positions){.kind = PE_RANGE, .data = (const char *)&p->start};
    if (PyIndex_Check(object) && !(PyArray_Check(object) && PyArray_NDIM((PyArrayObject *)object) > 0)) {
        p->start =
            PyLong_CheckExact(object) ? PyLong_AsLongLong(object) : PyNumber_AsSsize_t(object, PyExc_OverflowError);
        if (p->start != -1 || !PyErr_Occurred()) return 0;
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear();
            return pe_raise_status(PE_POSITION);
        }
        PyErr_Clear(); /* a tensor of several elements has __index__ too, which refuses */
    }
    pe_array a;
    if (view_numbers(state, object, "offset", true, &a, &p->owners[1]) < 0) return -1;
    char text[256];
    if (a.dtype != PE_DTYPE_INT64 || a.view.ndim != 1) {
        PyErr_Format(a.dtype == PE_DTYPE_INT64 ? PyExc_ValueError : PyExc_TypeError,
                     "offset must be an integer or one integer per batch row, shape (batch,), got %s of shape %s; "
                     "fractional positions go through positions=",
                     a.dtype == PE_DTYPE_INT64 ? "integers" : "floats", pe_shape_text(&a.view, text, sizeof text));
        return -1;
    }
    p->positions.data = a.view.data;
    return use_batch_axis(&a, 0, x_batch, "offset", p);
}

int pe_parse_positions(pe_state *state, PyObject *positions, PyObject *offset, int axes, ptrdiff_t seq,
                       ptrdiff_t x_batch, pe_position_args *p) {
    p->owners[0] = p->owners[1] = NULL;
    p->per_batch = false;
    p->start = 0;
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
    return parse_array(state, positions, axes, seq, x_batch, p);
}

void pe_positions_clear(pe_position_args *p) {
    Py_CLEAR(p->owners[0]);
    Py_CLEAR(p->owners[1]);
}

int pe_parse_table_positions(pe_state *state, PyObject *object, int axes, pe_position_args *p) {
    p->owners[0] = p->owners[1] = NULL;
    p->per_batch = false;
    p->start = 0;
    if (!PyLong_Check(object)) return parse_array(state, object, axes, -1, -1, p);
    p->seq = PyLong_AsSsize_t(object);
    p->batch = -1;
    p->positions = (pe_positions){.kind = PE_RANGE, .data = (const char *)&p->start};
    if (p->seq == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return pe_raise_status(PE_POSITION);
    }
    if (p->seq >= 0) return 0;
    PyErr_Format(PyExc_ValueError, "a number of positions must not be negative, got %zd", p->seq);
    return -1;
}
