/* The gradients of biases from Python: sums over scores. Threads share the heads, for no sum is made by two. */
#include "bias_args.h"

#include "../core/cut.h"

/* gradient, where, mask, term, which both begin with */
static int parse(pe_bias_call *call, PyObject *const *args) {
    call->x_name = "gradient";
    if (pe_array_float(call->state, args[0], "gradient", &call->x) < 0) return -1;
    call->have_x = true;
    return pe_parse_bias(call, args[1], args[2], args[3]);
}

static PyObject *share_heads(pe_bias_call *call, pe_span *span, bool apart, PyObject *defer_above, PyObject *threads) {
    const pe_view *g = &call->x.view;
    size_t bytes = pe_elements(g) * pe_itemsize(g->dtype), count;
    PyObject *deferred = pe_defer(defer_above, threads, bytes, 1, &count);
    if (deferred || PyErr_Occurred()) return deferred;
    call->axis = g->ndim > 2 ? g->ndim - 3 : 0; /* without heads there is one piece */
    size_t length = (size_t)g->shape[call->axis];
    if (pe_run(span, call, length, bytes, apart && g->ndim > 2 ? count : 1) < 0) return NULL;
    return Py_NewRef(Py_None);
}

/* ---- bias_gradient(gradient, where, mask, term, sums, defer_above, threads) ---- */

static enum pe_status sum(void *context, size_t start, size_t stop, pe_poll *poll, void *release) {
    const pe_bias_call *call = context;
    struct pe_bias_part part;
    pe_view g = pe_cut(&call->x.view, call->axis, start, stop);
    pe_cut_bias(&call->bias, g.ndim, call->axis, start, stop, &part);
    double *sums = call->sums + start * (call->bias.line ? 2 : call->bias.lookup->length);
    return pe_bias_gradient(&part.bias, &g, sums, poll, release);
}

static PyObject *run_gradient(pe_bias_call *call, PyObject *const *args) {
    if (parse(call, args) < 0) return NULL;
    call->sums = PyArray_DATA((PyArrayObject *)args[4]);
    return share_heads(call, sum, true, args[5], args[6]);
}

/* sums: float64, contiguous, of the shape that core names; for a lookup the table only gives its shape */
PyObject *pe_py_bias_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    return pe_with_bias_call(module, args, run_gradient);
}

/* ---- relative_gradient(gradient, where, mask, term, first, second, defer_above, threads) ---- */

static bool has_heads(const pe_view *sums, PyObject *given) {
    return given == Py_None || (sums->ndim > 2 && sums->stride[sums->ndim - 3] != 0);
}

static enum pe_status sum_content(void *context, size_t start, size_t stop, pe_poll *poll, void *release) {
    const pe_bias_call *call = context;
    struct pe_bias_part part;
    pe_view g = pe_cut(&call->x.view, call->axis, start, stop);
    pe_relative_sums to = call->content_sums;
    if (stop - start < (size_t)call->x.view.shape[call->axis]) {
        pe_cut_bias(&call->bias, g.ndim, call->axis, start, stop, &part);
        if (to.first.data) to.first = pe_cut(&to.first, call->axis, start, stop);
        if (to.second.data) to.second = pe_cut(&to.second, call->axis, start, stop);
    } else
        part.bias = call->bias;
    return pe_relative_gradient(call->state->kernels, &part.bias, &g, &to, poll, release);
}

static PyObject *run_relative_gradient(pe_bias_call *call, PyObject *const *args) {
    if (parse(call, args) < 0) return NULL;
    if (pe_parse_relative_sums(call->state, args[4], args[5], &call->x.view, &call->relative, &call->content_sums) < 0)
        return NULL;
    const pe_relative_sums *to = &call->content_sums;
    bool apart = has_heads(&to->first, args[4]) && has_heads(&to->second, args[5]);
    return share_heads(call, sum_content, apart, args[6], args[7]);
}

/* first, second: float64, the last axis contiguous, of the shapes that core names, or None where nothing is asked for */
PyObject *pe_py_relative_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    return pe_with_bias_call(module, args, run_relative_gradient);
}
