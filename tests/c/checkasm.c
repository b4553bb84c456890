/* Every kernel of every level this processor can run, without Python.
 *
 *     checkasm [--seed N] [--level NAME] [--most PAIRS] [--bench]
 *
 * A rotation must equal the loop over pairs that the papers write; a row of cosines and sines must equal the scalar
 * level's, made one pair at a time; an addition the loop over elements; bit for bit, but any NaN for a NaN. Every number
 * of pairs from 0 to 257 (--most) is tried with each way to lie in memory, between pages that trap; nothing outside the
 * stated elements may change. What a kernel may be asked is written in csrc/kernels/kernels.h. The first failures are
 * printed with all that it takes to repeat them.
 * Prints one hash of the results for each level and verb: the same on every level and every processor.
 */
#include "guard.h"
#include "testing.h"

#include <math.h>

#include "../../csrc/core/dispatch.h"

#include "checkasm_trial.h"

#include "checkasm_rotate.h"
#include "checkasm_sincos.h"

#include "checkasm_products.h"

#include "checkasm_add.h"
#include "checkasm_bias.h"
#include "checkasm_relative.h"
#include "checkasm_run.h"
#include "checkasm_tally.h"

#include "checkasm_bench.h"

static uint64_t hash_level(const struct pe_kernels *kernels) {
    struct source s = {.state = 20240229};
    return hash_sincos(hash_rotations(hash_start, kernels, &s), kernels, &s);
}

static void check_level(const struct pe_kernels *kernels) {
    struct source s = {.state = seed};
    unsigned long long failed_before = failed;
    trial = (struct trial){.level = kernels->name};
    tried = 0;
    try_rotations(kernels, &s);
    try_all_halves(kernels, &s);
    try_all_sincos(kernels, &s);
    try_truth(kernels, &s);
    try_cancellation(kernels);
    try_all_products(kernels, &s);
    try_widening(kernels, &s);
    try_moves(kernels, &s);
    try_adds(kernels, &s);
    try_zips(kernels, &s);
    try_biases(kernels, &s);
    try_relative(kernels, &s);
    try_tallies(kernels, &s);
    try_runs(kernels, &s);
    printf("%-8s %llu cases, %llu failed\n", kernels->name, tried, failed - failed_before);
    printf("hash kernels %-8s %016llx\n", kernels->name, (unsigned long long)hash_level(kernels));
    printf("hash add     %-8s %016llx\n", kernels->name, (unsigned long long)hash_adds(kernels));
    printf("hash bias    %-8s %016llx\n", kernels->name, (unsigned long long)hash_biases(kernels));
    printf("hash relative %-7s %016llx\n", kernels->name, (unsigned long long)hash_relative(kernels));
    printf("hash tally   %-8s %016llx\n", kernels->name, (unsigned long long)hash_tallies(kernels));
    fflush(stdout);
}

int main(int argc, char **argv) {
    const char *only = NULL;
    bool timing = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0)
            timing = true;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--level") == 0 && i + 1 < argc)
            only = argv[++i];
        else if (strcmp(argv[i], "--most") == 0 && i + 1 < argc)
            most_pairs = strtoull(argv[++i], NULL, 0);
        else
            return fprintf(stderr, "usage: %s [--seed N] [--level NAME] [--most PAIRS] [--bench]\n", argv[0]), 2;
    }
    if (most_pairs > 1024) most_pairs = 1024; /* what the memory holds */
    for (int k = 0; k < 4; k++) memory[k] = guard_make(MEMORY), image[k] = malloc(MEMORY + 65536);
    if (timing) return bench(), 0;
    guard_catch(report_trial);
    printf("seed %llu\n", seed);
    int levels = 0;
    for (int level = 0; level < pe_level_count(); level++) {
        if (only && strcmp(pe_level(level)->name, only) != 0) continue;
        check_level(pe_level(level));
        levels++;
    }
    if (levels == 0) return fprintf(stderr, "no level %s on this processor\n", only), 2;
    return failed > 0;
}
