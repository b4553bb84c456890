/* NumPy's table of functions, and whether it is of the version that numpy_abi.h describes. */
#include "numpy_abi.h"

void **PyArray_API;

/* The table's own versions: of the layouts, which no NumPy 2 changes, and of the functions, which are added at its end. */
enum { ABI_OF_NUMPY_2 = 0x02000000, FUNCTIONS_OF_NUMPY_2_0 = 0x12 };

int pe_import_numpy(void) {
    PyObject *module = PyImport_ImportModule("numpy._core._multiarray_umath");
    PyObject *table = module ? PyObject_GetAttrString(module, "_ARRAY_API") : NULL;
    Py_XDECREF(module);
    void *found = table ? PyCapsule_GetPointer(table, NULL) : NULL;
    Py_XDECREF(table); /* the table itself is as static as NumPy's code */
    if (found == NULL) return -1;
    PyArray_API = found;
    unsigned abi = PyArray_GetNDArrayCVersion(), functions = PyArray_GetNDArrayCFeatureVersion();
    if (abi == ABI_OF_NUMPY_2 && functions >= FUNCTIONS_OF_NUMPY_2_0) return 0;
    PyErr_Format(PyExc_ImportError, "posenc needs NumPy 2; the C API of the NumPy at hand is 0x%x, functions 0x%x", abi,
                 functions);
    return -1;
}
