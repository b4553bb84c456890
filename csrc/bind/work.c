/* Long work: without the GIL, on several threads, and with a look for signals. */
#include "args.h"

#include <time.h>

#include "../core/pool.h"

static int64_t now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool poll(void *release) {
    pe_release *r = release;
    int64_t time = now();
    if (time - r->checked < 25 * 1000000 && time >= r->checked) return false;
    PyEval_RestoreThread(r->thread);
    r->interrupted = PyErr_CheckSignals() < 0;
    r->thread = PyEval_SaveThread();
    r->checked = now();
    return r->interrupted;
}

pe_poll *pe_release_begin(pe_release *r, size_t bytes) {
    *r = (pe_release){.thread = NULL};
    if (bytes <= PE_RELEASE_BYTES) return NULL;
    r->checked = now();
    r->thread = PyEval_SaveThread();
    return poll;
}

int pe_release_end(pe_release *r) {
    if (r->thread) PyEval_RestoreThread(r->thread);
    return r->interrupted ? -1 : 0;
}

int pe_outer_axis(const pe_view *v) {
    int outer = -1;
    ptrdiff_t most = 0;
    for (int i = 0; i < v->ndim; i++) {
        ptrdiff_t stride = v->stride[i] < 0 ? -v->stride[i] : v->stride[i];
        if (v->shape[i] > 1 && stride > most) outer = i, most = stride;
    }
    return outer == v->ndim - 1 ? -1 : outer;
}

/* Pieces of a call, as the pool takes them: so many for each thread that one which others delay gives some away, and none so
 * large that a caller who is interrupted waits long for it. Of a call of medium length each thread has one: another takes a
 * third of a microsecond to begin, and where heads are cut makes its rows again. */
enum { PIECES_EACH = 4, PIECE_BYTES = 16 << 20 };

struct spans {
    pe_span *span;
    void *call;
    size_t length, step;
};

static enum pe_status run_span(void *call, size_t part, pe_poll *look, void *context) {
    const struct spans *s = call;
    size_t start = part * s->step, rest = s->length - start;
    return s->span(s->call, start, start + (rest < s->step ? rest : s->step), look, context);
}

int pe_run_steps(pe_span *span, void *call, size_t length, size_t step, size_t bytes, size_t threads) {
    struct spans s = {span, call, length, step};
    pe_release release;
    pe_poll *look = pe_release_begin(&release, bytes);
    enum pe_status status = step >= length ? span(call, 0, length, look, &release)
                                           : pe_share(run_span, &s, (length - 1) / step + 1, threads, look, &release);
    if (pe_release_end(&release) < 0) return -1;
    if (status != PE_STOPPED) return 0;
    PyErr_SetString(PyExc_RuntimeError,
                    "the process forked while other threads were at work on this call; its result "
                    "is incomplete in the child");
    return -1;
}

int pe_run(pe_span *span, void *call, size_t length, size_t bytes, size_t threads) {
    if (threads <= 1) return pe_run_steps(span, call, length, length, bytes, 1);
    size_t each = bytes / threads / PIECE_BYTES + 1, least = bytes > PE_MEDIUM_BYTES ? PIECES_EACH : 1;
    size_t pieces = threads * (each > least ? each : least);
    return pe_run_steps(span, call, length, length / pieces + (length % pieces != 0), bytes, threads);
}

static unsigned microseconds(void) {
    return (unsigned)(now() / 1000);
}

PyObject *pe_defer(PyObject *defer_above, PyObject *threads, size_t bytes, size_t parts, size_t *count) {
    size_t limit = PyLong_AsSize_t(defer_above);
    if (PyErr_Occurred()) return NULL;
    *count = PyLong_AsSize_t(threads);
    if (PyErr_Occurred()) return NULL;
    bool deferred = bytes > limit;
    if (limit == PY_SSIZE_T_MAX) /* Python says how many there are */
        pe_told(*count, bytes > PE_MEDIUM_BYTES, microseconds());
    else if (!deferred && parts > 1)
        deferred = (*count = pe_at_hand(parts, microseconds())) == 0;
    return deferred ? PyLong_FromSize_t(bytes) : NULL;
}

/* forget_threads(): calls of medium length work alone until Python is asked again */
PyObject *pe_py_forget_threads(PyObject *module, PyObject *ignored) {
    (void)module, (void)ignored;
    pe_told(1, true, microseconds());
    Py_RETURN_NONE;
}
