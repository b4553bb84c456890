/* The last include of an ISA's file: instantiates the templates and fills its table of kernels.
 *
 * Needs everything the templates name, PE_KERNELS (the table's symbol), PE_ISA_NAME, PE_CASES (1 where common cases get
 * loops of their own, 0 where one loop does for all), and stream and stream_end. May define PE_APART, attributes of long
 * functions that are worth a call; PE_F16_TURN and PE_F16_AHEAD, see PE_TURN and PE_AHEAD in element.inc.h; PE_F16_APART where
 * float16 has vectors of its own, G of GL lanes with operations g_ and loads and stores of f16g and f32g.
 */
#ifndef PE_APART
#define PE_APART PE_FN
#endif
#ifndef PE_F16_TURN
#define PE_F16_TURN  TURN_VECTORS
#define PE_F16_AHEAD (2 * TURN_VECTORS)
#endif

#define PE_E     f32
#define PE_M     f32
#define PE_T     float
#define PE_V     f
#define PE_VEC   F
#define PE_LANES FL
#define PE_RE    f32
#define PE_R     float
#define PE_TURN  TURN_VECTORS
#define PE_AHEAD (2 * TURN_VECTORS)
#define PE_WEIGH 1
#include "element.inc.h"

#define PE_E     f64
#define PE_M     f64
#define PE_T     double
#define PE_V     d
#define PE_VEC   D
#define PE_LANES DL
#define PE_RE    f64
#define PE_R     double
#define PE_TURN  TURN_VECTORS
#define PE_AHEAD (2 * TURN_VECTORS)
#define PE_WEIGH 1
#include "element.inc.h"

#define PE_E f16
#define PE_T uint16_t
#ifdef PE_F16_APART
#define PE_M     f16g
#define PE_V     g
#define PE_VEC   G
#define PE_LANES GL
#define PE_RE    f32g
#else
#define PE_M     f16
#define PE_V     f
#define PE_VEC   F
#define PE_LANES FL
#define PE_RE    f32
#endif
#define PE_R     float
#define PE_TURN  PE_F16_TURN
#define PE_AHEAD PE_F16_AHEAD
#include "element.inc.h"

#include "rotate_bf16.inc.h"

#include "add_bf16.inc.h"
#include "relative.inc.h"
#include "bias_bf16.inc.h"
#include "sincos.inc.h"
#include "sincos_run.inc.h"
#include "gradient.inc.h"

#define PE_E f32
#define PE_T float
#include "pick.inc.h"

#define PE_E f16
#define PE_T uint16_t
#include "pick.inc.h"

#define PE_E bf16
#define PE_T uint16_t
#include "pick.inc.h"

#define PE_E f32
#define PE_T float
#include "attention.inc.h"

#define PE_E f64
#define PE_T double
#include "attention.inc.h"

#define PE_E f16
#define PE_T uint16_t
#include "attention.inc.h"

#define PE_E bf16
#define PE_T uint16_t
#include "attention.inc.h"

const struct pe_kernels PE_KERNELS = {
    .name = PE_ISA_NAME,
    .half = {[PE_F32] = half_f32, [PE_F64] = half_f64, [PE_F16] = half_f16, [PE_BF16] = half_bf16},
    .interleaved = {[PE_F32] = interleaved_f32,
                    [PE_F64] = interleaved_f64,
                    [PE_F16] = interleaved_f16,
                    [PE_BF16] = interleaved_bf16},
    .add = {[PE_F32] = add_f32, [PE_F64] = add_f64, [PE_F16] = add_f16, [PE_BF16] = add_bf16},
    .line = {[PE_F32] = line_f32, [PE_F64] = line_f64, [PE_F16] = line_f16, [PE_BF16] = line_bf16},
    .lookup = {[PE_F32] = lookup_f32, [PE_F64] = lookup_f64, [PE_F16] = lookup_f16, [PE_BF16] = lookup_bf16},
    .sincos_f32 = sincos_f32,
    .sincos_f64 = sincos_f64,
    .sincos_zip = sincos_zip,
    .sincos_run = sincos_run,
    .products_f32 = products_f32,
    .products_f64 = products_f64,
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .tally = {[PE_F32] = tally_f32, [PE_F64] = tally_f64, [PE_F16] = tally_f16, [PE_BF16] = tally_bf16},
    .pick_down = {[PE_F32] = pick_down_f32, [PE_F16] = pick_down_f16, [PE_BF16] = pick_down_bf16},
    .pick_across = {[PE_F32] = pick_across_f32, [PE_F16] = pick_across_f16, [PE_BF16] = pick_across_bf16},
    .weigh_f32 = weigh_f32,
    .weigh_f64 = weigh_f64,
    .transpose = transpose,
    .stream = stream,
    .stream_end = stream_end,
};
