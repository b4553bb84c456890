/* Strided arrays in guarded memory, drawn from a seed or from a fuzzer's bytes. */
#ifndef POSENC_TESTS_CASES_ARRAYS_H
#define POSENC_TESTS_CASES_ARRAYS_H

#include "guard.h"
#include "testing.h"

#include "../../csrc/core/dispatch.h"

enum { ARENA = 1 << 20, MAX_HEAD = 4200, MAX_ROWS = 40, MAX_BATCH = 4, ARENAS = 16 };

struct arena {
    struct guard guard;
    char *twin; /* ordinary memory of the same size */
};
static struct arena arenas[ARENAS];
static int arenas_used;

static inline void arenas_make(void) {
    for (int i = 0; i < ARENAS; i++) arenas[i] = (struct arena){guard_make(ARENA), calloc(1, ARENA)};
}

/* ---- a strided array ---- */

struct strided {
    pe_view view;
    struct arena *arena;
    char *from; /* lowest byte, and how many from there on */
    size_t bytes;
};

static inline char *in_twin(const struct strided *a, const char *p) {
    return a->arena->twin + (p - a->arena->guard.begin);
}

/* Strides for v's shape that store every element once: each axis steps over all that lies inside of it. */
static inline void draw_strides(struct source *s, pe_view *v, bool plain, bool repeat) {
    int order[PE_MAX_DIM], at = 0;
    ptrdiff_t size = (ptrdiff_t)pe_itemsize(v->dtype), reach = size;
    for (int i = v->ndim - 1; i >= 0; i--) order[at++] = i;
    for (int i = 1; i < v->ndim && !plain; i++) {
        int j = (int)draw(s, (size_t)i + 1), swapped = order[i];
        order[i] = order[j], order[j] = swapped;
    }
    for (int i = 0; i < v->ndim; i++) {
        ptrdiff_t n = v->shape[order[i]], *stride = &v->stride[order[i]];
        *stride = reach + (plain || !one_in(s, 3) ? 0 : (ptrdiff_t)draw(s, 5) * size);
        if (n > 0) reach = *stride * n;
        if (repeat && one_in(s, 6)) *stride = 0;
        if (!plain && one_in(s, 4)) *stride = -*stride;
        if (n == 1 && one_in(s, 2)) *stride = (ptrdiff_t)draw_bits(s) >> 20;
    }
}

/* Lay it against a guard page; false where it is too large. */
static inline bool lay(struct source *s, struct strided *a) {
    pe_view *v = &a->view;
    ptrdiff_t low = 0, high = (ptrdiff_t)pe_itemsize(v->dtype);
    for (int i = 0; i < v->ndim; i++) {
        if (v->shape[i] < 2) continue;
        ptrdiff_t reach = (v->shape[i] - 1) * v->stride[i];
        *(reach < 0 ? &low : &high) += reach;
    }
    a->bytes = pe_elements(v) ? (size_t)(high - low) : 0;
    if (a->bytes > ARENA || arenas_used == ARENAS) return false;
    a->arena = &arenas[arenas_used++];
    a->from = guard_place(&a->arena->guard, (enum place)draw(s, 2), a->bytes, 0);
    v->data = a->bytes ? a->from - low : a->from;
    return true;
}

static inline bool draw_array(struct source *s, struct strided *a, enum values values, bool repeat) {
    bool plain = one_in(s, 3);
    draw_strides(s, &a->view, plain, repeat);
    if (!lay(s, a)) { /* too large with its gaps */
        draw_strides(s, &a->view, true, false);
        if (!lay(s, a)) return false;
    }
    fill(s, a->from, a->bytes / pe_itemsize(a->view.dtype), a->view.dtype, values);
    return true;
}

#endif
