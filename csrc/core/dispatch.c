/* Levels in ascending order, each with what it asks of the processor. A new ISA is one line here. */
#include "dispatch.h"

#include <stddef.h>
#include <string.h>

#include "cpu.h"

static const struct {
    const struct pe_kernels *kernels;
    enum pe_cpu_level needs;
} levels[] = {
    {&pe_kernels_scalar, PE_CPU_BASE},
#ifdef PE_X86_64
    {&pe_kernels_x86_v3, PE_CPU_X86_V3},
    {&pe_kernels_x86_v4, PE_CPU_X86_V4},
    {&pe_kernels_x86_v4_bf16, PE_CPU_X86_V4_BF16},
#endif
#ifdef PE_ARM64
    {&pe_kernels_neon, PE_CPU_NEON},
#endif
};

int pe_level_count(void) {
    int n = 0;
    while (n < (int)(sizeof levels / sizeof *levels) && levels[n].needs <= pe_cpu_level()) n++;
    return n;
}

const struct pe_kernels *pe_level(int level) {
    return levels[level].kernels;
}

const struct pe_kernels *pe_choose(const char *name) {
    int n = pe_level_count();
    if (name == NULL) return pe_level(n - 1);
    for (int i = 0; i < n; i++)
        if (strcmp(pe_level(i)->name, name) == 0) return pe_level(i);
    return NULL;
}
