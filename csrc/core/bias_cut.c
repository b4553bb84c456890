/* Part of a bias: the one that some batch rows, heads or queries of the scores get. */
#include "cut.h"

static const pe_view *cut_view(const pe_view *v, int axis, size_t start, size_t stop, pe_view *to) {
    if (v == NULL) return NULL;
    *to = pe_cut(v, axis, start, stop); /* a stride of 0 stays where it is */
    return to;
}

static void cut_line(struct pe_bias_part *part, int from_end, bool batch, size_t start) {
    if (part->bias.line == NULL) return;
    part->line = *part->bias.line;
    size_t row = batch ? part->line.batch_step : from_end == 3 ? 1 : 0;
    part->line.slopes += 2 * start * row;
    part->bias.line = &part->line;
}

static void cut_lookup(struct pe_bias_part *part, int from_end, bool batch, size_t start) {
    if (part->bias.lookup == NULL) return;
    part->lookup = *part->bias.lookup;
    pe_lookup *l = &part->lookup;
    l->data += (ptrdiff_t)start * (batch ? l->batch : from_end == 3 ? l->head : from_end == 2 ? l->query : 0);
    if (l->matrix && from_end == 2) l->matrix += (ptrdiff_t)start * l->matrix_query;
    part->bias.lookup = l;
}

/* Arrays that belong to keys or distances have those where others have queries: they are not cut along them. */
static void cut_content(struct pe_bias_part *part, int axis, bool queries, size_t start, size_t stop) {
    pe_bias *bias = &part->bias;
    pe_view *v = part->views;
    if (bias->disentangled) {
        part->disentangled = *bias->disentangled;
        pe_disentangled *d = &part->disentangled;
        d->of_query = cut_view(d->of_query, axis, start, stop, &v[0]);
        if (!queries) d->of_key = cut_view(d->of_key, axis, start, stop, &v[1]);
        bias->disentangled = d;
    }
    if (bias->projected) {
        part->projected = *bias->projected;
        pe_projected *p = &part->projected;
        p->query = cut_view(p->query, axis, start, stop, &v[0]);
        p->addend = cut_view(p->addend, axis, start, stop, &v[1]);
        if (!queries) p->rows = cut_view(p->rows, axis, start, stop, &v[2]);
        bias->projected = p;
    }
    if (bias->grid) {
        part->grid = (pe_grid){cut_view(bias->grid->of_row, axis, start, stop, &v[0]),
                               cut_view(bias->grid->of_column, axis, start, stop, &v[1])};
        bias->grid = &part->grid;
    }
}

void pe_cut_bias(const pe_bias *bias, int ndim, int axis, size_t start, size_t stop, struct pe_bias_part *part) {
    bool batch = axis == 0 && ndim >= 4;
    int from_end = ndim - axis;
    part->bias = *bias;
    if (from_end == 2) part->bias.query = pe_positions_from(&bias->query, 0, start);
    if (batch) part->bias.query = pe_positions_from(&bias->query, start, 0);
    if (batch) part->bias.key = pe_positions_from(&bias->key, start, 0);
    cut_line(part, from_end, batch, start);
    cut_lookup(part, from_end, batch, start);
    cut_content(part, axis, from_end == 2, start, stop);
}
