/* Do two strided arrays share a byte; does one array visit a byte twice.
 *
 * Both are the question whether sum(stride_i * t_i) can come within an element of a given distance, with each t_i in a
 * range: a bounded Diophantine problem, hard in theory, easy for real arrays, whose strides are nested: sorted by size,
 * each step is longer than everything below it together. The search takes the largest stride first and tries only those
 * t that leave a remainder the smaller strides can reach: one or two per level for nested strides. Beyond MAX_WORK tries
 * the answer is yes, the safe one.
 */
#include "posenc.h"

enum { MAX_WORK = 20000 };

typedef struct {
    ptrdiff_t stride, low, high; /* t from low to high */
} term;

typedef struct {
    term terms[2 * PE_MAX_DIM];
    ptrdiff_t reach_low[2 * PE_MAX_DIM + 1], reach_high[2 * PE_MAX_DIM + 1]; /* of terms i, i+1, .. together */
    int n, work;
    ptrdiff_t below, above; /* a hit is -below < distance < above */
} problem;

/* strides become positive; a term of equal stride is widened; terms stay sorted, largest stride first */
static void add_term(problem *p, ptrdiff_t stride, ptrdiff_t low, ptrdiff_t high) {
    if (stride < 0) {
        ptrdiff_t swapped = -low;
        stride = -stride, low = -high, high = swapped;
    }
    int i = 0;
    while (i < p->n && p->terms[i].stride > stride) i++;
    if (i < p->n && p->terms[i].stride == stride) {
        p->terms[i].low += low, p->terms[i].high += high;
        return;
    }
    for (int j = p->n++; j > i; j--) p->terms[j] = p->terms[j - 1];
    p->terms[i] = (term){stride, low, high};
}

static void add_reach(problem *p) {
    p->reach_low[p->n] = p->reach_high[p->n] = 0;
    for (int i = p->n - 1; i >= 0; i--) {
        p->reach_low[i] = p->reach_low[i + 1] + p->terms[i].stride * p->terms[i].low;
        p->reach_high[i] = p->reach_high[i + 1] + p->terms[i].stride * p->terms[i].high;
    }
}

static ptrdiff_t floor_div(ptrdiff_t a, ptrdiff_t b) {
    return a / b - (a % b < 0);
}

/* can terms i.. bring `distance` to a hit; where nonzero is set, with some t not zero */
static bool reachable(problem *p, int i, ptrdiff_t distance, bool nonzero) {
    if (distance + p->reach_high[i] <= -p->below || distance + p->reach_low[i] >= p->above) return false;
    if (i == p->n) return !nonzero;
    if (p->work++ > MAX_WORK) return true;
    term t = p->terms[i];
    /* -below < distance + stride*t + (reach of the rest) < above */
    ptrdiff_t low = floor_div(-p->below - distance - p->reach_high[i + 1], t.stride) + 1;
    ptrdiff_t high = -floor_div(-(p->above - distance - p->reach_low[i + 1]), t.stride) - 1;
    if (low < t.low) low = t.low;
    if (high > t.high) high = t.high;
    for (ptrdiff_t k = low; k <= high; k++) {
        if (reachable(p, i + 1, distance + t.stride * k, nonzero && k == 0)) return true;
        if (p->work > MAX_WORK) return true;
    }
    return false;
}

static void begin(problem *p, ptrdiff_t below, ptrdiff_t above) {
    p->n = p->work = 0;
    p->below = below, p->above = above;
}

/* ---- what settles nearly every case ---- */

static void extent(const pe_view *v, uintptr_t *from, uintptr_t *to) {
    *from = (uintptr_t)v->data, *to = *from + pe_itemsize(v->dtype);
    for (int i = 0; i < v->ndim; i++) {
        if (v->shape[i] < 2) continue;
        ptrdiff_t reach = (v->shape[i] - 1) * v->stride[i];
        if (reach < 0)
            *from += (uintptr_t)reach;
        else
            *to += (uintptr_t)reach;
    }
}

static bool extents_disjoint(const pe_view *a, const pe_view *b) {
    uintptr_t a_from, a_to, b_from, b_to;
    extent(a, &a_from, &a_to);
    extent(b, &b_from, &b_to);
    return a_to <= b_from || b_to <= a_from;
}

/* each axis steps over all that the axes behind it reach, as in any array that is not a transposed view */
static bool nested_in_order(const pe_view *v) {
    ptrdiff_t reach = (ptrdiff_t)pe_itemsize(v->dtype);
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->shape[i] == 1) continue;
        if (v->stride[i] < reach) return false;
        reach += (v->shape[i] - 1) * v->stride[i];
    }
    return true;
}

/* ---- the question itself ---- */

bool pe_overlap(const pe_view *a, const pe_view *b) {
    if (extents_disjoint(a, b)) return false;
    problem p;
    begin(&p, (ptrdiff_t)pe_itemsize(b->dtype), (ptrdiff_t)pe_itemsize(a->dtype));
    /* distance = address in b - address in a */
    for (int side = 0; side < 2; side++) {
        const pe_view *v = side ? b : a;
        for (int i = 0; i < v->ndim; i++) {
            if (v->shape[i] == 0) return false;
            if (v->shape[i] == 1 || v->stride[i] == 0) continue;
            add_term(&p, v->stride[i], side ? 0 : 1 - v->shape[i], side ? v->shape[i] - 1 : 0);
        }
    }
    add_reach(&p);
    return reachable(&p, 0, (ptrdiff_t)((uintptr_t)b->data - (uintptr_t)a->data), false);
}

bool pe_overlaps_itself(const pe_view *v) {
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(v->dtype);
    for (int i = 0; i < v->ndim; i++)
        if (v->shape[i] == 0) return false;
    if (nested_in_order(v)) return false;
    problem p;
    begin(&p, size, size);
    for (int i = 0; i < v->ndim; i++) {
        if (v->shape[i] == 1) continue;
        if (v->stride[i] == 0) return true;
        for (int j = 0; j < p.n; j++)
            if (p.terms[j].stride == (v->stride[i] < 0 ? -v->stride[i] : v->stride[i])) return true;
        add_term(&p, v->stride[i], 1 - v->shape[i], v->shape[i] - 1);
    }
    add_reach(&p);
    return reachable(&p, 0, 0, true);
}
