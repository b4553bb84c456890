/* Biases that content decides, from a term (first, second, third, offset, scale, kind) of the Python face:
 *
 *     kind "d"   of_query or None, of_key or None, index, low           see pe_disentangled; index int32, (2, distances),
 *                                                                       the second row backwards
 *     kinds "k" and "s" are the same under other names
 *     kind "p"   query, addend or None, rows, origin                    see pe_projected
 *     kind "g"   of_row, of_column, None, 0                             see pe_grid
 */
#ifndef PE_RELATIVE_H
#define PE_RELATIVE_H

#include "args.h"

typedef struct {
    pe_array arrays[3];
    pe_view views[3]; /* with the axes of the scores */
    bool have[3];
    char kind;
    pe_disentangled disentangled;
    pe_projected projected;
    pe_grid grid;
} pe_relative_args;

bool pe_is_relative(PyObject *term);
int pe_parse_relative(pe_state *state, PyObject *term, const pe_view *scores, const char *scores_name,
                      pe_relative_args *r, pe_bias *bias);
int pe_parse_relative_sums(pe_state *state, PyObject *first, PyObject *second, const pe_view *scores,
                           const pe_relative_args *r, pe_relative_sums *sums);
int pe_check_relative_disjoint(const pe_relative_args *r, const pe_array *out);
void pe_relative_clear(pe_relative_args *r);

#endif
