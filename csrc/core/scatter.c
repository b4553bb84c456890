/* The gradient of a table of positions: every token adds to the row that was added to it.
 *
 * The sum of a row is formed in the order of the tokens, whatever the strides and however the columns are split between
 * calls: a column knows nothing of the others. The kernel is the addition's own, with a row of the table as x and y.
 */
#include <string.h>

#include "walk.h"

enum { COLUMNS = 1024 };

struct call {
    const struct pe_kernels *kernels;
    const pe_view *grad, *table;
    double scale;
    enum pe_dtype dtype; /* of the table */
};

/* n elements of a token as the table's dtype: where they lie, or in a buffer */
static const char *token_columns(const struct call *call, const char *token, size_t first, size_t n, char *buffer) {
    const pe_view *grad = call->grad;
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(grad->dtype), step = grad->stride[grad->ndim - 1];
    token += (ptrdiff_t)first * step;
    if (grad->dtype == call->dtype && (step == size || n == 1)) return token;
    pe_widen(call->kernels, buffer, call->dtype, token, step, grad->dtype, n);
    return buffer;
}

static void add_columns(const struct call *call, char *row, const char *from, size_t n) {
    struct pe_add job = {.x = row, .y = row, .table = from, .scale = call->scale, .rows = 1, .together = 1, .n = n};
    call->kernels->add[call->dtype](&job);
}

static void add_token(const struct call *call, const char *token, int64_t to) {
    PE_ALIGNED(64) char narrow[COLUMNS * sizeof(double)], sums[COLUMNS * sizeof(double)];
    const pe_view *table = call->table;
    size_t size = pe_itemsize(call->dtype), dim = (size_t)table->shape[1];
    ptrdiff_t step = table->stride[1];
    for (size_t first = 0; first < dim; first += COLUMNS) {
        size_t n = pe_min(COLUMNS, dim - first);
        char *row = table->data + (ptrdiff_t)to * table->stride[0] + (ptrdiff_t)first * step;
        const char *from = token_columns(call, token, first, n, narrow);
        if (step == (ptrdiff_t)size || n == 1) {
            add_columns(call, row, from, n);
            continue;
        }
        pe_move_elements(sums, (ptrdiff_t)size, row, step, n, size);
        add_columns(call, sums, from, n);
        pe_move_elements(row, step, sums, (ptrdiff_t)size, n, size);
    }
}

/* to the next token of the same place in the sequence; false where there is none */
static bool advance(const pe_view *grad, int seq_axis, ptrdiff_t *index, const char **token) {
    for (int i = grad->ndim - 2; i >= 0; i--) {
        if (i == seq_axis || grad->shape[i] == 1) continue;
        *token += grad->stride[i];
        if (++index[i] < grad->shape[i]) return true;
        *token -= grad->shape[i] * grad->stride[i];
        index[i] = 0;
    }
    return false;
}

enum pe_status pe_scatter_rows(const struct pe_kernels *kernels, const pe_addition *how, const pe_added *rows,
                               const pe_view *grad, const pe_view *table, pe_poll *poll, void *context) {
    struct call call = {kernels, grad, table, how->scale, table->dtype};
    size_t polled = 0, bytes = rows->dim * pe_itemsize(grad->dtype);
    if (pe_elements(grad) == 0) return PE_OK;
    for (ptrdiff_t j = 0; j < grad->shape[how->seq_axis]; j++) {
        ptrdiff_t index[PE_MAX_DIM] = {0};
        const char *token = grad->data + j * grad->stride[how->seq_axis];
        do {
            size_t batch = rows->per_batch ? (size_t)index[0] : 0;
            int64_t to = pe_int_position(&rows->positions, 0, batch, (size_t)j);
            if (!(rows->skipped && to == *rows->skipped)) add_token(&call, token, to);
            if (pe_stop(poll, context, &polled, bytes)) return PE_STOPPED;
        } while (advance(grad, how->seq_axis, index, &token));
    }
    return PE_OK;
}
