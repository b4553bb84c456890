/* Levels in ascending order, each with what it asks of the processor. A new ISA is one line here.
 *
 * A level that betters another in a few kernels has a table of just these; the others' is laid under it.
 */
#include "dispatch.h"

#include <stddef.h>
#include <string.h>

#include "cpu.h"

static const struct {
    const struct pe_kernels *kernels;
    const struct pe_kernels *under; /* has what the table leaves empty, or NULL */
    enum pe_cpu_level needs;
} levels[] = {
    {&pe_kernels_scalar, NULL, PE_CPU_BASE},
#ifdef PE_X86_64
    {&pe_kernels_x86_v3, NULL, PE_CPU_X86_V3},
    {&pe_kernels_x86_v4, NULL, PE_CPU_X86_V4},
    {&pe_kernels_x86_v4_bf16, &pe_kernels_x86_v4, PE_CPU_X86_V4_BF16},
#endif
#ifdef PE_ARM64
    {&pe_kernels_neon, NULL, PE_CPU_NEON},
#endif
};
enum { LEVELS = sizeof levels / sizeof *levels };

int pe_level_count(void) {
    int n = 0;
    while (n < LEVELS && levels[n].needs <= pe_cpu_level()) n++;
    return n;
}

/* A table is pointers throughout, of one size, and empty is all zeros. */
static void lay_over(const struct pe_kernels *own, const struct pe_kernels *under, struct pe_kernels *whole) {
    enum { SLOT = sizeof(void (*)(void)) };
    static const char empty[SLOT];
    _Static_assert(sizeof(char *) == SLOT && sizeof *own % SLOT == 0, "a table is slots of one size");
    *whole = *under;
    for (size_t at = 0; at < sizeof *own; at += SLOT)
        if (memcmp((const char *)own + at, empty, SLOT) != 0) memcpy((char *)whole + at, (const char *)own + at, SLOT);
}

const struct pe_kernels *pe_level(int level) {
    static struct pe_kernels laid[LEVELS]; /* before there are threads: a level is chosen when the module is loaded */
    const struct pe_kernels *own = levels[level].kernels, *under = levels[level].under;
    if (under == NULL) return own;
    if (laid[level].name == NULL) lay_over(own, under, &laid[level]);
    return &laid[level];
}

const struct pe_kernels *pe_choose(const char *name) {
    int n = pe_level_count();
    if (name == NULL) return pe_level(n - 1);
    for (int i = 0; i < n; i++)
        if (strcmp(pe_level(i)->name, name) == 0) return pe_level(i);
    return NULL;
}
