/* AVX-512 (F, BW, DQ, VL, BF16) with FMA and F16C: x86_v4 where the processor rounds to bfloat16 itself. A rotation of bfloat16
 * takes 0.7 of the time (Zen 4).
 */
#include "kernels.h"

#ifdef PE_X86_64
#define PE_ATTRIBUTES  PE_TARGET("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#define PE_KERNELS     pe_kernels_x86_v4_bf16
#define PE_ISA_NAME    "x86_v4_bf16"
#define PE_ROUNDS_BF16 1

#include "avx512.inc.h"
#endif
