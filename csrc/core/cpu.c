/* An x86 level is a set of CPUID bits, all of them, and the register state that the operating system saves (XGETBV): a
 * processor may have AVX-512 under a system that does not, and the first instruction would trap. The lists of bits here
 * equal the target attributes of kernels/x86_v3.c, x86_v4.c and x86_v4_bf16.c.
 */
#include "cpu.h"

#include <stdint.h>

#include "../kernels/compiler.h"

#ifdef PE_X86_64

#ifdef _MSC_VER
#include <intrin.h>
static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    __cpuidex((int *)r, (int)leaf, (int)subleaf);
}
static uint64_t enabled_state(void) {
    return _xgetbv(0);
}
#else
#include <cpuid.h>
static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    if (!__get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3])) r[0] = r[1] = r[2] = r[3] = 0;
}
static uint64_t enabled_state(void) { /* the instruction by its bytes: not every assembler target has its name */
    uint32_t low, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
#endif

enum { EAX, EBX, ECX };

enum pe_cpu_level pe_cpu_level(void) {
    const uint32_t fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29; /* leaf 1, ECX */
    const uint32_t avx2 = 1u << 5;                                                      /* leaf 7, EBX */
    const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;                  /* F, DQ, BW, VL */
    const uint32_t bf16 = 1u << 5;                                                      /* leaf 7.1, EAX */
    const uint64_t ymm = 0x06, zmm = 0xe6;                                              /* XCR0 */
    uint32_t basic[4], extended[4], more[4] = {0};
    cpuid(1, 0, basic);
    cpuid(7, 0, extended);
    if (extended[EAX] >= 1) cpuid(7, 1, more); /* how many subleaves there are */
    const uint32_t v3 = fma | osxsave | avx | f16c;
    if ((basic[ECX] & v3) != v3 || !(extended[EBX] & avx2)) return PE_CPU_BASE;
    uint64_t state = enabled_state();
    if ((state & ymm) != ymm) return PE_CPU_BASE;
    if ((extended[EBX] & avx512) != avx512 || (state & zmm) != zmm) return PE_CPU_X86_V3;
    return more[EAX] & bf16 ? PE_CPU_X86_V4_BF16 : PE_CPU_X86_V4;
}

#elif defined(PE_ARM64)

enum pe_cpu_level pe_cpu_level(void) {
    return PE_CPU_NEON;
}

#else

enum pe_cpu_level pe_cpu_level(void) {
    return PE_CPU_BASE;
}

#endif
