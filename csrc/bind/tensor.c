/* torch tensors, without linking to torch or importing it.
 *
 * A tensor's type publishes functions that describe a tensor in about 40 ns (the DLPack exchange API). They hand out the
 * bare pointer and skip what torch itself would have checked, so those checks stand here: gradients, negated views,
 * subclasses that only look like memory, other devices. A torch without that API is read through .numpy().
 */
#include <string.h>

#include "args.h"
#include "dlpack_abi.h"

struct pe_torch {
    PyTypeObject *tensor, *parameter;
    PyObject *increment_version, *empty_like, *bfloat16, *int16;
    PyObject *requires_grad, *is_neg;      /* Tensor's own, so that no tensor is searched for them */
    descrgetfunc get_requires_grad;        /* how to read the first of these */
    PyObject *forward_ad, *forward_values; /* a module and its dict */
    const dl_exchange_api *api;            /* NULL for an older torch */
};

static void torch_free(struct pe_torch *torch) {
    if (torch == NULL) return;
    Py_XDECREF((PyObject *)torch->tensor);
    Py_XDECREF((PyObject *)torch->parameter);
    Py_XDECREF(torch->increment_version);
    Py_XDECREF(torch->empty_like);
    Py_XDECREF(torch->bfloat16);
    Py_XDECREF(torch->int16);
    Py_XDECREF(torch->requires_grad);
    Py_XDECREF(torch->is_neg);
    Py_XDECREF(torch->forward_ad);
    Py_XDECREF(torch->forward_values);
    PyMem_Free(torch);
}

void pe_torch_clear(pe_state *state) {
    torch_free(state->torch);
    state->torch = NULL;
}

/* module.first.second.. as a new reference */
static PyObject *attribute(PyObject *module, const char *const *path) {
    PyObject *object = Py_NewRef(module);
    for (; object && *path; path++) {
        PyObject *next = PyObject_GetAttrString(object, *path);
        Py_DECREF(object);
        object = next;
    }
    return object;
}

/* What torch.autograd.graph.increment_version calls: the same without its 0.4 us of Python, where torch has it. Both take an
 * iterable of tensors. */
static PyObject *increment_version_of(PyObject *module) {
    PyObject *found = attribute(module, (const char *[]){"_C", "_increment_version", NULL});
    if (found) return found;
    PyErr_Clear();
    return attribute(module, (const char *[]){"autograd", "graph", "increment_version", NULL});
}

static const dl_exchange_api *exchange_api(PyTypeObject *tensor) {
    const dl_exchange_api *api = NULL;
    PyObject *capsule = PyObject_GetAttrString((PyObject *)tensor, "__dlpack_c_exchange_api__");
    if (capsule) api = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    Py_XDECREF(capsule);
    PyErr_Clear();
    return api && api->version.major == 1 ? api : NULL;
}

static struct pe_torch *torch_look_up(PyObject *module) {
    struct pe_torch *torch = PyMem_Calloc(1, sizeof *torch);
    if (torch == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    torch->tensor = (PyTypeObject *)attribute(module, (const char *[]){"Tensor", NULL});
    torch->parameter = (PyTypeObject *)attribute(module, (const char *[]){"nn", "Parameter", NULL});
    torch->increment_version = increment_version_of(module);
    torch->empty_like = attribute(module, (const char *[]){"empty_like", NULL});
    torch->bfloat16 = attribute(module, (const char *[]){"bfloat16", NULL});
    torch->int16 = attribute(module, (const char *[]){"int16", NULL});
    torch->requires_grad = attribute(module, (const char *[]){"Tensor", "requires_grad", NULL});
    torch->is_neg = attribute(module, (const char *[]){"Tensor", "is_neg", NULL});
    torch->forward_ad = attribute(module, (const char *[]){"autograd", "forward_ad", NULL});
    torch->forward_values = torch->forward_ad ? PyObject_GetAttrString(torch->forward_ad, "__dict__") : NULL;
    if (torch->requires_grad)
        torch->get_requires_grad = (descrgetfunc)PyType_GetSlot(Py_TYPE(torch->requires_grad), Py_tp_descr_get);
    if (torch->tensor && torch->parameter && torch->increment_version && torch->empty_like && torch->bfloat16 &&
        torch->int16 && torch->get_requires_grad && torch->is_neg && torch->forward_values) {
        torch->api = exchange_api(torch->tensor);
        return torch;
    }
    torch_free(torch);
    return NULL;
}

/* NULL without an exception where torch has not been imported (or only half so far) */
static struct pe_torch *find_torch(pe_state *state) {
    struct pe_torch *known = PE_LOAD(&state->torch);
    if (known) return known;
    PyObject *name = PyUnicode_FromString("torch");
    PyObject *module = name ? PyImport_GetModule(name) : NULL;
    Py_XDECREF(name);
    struct pe_torch *torch = module ? torch_look_up(module) : NULL;
    Py_XDECREF(module);
    PyErr_Clear();
    if (torch == NULL) return NULL;
    if (PE_SET_ONCE(&state->torch, torch)) return torch;
    torch_free(torch);
    return PE_LOAD(&state->torch);
}

/* ---- guards ---- */

static int is_true(PyObject *object) { /* steals; -1 on error */
    int truth = object ? PyObject_IsTrue(object) : -1;
    Py_XDECREF(object);
    return truth;
}

static int reject(const char *name, const char *what) {
    PyErr_Format(PyExc_TypeError, "%s %s", name, what);
    return -1;
}

/* Forward-mode gradients hang on a tensor unseen; they exist only within a dual level, whose number torch keeps here. */
static int has_tangent(pe_state *state, const struct pe_torch *torch, PyObject *object) {
    PyObject *level = PyDict_GetItemWithError(torch->forward_values, state->current_level);
    long number = level && PyLong_Check(level) ? PyLong_AsLong(level) : -1;
    PyErr_Clear();
    if (number < 0) return 0;
    PyObject *dual = PyObject_CallMethod(torch->forward_ad, "unpack_dual", "O", object);
    PyObject *tangent = dual ? PyObject_GetAttrString(dual, "tangent") : NULL;
    Py_XDECREF(dual);
    int found = tangent ? tangent != Py_None : -1;
    Py_XDECREF(tangent);
    return found;
}

static int guard(pe_state *state, const struct pe_torch *torch, PyObject *object, const char *name) {
    PyTypeObject *type = Py_TYPE(object);
    if (type != torch->tensor && type != torch->parameter) {
        PyErr_Format(PyExc_TypeError,
                     "%s is a %S, a tensor subclass whose memory may not be its value; pass a plain "
                     "torch.Tensor",
                     name, (PyObject *)type);
        return -1;
    }
    int truth = is_true(torch->get_requires_grad(torch->requires_grad, object, (PyObject *)type));
    if (truth == 0) truth = has_tangent(state, torch, object);
    if (truth < 0) return -1;
    if (truth)
        return reject(name, "requires grad, which this call would not record; use posenc.torch, or pass its .detach()");
    truth = is_true(PyObject_CallFunctionObjArgs(torch->is_neg, object, NULL));
    if (truth < 0) return -1;
    if (truth) return reject(name, "is a negated view, stored with the other sign; pass its .resolve_neg()");
    return 0;
}

/* why torch would not show its memory: where it lies, how it is laid out, or what stands for it */
static int reject_memory(PyObject *object, const char *name) {
    PyErr_Clear();
    PyObject *device = PyObject_GetAttrString(object, "device"), *layout = PyObject_GetAttrString(object, "layout");
    PyObject *place = device ? PyObject_Str(device) : NULL, *form = layout ? PyObject_Str(layout) : NULL;
    if (place && form) {
        if (PyUnicode_CompareWithASCIIString(place, "cpu") == 0 &&
            PyUnicode_CompareWithASCIIString(form, "torch.strided") == 0)
            reject(name,
                   "must be a dense torch tensor of its own; this one is quantized, nested, or inside a function "
                   "transform such as vmap");
        else
            PyErr_Format(PyExc_TypeError, "%s must be a dense torch tensor in CPU memory, got device %S, layout %S",
                         name, place, form);
    }
    Py_XDECREF(device);
    Py_XDECREF(layout);
    Py_XDECREF(place);
    Py_XDECREF(form);
    return -1;
}

/* ---- views ---- */

static int dtype_of(const dl_tensor *t) {
    if (t->dtype.lanes != 1) return PE_DTYPE_OTHER;
    switch (t->dtype.code << 8 | t->dtype.bits) {
        case DL_FLOAT << 8 | 32: return PE_F32;
        case DL_FLOAT << 8 | 64: return PE_F64;
        case DL_FLOAT << 8 | 16: return PE_F16;
        case DL_BFLOAT << 8 | 16: return PE_BF16;
        case DL_INT << 8 | 32: return PE_DTYPE_INT32;
        case DL_INT << 8 | 64: return PE_DTYPE_INT64;
        default: return PE_DTYPE_OTHER;
    }
}

static int view_by_exchange(const dl_exchange_api *api, PyObject *object, const char *name, pe_array *a) {
    dl_tensor t;
    if (api->tensor_from_object(object, &t) != 0) return reject_memory(object, name);
    if (t.device.type != DL_CPU && t.device.type != DL_CUDA_HOST && t.device.type != DL_ROCM_HOST)
        return reject_memory(object, name);
    if (t.ndim > PE_MAX_DIM) {
        PyErr_Format(PyExc_ValueError, "%s must have at most %d axes, got %d", name, PE_MAX_DIM, (int)t.ndim);
        return -1;
    }
    pe_view *v = &a->view;
    ptrdiff_t size = t.dtype.bits / 8, contiguous = size;
    a->dtype = dtype_of(&t);
    v->dtype = pe_view_dtype(a->dtype);
    v->data = (char *)t.data + t.byte_offset;
    v->ndim = t.ndim;
    size_t elements = 1;
    for (int i = t.ndim - 1; i >= 0; i--) {
        v->shape[i] = (ptrdiff_t)t.shape[i];
        v->stride[i] = t.strides ? (ptrdiff_t)t.strides[i] * size : contiguous;
        if (v->shape[i] == 1) v->stride[i] = 0;
        contiguous *= v->shape[i];
        elements *= (size_t)v->shape[i];
    }
    if (t.data == NULL && elements > 0) return reject(name, "has no memory of its own (a fake or meta tensor)");
    if (size && (uintptr_t)v->data % (uintptr_t)size) {
        PyErr_Format(PyExc_ValueError, "%s is not aligned to its element size; pass a copy", name);
        return -1;
    }
    return 0;
}

static int view_by_numpy(pe_state *state, const struct pe_torch *torch, PyObject *object, const char *name,
                         pe_array *a) {
    PyObject *dtype = PyObject_GetAttrString(object, "dtype"), *source = NULL;
    bool bfloat16 = dtype == torch->bfloat16;
    if (dtype) source = bfloat16 ? PyObject_CallMethod(object, "view", "O", torch->int16) : Py_NewRef(object);
    PyObject *array = source ? PyObject_CallMethod(source, "numpy", NULL) : NULL;
    Py_XDECREF(dtype);
    Py_XDECREF(source);
    if (array == NULL) return reject_memory(object, name);
    int failed = PyArray_Check(array) ? pe_array_any(state, array, name, a) : -1;
    a->object = object;
    a->owner = array;
    if (bfloat16) a->dtype = PE_BF16, a->view.dtype = PE_BF16;
    return failed;
}

int pe_tensor_view(pe_state *state, PyObject *object, const char *name, pe_array *a) {
    const struct pe_torch *torch = find_torch(state);
    if (torch == NULL || !PyObject_TypeCheck(object, torch->tensor)) return 0;
    a->owner = NULL;
    if (guard(state, torch, object, name) < 0) return -1;
    int failed =
        torch->api ? view_by_exchange(torch->api, object, name, a) : view_by_numpy(state, torch, object, name, a);
    a->object = object;
    a->kind = PE_KIND_TORCH;
    a->writable = true;
    return failed < 0 ? -1 : 1;
}

/* ---- results ---- */

PyObject *pe_tensor_like(pe_state *state, PyObject *tensor) {
    PyObject *result = PyObject_CallFunctionObjArgs(find_torch(state)->empty_like, tensor, NULL);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_AssertionError)) /* a fake mode that does not know this tensor */
        PyErr_SetString(PyExc_TypeError, "torch makes no new tensor like the input in this mode; pass out=");
    return result;
}

/* Autograd compares version counters to notice that a saved tensor was written. Inference tensors have none. */
int pe_tuple_written(pe_state *state, PyObject *tensors) {
    PyObject *result = PyObject_CallFunctionObjArgs(find_torch(state)->increment_version, tensors, NULL);
    Py_XDECREF(result);
    if (result) return 0;
    for (Py_ssize_t i = 0; i < PyTuple_Size(tensors); i++) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        int inference = is_true(PyObject_CallMethod(PyTuple_GetItem(tensors, i), "is_inference", NULL));
        PyErr_Restore(type, value, traceback);
        if (inference <= 0) return -1;
    }
    PyErr_Clear();
    return 0;
}

int pe_tensors_written(pe_state *state, PyObject *const *tensors, int n) {
    if (n == 0) return 0;
    PyObject *all = n == 1 ? PyTuple_Pack(1, tensors[0]) : PyTuple_Pack(2, tensors[0], tensors[1]);
    int failed = all ? pe_tuple_written(state, all) : -1;
    Py_XDECREF(all);
    return failed;
}
