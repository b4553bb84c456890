/* Sums over attention weights, from Python. */
#include "args.h"

enum { N_SUMS = 3 };
static const char *const sum_name[N_SUMS] = {"by_offset", "mass", "sides"};

typedef struct {
    pe_array map, sums[N_SUMS];
    pe_tallying to;
} tally_call;

static int parse_map(pe_state *state, tally_call *w, PyObject *object, PyObject *width, PyObject *diagonal) {
    if (pe_array_float(state, object, "attention", &w->map) < 0) return -1;
    if (w->map.view.ndim != 2) {
        PyErr_Format(PyExc_ValueError, "a map of attention must have 2 axes, (queries, keys), got %d",
                     w->map.view.ndim);
        return -1;
    }
    w->to.width = PyLong_AsSize_t(width);
    w->to.diagonal = PyLong_AsSsize_t(diagonal);
    if (PyErr_Occurred()) return -1;
    if (w->to.width >= 1 && w->to.width <= PE_TALLY_BLOCK) return 0;
    PyErr_Format(PyExc_ValueError, "width must lie between 1 and %d, got %zu", PE_TALLY_BLOCK, w->to.width);
    return -1;
}

/* contiguous float64 of just this shape, as the Python face makes it */
static int parse_sums(pe_state *state, tally_call *w, int which, PyObject *object, int ndim, const size_t *shape) {
    pe_array *a = &w->sums[which];
    if (pe_array_float(state, object, sum_name[which], a) < 0) return -1;
    bool right = a->dtype == PE_F64 && a->view.ndim == ndim;
    ptrdiff_t step = (ptrdiff_t)sizeof(double);
    for (int i = ndim - 1; right && i >= 0; i--) {
        right = a->view.shape[i] == (ptrdiff_t)shape[i] && (shape[i] == 1 || a->view.stride[i] == step);
        step *= a->view.shape[i];
    }
    if (!right) {
        PyErr_Format(PyExc_ValueError, "%s must be contiguous float64 of the shape that the map asks for",
                     sum_name[which]);
        return -1;
    }
    if (pe_check_output(a, sum_name[which]) < 0) return -1;
    return pe_check_disjoint(a, sum_name[which], &w->map, "attention");
}

static int parse_all_sums(pe_state *state, tally_call *w, PyObject *const *objects) {
    size_t queries = (size_t)w->map.view.shape[0], keys = (size_t)w->map.view.shape[1];
    size_t blocks = keys / w->to.width + (keys % w->to.width != 0), offsets = queries + keys;
    size_t mass[2] = {queries, blocks}, sides[2] = {queries, 4};
    if (offsets) offsets--;
    if (parse_sums(state, w, 0, objects[0], 1, &offsets) < 0) return -1;
    if (parse_sums(state, w, 1, objects[1], 2, mass) < 0) return -1;
    if (parse_sums(state, w, 2, objects[2], 2, sides) < 0) return -1;
    w->to.by_offset = (double *)w->sums[0].view.data;
    w->to.mass = (double *)w->sums[1].view.data;
    w->to.sides = (double (*)[4])w->sums[2].view.data;
    return 0;
}

static PyObject *run(pe_state *state, tally_call *w) {
    size_t bad[2], bytes = pe_elements(&w->map.view) * pe_itemsize(w->map.view.dtype);
    pe_release release;
    pe_poll *poll = pe_release_begin(&release, bytes);
    enum pe_status status = pe_tally(state->kernels, &w->map.view, &w->to, bad, poll, &release);
    if (pe_release_end(&release) < 0) return NULL;
    return status == PE_WEIGHT ? Py_BuildValue("nn", (Py_ssize_t)bad[0], (Py_ssize_t)bad[1]) : Py_NewRef(Py_None);
}

/* tally(map, width, diagonal, by_offset, mass, sides) -> None, or (query, key) of the first weight that is none */
PyObject *pe_py_tally(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)n;
    pe_state *state = pe_get_state(module);
    tally_call w = {.map.owner = NULL};
    PyObject *result = NULL;
    if (parse_map(state, &w, args[0], args[1], args[2]) == 0 && parse_all_sums(state, &w, args + 3) == 0)
        result = run(state, &w);
    pe_array_clear(&w.map);
    for (int i = 0; i < N_SUMS; i++) pe_array_clear(&w.sums[i]);
    return result;
}
