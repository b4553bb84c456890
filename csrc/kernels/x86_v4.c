/* AVX-512 (F, BW, DQ, VL) with FMA and F16C. */
#include "kernels.h"

#ifdef PE_X86_64
#define PE_ATTRIBUTES PE_TARGET("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#define PE_KERNELS    pe_kernels_x86_v4
#define PE_ISA_NAME   "x86_v4"

#include "avx512.inc.h"

#include "avx512_f16.inc.h"

/* Streaming stores need whole, aligned lines: the ragged ends are stored plainly. */
PE_KERNEL void stream(char *y, const char *x, size_t bytes) {
    size_t head = (size_t)(-(uintptr_t)y & 63);
    if (head > bytes) head = bytes;
    memcpy(y, x, head);
    size_t i = head;
    for (; i + 64 <= bytes; i += 64) _mm512_stream_si512((__m512i *)(y + i), _mm512_loadu_si512(x + i));
    memcpy(y + i, x + i, bytes - i);
}
PE_KERNEL void stream_end(void) {
    _mm_sfence();
}

#include "table.inc.h"
#endif
