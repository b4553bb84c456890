/* The kernels of the verb add, tried as checkasm.c tries the others: included there, after its helpers.
 *
 * An addition must equal the loop over elements: the product rounded, then the sum, then the element.
 */
#ifndef POSENC_TESTS_CHECKASM_ADD_H
#define POSENC_TESTS_CHECKASM_ADD_H

static void add_by_loop(const struct pe_add *run, const char *x, char *y) {
    size_t size = pe_itemsize(trial.dtype), table_size = trial.dtype == PE_F64 ? 8 : 4;
    for (size_t j = 0; j < run->rows * run->together; j++)
        for (size_t i = 0; i < run->n; i++) {
            ptrdiff_t row = (ptrdiff_t)(j / run->together), k = (ptrdiff_t)(j % run->together);
            const char *from = x + row * run->x_step + k * run->x_apart + i * size;
            const char *t = run->table + row * run->table_step + i * table_size;
            store_bits(y + row * run->y_step + k * run->y_apart + i * size, size,
                       sum_of(trial.dtype, from, t, run->scale));
        }
}

static void try_add(const struct pe_kernels *kernels, struct source *s) {
    size_t size = pe_itemsize(trial.dtype), table_size = trial.dtype == PE_F64 ? 8 : 4, n = trial.pairs;
    enum pe_dtype table_dtype = trial.dtype == PE_F64 ? PE_F64 : PE_F32;
    size_t together = 1 + draw(s, 5), all = trial.rows * together;
    bool beside = one_in(s, 2);
    struct rows x, y;
    lay_out_both(all, n * size, size, &x, &y);
    struct rows table = lay_out(2, trial.one_table_row ? 1 : trial.rows, n * table_size, table_size, false);
    clear(&x), clear(&y), clear(&table);
    fill(s, x.from, x.bytes / size, trial.dtype, trial.values);
    fill(s, table.from, table.bytes / table_size, table_dtype, one_in(s, 4) ? trial.values : UNIT);
    keep(&x), keep(&y);
    struct pe_add run = {.x = x.first,
                         .y = y.first,
                         .x_step = group_step(&x, together, beside),
                         .y_step = group_step(&y, together, beside),
                         .x_apart = step_apart(&x, beside),
                         .y_apart = step_apart(&y, beside),
                         .together = together,
                         .table = table.first,
                         .table_step = trial.one_table_row ? 0 : table.step,
                         .scale = trial.scale,
                         .rows = trial.rows,
                         .n = n,
                         .stream = trial.stream};
    add_by_loop(&run, in_image(&x, x.first), in_image(&y, y.first));
    tried++;
    kernels->add[trial.dtype](&run);
    kernels->stream_end();
    compare(&y, trial.dtype, "the result");
    if (!trial.in_place) compare(&x, trial.dtype, "the input");
}

static void try_adds(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level, .kernel = "add"};
    for (unsigned which = 0; which < PE_DTYPES * PLACES; which++) {
        trial.dtype = (enum pe_dtype)(which % PE_DTYPES);
        trial.place = (enum place)(which / PE_DTYPES);
        for (trial.pairs = 0; trial.pairs <= most_pairs; trial.pairs++)
            for (unsigned how = 0; how < 8; how++) {
                trial.in_place = how & 1, trial.one_table_row = how & 2, trial.stream = how & 4;
                trial.scale = one_in(s, 2) ? 1 : 8 * draw_unit(s) - 4;
                trial.values = (enum values)draw(s, VALUES);
                draw_layout(s, pe_itemsize(trial.dtype));
                try_add(kernels, s);
            }
    }
}

/* sines and cosines in turn are those of sincos_f32 */
static void try_zip(const struct pe_kernels *kernels, struct source *s) {
    static char cos[4 * 1024], sin[4 * 1024];
    double *position = (double *)guard_place(&memory[0], trial.place, trial.rows * 8, trial.shift * 8);
    double *inv_freq = (double *)guard_place(&memory[1], trial.place, trial.pairs * 8, trial.shift * 8);
    draw_numbers(s, position, trial.rows, inv_freq);
    struct rows both = lay_out(2, trial.rows, 8 * trial.pairs, 4, false);
    clear(&both), keep(&both);
    struct pe_sincos job = {.position = position,
                            .inv_freq = inv_freq,
                            .scale = trial.scale,
                            .as_float32 = trial.as_float32,
                            .cos = cos,
                            .sin = sin,
                            .rows = 1,
                            .pairs = trial.pairs};
    for (size_t j = 0; j < trial.rows; j++, job.position++) {
        char *wanted = in_image(&both, both.first) + (ptrdiff_t)j * both.step;
        pe_level(0)->sincos_f32(&job);
        for (size_t i = 0; i < trial.pairs; i++) memcpy(wanted + 8 * i, sin + 4 * i, 4);
        for (size_t i = 0; i < trial.pairs; i++) memcpy(wanted + 8 * i + 4, cos + 4 * i, 4);
    }
    job.position = position, job.rows = trial.rows;
    job.sin = both.first, job.cos = both.first + 4, job.sin_step = job.cos_step = both.step;
    tried++;
    kernels->sincos_zip(&job);
    compare(&both, PE_F32, "the sines and cosines");
}

static void try_zips(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level, .kernel = "sincos_zip"};
    for (unsigned which = 0; which < PLACES; which++) {
        trial.place = (enum place)which;
        for (trial.pairs = 0; trial.pairs <= most_pairs; trial.pairs++)
            for (unsigned how = 0; how < 4; how++) {
                trial.as_float32 = how & 1, trial.scale = how & 2 ? (double)(float)(0.5 + draw_unit(s)) : 1;
                draw_layout(s, 8);
                try_zip(kernels, s);
            }
    }
}

/* fixed results, summed up apart from the other kernels' */
static uint64_t hash_adds(const struct pe_kernels *kernels) {
    static const size_t widths[] = {1, 7, 16, 64, 129};
    struct source s = {.state = 20170612};
    uint64_t hash = hash_start;
    for (unsigned which = 0; which < PE_DTYPES * 5 * 4; which++) {
        enum pe_dtype dtype = (enum pe_dtype)(which % PE_DTYPES);
        size_t n = widths[which / PE_DTYPES % 5], size = pe_itemsize(dtype), table_size = dtype == PE_F64 ? 8 : 4;
        char *x = memory[0].begin, *table = memory[2].begin;
        fill(&s, x, 2 * n, dtype, which / PE_DTYPES / 5 % 2 ? FINITE : UNIT);
        fill(&s, table, 2 * n, dtype == PE_F64 ? PE_F64 : PE_F32, UNIT);
        struct pe_add run = {.x = x,
                             .y = x,
                             .x_step = (ptrdiff_t)(n * size),
                             .y_step = (ptrdiff_t)(n * size),
                             .table = table,
                             .table_step = (ptrdiff_t)(n * table_size),
                             .scale = which / PE_DTYPES / 10 ? 0.3 : 1,
                             .rows = 2,
                             .together = 1,
                             .n = n};
        kernels->add[dtype](&run);
        hash = hash_elements(hash, x, 2 * n, dtype);
    }
    return hash;
}

#endif
