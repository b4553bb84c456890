/* AVX-512 (F, BW, DQ, VL) with FMA and F16C. */
#include "kernels.h"

#ifdef PE_X86_64
#define PE_ATTRIBUTES PE_TARGET("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#define PE_KERNELS    pe_kernels_x86_v4
#define PE_ISA_NAME   "x86_v4"

#include "avx512.inc.h"
#include "table.inc.h"
#endif
