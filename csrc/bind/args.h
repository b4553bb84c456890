/* From Python objects to what core takes, and every message a caller can get from C.
 *
 * Functions return 0, or -1 with an exception set. Nothing here writes to a caller's array.
 */
#ifndef PE_ARGS_H
#define PE_ARGS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdio.h> /* NumPy uses FILE, which the limited API does not bring */

#define NPY_NO_DEPRECATED_API  NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION     NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL posenc_numpy
#ifndef PE_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "../core/posenc.h"

/* What torch offers, looked up when the first tensor comes; see tensor.c. */
struct pe_torch;

typedef struct {
    const struct pe_kernels *kernels;
    struct pe_torch *torch;  /* written once, atomically */
    PyTypeObject *bfloat16;  /* ml_dtypes' scalar type, written once, atomically */
    PyObject *current_level; /* an interned name */
    PyObject *call_type;     /* see call_py.c */
} pe_state;

pe_state *pe_get_state(PyObject *module);

/* Pointers that are written once, by whichever thread comes first. */
#ifdef _MSC_VER
#include <intrin.h>
#define PE_LOAD(p)            (*(void *volatile *)(p))
#define PE_SET_ONCE(p, value) (_InterlockedCompareExchangePointer((void *volatile *)(p), value, NULL) == NULL)
#else
#define PE_LOAD(p)            __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define PE_SET_ONCE(p, value) pe_set_once((void **)(p), value)
static inline bool pe_set_once(void **p, void *value) {
    void *expected = NULL;
    return __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
#endif

/* One array argument. `object` is borrowed; `owner` (may be NULL) is held while view is in use. */
enum pe_kind { PE_KIND_NUMPY, PE_KIND_TORCH };
enum { PE_DTYPE_INT32 = PE_DTYPES, PE_DTYPE_INT64, PE_DTYPE_OTHER };
typedef struct {
    PyObject *object, *owner;
    enum pe_kind kind;
    int dtype; /* enum pe_dtype, or one of the above */
    bool writable;
    pe_view view; /* view.dtype is set where dtype is a pe_dtype */
} pe_array;

int pe_array_any(pe_state *state, PyObject *object, const char *name, pe_array *a);   /* any dtype */
int pe_array_float(pe_state *state, PyObject *object, const char *name, pe_array *a); /* the four float types */
void pe_array_clear(pe_array *a);
PyObject *pe_array_dtype(const pe_array *a); /* the Python object, for messages */
enum pe_dtype pe_view_dtype(int dtype);

/* tensor.c: 1 and filled if the object is a torch tensor, 0 if it is not one, -1 on error */
int pe_tensor_view(pe_state *state, PyObject *object, const char *name, pe_array *a);
int pe_tensors_written(pe_state *state, PyObject *const *tensors, int n); /* bump their version counters */
int pe_tuple_written(pe_state *state, PyObject *tensors);                 /* the same of a tuple */
PyObject *pe_tensor_like(pe_state *state, PyObject *tensor);
void pe_torch_clear(pe_state *state);

/* A new array of the same kind, dtype, shape and memory order. */
PyObject *pe_array_like(pe_state *state, const pe_array *a);

/* Checks that the array can take results: writable, no element stored twice. */
int pe_check_output(const pe_array *a, const char *name);
/* out is no pair of arrays: -1 and an error that says what it is. */
int pe_reject_pair(PyObject *out, const char *first, const char *second);
/* Same memory and same strides: 1; disjoint: 0; anything between: -1 and an error naming both. */
int pe_same_or_disjoint(const pe_array *a, const char *a_name, const pe_array *b, const char *b_name);
int pe_check_disjoint(const pe_array *a, const char *a_name, const pe_array *b, const char *b_name);
int pe_check_same_shape(const pe_array *a, const char *a_name, const pe_array *b, const char *b_name);

/* Positions of a call, from positions= and offset=. */
typedef struct {
    pe_positions positions;
    bool per_batch, integral;
    bool borrowed; /* read from the caller's own array, `array`, and not from a copy */
    pe_array array;
    const char *name;     /* "positions" or "offset" */
    ptrdiff_t seq, batch; /* shape of positions=; batch is -1 where it has no such axis */
    int64_t start;        /* the storage of a single offset */
    PyObject *owners[2];
} pe_position_args;

/* x_batch: length of the first axis, or -1 where x has no batch axis. axes: of the frequencies. */
int pe_parse_positions(pe_state *state, PyObject *positions, PyObject *offset, int axes, ptrdiff_t seq,
                       ptrdiff_t x_batch, pe_position_args *p);
/* Positions by another name, of one axis: an array, or start, start + 1, .. where it is None. */
int pe_parse_named_positions(pe_state *state, const char *name, PyObject *positions, int64_t start, ptrdiff_t seq,
                             ptrdiff_t x_batch, pe_position_args *p);
/* For tables: a number n means 0 .. n-1, an array may have any length and batch. */
int pe_parse_table_positions(pe_state *state, PyObject *object, int axes, pe_position_args *p);
/* An output that holds the positions would change them under way. */
int pe_check_positions_disjoint(const pe_position_args *p, const pe_array *out, const char *out_name);
void pe_positions_clear(pe_position_args *p);
/* Every position, for batch rows and seq positions each; -1 for one out of bounds, and where a signal handler raised. */
int pe_require_positions(const pe_frequencies *freq, const pe_positions *positions, size_t batch, size_t seq);
int pe_require_rows(const pe_positions *positions, size_t batch, size_t seq, size_t table_rows, const int64_t *skipped);

/* table_py.c: a given output of a table as `wanted` says, able to take results; a table as (batch, seq, columns) */
int pe_require_table(const char *name, PyObject *object, const pe_view *wanted, pe_state *state,
                     const pe_position_args *positions, pe_array *a);
pe_view pe_three_axes(const pe_view *v);
/* `parts` of pe_defer; `out` is one that is given, or NULL */
size_t pe_table_parts(size_t batch, size_t seq, size_t bytes, const pe_view *out);

int pe_parse_seq_axis(PyObject *object, int ndim, const char *name, const char *width_name, int *axis);
const char *pe_shape_text(const pe_view *v, char *buffer, size_t size); /* "(2, 8, 128)" */
bool pe_is_boolean(PyObject *object);

/* work.c: work on so many bytes, without the GIL where they are many, and then with a look for signals every 25 ms. */
typedef struct {
    PyThreadState *thread; /* NULL where the GIL is kept */
    int64_t checked;       /* ns */
    bool interrupted;
} pe_release;
pe_poll *pe_release_begin(pe_release *r, size_t bytes); /* what core is to call, with r, or NULL */
int pe_release_end(pe_release *r);                      /* -1 where a signal handler raised */

/* The work on start .. stop of what a call can be cut along. */
typedef enum pe_status pe_span(void *call, size_t start, size_t stop, pe_poll *poll, void *context);
/* A call over `length` of it, of so many bytes in all, in one piece or in pieces on so many threads; -1 as above. */
int pe_run(pe_span *span, void *call, size_t length, size_t bytes, size_t threads);
/* The same in pieces of `step`, however many threads there are. */
int pe_run_steps(pe_span *span, void *call, size_t length, size_t step, size_t bytes, size_t threads);
/* The last arguments of a function: the number of bytes, as its result, where the work is deferred, which is to be called
 * again with the number of threads; NULL where it is to be done on so many threads, or with an exception. */
PyObject *pe_defer(PyObject *defer_above, PyObject *threads, size_t bytes, size_t parts, size_t *count);
/* `parts` of that: how many threads a call of medium length could give a part of its own. They lie together, and take 4 us
 * or more: of two processors that have no cache in common each loses one where its part ends, since the other fetches what
 * lies behind, and half of one when work is handed over; parts of 8 KiB between each other take twice as long as one thread. */
enum { PE_PART_BYTES = 256 << 10, PE_MEDIUM_BYTES = 4 << 20 };
/* a call that writes so many bytes, with as much work as float32 in place on so many bytes */
static inline bool pe_is_medium(size_t bytes, size_t work) {
    return work / PE_PART_BYTES > 1 && bytes <= PE_MEDIUM_BYTES;
}
static inline size_t pe_parts(size_t work, size_t length) {
    return work / PE_PART_BYTES < length ? work / PE_PART_BYTES : length;
}
/* The axis that is outermost in memory, whose parts lie together; -1 where that is the last one, or there is none. */
int pe_outer_axis(const pe_view *v);

/* spec_py.c: what a Rope holds for C */
typedef struct {
    pe_frequencies freq;
    enum pe_layout layout;
    size_t head_dim, rotary_offset;
} pe_spec;
const pe_spec *pe_spec_from(PyObject *capsule);

/* work above which the GIL is released, and above which outputs are written past the caches */
enum { PE_RELEASE_BYTES = 1 << 20, PE_STREAM_BYTES = 32 << 20, PE_STREAM_TABLE_BYTES = 512 << 20 };

/* the functions of the module */
PyObject *pe_py_rotate(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_apply(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_rotate_onto(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_apply_onto(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_rotate_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_table_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_table(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_add(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_add_sinusoid(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_scatter(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_sinusoid(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_make_call_type(PyObject *module);
PyObject *pe_py_rotate_call(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_spec(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_inv_freq(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_float32_powers(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_add_bias(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_relative_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_bias_gradient(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_tally(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *pe_py_empty_like(PyObject *module, PyObject *x);
PyObject *pe_py_runtime(PyObject *module, PyObject *ignored);
PyObject *pe_py_forget_threads(PyObject *module, PyObject *ignored);

#endif
