/* Which kernels a call uses: a table of tables, walked once when the module is made. */
#ifndef PE_DISPATCH_H
#define PE_DISPATCH_H

#include "../kernels/kernels.h"

/* Number of levels that this processor can run; level 0 is scalar, higher ones are better. */
int pe_level_count(void);
const struct pe_kernels *pe_level(int level);

/* The best level, or the one of that name; NULL where it is unknown or can't run here. */
const struct pe_kernels *pe_choose(const char *name);

#endif
