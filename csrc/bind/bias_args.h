/* Scores, where queries and keys are, what is seen and what is added: the arguments that biases and their gradients share. */
#ifndef PE_BIAS_ARGS_H
#define PE_BIAS_ARGS_H

#include "relative.h"

typedef struct {
    pe_state *state;
    const char *x_name;
    pe_array x, y, table;
    bool have_x, have_y;
    pe_position_args query, key;
    pe_bias bias;
    pe_line line;
    pe_lookup lookup;
    pe_relative_args relative;
    int axis; /* along which threads share the call */
    pe_relative_sums content_sums;
    double *sums;
    PyObject *result; /* owned */
} pe_bias_call;

/* what `run` returns of a fresh call, which is cleared after it */
typedef PyObject *pe_bias_runner(pe_bias_call *call, PyObject *const *args);
PyObject *pe_with_bias_call(PyObject *module, PyObject *const *args, pe_bias_runner *run);
/* the scores are there, x or y; check their axes, and fill `bias` */
int pe_parse_bias(pe_bias_call *call, PyObject *where, PyObject *mask, PyObject *term);

#endif
