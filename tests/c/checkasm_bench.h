/* The time of each kernel on rows that lie in L1: included in checkasm.c, after checkasm_trial.h. */
#ifndef POSENC_TESTS_CHECKASM_BENCH_H
#define POSENC_TESTS_CHECKASM_BENCH_H

#include <time.h>

static double seconds(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { BENCH_ROWS = 16, BENCH_PAIRS = 64 }; /* heads of 128 elements, all in L1 */

static void run_once(const struct pe_kernels *kernels, int which) {
    static double position[BENCH_ROWS], inv_freq[BENCH_PAIRS];
    if (which >= 2 * PE_DTYPES) {
        bool wide = which > 2 * PE_DTYPES;
        ptrdiff_t step = BENCH_PAIRS * (wide ? 8 : 4);
        for (int i = 0; i < BENCH_ROWS; i++) position[i] = 1000 + i;
        for (int i = 0; i < BENCH_PAIRS; i++) inv_freq[i] = 1.0 / (1 + i);
        struct pe_sincos job = {.position = position,
                                .inv_freq = inv_freq,
                                .scale = 1,
                                .cos = memory[2].begin,
                                .sin = memory[3].begin,
                                .cos_step = step,
                                .sin_step = step,
                                .rows = BENCH_ROWS,
                                .pairs = BENCH_PAIRS};
        (wide ? kernels->sincos_f64 : kernels->sincos_f32)(&job);
        return;
    }
    enum pe_dtype dtype = (enum pe_dtype)(which / 2);
    ptrdiff_t step = 2 * BENCH_PAIRS * (ptrdiff_t)pe_itemsize(dtype);
    struct pe_run run = {.x = memory[0].begin,
                         .y = memory[0].begin,
                         .x_step = step,
                         .y_step = step,
                         .cos = memory[2].begin,
                         .sin = memory[3].begin,
                         .table_step = BENCH_PAIRS * (dtype == PE_F64 ? 8 : 4),
                         .gap = step / 2,
                         .rows = BENCH_ROWS,
                         .together = 1,
                         .pairs = BENCH_PAIRS};
    (which % 2 ? kernels->interleaved : kernels->half)[dtype](&run);
}

/* ns for a row of 64 pairs: the best of some runs */
static double time_kernel(const struct pe_kernels *kernels, int which) {
    for (int k = 0; k < 4; k++) memset(memory[k].begin, 0, 65536);
    double best = 1;
    for (int attempt = 0; attempt < 20; attempt++) {
        double start = seconds();
        for (int i = 0; i < 500; i++) run_once(kernels, which);
        double each = (seconds() - start) / (500 * BENCH_ROWS);
        if (each < best) best = each;
    }
    return 1e9 * best;
}

static void bench(void) {
    printf("ns for a row of %d pairs, in place\n%-24s", BENCH_PAIRS, "");
    for (int level = 0; level < pe_level_count(); level++) printf("%10s", pe_level(level)->name);
    for (int which = 0; which < 2 * PE_DTYPES + 2; which++) {
        char name[64] = "";
        if (which < 2 * PE_DTYPES)
            snprintf(name, sizeof name, "%s %s", which % 2 ? "interleaved" : "half", dtype_name[which / 2]);
        else
            snprintf(name, sizeof name, "sincos %s", dtype_name[which - 2 * PE_DTYPES]);
        printf("\n%-24s", name);
        for (int level = 0; level < pe_level_count(); level++) printf("%10.1f", time_kernel(pe_level(level), which));
    }
    printf("\n");
}

#endif
