/* The part of NumPy's C API that reading and making arrays takes, under NumPy's own names.
 *
 * Declared here and not by NumPy's headers: a build then needs no NumPy, of which pip would install 20 MB for the headers
 * alone. Layouts, numbers and places in the table of functions are NumPy's ABI, the same in all of NumPy 2, and what
 * pybind11 and rust-numpy rest on too. numpy_abi.c checks the version at import; tests/test_numpy_abi.py compares all
 * of this file with the headers of the NumPy at hand.
 * https://numpy.org/doc/stable/reference/c-api/
 */
#ifndef PE_NUMPY_ABI_H
#define PE_NUMPY_ABI_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

typedef Py_ssize_t npy_intp;

typedef struct {
    PyObject ob_base;
    PyTypeObject *typeobj;
    char kind, type, byteorder, unused;
    int type_num;
    uint64_t flags;
    npy_intp elsize; /* and more */
} PyArray_Descr;

typedef struct {
    PyObject ob_base;
    char *data;
    int nd;
    npy_intp *dimensions, *strides;
    PyObject *base;
    PyArray_Descr *descr;
    int flags; /* and more */
} PyArrayObject;

/* type numbers; the integers go signed, unsigned, signed ... */
enum {
    NPY_BYTE = 1,
    NPY_LONG = 7,
    NPY_LONGLONG = 9,
    NPY_ULONGLONG = 10,
    NPY_FLOAT = 11,
    NPY_DOUBLE = 12,
    NPY_OBJECT = 17,
    NPY_HALF = 23,
    NPY_USERDEF = 256,
    NPY_INT64 = sizeof(long) == 8 ? NPY_LONG : NPY_LONGLONG,
    NPY_UINT64 = NPY_INT64 + 1,
};

enum {
    NPY_ARRAY_FORCECAST = 0x10,
    NPY_ARRAY_ENSURECOPY = 0x20,
    NPY_ARRAY_ALIGNED = 0x100,
    NPY_ARRAY_WRITEABLE = 0x400,
    NPY_ARRAY_CARRAY_RO = 0x101, /* C order, aligned */
    NPY_ARRAY_CARRAY = 0x501,    /* and writeable */
};

typedef enum { NPY_KEEPORDER = 2 } NPY_ORDER;

/* an array or a scalar type of the other byte order says which */
enum { NPY_OPPBYTE = PY_BIG_ENDIAN ? '<' : '>' };

extern void **PyArray_API; /* NumPy's table of functions and types */
#define PyArray_GetNDArrayCVersion (*(unsigned int (*)(void))PyArray_API[0])
#define PyArray_Type               (*(PyTypeObject *)PyArray_API[2])
#define PyArray_DescrFromType      (*(PyArray_Descr * (*)(int)) PyArray_API[45])
#define PyArray_FromAny (*(PyObject * (*)(PyObject *, PyArray_Descr *, int, int, int, PyObject *)) PyArray_API[69])
#define PyArray_New                                                                                                \
    (*(PyObject * (*)(PyTypeObject *, int, npy_intp const *, int, npy_intp const *, void *, int, int, PyObject *)) \
         PyArray_API[93])
#define PyArray_FromArray (*(PyObject * (*)(PyArrayObject *, PyArray_Descr *, int)) PyArray_API[109])
#define PyArray_View      (*(PyObject * (*)(PyArrayObject *, PyArray_Descr *, PyTypeObject *)) PyArray_API[137])
#define PyArray_GetNDArrayCFeatureVersion (*(unsigned int (*)(void))PyArray_API[211])
#define PyArray_NewLikeArray (*(PyObject * (*)(PyArrayObject *, NPY_ORDER, PyArray_Descr *, int)) PyArray_API[277])

static inline bool PyArray_CheckExact(PyObject *object) {
    return Py_IS_TYPE(object, &PyArray_Type);
}

static inline bool PyArray_Check(PyObject *object) {
    return PyObject_TypeCheck(object, &PyArray_Type);
}

static inline PyObject *PyArray_SimpleNew(int ndim, const npy_intp *shape, int type) {
    return PyArray_New(&PyArray_Type, ndim, shape, type, NULL, NULL, 0, 0, NULL);
}

static inline char *PyArray_BYTES(const PyArrayObject *array) {
    return array->data;
}

static inline void *PyArray_DATA(const PyArrayObject *array) {
    return array->data;
}

static inline int PyArray_NDIM(const PyArrayObject *array) {
    return array->nd;
}

static inline npy_intp PyArray_DIM(const PyArrayObject *array, int axis) {
    return array->dimensions[axis];
}

static inline npy_intp PyArray_STRIDE(const PyArrayObject *array, int axis) {
    return array->strides[axis];
}

static inline npy_intp PyArray_SIZE(const PyArrayObject *array) {
    npy_intp size = 1;
    for (int i = 0; i < array->nd; i++) size *= array->dimensions[i];
    return size;
}

static inline PyArray_Descr *PyArray_DESCR(const PyArrayObject *array) {
    return array->descr;
}

static inline int PyArray_TYPE(const PyArrayObject *array) {
    return array->descr->type_num;
}

static inline npy_intp PyArray_ITEMSIZE(const PyArrayObject *array) {
    return array->descr->elsize;
}

static inline bool PyArray_ISALIGNED(const PyArrayObject *array) {
    return array->flags & NPY_ARRAY_ALIGNED;
}

static inline bool PyArray_ISWRITEABLE(const PyArrayObject *array) {
    return array->flags & NPY_ARRAY_WRITEABLE;
}

static inline bool PyArray_ISNOTSWAPPED(const PyArrayObject *array) {
    return array->descr->byteorder != NPY_OPPBYTE;
}

static inline bool PyArray_ISINTEGER(const PyArrayObject *array) {
    return array->descr->type_num >= NPY_BYTE && array->descr->type_num <= NPY_ULONGLONG;
}

static inline bool PyArray_ISSIGNED(const PyArrayObject *array) {
    return PyArray_ISINTEGER(array) && (array->descr->type_num - NPY_BYTE) % 2 == 0;
}

static inline bool PyArray_ISUNSIGNED(const PyArrayObject *array) {
    return PyArray_ISINTEGER(array) && !PyArray_ISSIGNED(array);
}

int pe_import_numpy(void); /* once, before all else */

#endif
