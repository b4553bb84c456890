/* Arrays in: NumPy's straight from the C API, torch's through tensor.c, others through __dlpack__. */
#include "args.h"

#include <stdio.h>
#include <string.h>

const char *pe_shape_text(const pe_view *v, char *buffer, size_t size) {
    size_t used = (size_t)snprintf(buffer, size, "(");
    for (int i = 0; i < v->ndim && used < size; i++)
        used += (size_t)snprintf(buffer + used, size - used, i ? ", %lld" : "%lld", (long long)v->shape[i]);
    if (used < size) snprintf(buffer + used, size - used, v->ndim == 1 ? ",)" : ")");
    return buffer;
}

/* ---- arrays ---- */

/* ml_dtypes' bfloat16 is a user-defined type: known by its name, without linking to it, and then by its address */
static bool is_bfloat16(pe_state *state, PyArray_Descr *descr) {
    PyTypeObject *known = PE_LOAD(&state->bfloat16);
    if (descr->typeobj == known) return true;
    if (known || !PyTypeNum_ISUSERDEF(descr->type_num) || PyDataType_ELSIZE(descr) != 2) return false;
    PyObject *name = PyObject_GetAttrString((PyObject *)descr->typeobj, "__name__");
    bool same = name && PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "bfloat16") == 0;
    Py_XDECREF(name);
    PyErr_Clear();
    if (same && PE_SET_ONCE(&state->bfloat16, descr->typeobj)) Py_INCREF((PyObject *)descr->typeobj);
    return same;
}

static int dtype_of(pe_state *state, PyArrayObject *array) {
    if (!PyArray_ISNOTSWAPPED(array)) return PE_DTYPE_OTHER;
    switch (PyArray_TYPE(array)) {
        case NPY_FLOAT: return PE_F32;
        case NPY_DOUBLE: return PE_F64;
        case NPY_HALF: return PE_F16;
        default: break;
    }
    if (PyArray_ISSIGNED(array)) {
        if (PyArray_ITEMSIZE(array) == 4) return PE_DTYPE_INT32;
        if (PyArray_ITEMSIZE(array) == 8) return PE_DTYPE_INT64;
    }
    return is_bfloat16(state, PyArray_DESCR(array)) ? PE_BF16 : PE_DTYPE_OTHER;
}

/* what core has to know of an element is its size */
enum pe_dtype pe_view_dtype(int dtype) {
    return dtype < PE_DTYPES ? (enum pe_dtype)dtype : dtype == PE_DTYPE_INT32 ? PE_F32 : PE_F64;
}

static int view_ndarray(pe_state *state, PyArrayObject *array, const char *name, pe_array *a) {
    pe_view *v = &a->view;
    a->kind = PE_KIND_NUMPY;
    a->dtype = dtype_of(state, array);
    v->dtype = pe_view_dtype(a->dtype);
    a->writable = PyArray_ISWRITEABLE(array);
    v->data = PyArray_BYTES(array);
    v->ndim = PyArray_NDIM(array);
    if (v->ndim > PE_MAX_DIM) {
        PyErr_Format(PyExc_ValueError, "%s must have at most %d axes, got %d", name, PE_MAX_DIM, v->ndim);
        return -1;
    }
    for (int i = 0; i < v->ndim; i++) {
        v->shape[i] = PyArray_DIM(array, i);
        v->stride[i] = v->shape[i] == 1 ? 0 : PyArray_STRIDE(array, i); /* of an axis one long it may be anything */
    }
    if (!PyArray_ISALIGNED(array)) {
        PyErr_Format(PyExc_ValueError, "%s is not aligned to its element size; pass a copy", name);
        return -1;
    }
    return 0;
}

/* NumPy's own import of another library's CPU array: no copy */
static PyObject *import_dlpack(PyObject *object, const char *name) {
    PyObject *exporter = PyObject_GetAttrString(object, "__dlpack__");
    if (exporter == NULL) { /* whatever was raised: what is asked for here is not there */
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s must be a NumPy array or a torch CPU tensor, got %R", name,
                     (PyObject *)Py_TYPE(object));
        return NULL;
    }
    Py_DECREF(exporter);
    PyObject *numpy = PyImport_ImportModule("numpy"), *array = NULL;
    if (numpy) array = PyObject_CallMethod(numpy, "from_dlpack", "O", object);
    Py_XDECREF(numpy);
    return array;
}

static int reject_masked(PyObject *object, const char *name) {
    PyObject *module = PyImport_ImportModule("numpy.ma");
    PyObject *type = module ? PyObject_GetAttrString(module, "MaskedArray") : NULL;
    int masked = type ? PyObject_IsInstance(object, type) : -1;
    Py_XDECREF(module);
    Py_XDECREF(type);
    if (masked <= 0) return masked;
    PyErr_Format(PyExc_TypeError, "%s is a masked array, whose mask would be ignored; pass %s.data or %s.filled()",
                 name, name, name);
    return -1;
}

int pe_array_any(pe_state *state, PyObject *object, const char *name, pe_array *a) {
    a->object = object;
    a->owner = NULL;
    if (PyArray_CheckExact(object)) return view_ndarray(state, (PyArrayObject *)object, name, a);
    int is_tensor = pe_tensor_view(state, object, name, a);
    if (is_tensor) return is_tensor < 0 ? -1 : 0;
    if (PyArray_Check(object)) {
        if (reject_masked(object, name) < 0) return -1;
        return view_ndarray(state, (PyArrayObject *)object, name, a);
    }
    a->owner = import_dlpack(object, name);
    if (a->owner == NULL) return -1;
    return view_ndarray(state, (PyArrayObject *)a->owner, name, a);
}

int pe_array_float(pe_state *state, PyObject *object, const char *name, pe_array *a) {
    if (pe_array_any(state, object, name, a) < 0) return -1;
    if (a->dtype < PE_DTYPES) return 0;
    PyObject *dtype = pe_array_dtype(a);
    if (dtype)
        PyErr_Format(PyExc_TypeError, "%s must be float32, float64, float16 or bfloat16 in native byte order, got %S",
                     name, dtype);
    Py_XDECREF(dtype);
    return -1;
}

PyObject *pe_array_dtype(const pe_array *a) {
    PyObject *array = a->kind == PE_KIND_NUMPY && a->owner ? a->owner : a->object;
    return PyObject_GetAttrString(array, "dtype");
}

void pe_array_clear(pe_array *a) {
    Py_CLEAR(a->owner);
}

PyObject *pe_array_like(pe_state *state, const pe_array *a) {
    if (a->kind == PE_KIND_TORCH) return pe_tensor_like(state, a->object);
    PyObject *array = a->owner ? a->owner : a->object;
    return PyArray_NewLikeArray((PyArrayObject *)array, NPY_KEEPORDER, NULL, 0);
}

/* ---- outputs ---- */

int pe_check_output(const pe_array *a, const char *name) {
    if (!a->writable) {
        PyErr_Format(PyExc_BufferError, "%s is read-only", name);
        return -1;
    }
    if (!pe_overlaps_itself(&a->view)) return 0;
    PyErr_Format(
        PyExc_ValueError,
        "%s stores several elements in the same memory (an expanded or overlapping view); pass an array of its own",
        name);
    return -1;
}

static bool same_layout(const pe_view *a, const pe_view *b) {
    if (a->data != b->data) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != 1 && a->stride[i] != b->stride[i]) return false;
    return true;
}

int pe_reject_pair(PyObject *out, const char *first, const char *second) {
    if (PyTuple_Check(out) || PyList_Check(out))
        PyErr_Format(PyExc_TypeError, "out must be a pair of arrays, one for %s and one for %s, got %zd of them", first,
                     second, PySequence_Size(out));
    else
        PyErr_Format(PyExc_TypeError, "out must be a pair of arrays, one for %s and one for %s, got %R", first, second,
                     (PyObject *)Py_TYPE(out));
    return -1;
}

int pe_check_disjoint(const pe_array *a, const char *a_name, const pe_array *b, const char *b_name) {
    if (!pe_overlap(&a->view, &b->view)) return 0;
    PyErr_Format(PyExc_ValueError, "%s and %s overlap in memory; they must be the same array or disjoint", a_name,
                 b_name);
    return -1;
}

int pe_same_or_disjoint(const pe_array *a, const char *a_name, const pe_array *b, const char *b_name) {
    if (same_layout(&a->view, &b->view)) return 1;
    return pe_check_disjoint(a, a_name, b, b_name);
}

int pe_check_same_shape(const pe_array *a, const char *a_name, const pe_array *b, const char *b_name) {
    bool same = a->view.ndim == b->view.ndim;
    for (int i = 0; same && i < a->view.ndim; i++) same = a->view.shape[i] == b->view.shape[i];
    char first[256], second[256];
    if (!same) {
        PyErr_Format(PyExc_ValueError, "%s must have the shape of %s, %s, got %s", b_name, a_name,
                     pe_shape_text(&a->view, first, sizeof first), pe_shape_text(&b->view, second, sizeof second));
        return -1;
    }
    if (a->dtype == b->dtype) return 0;
    PyObject *wanted = pe_array_dtype(a), *got = wanted ? pe_array_dtype(b) : NULL;
    if (got) PyErr_Format(PyExc_TypeError, "%s must have the dtype of %s, %S, got %S", b_name, a_name, wanted, got);
    Py_XDECREF(wanted);
    Py_XDECREF(got);
    return -1;
}

/* Python's own, or an array or tensor of them: as an integer it would be 0 or 1 */
bool pe_is_boolean(PyObject *object) {
    if (PyLong_CheckExact(object)) return false;
    if (PyLong_Check(object)) return PyBool_Check(object);
    PyObject *dtype = PyObject_GetAttrString(object, "dtype"), *text = dtype ? PyObject_Str(dtype) : NULL;
    bool found = text && PyUnicode_Check(text) &&
                 (PyUnicode_CompareWithASCIIString(text, "bool") == 0 ||
                  PyUnicode_CompareWithASCIIString(text, "torch.bool") == 0);
    Py_XDECREF(dtype);
    Py_XDECREF(text);
    PyErr_Clear();
    return found;
}

int pe_parse_seq_axis(PyObject *object, int ndim, const char *name, const char *width_name, int *axis) {
    bool boolean = pe_is_boolean(object);
    Py_ssize_t value = boolean ? -1 : PyNumber_AsSsize_t(object, NULL); /* clipped: out of bounds either way */
    if (boolean || (value == -1 && PyErr_Occurred())) {
        if (boolean || PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "seq_axis must be an integer, got %R", (PyObject *)Py_TYPE(object));
        return -1;
    }
    Py_ssize_t index = value < 0 ? value + ndim : value;
    if (index < 0 || index >= ndim) {
        PyErr_Format(PyExc_ValueError, "seq_axis %zd is out of bounds for %s with %d axes", value, name, ndim);
        return -1;
    }
    if (index == ndim - 1) {
        PyErr_Format(PyExc_ValueError, "seq_axis must not be the last axis of %s, which is %s", name, width_name);
        return -1;
    }
    *axis = (int)index;
    return 0;
}
