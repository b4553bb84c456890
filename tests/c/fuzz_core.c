/* A libFuzzer target: the fuzzer's bytes choose a call of the core, which must do what its definition says (cases.h).
 *
 *     clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -ffp-contract=off -o fuzz_core \
 *         tests/c/fuzz_core.c csrc/core/?*.c csrc/kernels/?*.c -lm
 *     ./fuzz_core -max_total_time=600 -max_len=512 corpus/
 *
 * The first byte chooses what is asked, the second the level. The core allocates nothing, so there is no allocation to
 * fail.
 */
#include "cases.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool rotation_of_any_input_is_right(struct source *s) {
    static struct rotation_case c;
    const struct pe_kernels *kernels = pe_level((int)draw(s, (size_t)pe_level_count()));
    if (!draw_rotation(s, &c) || rotation_is_right(&c, kernels)) return true;
    fprintf(stderr, "level %s\n", kernels->name);
    print_rotation(&c);
    return false;
}

/* Positions of any value: the check stops what is too large, and what it lets through gives finite numbers. */
static bool table_of_any_positions_is_finite(struct source *s) {
    double position[8], inv_freq[5];
    float cos[40], sin[40];
    for (int i = 0; i < 8; i++) store_bits(&position[i], 8, draw_element(s, PE_F64, one_in(s, 2) ? ANY : UNIT));
    for (int i = 0; i < 5; i++) store_bits(&inv_freq[i], 8, draw_element(s, PE_F64, one_in(s, 2) ? FINITE : UNIT));
    pe_frequencies freq = {.inv_freq = inv_freq, .pairs = 5, .axes = 1, .scale = 1};
    pe_positions positions = {.kind = PE_FLOAT64, .data = (char *)position, .stride = 8};
    pe_frequencies_seal(&freq);
    const struct pe_kernels *kernels = pe_level((int)draw(s, (size_t)pe_level_count()));
    if (pe_check_positions(&freq, &positions, 1, 8, &(double){0}, NULL, NULL) != PE_OK) return true;
    pe_view c = {(char *)cos, 3, PE_F32, {1, 8, 5}, {160, 20, 4}}, d = c;
    d.data = (char *)sin;
    pe_table(kernels, &freq, &positions, &c, &d, one_in(s, 2), NULL, NULL);
    for (int i = 0; i < 40; i++)
        if (!(fabsf(cos[i]) <= 1 && fabsf(sin[i]) <= 1)) return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (arenas[0].twin == NULL) arenas_make();
    if (size < 2) return 0;
    struct source s = {.state = size, .bytes = data + 1, .left = size - 1};
    bool right = true;
    switch (data[0] % 4) {
        case 0: right = overlap_is_right(&s); break;
        case 1: right = table_of_any_positions_is_finite(&s); break;
        default: right = rotation_of_any_input_is_right(&s); break;
    }
    if (!right) abort();
    return 0;
}
