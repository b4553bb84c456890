/* What this processor offers and its operating system has switched on. */
#ifndef PE_CPU_H
#define PE_CPU_H

enum pe_cpu_level { PE_CPU_BASE, PE_CPU_X86_V3, PE_CPU_X86_V4, PE_CPU_X86_V4_BF16, PE_CPU_NEON };

enum pe_cpu_level pe_cpu_level(void); /* the best level that may run */

#endif
