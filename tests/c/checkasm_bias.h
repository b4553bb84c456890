/* The row kernels of biases, tried as checkasm.c tries the others: included there, after checkasm_add.h.
 *
 * A line must equal the loop over elements with the distance as a number; a lookup the loop over its indices, any of which
 * may lie before the element that t points to.
 */
#ifndef POSENC_TESTS_CHECKASM_BIAS_H
#define POSENC_TESTS_CHECKASM_BIAS_H

/* the distance as the kernel's own kind of number, whose product with the slope sum_of rounds */
static uint64_t on_the_line(const void *x, double slope, int64_t distance) {
    union {
        double wide;
        float narrow;
    } number;
    if (trial.dtype == PE_F64)
        number.wide = fabs((double)distance);
    else
        number.narrow = (float)fabs((double)distance);
    return sum_of(trial.dtype, x, &number, slope);
}

static int32_t draw_first(struct source *s, size_t n) {
    switch (draw(s, 4)) {
        case 0: return -(int32_t)draw(s, n + 1); /* the distance changes its sign within the row */
        case 1: return INT32_MAX - (int32_t)n;
        case 2: return -INT32_MAX;
        default: return (int32_t)draw(s, 65536) << draw(s, 10);
    }
}

static void try_line(const struct pe_kernels *kernels, struct source *s) {
    size_t size = pe_itemsize(trial.dtype), n = trial.pairs;
    struct rows x = lay_out(0, 1, n * size, size, false);
    struct rows y = trial.in_place ? x : lay_out(1, 1, n * size, size, false);
    clear(&x), clear(&y);
    fill(s, x.from, n, trial.dtype, trial.values);
    keep(&x), keep(&y);
    struct pe_line_run run = {.x = x.from, .y = y.from, .slope = trial.scale, .first = draw_first(s, n), .n = n};
    const char *from = in_image(&x, x.from);
    for (size_t i = 0; i < n; i++)
        store_bits(in_image(&y, y.from) + i * size, size,
                   on_the_line(from + i * size, run.slope, (int64_t)run.first + (int64_t)i));
    tried++;
    kernels->line[trial.dtype](&run);
    compare(&y, trial.dtype, "the result");
    if (!trial.in_place) compare(&x, trial.dtype, "the input");
}

static void try_lookup(const struct pe_kernels *kernels, struct source *s) {
    enum pe_dtype table_dtype = trial.dtype == PE_F64 ? PE_F64 : PE_F32;
    size_t size = pe_itemsize(trial.dtype), table_size = pe_itemsize(table_dtype), n = trial.pairs;
    size_t length = 1 + draw(s, 100), zero = draw(s, length);
    struct rows x = lay_out(0, 1, n * size, size, false);
    struct rows y = trial.in_place ? x : lay_out(1, 1, n * size, size, false);
    struct rows table = lay_out(2, 1, length * table_size, table_size, false);
    struct rows index = lay_out(3, 1, n * sizeof(int32_t), sizeof(int32_t), false);
    clear(&x), clear(&y);
    fill(s, x.from, n, trial.dtype, trial.values);
    fill(s, table.from, length, table_dtype, one_in(s, 4) ? trial.values : UNIT);
    keep(&x), keep(&y);
    const char *from = in_image(&x, x.from);
    for (size_t i = 0; i < n; i++) {
        size_t entry = draw(s, length);
        store_bits(index.from + i * sizeof(int32_t), sizeof(int32_t), (uint64_t)((int64_t)entry - (int64_t)zero));
        store_bits(in_image(&y, y.from) + i * size, size,
                   sum_of(trial.dtype, from + i * size, table.from + entry * table_size, trial.scale));
    }
    struct pe_lookup_run run = {.x = x.from,
                                .y = y.from,
                                .t = table.from + zero * table_size,
                                .index = (const int32_t *)(void *)index.from,
                                .scale = trial.scale,
                                .n = n};
    tried++;
    kernels->lookup[trial.dtype](&run);
    compare(&y, trial.dtype, "the result");
    if (!trial.in_place) compare(&x, trial.dtype, "the input");
}

static void try_biases(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level};
    for (unsigned which = 0; which < 2 * PE_DTYPES * PLACES; which++) {
        trial.kernel = which % 2 ? "lookup" : "line";
        trial.dtype = (enum pe_dtype)(which / 2 % PE_DTYPES);
        trial.place = (enum place)(which / 2 / PE_DTYPES);
        for (trial.pairs = 0; trial.pairs <= most_pairs; trial.pairs++)
            for (unsigned how = 0; how < 4; how++) {
                trial.in_place = how & 1;
                trial.scale = how & 2 ? 8 * draw_unit(s) - 4 : one_in(s, 2) ? 1 : -0x1p-8;
                trial.values = (enum values)draw(s, VALUES);
                draw_layout(s, pe_itemsize(trial.dtype));
                trial.backwards = false, trial.rows = 1;
                (which % 2 ? try_lookup : try_line)(kernels, s);
            }
    }
}

/* fixed results, summed up apart from the other kernels' */
static uint64_t hash_biases(const struct pe_kernels *kernels) {
    static const size_t widths[] = {1, 7, 16, 64, 129};
    struct source s = {.state = 20210827};
    uint64_t hash = hash_start;
    for (unsigned which = 0; which < 2 * PE_DTYPES * 5; which++) {
        enum pe_dtype dtype = (enum pe_dtype)(which / 2 % PE_DTYPES);
        size_t n = widths[which / 2 / PE_DTYPES];
        char *x = memory[0].begin, *table = memory[2].begin;
        int32_t *index = (int32_t *)(void *)memory[3].begin;
        fill(&s, x, n, dtype, UNIT);
        fill(&s, table, 32, dtype == PE_F64 ? PE_F64 : PE_F32, UNIT);
        for (size_t i = 0; i < n; i++) index[i] = (int32_t)draw(&s, 32);
        struct pe_line_run line = {.x = x, .y = x, .slope = -0.3, .first = -40, .n = n};
        struct pe_lookup_run lookup = {.x = x, .y = x, .t = table, .index = index, .scale = 0.3, .n = n};
        if (which % 2)
            kernels->lookup[dtype](&lookup);
        else
            kernels->line[dtype](&line);
        hash = hash_elements(hash, x, n, dtype);
    }
    return hash;
}

#endif
