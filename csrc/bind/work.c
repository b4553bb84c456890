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

/* Pieces of a call, as the pool takes them: so many for each thread that one which others delay gives some away, and none so
 * large that a caller who is interrupted waits long for it. */
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
    if (step >= length)
        span(call, 0, length, look, &release);
    else
        pe_share(run_span, &s, (length - 1) / step + 1, threads, look, &release);
    return pe_release_end(&release);
}

int pe_run(pe_span *span, void *call, size_t length, size_t bytes, size_t threads) {
    if (threads <= 1) return pe_run_steps(span, call, length, length, bytes, 1);
    size_t each = bytes / threads / PIECE_BYTES + 1;
    size_t pieces = threads * (each > PIECES_EACH ? each : PIECES_EACH);
    return pe_run_steps(span, call, length, length / pieces + (length % pieces != 0), bytes, threads);
}

PyObject *pe_defer(PyObject *defer_above, PyObject *threads, size_t bytes, size_t *count) {
    size_t limit = PyLong_AsSize_t(defer_above);
    if (PyErr_Occurred()) return NULL;
    *count = PyLong_AsSize_t(threads);
    return PyErr_Occurred() || bytes <= limit ? NULL : PyLong_FromSize_t(bytes);
}
