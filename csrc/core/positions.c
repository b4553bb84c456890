/* Positions: how they are read, and whether they can be angles or rows of a table. */
#include <math.h>

#include "rows.h"

static int64_t load_int(const pe_positions *p, const char *at) {
    if (p->kind == PE_INT32) return *(const int32_t *)at;
    return *(const int64_t *)at;
}

static const char *position_address(const pe_positions *p, int axis, size_t batch, size_t j) {
    return p->data + axis * p->axis_stride + (ptrdiff_t)batch * p->batch_stride + (ptrdiff_t)j * p->stride;
}

int64_t pe_int_position(const pe_positions *p, int axis, size_t batch, size_t j) {
    int64_t value = load_int(p, position_address(p, axis, batch, j));
    return p->kind == PE_RANGE ? value + p->from + (int64_t)j : value;
}

double pe_position(const pe_positions *p, int axis, size_t batch, size_t j) {
    if (p->kind == PE_FLOAT64) return *(const double *)position_address(p, axis, batch, j);
    return (double)pe_int_position(p, axis, batch, j);
}

void pe_load_positions(const pe_positions *p, int axis, size_t batch, size_t j, size_t n, double *at) {
    const char *from = position_address(p, axis, batch, j);
    int64_t start = p->kind == PE_RANGE ? pe_int_position(p, axis, batch, j) : 0;
    switch (p->kind) {
        case PE_RANGE:
            for (size_t i = 0; i < n; i++) at[i] = (double)(start + (int64_t)i);
            break;
        case PE_INT32:
            for (size_t i = 0; i < n; i++, from += p->stride) at[i] = (double)*(const int32_t *)from;
            break;
        case PE_INT64:
            for (size_t i = 0; i < n; i++, from += p->stride) at[i] = (double)*(const int64_t *)from;
            break;
        case PE_FLOAT64:
            for (size_t i = 0; i < n; i++, from += p->stride) at[i] = *(const double *)from;
            break;
    }
}

enum { CHECK_AT_ONCE = 1 << 17 }; /* a MiB of int64 or float64 positions */

/* A range is checked by its start and its length, which also keeps its sums from overflowing. */
static size_t read_of_a_row(const pe_positions *positions, size_t seq) {
    return positions->kind == PE_RANGE ? pe_min(seq, 1) : seq;
}

size_t pe_positions_read(const pe_positions *positions, int axes, size_t batch, size_t seq) {
    return (size_t)axes * batch * read_of_a_row(positions, seq);
}

/* What stays the same from part to part of a check. */
struct check {
    const pe_positions *positions;
    size_t seq;
    double fastest; /* on this axis, and at least 1: |position| itself is bounded too */
    double *far;
    int64_t rows; /* of the table */
    const int64_t *skipped;
    int64_t *bad;
};
typedef enum pe_status check_part(const struct check *check, int axis, size_t batch, size_t j, size_t n);

static enum pe_status check_angles(const struct check *check, int axis, size_t batch, size_t j, size_t n) {
    const double limit = 2147483648.0;
    if (check->positions->kind == PE_RANGE) {
        double start = (double)load_int(check->positions, position_address(check->positions, axis, batch, 0));
        double end = start + (double)(check->seq - 1);
        *check->far = fabs(start) * check->fastest < limit ? end : start;
        return fabs(*check->far) * check->fastest < limit ? PE_OK : PE_POSITION;
    }
    double at[PE_TILE_ROWS];
    for (size_t some; n > 0; n -= some, j += some) {
        bool within = true; /* not so with a NaN */
        some = pe_min(n, PE_TILE_ROWS);
        pe_load_positions(check->positions, axis, batch, j, some, at);
        for (size_t i = 0; i < some; i++) within &= fabs(at[i]) * check->fastest < limit;
        for (size_t i = 0; !within && i < some; i++)
            if (!(fabs(*check->far = at[i]) * check->fastest < limit)) return PE_POSITION;
    }
    return PE_OK;
}

static enum pe_status check_rows(const struct check *check, int axis, size_t batch, size_t j, size_t n) {
    bool range = check->positions->kind == PE_RANGE;
    for (; n > 0; n--, j++) {
        int64_t row = load_int(check->positions, position_address(check->positions, axis, batch, j));
        if (range && row >= 0 && row < check->rows && (int64_t)check->seq > check->rows - row) row = check->rows;
        if (row < 0 || row >= check->rows) {
            if (check->skipped && !range && row == *check->skipped) continue;
            *check->bad = row;
            return PE_OUT_OF_TABLE;
        }
    }
    return PE_OK;
}

/* the check of one axis, in parts between which it may stop */
static enum pe_status check_axis(const struct check *check, check_part *part, int axis, size_t batch, size_t *polled,
                                 pe_poll *poll, void *context) {
    size_t each = read_of_a_row(check->positions, check->seq);
    for (size_t b = 0; b < batch; b++)
        for (size_t j = 0; j < each; j += CHECK_AT_ONCE) {
            size_t n = pe_min(CHECK_AT_ONCE, each - j);
            enum pe_status status = part(check, axis, b, j, n);
            if (status != PE_OK) return status;
            *polled += n;
            if (poll == NULL || *polled < CHECK_AT_ONCE) continue;
            *polled = 0;
            if (poll(context)) return PE_STOPPED;
        }
    return PE_OK;
}

enum pe_status pe_check_positions(const pe_frequencies *freq, const pe_positions *positions, size_t batch, size_t seq,
                                  double *bad, pe_poll *poll, void *context) {
    struct check check = {.positions = positions, .seq = seq, .far = bad};
    size_t polled = 0;
    enum pe_status status = PE_OK;
    for (int axis = 0; axis < freq->axes && status == PE_OK; axis++) {
        check.fastest = freq->fastest[axis] > 1 ? freq->fastest[axis] : 1;
        status = check_axis(&check, check_angles, axis, batch, &polled, poll, context);
    }
    return status;
}

enum pe_status pe_check_rows(const pe_positions *positions, size_t batch, size_t seq, size_t table_rows,
                             const int64_t *skipped, int64_t *bad, pe_poll *poll, void *context) {
    struct check check = {
        .positions = positions, .seq = seq, .rows = (int64_t)table_rows, .skipped = skipped, .bad = bad};
    size_t polled = 0;
    return check_axis(&check, check_rows, 0, batch, &polled, poll, context);
}
