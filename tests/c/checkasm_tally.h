/* The sums over attention weights, tried as checkasm.c tries the others: included there, after its helpers.
 *
 * All sums must equal those of a loop over elements, in eight lanes where the kernel has lanes.
 */
#ifndef POSENC_TESTS_CHECKASM_TALLY_H
#define POSENC_TESTS_CHECKASM_TALLY_H

static double weight_at(const char *x) {
    double wide;
    if (trial.dtype != PE_F64) return (double)widen(x, trial.dtype);
    memcpy(&wide, x, 8);
    return wide;
}

/* one block, or the rest of one */
static int tally_block_by_loop(const struct pe_tally_run *run, size_t at, size_t n, double *mass) {
    size_t size = pe_itemsize(trial.dtype), steps = (n + PE_TALLY_LANES - 1) / PE_TALLY_LANES;
    double s[PE_TALLY_LANES] = {0}, m[PE_TALLY_LANES] = {0};
    int negative = 0;
    for (size_t v = 0; v < steps; v++)
        for (size_t k = 0; k < PE_TALLY_LANES; k++) {
            size_t j = v * PE_TALLY_LANES + k;
            if (j < n) {
                double w = weight_at(run->x + (at + j) * size);
                run->by_offset[at + j] += w, s[k] += w;
                negative |= signbit(w) != 0;
            }
            m[k] += s[k];
        }
    for (size_t k = 0; k < PE_TALLY_LANES; k++) {
        double whole = (double)steps * s[k], behind = 8 * (whole - m[k]);
        double before = ((double)(run->place + at) + (double)k) * s[k], both = before + behind;
        run->sum[k] += s[k], run->moment[k] += both;
    }
    *mass += ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    return negative;
}

static int tally_by_loop(const struct pe_tally_run *run) {
    int negative = 0;
    double *mass = run->mass;
    for (size_t at = 0, n = run->width - run->place % run->width; at < run->n; at += n, n = run->width, mass++) {
        if (n > run->n - at) n = run->n - at;
        negative |= tally_block_by_loop(run, at, n, mass);
    }
    return negative;
}

static void try_tally(const struct pe_kernels *kernels, struct source *s, bool zeros) {
    enum { MOST_BLOCKS = 600 };
    size_t size = pe_itemsize(trial.dtype), n = trial.pairs;
    struct rows x = lay_out(0, 1, n * size, size, false), y = lay_out(1, 1, n * 8, 8, false);
    double wanted[2 * PE_TALLY_LANES], got[2 * PE_TALLY_LANES], wanted_mass[MOST_BLOCKS], got_mass[MOST_BLOCKS];
    struct pe_tally_run run = {.n = n, .width = one_in(s, 2) ? 1 + draw(s, 40) : n + 1, .place = draw(s, 90)};
    clear(&x), clear(&y);
    fill(s, x.from, n, trial.dtype, trial.values);
    fill(s, y.from, n, PE_F64, UNIT);
    for (size_t i = 0; i < 2 * PE_TALLY_LANES; i++) wanted[i] = got[i] = (double)draw(s, 9);
    for (size_t i = 0; i < MOST_BLOCKS; i++) wanted_mass[i] = got_mass[i] = (double)draw(s, 9);
    if (zeros) memset(x.from, 0, n * size); /* a block of zeros has a path of its own, and all but zeros has not */
    if (zeros && n && one_in(s, 2)) memset(x.from + draw(s, n) * size, 1, 1);
    keep(&x), keep(&y);
    run.x = in_image(&x, x.from), run.by_offset = (double *)(void *)in_image(&y, y.from);
    run.mass = wanted_mass, run.sum = wanted, run.moment = wanted + PE_TALLY_LANES;
    int negative = tally_by_loop(&run);
    tried++;
    run.x = x.from, run.by_offset = (double *)(void *)y.from;
    run.mass = got_mass, run.sum = got, run.moment = got + PE_TALLY_LANES;
    if (!kernels->tally[trial.dtype](&run) != !negative) fail("the signs");
    compare(&y, PE_F64, "the sums by place");
    compare(&x, trial.dtype, "the input");
    if (first_difference(got, wanted, 2 * PE_TALLY_LANES, PE_F64) < 2 * PE_TALLY_LANES) fail("the sum or the moment");
    if (first_difference(got_mass, wanted_mass, MOST_BLOCKS, PE_F64) < MOST_BLOCKS) fail("the mass");
}

static void try_tallies(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level, .kernel = "tally", .rows = 1};
    for (unsigned which = 0; which < PE_DTYPES * PLACES; which++) {
        trial.dtype = (enum pe_dtype)(which % PE_DTYPES);
        trial.place = (enum place)(which / PE_DTYPES);
        for (trial.pairs = 0; trial.pairs <= most_pairs; trial.pairs++)
            for (unsigned how = 0; how < 3; how++) {
                trial.values = (enum values)draw(s, VALUES);
                trial.shift = trial.place == INSIDE ? 1 + draw(s, 7) : 0;
                try_tally(kernels, s, how == 2);
            }
    }
}

static uint64_t hash_tallies(const struct pe_kernels *kernels) {
    static const size_t widths[] = {1, 7, 8, 64, 131, 1024};
    struct source s = {.state = 20240229};
    uint64_t hash = hash_start;
    double sums[2 * PE_TALLY_LANES + 2] = {0};
    for (unsigned which = 0; which < PE_DTYPES * 6; which++) {
        enum pe_dtype dtype = (enum pe_dtype)(which % PE_DTYPES);
        size_t n = widths[which / PE_DTYPES];
        struct pe_tally_run run = {.x = memory[0].begin,
                                   .by_offset = (double *)(void *)memory[1].begin,
                                   .sum = sums,
                                   .moment = sums + PE_TALLY_LANES,
                                   .mass = sums + 2 * PE_TALLY_LANES,
                                   .n = n,
                                   .width = n / 2 + 1};
        fill(&s, memory[0].begin, n, dtype, UNIT);
        fill(&s, memory[1].begin, n, PE_F64, UNIT);
        kernels->tally[dtype](&run);
        hash = hash_elements(hash, memory[1].begin, n, PE_F64);
        hash = hash_elements(hash, (const char *)sums, sizeof sums / sizeof *sums, PE_F64);
    }
    return hash;
}

#endif
