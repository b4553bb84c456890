/* Positions, frequencies and tables that the core's contract allows, and what a row of them should hold. */
#ifndef POSENC_TESTS_CASES_ROWS_H
#define POSENC_TESTS_CASES_ROWS_H

#include "cases_arrays.h"

#include <math.h>

struct row_case {
    pe_rows rows;
    pe_frequencies freq;
    struct strided cos, sin, positions;
    int64_t starts[MAX_ROWS];
};
static double case_inv_freq[MAX_HEAD];
static unsigned char case_axes[MAX_HEAD];

/* |position * frequency| stays below 2^31: frequencies are at most 1 */
static inline double draw_position(struct source *s) {
    double far = draw_unit(s) * (one_in(s, 4) ? 0x1p31 * (1 - 0x1p-20) : 5000);
    return one_in(s, 3) ? -far : far;
}

static inline void draw_frequencies(struct source *s, struct row_case *c, size_t pairs) {
    c->freq = (pe_frequencies){.inv_freq = case_inv_freq, .pairs = pairs, .axes = 1, .as_float32 = one_in(s, 3)};
    c->freq.scale = one_in(s, 2) ? 1 : 0.5 + draw_unit(s);
    if (one_in(s, 3)) c->freq.axes = 1 + (int)draw(s, 3), c->freq.axis_of_freq = case_axes;
    for (size_t i = 0; i < pairs; i++) {
        case_inv_freq[i] = one_in(s, 9) ? -draw_unit(s) : draw_unit(s);
        if (c->freq.as_float32) case_inv_freq[i] = (double)(float)case_inv_freq[i];
        case_axes[i] = (unsigned char)draw(s, (size_t)c->freq.axes);
    }
    pe_frequencies_seal(&c->freq);
    c->rows.freq = &c->freq;
}

static inline void put_position(pe_positions *p, char *at, double value) {
    int32_t narrow = (int32_t)value;
    int64_t wide = (int64_t)value;
    memcpy(at,
           p->kind == PE_INT32     ? (void *)&narrow
           : p->kind == PE_FLOAT64 ? (void *)&value
                                   : (void *)&wide,
           p->kind == PE_INT32 ? 4 : 8);
}

/* Positions of (axes, batch, seq) values; table_rows > 0 makes them rows of a table. */
static inline bool draw_positions(struct source *s, struct row_case *c, int axes, ptrdiff_t batch, ptrdiff_t seq,
                                  size_t table_rows) {
    pe_positions *p = &c->rows.positions;
    p->kind = (enum pe_position_kind)draw(s, table_rows ? 3 : 4);
    struct strided *a = &c->positions;
    a->view = (pe_view){.ndim = 3, .dtype = p->kind == PE_INT32 ? PE_F32 : PE_F64};
    a->view.shape[0] = axes, a->view.shape[1] = batch, a->view.shape[2] = p->kind == PE_RANGE ? 1 : seq;
    if (!draw_array(s, a, UNIT, false)) return false;
    const pe_view *v = &a->view;
    p->data = v->data;
    p->axis_stride = axes > 1 ? v->stride[0] : 0;
    p->batch_stride = batch > 1 ? v->stride[1] : 0;
    p->stride = v->shape[2] > 1 ? v->stride[2] : 0;
    for (int i = 0; i < axes; i++)
        for (ptrdiff_t b = 0; b < batch; b++)
            for (ptrdiff_t j = 0; j < v->shape[2]; j++) {
                double value = table_rows ? (double)draw(s, table_rows) : draw_position(s);
                if (table_rows && p->kind == PE_RANGE) value = (double)draw(s, table_rows - (size_t)seq + 1);
                if (!table_rows && p->kind == PE_RANGE) value = floor(value / 2);
                put_position(p, v->data + i * p->axis_stride + b * p->batch_stride + j * p->stride, value);
            }
    return true;
}

static inline bool draw_table(struct source *s, struct row_case *c, ptrdiff_t batch, ptrdiff_t seq) {
    pe_rows *r = &c->rows;
    r->by_position = one_in(s, 2), r->conjugate = one_in(s, 3);
    ptrdiff_t height = r->by_position ? seq + (ptrdiff_t)draw(s, 9) + (seq == 0) : seq;
    c->cos.view = (pe_view){.ndim = 3, .dtype = r->dtype, .shape = {batch, height, (ptrdiff_t)r->pairs}};
    c->sin.view = c->cos.view;
    if (!draw_array(s, &c->cos, UNIT, true) || !draw_array(s, &c->sin, UNIT, true)) return false;
    if (one_in(s, 2)) { /* both laid out alike, as they mostly are */
        memcpy(c->sin.view.stride, c->cos.view.stride, sizeof c->cos.view.stride);
        arenas_used--;
        if (!lay(s, &c->sin)) return false;
        fill(s, c->sin.from, c->sin.bytes / pe_itemsize(r->dtype), r->dtype, UNIT);
    }
    const pe_view *cos = &c->cos.view, *sin = &c->sin.view;
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(r->dtype);
    r->cos = cos->data, r->sin = sin->data;
    r->cos_batch = batch > 1 ? cos->stride[0] : 0, r->sin_batch = batch > 1 ? sin->stride[0] : 0;
    r->cos_row = height > 1 ? cos->stride[1] : 0, r->sin_row = height > 1 ? sin->stride[1] : 0;
    r->cos_pair = r->pairs > 1 ? cos->stride[2] : size, r->sin_pair = r->pairs > 1 ? sin->stride[2] : size;
    return !r->by_position || draw_positions(s, c, 1, batch, seq, (size_t)height);
}

static inline bool draw_rows(struct source *s, struct row_case *c, ptrdiff_t batch, ptrdiff_t seq, size_t pairs,
                             enum pe_dtype dtype) {
    memset(c, 0, sizeof *c);
    c->rows.pairs = pairs, c->rows.dtype = dtype == PE_F64 ? PE_F64 : PE_F32;
    c->rows.per_batch = batch > 1 || one_in(s, 2);
    if (one_in(s, 2)) return draw_table(s, c, batch, seq);
    draw_frequencies(s, c, pairs);
    if (!draw_positions(s, c, c->freq.axes, batch, seq, 0)) return false;
    return pe_check_positions(&c->freq, &c->rows.positions, (size_t)batch, (size_t)seq, &(double){0}, NULL, NULL) ==
           PE_OK;
}

/* ---- what a row should hold, one pair at a time ---- */

static inline double position_of(const pe_positions *p, int axis, size_t batch, size_t j, int64_t *index) {
    const char *at = p->data + axis * p->axis_stride + (ptrdiff_t)batch * p->batch_stride + (ptrdiff_t)j * p->stride;
    int32_t narrow;
    double real;
    if (p->kind == PE_FLOAT64) return memcpy(&real, at, 8), real;
    if (p->kind == PE_INT32)
        memcpy(&narrow, at, 4), *index = narrow;
    else
        memcpy(index, at, 8);
    if (p->kind == PE_RANGE) *index += (int64_t)j;
    return (double)*index;
}

/* The angle's cosine and sine through the scalar level, or the table's; in the element type of the rows. */
static inline void cos_sin_of(const pe_rows *r, size_t batch, size_t j, size_t i, void *cos, void *sin) {
    int64_t index = (int64_t)j;
    if (r->freq == NULL) {
        size_t size = pe_itemsize(r->dtype);
        if (r->by_position) position_of(&r->positions, 0, batch, j, &index);
        ptrdiff_t b = (ptrdiff_t)batch, row = (ptrdiff_t)index, k = (ptrdiff_t)i;
        memcpy(cos, r->cos + b * r->cos_batch + row * r->cos_row + k * r->cos_pair, size);
        uint64_t bits = load_bits(r->sin + b * r->sin_batch + row * r->sin_row + k * r->sin_pair, size);
        store_bits(sin, size, r->conjugate ? bits ^ 1ull << (8 * size - 1) : bits);
        return;
    }
    const pe_frequencies *f = r->freq;
    double p = position_of(&r->positions, f->axis_of_freq ? f->axis_of_freq[i] : 0, batch, j, &index);
    if (f->as_float32) p = (double)(float)p;
    struct pe_sincos job = {.position = &p,
                            .inv_freq = f->inv_freq + i,
                            .scale = f->as_float32 ? (double)(float)f->scale : f->scale,
                            .as_float32 = f->as_float32,
                            .cos = cos,
                            .sin = sin,
                            .rows = 1,
                            .pairs = 1};
    if (r->dtype == PE_F64 && !f->as_float32) {
        pe_level(0)->sincos_f64(&job);
        return;
    }
    float c, s;
    job.cos = (char *)&c, job.sin = (char *)&s;
    pe_level(0)->sincos_f32(&job);
    double wide_c = (double)c, wide_s = (double)s;
    bool wide = r->dtype == PE_F64;
    memcpy(cos, wide ? (void *)&wide_c : (void *)&c, wide ? 8 : 4);
    memcpy(sin, wide ? (void *)&wide_s : (void *)&s, wide ? 8 : 4);
}

#endif
