/* One call over x, or q and k, on its way from Python to core: what the verbs rotate and add share. */
#ifndef PE_OPERATION_H
#define PE_OPERATION_H

#include "args.h"

#define PE_ANY_WIDTH SIZE_MAX

typedef struct pe_operation pe_operation;
/* What one thread does of it: operands that are the whole ones, or begin at this batch row and place of the sequence. */
typedef struct {
    pe_operand operands[2];
    size_t batch, seq;
} pe_piece;
/* writes y; everything is checked */
typedef enum pe_status pe_work(const pe_operation *op, const pe_piece *piece, pe_poll *poll, void *context);
struct pe_operation {
    pe_state *state;
    pe_work *work;
    const char *width_name;          /* of the last axis, for messages */
    int n;                           /* operands: 1 or 2 */
    pe_array x[2], others[2], *y[2]; /* y: x itself in place, else others */
    bool have_y;                     /* outputs were given */
    PyObject *pair;                  /* the tuple that they were given in, or NULL; owned */
    const char *x_name[2], *y_name[2];
    pe_rotation how;
    int axis; /* along which threads share the call */
    pe_rows rows;
    size_t width; /* what the last axis must have, or PE_ANY_WIDTH until the first input says it */
    pe_position_args positions;
    PyObject *results[2]; /* owned */
};

/* Fill in order: width and how.layout where they are known, inputs, rows, outputs; then finish, and clear in any case. */
void pe_operation_init(pe_operation *op, pe_state *state, pe_work *work, const char *width_name);
void pe_operation_clear(pe_operation *op);
int pe_operation_input(pe_operation *op, PyObject *object, const char *name, PyObject *seq_axis);
int pe_operation_check_pair(const pe_operation *op);
int pe_operation_check_batch(const pe_operation *op);
int pe_operation_outputs(pe_operation *op, PyObject *out);
/* The result; or, for work above defer_above bytes, that number of bytes and nothing done. */
PyObject *pe_operation_finish(pe_operation *op, PyObject *defer_above, PyObject *threads);

ptrdiff_t pe_operation_batch(const pe_operation *op); /* -1 where there is no batch axis before the sequence axis */
ptrdiff_t pe_operation_seq(const pe_operation *op);

#endif
