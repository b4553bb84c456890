/* The module: its functions, its state, and the choice of kernels, once. */
#define PE_IMPORTS_NUMPY
#include <stdlib.h>

#include "../core/dispatch.h"
#include "args.h"

pe_state *pe_get_state(PyObject *module) {
    return PyModule_GetState(module);
}

/* runtime() -> (level in use, levels this processor can run, best first) */
PyObject *pe_py_runtime(PyObject *module, PyObject *ignored) {
    (void)ignored;
    int n = pe_level_count();
    PyObject *levels = PyTuple_New(n);
    for (int i = 0; levels && i < n; i++) {
        PyObject *name = PyUnicode_FromString(pe_level(n - 1 - i)->name);
        if (name == NULL || PyTuple_SetItem(levels, i, name) < 0) Py_CLEAR(levels);
    }
    return levels ? Py_BuildValue("sN", pe_get_state(module)->kernels->name, levels) : NULL;
}

/* Every function takes exactly the arguments it lists: the Python face is the only caller. */
#define COUNTED(name, count)                                                                 \
    static PyObject *name##_counted(PyObject *module, PyObject *const *args, Py_ssize_t n) { \
        if (n == (count)) return pe_py_##name(module, args, n);                              \
        PyErr_Format(PyExc_TypeError, #name " takes %d arguments, got %zd", count, n);       \
        return NULL;                                                                         \
    }
COUNTED(rotate, 9)
COUNTED(apply, 12)
COUNTED(rotate_onto, 9)
COUNTED(apply_onto, 12)
COUNTED(rotate_gradient, 10)
COUNTED(table_gradient, 10)
COUNTED(table, 6)
COUNTED(add, 10)
COUNTED(add_sinusoid, 11)
COUNTED(scatter, 9)
COUNTED(sinusoid, 8)
COUNTED(rotate_call, 3)
COUNTED(spec, 7)
COUNTED(inv_freq, 2)
COUNTED(float32_powers, 2)
COUNTED(add_bias, 7)
COUNTED(bias_gradient, 7)
COUNTED(tally, 6)
COUNTED(relative_gradient, 8)

#define FAST(name, doc) {#name, (PyCFunction)(void (*)(void))name##_counted, METH_FASTCALL, doc}
static PyMethodDef methods[] = {
    FAST(rotate, "rotate(spec, q, k, out, positions, offset, seq_axis, defer_above, threads)"),
    FAST(
        apply,
        "apply(x, cos, sin, out, positions, offset, seq_axis, layout, rotary_offset, conjugate, defer_above, threads)"),
    FAST(rotate_onto, "rotate_onto(spec, q, k, out, positions, offset, seq_axis, defer_above, threads)"),
    FAST(apply_onto,
         "apply_onto(x, cos, sin, out, positions, offset, seq_axis, layout, rotary_offset, conjugate, "
         "defer_above, threads)"),
    FAST(rotate_gradient,
         "rotate_gradient(spec, x, grad, positions, offset, seq_axis, inv_freq, positions_gradient, defer_above, "
         "threads)"),
    FAST(table_gradient,
         "table_gradient(x, grad, cos, sin, seq_axis, layout, rotary_offset, conjugate, defer_above, threads)"),
    FAST(table, "table(spec, positions, float64, out, defer_above, threads)"),
    FAST(add, "add(x, table, out, positions, offset, seq_axis, scale, padding_idx, defer_above, threads)"),
    FAST(add_sinusoid,
         "add_sinusoid(spec, order, x, out, positions, offset, seq_axis, scale, padding_idx, defer_above, threads)"),
    FAST(scatter, "scatter(grad, out, positions, offset, seq_axis, scale, padding_idx, defer_above, threads)"),
    FAST(sinusoid, "sinusoid(spec, order, positions, float64, out, padding_idx, defer_above, threads)"),
    FAST(rotate_call, "rotate_call(function, slot, defer_above)"),
    FAST(spec, "spec(inv_freq, axis_of_freq, layout, head_dim, rotary_offset, scale, as_float32)"),
    FAST(inv_freq, "inv_freq(base, rotary_dim)"),
    FAST(float32_powers, "float32_powers(base, rotary_dim)"),
    FAST(add_bias, "add_bias(scores, out, where, mask, term, defer_above, threads)"),
    FAST(bias_gradient, "bias_gradient(gradient, where, mask, term, sums, defer_above, threads)"),
    FAST(tally, "tally(map, width, diagonal, by_offset, mass, sides)"),
    FAST(relative_gradient, "relative_gradient(gradient, where, mask, term, first, second, defer_above, threads)"),
    {"empty_like", pe_py_empty_like, METH_O, "empty_like(x)"},
    {"runtime", pe_py_runtime, METH_NOARGS, "runtime()"},
    {"forget_threads", pe_py_forget_threads, METH_NOARGS, "forget_threads()"},
    {NULL, NULL, 0, NULL},
};

static int choose_kernels(pe_state *state) {
    const char *wanted = getenv("POSENC_ISA");
    state->kernels = pe_choose(wanted && *wanted ? wanted : NULL);
    if (state->kernels) return 0;
    PyErr_Format(PyExc_ImportError,
                 "POSENC_ISA=%s names no instruction set level that this processor can run; levels here "
                 "go from scalar to %s",
                 wanted, pe_level(pe_level_count() - 1)->name);
    return -1;
}

static int module_exec(PyObject *module) {
    pe_state *state = pe_get_state(module);
    if (PyArray_ImportNumPyAPI() < 0 || choose_kernels(state) < 0) return -1;
    state->current_level = PyUnicode_InternFromString("_current_level");
    state->call_type = pe_make_call_type(module);
    return state->current_level && state->call_type ? 0 : -1;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    pe_state *state = pe_get_state(module);
    Py_VISIT(state->current_level);
    Py_VISIT(state->call_type);
    Py_VISIT((PyObject *)state->bfloat16);
    return 0;
}

static int module_clear(PyObject *module) {
    pe_state *state = pe_get_state(module);
    Py_CLEAR(state->current_level);
    Py_CLEAR(state->call_type);
    Py_CLEAR(state->bfloat16);
    pe_torch_clear(state);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if !defined(Py_LIMITED_API) && PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, /* NumPy's own answer */
#endif
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* the state is written once, atomically; calls share nothing */
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "posenc._core",
    .m_doc = "The compiled part of posenc. Private: use the functions of posenc.",
    .m_size = sizeof(pe_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&definition);
}
