/* The plan of a bias: by which method the terms of its rows are had, in tiles of which size. */
#include <math.h>
#include <string.h>

#include "bias_call.h"
#include "walk.h"

enum { FEW_ROWS = 8 };

static void fill(char *buffer, size_t bytes, enum pe_dtype dtype, uint64_t f64, uint32_t f32, uint16_t f16,
                 uint16_t bf16) {
    size_t size = pe_itemsize(dtype);
    const void *one = dtype == PE_F64   ? (const void *)&f64
                      : dtype == PE_F32 ? (const void *)&f32
                      : dtype == PE_F16 ? (const void *)&f16
                                        : (const void *)&bf16;
    pe_move_elements(buffer, (ptrdiff_t)size, one, 0, bytes / size, size);
}

static bool fits_int32(ptrdiff_t step, size_t n, size_t size) {
    double reach = fabs((double)step) / (double)size * (double)n;
    return step % (ptrdiff_t)size == 0 && reach < 0x1p30;
}

static enum pe_bias_method choose(struct pe_bias_call *c) {
    const pe_lookup *l = c->bias->lookup;
    if (c->bias->line) return c->tile.counted ? LINE : LINE_LISTED;
    if (pe_picks_possible(c->bias, c->y, &c->tile)) return PICKED;
    if (c->bias->disentangled || c->bias->projected || c->bias->grid) return RELATIVE;
    if (l == NULL) return NOTHING;
    bool by_distance = !l->matrix && !l->query && !l->key && c->tile.counted;
    if (by_distance && c->queries >= FEW_ROWS) return DIAGONALS;
    enum pe_dtype wanted = c->dtype == PE_F64 ? PE_F64 : PE_F32;
    bool fits = fits_int32(l->step, l->length, c->value_size) && fits_int32(l->key, c->keys, c->value_size);
    return l->dtype == wanted && fits ? GATHERED : LISTED;
}

void pe_bias_plan(struct pe_bias_call *c, const struct pe_kernels *kernels, const pe_bias *bias, const pe_view *x,
                  const pe_view *y) {
    int query = y->ndim - 2, key = y->ndim - 1;
    c->kernels = kernels, c->bias = bias, c->x = x, c->y = y;
    c->dtype = y->dtype;
    c->size = pe_itemsize(y->dtype);
    c->value_size = y->dtype == PE_F64 ? sizeof(double) : sizeof(float);
    c->queries = (size_t)y->shape[query], c->keys = (size_t)y->shape[key];
    c->x_query = x ? x->stride[query] : 0, c->x_key = x ? x->stride[key] : 0;
    c->y_query = y->stride[query], c->y_key = y->stride[key];
    c->x_plain = x && (c->keys == 1 || c->x_key == (ptrdiff_t)c->size);
    c->y_plain = c->keys == 1 || c->y_key == (ptrdiff_t)c->size;
    c->in_place = x && x->data == y->data;
    c->scale = bias->lookup         ? bias->lookup->scale
               : bias->disentangled ? bias->disentangled->scale
               : bias->projected    ? bias->projected->scale
                                    : 1;
    c->tile.counted = bias->query.kind == PE_RANGE && bias->key.kind == PE_RANGE;
    c->method = choose(c);
    bool listed = c->method == LINE_LISTED || c->method == GATHERED || c->method == LISTED;
    pe_bias_tile_begin(bias, listed, c->queries, c->keys, &c->tile);
    if (c->method == DIAGONALS) { /* the vector of a tile fits */
        c->tile.columns = pe_min(c->tile.columns, DIAGONAL / 2);
        c->tile.rows = pe_min(c->queries, DIAGONAL - c->tile.columns + 1);
    }
    if (c->method == RELATIVE) {
        bool wide = c->dtype == PE_F64;
        struct pe_relative_size size =
            bias->grid ? pe_grid_size_of(bias->grid, wide) : pe_relative_size_of(wide, c->tile.counted);
        c->tile.columns = pe_min(c->keys, size.columns), c->tile.rows = pe_min(c->queries, size.rows);
        c->value_step = size.columns;
    }
    size_t batch = y->ndim >= 4 ? (size_t)y->shape[0] : 1, heads = y->ndim >= 3 ? (size_t)y->shape[y->ndim - 3] : 1;
    c->split = bias->line && pe_line_splits(bias->line, batch, heads);
    /* as much as will be read: all of it would be half of the time of a call for one query */
    size_t zeros = pe_min(PIECE_BYTES, c->keys * c->size);
    fill(c->infinite, bias->stream ? PIECE_BYTES : MASK_BYTES, c->dtype, 0xfff0000000000000u, 0xff800000u, 0xfc00,
         0xff80);
    if (x == NULL && c->method == NOTHING)
        memset(c->zeros, 0, zeros);
    else if (x == NULL)
        fill(c->zeros, zeros, c->dtype, 0x8000000000000000u, 0x80000000u, 0x8000, 0x8000);
}
