/* Everything that is instantiated once per element type: included by table.inc.h, once for each.
 *
 * The including file says which element with
 *     PE_E    element name: f32, f64 or f16       PE_T   its storage type
 *     PE_V    prefix of the vector operations: f or d     PE_VEC  the vector type     PE_LANES  its lanes
 *     PE_M    what its loads and stores are named after: PE_E, but where several types of vectors hold the element
 *     PE_RE   the same of the tables              PE_R   their type
 *     PE_TURN    how many vectors of each half of a head are turned at once where several heads share them
 *     PE_AHEAD   how many vectors of a head are read before the first is written
 *     PE_WEIGH   1 for a type that sums are kept in (undefined again here)
 * and has defined PE_FN and PE_KERNEL (function attributes of the ISA), TURN_VECTORS (how many vectors of each half of a head
 * are turned at once: 2 or 4, as there are registers) and, for each name e and prefix v:
 *     ld_e(p)  ldn_e(p, n)  st_e(p, x)  stn_e(p, x, n)     whole vectors, or their first n < lanes elements
 *     sts_e(p, x)       a store past the caches, p a multiple of pe_stream_alignment
 *     v_set(s)          s in every lane
 *     v_add  v_sub  v_mul                                   lane by lane
 *     v_swap(x)         the members of each adjacent pair exchanged
 *     v_addsub(x, y)    x - y in even lanes, x + y in odd ones
 *     v_dup(p)  v_dupn(p, n)    lanes/2 (n) table values, each twice: c0 c0 c1 c1 ..
 * A partial load fills the other lanes with zeros.
 */
#define PE_OP(op)    PE_CAT(PE_CAT(PE_V, _), op)
#define PE_NAME(op)  PE_CAT(PE_CAT(op, _), PE_E)
#define PE_MEM(op)   PE_CAT(PE_CAT(op, _), PE_M)
#define PE_LD(p, n)  ((n) == PE_LANES ? PE_MEM(ld)(p) : PE_MEM(ldn)(p, n))
#define PE_LDR(p, n) ((n) == PE_LANES ? PE_CAT(ld_, PE_RE)(p) : PE_CAT(ldn_, PE_RE)(p, n))

/* n and stream are constants wherever this is expanded */
PE_FN void PE_NAME(store)(PE_T *p, PE_VEC v, size_t n, int stream) {
    if (n == PE_LANES && stream)
        PE_MEM(sts)(p, v);
    else if (n == PE_LANES)
        PE_MEM(st)(p, v);
    else
        PE_MEM(stn)(p, v, n);
}

#include "add.inc.h"
#include "bias.inc.h"
#include "rotate.inc.h"
#ifdef PE_WEIGH
#include "weigh.inc.h"
#undef PE_WEIGH
#endif

#undef PE_OP
#undef PE_NAME
#undef PE_MEM
#undef PE_LD
#undef PE_LDR
#undef PE_E
#undef PE_M
#undef PE_T
#undef PE_V
#undef PE_VEC
#undef PE_LANES
#undef PE_RE
#undef PE_R
#undef PE_TURN
#undef PE_AHEAD
