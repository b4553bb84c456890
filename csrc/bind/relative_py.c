/* Biases that content decides: arrays that fit the scores by broadcasting, and their gradients. */
#include "relative.h"

#include <string.h>

/* how long the axis before the last is, by what an array belongs to */
enum rows { OF_QUERIES, OF_QUERIES_OR_ONE, OF_KEYS, OF_DISTANCES };

bool pe_is_relative(PyObject *term) {
    return PyTuple_Check(term) && PyTuple_Size(term) == 6;
}

void pe_relative_clear(pe_relative_args *r) {
    for (int i = 0; i < 3; i++) pe_array_clear(&r->arrays[i]);
}

static const char *name_of(const pe_relative_args *r, int i) {
    static const char *const entries[] = {"c2p", "p2c"}, *const keys[] = {"of_query", "of_key"};
    static const char *const products[] = {"q", "v", "r"};
    if (r->kind == 'p') return products[i];
    if (r->kind == 'g') return i ? "columns" : "rows";
    return r->kind == 's' ? "x" : r->kind == 'k' ? keys[i] : entries[i];
}

/* the wanted length of the second last axis, -1 for any */
static ptrdiff_t wanted_rows(const pe_view *scores, enum rows rows, ptrdiff_t found) {
    if (rows == OF_DISTANCES || (rows == OF_QUERIES_OR_ONE && found == 1)) return -1;
    return scores->shape[scores->ndim - (rows == OF_KEYS ? 1 : 2)];
}

static int reject_shape(const pe_view *v, const char *name, const pe_view *scores, const char *scores_name,
                        enum rows rows) {
    static const char *const expected[] = {"(.., queries, n)", "(.., queries, n)", "(.., keys, n)",
                                           "(.., distances, n)"};
    char own[256], other[256];
    PyErr_Format(PyExc_ValueError, "%s must have shape %s with leading axes of length 1 or those of %s, %s, got %s",
                 name, expected[rows], scores_name, pe_shape_text(scores, other, sizeof other),
                 pe_shape_text(v, own, sizeof own));
    return -1;
}

/* wide = v with the axes of the scores, strides 0 where it has none or one of length 1 */
static int broadcast(const pe_view *v, const char *name, const pe_view *scores, const char *scores_name, enum rows rows,
                     pe_view *wide) {
    int missing = scores->ndim - v->ndim;
    if (v->ndim < 2 || missing < 0) return reject_shape(v, name, scores, scores_name, rows);
    ptrdiff_t wanted = wanted_rows(scores, rows, v->shape[v->ndim - 2]);
    if (wanted >= 0 && v->shape[v->ndim - 2] != wanted) return reject_shape(v, name, scores, scores_name, rows);
    wide->data = v->data, wide->dtype = v->dtype, wide->ndim = scores->ndim;
    for (int i = 0; i < scores->ndim; i++) {
        bool own = i >= missing, last = i >= scores->ndim - 2;
        wide->shape[i] = last ? v->shape[i - missing] : scores->shape[i];
        wide->stride[i] = own && v->shape[i - missing] != 1 ? v->stride[i - missing] : 0;
        if (own && !last && v->shape[i - missing] != 1 && v->shape[i - missing] != scores->shape[i])
            return reject_shape(v, name, scores, scores_name, rows);
    }
    if (rows == OF_QUERIES_OR_ONE) wide->shape[wide->ndim - 2] = scores->shape[scores->ndim - 2];
    return 0;
}

static int parse_array(pe_state *state, PyObject *object, const pe_view *scores, const char *scores_name,
                       enum rows rows, int i, pe_relative_args *r) {
    if (object == Py_None) return 0;
    if (pe_array_float(state, object, name_of(r, i), &r->arrays[i]) < 0) return -1;
    r->have[i] = true;
    return broadcast(&r->arrays[i].view, name_of(r, i), scores, scores_name, rows, &r->views[i]);
}

static ptrdiff_t last_axis(const pe_view *v) {
    return v->shape[v->ndim - 1];
}

static int check_same_length(const pe_relative_args *r, int i, int j) {
    if (!r->have[i] || !r->have[j] || last_axis(&r->views[i]) == last_axis(&r->views[j])) return 0;
    PyErr_Format(PyExc_ValueError, "%s and %s must have the same length of their last axis, got %zd and %zd",
                 name_of(r, i), name_of(r, j), (Py_ssize_t)last_axis(&r->views[i]),
                 (Py_ssize_t)last_axis(&r->views[j]));
    return -1;
}

/* every entry is there; smooth where it goes down by at most one, or up where no key has entries */
static int check_index(pe_disentangled *d, ptrdiff_t n, ptrdiff_t entries) {
    bool down = true, up = d->of_key == NULL;
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t entry = d->index[i], step = i ? entry - d->index[i - 1] : 0;
        down &= step == 0 || step == -1;
        up &= step == 0 || step == 1;
        if (entry >= 0 && entry < entries && entry == d->reversed[n - 1 - i]) continue;
        PyErr_Format(PyExc_IndexError, "index %d is outside the rows, which have %zd entries", entry,
                     (Py_ssize_t)entries);
        return -1;
    }
    d->smooth = down || up;
    return 0;
}

static int parse_entries(pe_state *state, PyObject *term, const pe_view *scores, const char *scores_name, long long low,
                         double scale, pe_relative_args *r) {
    PyArrayObject *index = (PyArrayObject *)PyTuple_GetItem(term, 2);
    ptrdiff_t n = PyArray_DIM(index, 1);
    if (parse_array(state, PyTuple_GetItem(term, 0), scores, scores_name, OF_QUERIES, 0, r) < 0) return -1;
    if (parse_array(state, PyTuple_GetItem(term, 1), scores, scores_name, OF_KEYS, 1, r) < 0) return -1;
    if (check_same_length(r, 0, 1) < 0) return -1;
    const int32_t *data = PyArray_DATA(index);
    r->disentangled = (pe_disentangled){.of_query = r->have[0] ? &r->views[0] : NULL,
                                        .of_key = r->have[1] ? &r->views[1] : NULL,
                                        .index = data,
                                        .reversed = data + n,
                                        .low = low,
                                        .high = low + n - 1,
                                        .scale = scale};
    return check_index(&r->disentangled, n, last_axis(&r->views[r->have[0] ? 0 : 1]));
}

static int parse_products(pe_state *state, PyObject *term, const pe_view *scores, const char *scores_name,
                          long long origin, double scale, pe_relative_args *r) {
    static const enum rows rows[] = {OF_QUERIES, OF_QUERIES_OR_ONE, OF_DISTANCES};
    for (int i = 0; i < 3; i++)
        if (parse_array(state, PyTuple_GetItem(term, i), scores, scores_name, rows[i], i, r) < 0) return -1;
    if (check_same_length(r, 0, 1) < 0 || check_same_length(r, 0, 2) < 0) return -1;
    r->projected = (pe_projected){.query = &r->views[0],
                                  .addend = r->have[1] ? &r->views[1] : NULL,
                                  .rows = &r->views[2],
                                  .origin = origin,
                                  .scale = scale};
    return 0;
}

static int parse_grid(pe_state *state, PyObject *term, const pe_view *scores, const char *scores_name,
                      pe_relative_args *r) {
    for (int i = 0; i < 2; i++)
        if (parse_array(state, PyTuple_GetItem(term, i), scores, scores_name, OF_QUERIES, i, r) < 0) return -1;
    ptrdiff_t rows = last_axis(&r->views[0]), columns = last_axis(&r->views[1]), keys = last_axis(scores);
    r->grid = (pe_grid){.of_row = &r->views[0], .of_column = &r->views[1]};
    if (r->have[0] && r->have[1] && columns > 0 && keys % columns == 0 && keys / columns == rows) return 0;
    if (r->have[0] && r->have[1] && keys == 0 && rows * columns == 0) return 0;
    PyErr_Format(PyExc_ValueError, "%s must have rows * columns = %zd * %zd keys, got %zd", scores_name, rows, columns,
                 keys);
    return -1;
}

int pe_parse_relative(pe_state *state, PyObject *term, const pe_view *scores, const char *scores_name,
                      pe_relative_args *r, pe_bias *bias) {
    long long offset = PyLong_AsLongLong(PyTuple_GetItem(term, 3));
    double scale = PyFloat_AsDouble(PyTuple_GetItem(term, 4));
    if (PyErr_Occurred()) return -1;
    Py_ssize_t length = 0;
    const char *kind = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(term, 5), &length);
    if (kind == NULL) return -1;
    r->kind = kind[0];
    if (r->kind == 'g') {
        bias->grid = &r->grid;
        return parse_grid(state, term, scores, scores_name, r);
    }
    if (r->kind != 'p') {
        bias->disentangled = &r->disentangled;
        return parse_entries(state, term, scores, scores_name, offset, scale, r);
    }
    bias->projected = &r->projected;
    return parse_products(state, term, scores, scores_name, offset, scale, r);
}

int pe_check_relative_disjoint(const pe_relative_args *r, const pe_array *out) {
    for (int i = 0; i < 3; i++)
        if (r->have[i] && pe_check_disjoint(out, "out", &r->arrays[i], name_of(r, i)) < 0) return -1;
    return 0;
}

/* ---- sums of gradients: NumPy's own arrays, made by the Python face, which hold them meanwhile ---- */

static int parse_sums(pe_state *state, PyObject *object, const pe_view *scores, enum rows rows, pe_view *sums) {
    pe_array a;
    if (object == Py_None) return 0;
    if (pe_array_float(state, object, "sums", &a) < 0) return -1;
    int failed = broadcast(&a.view, "sums", scores, "gradient", rows, sums);
    pe_array_clear(&a);
    return failed;
}

int pe_parse_relative_sums(pe_state *state, PyObject *first, PyObject *second, const pe_view *scores,
                           const pe_relative_args *r, pe_relative_sums *sums) {
    if (parse_sums(state, first, scores, OF_QUERIES, &sums->first) < 0) return -1;
    return parse_sums(state, second, scores, r->kind == 'p' ? OF_DISTANCES : OF_KEYS, &sums->second);
}
