/* Parts of a call's arguments: what another thread takes. */
#ifndef PE_CUT_H
#define PE_CUT_H

#include "posenc.h"

/* elements start .. stop of an axis */
static inline pe_view pe_cut(const pe_view *v, int axis, size_t start, size_t stop) {
    pe_view w = *v;
    w.data += (ptrdiff_t)start * v->stride[axis];
    w.shape[axis] = (ptrdiff_t)(stop - start);
    return w;
}

/* positions of batch rows from `batch` on, from their position `seq` on */
static inline pe_positions pe_positions_from(const pe_positions *positions, size_t batch, size_t seq) {
    pe_positions p = *positions;
    p.data += (ptrdiff_t)batch * p.batch_stride + (ptrdiff_t)seq * p.stride;
    if (p.kind == PE_RANGE) p.from += (int64_t)seq;
    return p;
}

/* What pe_cut_bias changes, and what stays. */
struct pe_bias_part {
    pe_bias bias;
    pe_line line;
    pe_lookup lookup;
    pe_disentangled disentangled;
    pe_projected projected;
    pe_grid grid;
    pe_view views[3];
};
/* The bias of scores with so many axes, cut along one of them that is not the keys'. */
void pe_cut_bias(const pe_bias *bias, int ndim, int axis, size_t start, size_t stop, struct pe_bias_part *part);

static inline pe_rows pe_rows_from(const pe_rows *rows, size_t batch, size_t seq) {
    pe_rows r = *rows;
    if (r.freq || r.by_position) r.positions = pe_positions_from(&rows->positions, batch, seq);
    ptrdiff_t row = r.by_position ? 0 : (ptrdiff_t)seq;
    if (r.freq == NULL) {
        r.cos += (ptrdiff_t)batch * r.cos_batch + row * r.cos_row;
        r.sin += (ptrdiff_t)batch * r.sin_batch + row * r.sin_row;
    }
    return r;
}

#endif
