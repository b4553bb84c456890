/* What is known of NumPy's C API, a line each, from our own declarations or, with FROM_NUMPY, from NumPy's headers: the two
 * programs are to print the same. They run without Python: nothing here calls a function of it.
 */
#ifdef FROM_NUMPY
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define NPY_NO_DEPRECATED_API  NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION     NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL PyArray_API
#define NO_IMPORT_ARRAY
#include <numpy/arrayobject.h>
typedef PyArrayObject_fields array_fields;
#else
#include "../../csrc/bind/numpy_abi.h"
typedef PyArrayObject array_fields;
#endif

#include <stddef.h>
#include <stdio.h>

#define WORDS(...)         #__VA_ARGS__
#define EXPANDED(...)      WORDS(__VA_ARGS__)
#define FUNCTION(name)     printf("%s: %s\n", #name, EXPANDED(name)) /* its type and its place in the table */
#define NUMBER(name)       printf("%s: %lld\n", #name, (long long)(name))
#define MEMBER(type, name) printf("%s.%s: %zu, %zu\n", #type, #name, offsetof(type, name), sizeof(((type *)0)->name))

static void functions(void) {
    FUNCTION(PyArray_GetNDArrayCVersion);
    FUNCTION(PyArray_Type);
    FUNCTION(PyArray_DescrFromType);
    FUNCTION(PyArray_FromAny);
    FUNCTION(PyArray_New);
    FUNCTION(PyArray_FromArray);
    FUNCTION(PyArray_View);
    FUNCTION(PyArray_GetNDArrayCFeatureVersion);
    FUNCTION(PyArray_NewLikeArray);
}

static void numbers(void) {
    NUMBER(NPY_BYTE);
    NUMBER(NPY_LONG);
    NUMBER(NPY_LONGLONG);
    NUMBER(NPY_ULONGLONG);
    NUMBER(NPY_FLOAT);
    NUMBER(NPY_DOUBLE);
    NUMBER(NPY_OBJECT);
    NUMBER(NPY_HALF);
    NUMBER(NPY_USERDEF);
    NUMBER(NPY_INT64);
    NUMBER(NPY_UINT64);
    NUMBER(NPY_ARRAY_FORCECAST);
    NUMBER(NPY_ARRAY_ENSURECOPY);
    NUMBER(NPY_ARRAY_ALIGNED);
    NUMBER(NPY_ARRAY_WRITEABLE);
    NUMBER(NPY_ARRAY_CARRAY_RO);
    NUMBER(NPY_ARRAY_CARRAY);
    NUMBER(NPY_KEEPORDER);
    NUMBER(NPY_OPPBYTE);
    NUMBER(sizeof(NPY_ORDER));
    NUMBER(sizeof(npy_intp));
    NUMBER((npy_intp)-1 < 0);
}

static void members(void) {
    MEMBER(PyArray_Descr, typeobj);
    MEMBER(PyArray_Descr, kind);
    MEMBER(PyArray_Descr, type);
    MEMBER(PyArray_Descr, byteorder);
    MEMBER(PyArray_Descr, type_num);
    MEMBER(PyArray_Descr, flags);
    MEMBER(PyArray_Descr, elsize);
    MEMBER(array_fields, data);
    MEMBER(array_fields, nd);
    MEMBER(array_fields, dimensions);
    MEMBER(array_fields, strides);
    MEMBER(array_fields, base);
    MEMBER(array_fields, descr);
    MEMBER(array_fields, flags);
}

/* what is read of an array, and how its type is sorted */
static void accessors(int type, char byteorder, int flags) {
    char data[6];
    npy_intp shape[2] = {3, 5}, strides[2] = {7, 11};
    PyArray_Descr descr = {.type_num = type, .byteorder = byteorder, .elsize = 13};
    array_fields fields = {
        .data = data, .nd = 2, .dimensions = shape, .strides = strides, .descr = &descr, .flags = flags};
    PyArrayObject *a = (PyArrayObject *)(void *)&fields;
    printf("array of type %d, byte order %c, flags 0x%x: ", type, byteorder, (unsigned)flags);
    printf("%d %d ", (char *)PyArray_BYTES(a) == data, (char *)PyArray_DATA(a) == data);
    printf("%d %d %d ", PyArray_NDIM(a), (int)PyArray_DIM(a, 1), (int)PyArray_STRIDE(a, 1));
    printf("%d %d %d ", PyArray_DESCR(a) == &descr, PyArray_TYPE(a), (int)PyArray_ITEMSIZE(a));
    printf("%d %d %d ", !!PyArray_ISALIGNED(a), !!PyArray_ISWRITEABLE(a), !!PyArray_ISNOTSWAPPED(a));
    printf("%d %d %d\n", !!PyArray_ISINTEGER(a), !!PyArray_ISSIGNED(a), !!PyArray_ISUNSIGNED(a));
}

int main(void) {
    functions();
    numbers();
    members();
    for (int type = 0; type < 30; type++) accessors(type, '=', 0);
    for (const char *byteorder = "<>=|"; *byteorder; byteorder++) accessors(NPY_FLOAT, *byteorder, 0);
    for (int flag = 1; flag < 0x10000; flag <<= 1) accessors(NPY_FLOAT, '=', flag), accessors(NPY_FLOAT, '=', ~flag);
    return 0;
}
