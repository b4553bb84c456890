/* The sums over attention weights, tried as checkasm.c tries the others: included there, after its helpers.
 *
 * Sums by place must equal the loop over elements; the sum and the first moment of a block the same loop in eight lanes.
 */
#ifndef POSENC_TESTS_CHECKASM_TALLY_H
#define POSENC_TESTS_CHECKASM_TALLY_H

static double weight_at(const char *x) {
    double wide;
    if (trial.dtype != PE_F64) return (double)widen(x, trial.dtype);
    memcpy(&wide, x, 8);
    return wide;
}

static int tally_by_loop(const char *x, size_t n, double *by_offset, double sums[2]) {
    size_t size = pe_itemsize(trial.dtype), steps = (n + PE_TALLY_LANES - 1) / PE_TALLY_LANES;
    double s[PE_TALLY_LANES] = {0}, m[PE_TALLY_LANES] = {0};
    int negative = 0;
    for (size_t v = 0; v < steps; v++)
        for (size_t k = 0; k < PE_TALLY_LANES; k++) {
            size_t j = v * PE_TALLY_LANES + k;
            if (j < n) {
                double w = weight_at(x + j * size);
                by_offset[j] += w, s[k] += w;
                negative |= signbit(w) != 0;
            }
            m[k] += s[k];
        }
    for (size_t k = 0; k < PE_TALLY_LANES; k++) {
        double whole = (double)steps * s[k], behind = 8 * (whole - m[k]), within = (double)k * s[k];
        m[k] = behind + within;
    }
    sums[0] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    sums[1] = ((m[0] + m[4]) + (m[2] + m[6])) + ((m[1] + m[5]) + (m[3] + m[7]));
    return negative;
}

static void try_tally(const struct pe_kernels *kernels, struct source *s, bool zeros) {
    size_t size = pe_itemsize(trial.dtype), n = trial.pairs;
    struct rows x = lay_out(0, 1, n * size, size, false), y = lay_out(1, 1, n * 8, 8, false);
    double wanted[2], got[2];
    clear(&x), clear(&y);
    fill(s, x.from, n, trial.dtype, trial.values);
    fill(s, y.from, n, PE_F64, UNIT);
    if (zeros) memset(x.from, 0, n * size); /* a block of zeros has a path of its own, and all but zeros has not */
    if (zeros && n && one_in(s, 2)) memset(x.from + draw(s, n) * size, 1, 1);
    keep(&x), keep(&y);
    int negative = tally_by_loop(in_image(&x, x.from), n, (double *)(void *)in_image(&y, y.from), wanted);
    tried++;
    if (!kernels->tally[trial.dtype](x.from, n, (double *)(void *)y.from, got) != !negative) fail("the signs");
    compare(&y, PE_F64, "the sums by place");
    compare(&x, trial.dtype, "the input");
    if (first_difference(got, wanted, 2, PE_F64) < 2) fail("the sum or the moment");
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
    double sums[2];
    for (unsigned which = 0; which < PE_DTYPES * 6; which++) {
        enum pe_dtype dtype = (enum pe_dtype)(which % PE_DTYPES);
        size_t n = widths[which / PE_DTYPES];
        fill(&s, memory[0].begin, n, dtype, UNIT);
        fill(&s, memory[1].begin, n, PE_F64, UNIT);
        kernels->tally[dtype](memory[0].begin, n, (double *)(void *)memory[1].begin, sums);
        hash = hash_elements(hash_elements(hash, memory[1].begin, n, PE_F64), (const char *)sums, 2, PE_F64);
    }
    return hash;
}

#endif
