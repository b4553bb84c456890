/* The numbers of a Rope as C wants them: checked once, kept in a capsule, read by every call. */
#include <math.h>
#include <string.h>

#include "args.h"

static const char CAPSULE[] = "posenc.spec";

static void spec_free(PyObject *capsule) {
    PyMem_Free(PyCapsule_GetPointer(capsule, CAPSULE));
}

const pe_spec *pe_spec_from(PyObject *capsule) {
    return PyCapsule_GetPointer(capsule, CAPSULE);
}

/* the struct, then inv_freq, then axis_of_freq, in one block */
static pe_spec *spec_new(size_t pairs, bool several_axes) {
    pe_spec *spec = PyMem_Calloc(1, sizeof *spec + pairs * (sizeof(double) + 1));
    if (spec == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    spec->freq.inv_freq = (double *)(spec + 1);
    if (several_axes) spec->freq.axis_of_freq = (unsigned char *)((double *)(spec + 1) + pairs);
    spec->freq.pairs = pairs;
    spec->freq.axes = 1;
    return spec;
}

static int fill_axes(pe_spec *spec, PyArrayObject *axis_of_freq) {
    unsigned char *axes = (unsigned char *)spec->freq.axis_of_freq;
    const int64_t *source = PyArray_DATA(axis_of_freq);
    for (size_t i = 0; i < spec->freq.pairs; i++) {
        if (source[i] < 0 || source[i] >= PE_MAX_AXES) {
            PyErr_Format(PyExc_ValueError, "axis_of_freq must lie between 0 and %d, got %lld at index %zu",
                         PE_MAX_AXES - 1, (long long)source[i], i);
            return -1;
        }
        axes[i] = (unsigned char)source[i];
        if (spec->freq.axes <= axes[i]) spec->freq.axes = axes[i] + 1;
    }
    if (spec->freq.axes == 1) spec->freq.axis_of_freq = NULL;
    return 0;
}

static int fill_frequencies(pe_spec *spec, PyArrayObject *inv_freq) {
    const double *source = PyArray_DATA(inv_freq);
    memcpy((double *)spec->freq.inv_freq, source, spec->freq.pairs * sizeof *source);
    for (size_t i = 0; i < spec->freq.pairs; i++)
        if (!isfinite(source[i])) {
            PyErr_Format(PyExc_ValueError, "inv_freq must be finite, got %s at index %zu",
                         isnan(source[i]) ? "NaN" : "inf", i);
            return -1;
        }
    return 0;
}

/* spec(inv_freq, axis_of_freq or None, layout, head_dim, rotary_offset, scale, as_float32) -> capsule
 * inv_freq is 1-D float64, axis_of_freq 1-D int64 of the same length: the Python face has made them so. */
PyObject *pe_py_spec(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module, (void)n;
    PyArrayObject *inv_freq = (PyArrayObject *)args[0], *axes = args[1] == Py_None ? NULL : (PyArrayObject *)args[1];
    pe_spec *spec = spec_new((size_t)PyArray_SIZE(inv_freq), axes != NULL);
    if (spec == NULL) return NULL;
    if (fill_frequencies(spec, inv_freq) < 0) goto fail;
    if (axes && fill_axes(spec, axes) < 0) goto fail;
    pe_frequencies_seal(&spec->freq);
    spec->layout = (enum pe_layout)PyLong_AsLong(args[2]);
    spec->head_dim = PyLong_AsSize_t(args[3]);
    spec->rotary_offset = PyLong_AsSize_t(args[4]);
    spec->freq.scale = PyFloat_AsDouble(args[5]);
    spec->freq.as_float32 = PyObject_IsTrue(args[6]);
    if (PyErr_Occurred()) goto fail;
    PyObject *capsule = PyCapsule_New(spec, CAPSULE, spec_free);
    if (capsule) return capsule;
fail:
    PyMem_Free(spec);
    return NULL;
}

/* The series of a base and a rotary_dim, float64 of rotary_dim/2; the arguments are checked. */
static PyObject *series(PyObject *const *args, void (*fill)(double, size_t, double *)) {
    double base = PyFloat_AsDouble(args[0]);
    Py_ssize_t rotary_dim = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred()) return NULL;
    npy_intp length = rotary_dim / 2;
    PyObject *array = PyArray_SimpleNew(1, &length, NPY_DOUBLE);
    if (array == NULL) return NULL;
    fill(base, (size_t)rotary_dim, PyArray_DATA((PyArrayObject *)array));
    return array;
}

/* inv_freq(base, rotary_dim) -> base**(-2i/rotary_dim), the nearest float64 */
PyObject *pe_py_inv_freq(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module, (void)n;
    return series(args, pe_inv_freq);
}

/* float32_powers(base, rotary_dim) -> base**(2i/rotary_dim), the nearest float32 */
PyObject *pe_py_float32_powers(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module, (void)n;
    return series(args, pe_float32_powers);
}
