/* The call of a Rope, straight from the interpreter into C.
 *
 * A class that defines __call__ in Python pays for a frame of Python in each call, half as long as a decode step. So the
 * class holds this in its place: a method of which everybody sees the Python function that it was made of, with its
 * signature and its docstring, while a call of the plain kind never enters that function. Every other call does: keywords
 * that are wrong or rare, an inverse, frequencies that depend on the length, and work to be split among threads.
 */
#include "args.h"

/* The parameters after self, in the order of the function; what they are where a call does not name them is the function's
 * own defaults. */
enum { Q, K, POSITIONS, OFFSET, SEQ_AXIS, INVERSE, SEQ_LEN, OUT, PARAMETERS };
static const char *const NAMES[PARAMETERS] = {"q", "k", "positions", "offset", "seq_axis", "inverse", "seq_len", "out"};

typedef struct {
    PyObject head;
    PyObject *module, *function, *slot, *defer_above, *one;
    descrgetfunc get;                                   /* how to read the slot */
    PyObject *names[PARAMETERS], *defaults[PARAMETERS]; /* interned; no default for q */
} method;

/* ---- the call ---- */

static int parameter_of(const method *m, PyObject *keyword) {
    int i = 0;
    while (i < PARAMETERS && m->names[i] != keyword) i++; /* names in a program's text are interned */
    return i;
}

/* the arguments of a call, borrowed, in the function's order; false for those that the function must see, or refuse */
static bool bind_arguments(const method *m, PyObject *args, PyObject *keywords, PyObject **bound) {
    Py_ssize_t n = PyTuple_Size(args), at = 0;
    if (n < 2 || n > 3) return false;
    bound[Q] = PyTuple_GetItem(args, 1);
    bound[K] = n == 3 ? PyTuple_GetItem(args, 2) : NULL;
    for (int i = POSITIONS; i < PARAMETERS; i++) bound[i] = NULL;
    PyObject *keyword, *value;
    while (keywords && PyDict_Next(keywords, &at, &keyword, &value)) {
        int i = parameter_of(m, keyword);
        if (i == PARAMETERS || bound[i]) return false;
        bound[i] = value;
    }
    for (int i = K; i < PARAMETERS; i++)
        if (bound[i] == NULL) bound[i] = m->defaults[i];
    return bound[INVERSE] == Py_False && bound[SEQ_LEN] == Py_None;
}

/* the result; NULL with an exception, or without one where the function has to be called */
static PyObject *rotate_plainly(const method *m, PyObject *rope, PyObject *const *bound) {
    PyObject *spec = m->get(m->slot, rope, (PyObject *)Py_TYPE(rope));
    if (spec == NULL || spec == Py_None) {
        Py_XDECREF(spec);
        return NULL;
    }
    PyObject *arguments[] = {spec,          bound[Q],        bound[K],       bound[OUT], bound[POSITIONS],
                             bound[OFFSET], bound[SEQ_AXIS], m->defer_above, m->one};
    PyObject *result = pe_py_rotate(m->module, arguments, 9);
    Py_DECREF(spec);
    if (result && PyLong_CheckExact(result)) Py_CLEAR(result); /* deferred: nothing was done */
    return result;
}

static PyObject *method_call(PyObject *self, PyObject *args, PyObject *keywords) {
    const method *m = (const method *)self;
    PyObject *bound[PARAMETERS];
    if (bind_arguments(m, args, keywords, bound)) {
        PyObject *result = rotate_plainly(m, PyTuple_GetItem(args, 0), bound);
        if (result || PyErr_Occurred()) return result;
    }
    return PyObject_Call(m->function, args, keywords);
}

/* Rope.__call__ is the function, rope.__call__ is bound to it: only the interpreter's own calls come here. */
static PyObject *method_get(PyObject *self, PyObject *object, PyObject *type) {
    PyObject *function = ((method *)self)->function;
    descrgetfunc get = (descrgetfunc)PyType_GetSlot(Py_TYPE(function), Py_tp_descr_get);
    return get(function, object, type);
}

static PyObject *method_wrapped(PyObject *self, void *ignored) {
    (void)ignored;
    return Py_NewRef(((method *)self)->function);
}

/* for those who look into the class's __dict__ */
static PyObject *method_attribute(PyObject *self, void *name) {
    return PyObject_GetAttrString(((method *)self)->function, name);
}

/* ---- its life ---- */

static int method_traverse(PyObject *self, visitproc visit, void *arg) {
    method *m = (method *)self;
    Py_VISIT((PyObject *)Py_TYPE(self));
    Py_VISIT(m->module);
    Py_VISIT(m->function);
    Py_VISIT(m->slot);
    for (int i = 0; i < PARAMETERS; i++) Py_VISIT(m->defaults[i]);
    return 0;
}

/* Nothing of it is cleared before the end: a cycle that it is part of goes through the function, which can be. */
static void method_dealloc(PyObject *self) {
    method *m = (method *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(m->module);
    Py_XDECREF(m->function);
    Py_XDECREF(m->slot);
    Py_XDECREF(m->defer_above);
    Py_XDECREF(m->one);
    for (int i = 0; i < PARAMETERS; i++) {
        Py_XDECREF(m->names[i]);
        Py_XDECREF(m->defaults[i]);
    }
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

static PyGetSetDef attributes[] = {
    {"__wrapped__", method_wrapped, NULL, NULL, NULL},
    {"__doc__", method_attribute, NULL, NULL, "__doc__"},
    {"__module__", method_attribute, NULL, NULL, "__module__"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_call, method_call},         {Py_tp_descr_get, method_get},   {Py_tp_getset, attributes},
    {Py_tp_traverse, method_traverse}, {Py_tp_dealloc, method_dealloc}, {0, NULL},
};

/* a method descriptor: calling what the class holds with self first is calling what a rope gives */
static PyType_Spec spec = {
    .name = "posenc._core.rotate_call",
    .basicsize = sizeof(method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

static int take_defaults(method *m) {
    PyObject *positional = PyObject_GetAttrString(m->function, "__defaults__");
    PyObject *named = positional ? PyObject_GetAttrString(m->function, "__kwdefaults__") : NULL;
    if (named) m->defaults[K] = Py_XNewRef(PyTuple_GetItem(positional, 0));
    for (int i = POSITIONS; named && !PyErr_Occurred() && i < PARAMETERS; i++) {
        m->defaults[i] = Py_XNewRef(PyDict_GetItemWithError(named, m->names[i]));
        if (m->defaults[i] == NULL && !PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, m->names[i]);
    }
    Py_XDECREF(positional);
    Py_XDECREF(named);
    return PyErr_Occurred() ? -1 : 0;
}

PyObject *pe_make_call_type(PyObject *module) {
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}

/* rotate_call(function, slot, defer_above): function is Rope.__call__ in Python, by its signature; slot is the descriptor
 * of what a Rope shows of itself to C: the spec of its plain calls, or None where it has none */
PyObject *pe_py_rotate_call(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    method *m = (method *)PyType_GenericAlloc((PyTypeObject *)pe_get_state(module)->call_type, 0);
    if (m == NULL) return NULL;
    m->module = Py_NewRef(module);
    m->function = Py_NewRef(args[0]);
    m->slot = Py_NewRef(args[1]);
    m->get = (descrgetfunc)PyType_GetSlot(Py_TYPE(m->slot), Py_tp_descr_get);
    m->defer_above = Py_NewRef(args[2]);
    m->one = PyLong_FromLong(1);
    if (m->get == NULL) PyErr_Format(PyExc_TypeError, "slot must be a descriptor, got %R", m->slot);
    for (int i = 0; i < PARAMETERS; i++) m->names[i] = PyUnicode_InternFromString(NAMES[i]);
    if (!PyErr_Occurred() && take_defaults(m) == 0) return (PyObject *)m;
    Py_DECREF((PyObject *)m);
    return NULL;
}
