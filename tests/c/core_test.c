/* The core without Python: what it rotates, for any strides; what overlaps; frequencies, tables and checks.
 *
 *     core_test [--seed N] [--calls N]
 *
 * Rotations and overlaps are random and compared with their definitions (cases.h), on every level this processor has.
 * Prints one hash of fixed results for each level: the same on every level and every processor.
 */
#include "cases.h"
#include "core_add.h"

static unsigned long long seed = 1, calls = 3000, call;
static const struct rotation_case *current;
static int failures;

static void report_call(void) {
    fprintf(stderr, "  seed %llu, call %llu\n", seed, call);
    if (current) print_rotation(current);
}

static void fail_on(const char *what, const struct pe_kernels *kernels) {
    fprintf(stderr, "FAILED: %s%s%s\n", what, kernels ? ", level " : "", kernels ? kernels->name : "");
    report_call();
    if (++failures == 20) exit(1);
}

static void expect(bool good, const char *what) {
    if (!good) fail_on(what, NULL);
}

static void test_overlaps(void) {
    struct source s = {.state = seed};
    for (call = 0; call < 100 * calls; call++)
        if (!overlap_is_right(&s)) expect(false, "overlap by marking bytes");
}

/* Nested strides have an answer at once, whatever the size; tangled ones may be called an overlap, never missed. */
static void test_large_overlaps(void) {
    char *base = arenas[0].guard.begin;
    pe_view a = {base, 4, PE_F32, {64, 32, 4096, 128}, {1 << 26, 1 << 21, 512, 4}}, b = a;
    expect(!pe_overlaps_itself(&a), "a plain array does not overlap itself");
    expect(pe_overlap(&a, &b), "an array overlaps itself as another");
    a.stride[3] = b.stride[3] = 8, a.shape[3] = b.shape[3] = 64, b.data += 4;
    expect(!pe_overlap(&a, &b) && !pe_overlaps_itself(&a), "even and odd elements do not overlap");
    b.data = base + ((ptrdiff_t)1 << 40);
    expect(!pe_overlap(&a, &b), "arrays far apart do not overlap");
    pe_view windows = {base, 2, PE_F64, {1 << 20, 16}, {8, 8}};
    expect(pe_overlaps_itself(&windows), "sliding windows overlap");
    pe_view tangled = {base, 6, PE_F32, {9, 9, 9, 9, 9, 9}, {4 * 30011, 4 * 30013, 4 * 30029, 4 * 30047, 4, 4 * 11}};
    pe_view same = tangled;
    same.data += 4 * 9;
    expect(pe_overlap(&tangled, &same), "an overlap of tangled strides");
}

static void test_rotations(void) {
    static struct rotation_case c;
    struct source s = {.state = seed};
    current = &c;
    for (call = 0; call < calls; call++) {
        struct source before = s;
        for (int level = 0; level < pe_level_count(); level++) {
            s = before;
            while (!draw_rotation(&s, &c)) continue;
            if (!rotation_is_right(&c, pe_level(level))) fail_on("rotation by its definition", pe_level(level));
        }
    }
    current = NULL;
}

static void test_additions(void) {
    static struct add_case c;
    struct source s = {.state = seed};
    for (call = 0; call < calls; call++) {
        struct source before = s;
        for (int level = 0; level < pe_level_count(); level++) {
            s = before;
            while (!draw_addition(&s, &c)) continue;
            if (!addition_is_right(&c, pe_level(level))) fail_on("addition by its definition", pe_level(level));
        }
    }
}

/* cos and sin of pe_table against the definition of a row */
static bool table_is_right(struct source *s, const struct pe_kernels *kernels) {
    static struct row_case c;
    static struct strided tables[2];
    arenas_used = 0;
    memset(&c, 0, sizeof c);
    ptrdiff_t batch = 1 + (ptrdiff_t)draw(s, MAX_BATCH), seq = (ptrdiff_t)draw(s, MAX_ROWS + 1);
    size_t pairs = one_in(s, 30) ? 1 + draw(s, 2050) : 1 + draw(s, 80);
    c.rows.dtype = one_in(s, 2) ? PE_F64 : PE_F32, c.rows.pairs = pairs, c.rows.per_batch = true;
    draw_frequencies(s, &c, pairs);
    if (!draw_positions(s, &c, c.freq.axes, batch, seq, 0)) return true;
    bool plain = one_in(s, 3), stream = one_in(s, 3);
    for (int i = 0; i < 2; i++) {
        pe_view *v = &tables[i].view;
        *v = (pe_view){.ndim = 3, .dtype = c.rows.dtype, .shape = {batch, seq, (ptrdiff_t)pairs}};
        draw_strides(s, v, plain, false);
        if (pairs == 1) v->stride[2] = (ptrdiff_t)pe_itemsize(v->dtype); /* as the caller of pe_table sets it */
        if (!lay(s, &tables[i])) return true;
        memset(tables[i].from, 0xa5, tables[i].bytes);
        memset(in_twin(&tables[i], tables[i].from), 0xa5, tables[i].bytes);
    }
    for (ptrdiff_t b = 0; b < batch; b++)
        for (ptrdiff_t j = 0; j < seq; j++)
            for (size_t i = 0; i < pairs; i++) {
                char *at[2];
                for (int k = 0; k < 2; k++) {
                    const ptrdiff_t *stride = tables[k].view.stride;
                    at[k] = in_twin(&tables[k], tables[k].view.data) + (seq > 1 ? j * stride[1] : 0) +
                            (batch > 1 ? b * stride[0] : 0) + (ptrdiff_t)i * stride[2];
                }
                cos_sin_of(&c.rows, (size_t)b, (size_t)j, i, at[0], at[1]);
            }
    pe_table(kernels, &c.freq, &c.rows.positions, &tables[0].view, &tables[1].view, stream, NULL, NULL);
    for (int k = 0; k < 2; k++) {
        if (memcmp(tables[k].from, in_twin(&tables[k], tables[k].from), tables[k].bytes) == 0) continue;
        fprintf(stderr, "  axes %d, as_float32 %d, stream %d\n", c.freq.axes, c.freq.as_float32, stream);
        print_view(k ? "sin" : "cos", &tables[k].view);
        return false;
    }
    return true;
}

static void test_tables(void) {
    struct source s = {.state = seed};
    for (call = 0; call < calls / 10; call++) {
        struct source before = s;
        for (int level = 0; level < pe_level_count(); level++) {
            s = before;
            if (!table_is_right(&s, pe_level(level))) fail_on("tables by their definition", pe_level(level));
        }
    }
}

static bool stop_after(void *left) {
    return --*(int *)left < 0;
}

/* A call that is asked to stop stops, within a few MiB, and rotates each head once or not at all. */
static void test_stopping(void) {
    enum { HEADS = 8, SEQ = 4096, DIM = 128 };
    static float x[HEADS * SEQ * DIM];
    double zero = 0, inv_freq[DIM / 2] = {0};
    pe_frequencies freq = {.inv_freq = inv_freq, .pairs = DIM / 2, .axes = 1, .scale = 2};
    pe_frequencies_seal(&freq);
    pe_rows rows = {.freq = &freq, .positions = {.kind = PE_FLOAT64, .data = (char *)&zero}, .pairs = DIM / 2};
    pe_view v = {(char *)x, 3, PE_F32, {HEADS, SEQ, DIM}, {4 * SEQ * DIM, 4 * DIM, 4}};
    pe_rotation how = {.layout = PE_HALF, .seq_axis = 1};
    pe_operand operand = {&v, &v};
    for (int allowed = 0; allowed < 40; allowed += 3) {
        int left = allowed, twice = 0;
        for (int i = 0; i < HEADS * SEQ * DIM; i++) x[i] = 1;
        enum pe_status status = pe_rotate(pe_choose(NULL), &how, &rows, &operand, 1, stop_after, &left);
        expect((status == PE_STOPPED) == (left < 0), "a call says that it stopped");
        expect(allowed > 12 || left < 0, "a call of 16 MiB asks whether to stop");
        for (int i = 0; i < HEADS * SEQ * DIM; i++) {
            if (x[i] != 1 && x[i] != 2) expect(false, "an element is rotated once or not at all");
            twice += x[i] == 2;
        }
        expect(left < 0 ? twice <= (allowed + 2) << 18 : twice == HEADS * SEQ * DIM, "a stop comes soon");
    }
}

/* ---- frequencies and checks ---- */

static void test_frequencies(void) {
    static double f[4096];
    pe_inv_freq(16, 4, f);
    expect(f[0] == 1 && f[1] == 0.25, "16**(-1/2)");
    pe_inv_freq(10000, 4, f);
    expect(f[0] == 1 && f[1] == 0.01, "10000**(-1/2)");
    pe_inv_freq(0x1p1000, 500, f);
    for (int i = 0; i < 250; i++) expect(f[i] == ldexp(1, -4 * i), "powers of two are exact");
    pe_inv_freq(1, 64, f);
    expect(f[31] == 1, "base 1");
    struct source s = {.state = seed};
    for (int attempt = 0; attempt < 200; attempt++) {
        double base = exp(40 * draw_unit(&s) - 3);
        size_t r = 2 * (1 + draw(&s, 512));
        pe_inv_freq(base, r, f);
        for (size_t i = 0; i < r / 2; i++) {
            double wanted = pow(base, -2.0 * (double)i / (double)r);
            expect(fabs(f[i] - wanted) < 1e-14 * wanted, "near the C library's power");
        }
        pe_float32_powers(base, r, f);
        for (size_t i = 0; i < r / 2; i++) {
            double wanted = pow(base, 2.0 * (double)i / (double)r);
            expect(f[i] == (double)(float)f[i] && fabs(f[i] - wanted) < 1e-5 * wanted, "the float32 powers");
        }
    }
}

static void test_position_checks(void) {
    double inv_freq[2] = {1, -0.5};
    pe_frequencies freq = {.inv_freq = inv_freq, .pairs = 2, .axes = 1, .scale = 1};
    const struct {
        double value;
        enum pe_status one, two;
    } cases[] = {{0, PE_OK, PE_OK},
                 {-0x1.fffffffffffffp29, PE_OK, PE_OK},
                 {0x1p30, PE_OK, PE_POSITION},
                 {0x1.fffffffffffffp30, PE_OK, PE_POSITION},
                 {-0x1p31, PE_POSITION, PE_POSITION},
                 {INFINITY, PE_POSITION, PE_POSITION},
                 {NAN, PE_POSITION, PE_POSITION}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int place = 0; place < 5; place++) {
            double values[5] = {1, 2, 3, 4, 5}, bad = 0;
            values[place] = cases[i].value;
            pe_positions p = {.kind = PE_FLOAT64, .data = (char *)values, .stride = 8};
            inv_freq[0] = 1, pe_frequencies_seal(&freq);
            expect(pe_check_positions(&freq, &p, 1, 5, &bad, NULL, NULL) == cases[i].one, "positions below 2^31");
            inv_freq[0] = -2, pe_frequencies_seal(&freq);
            expect(pe_check_positions(&freq, &p, 1, 5, &bad, NULL, NULL) == cases[i].two, "angles below 2^31");
            expect(cases[i].two == PE_OK || !memcmp(&bad, &values[place], sizeof bad), "which position is too far");
        }
    inv_freq[0] = 1, pe_frequencies_seal(&freq);
    int64_t starts[] = {
        INT64_MIN, -((int64_t)1 << 31), 1 - ((int64_t)1 << 31), ((int64_t)1 << 31) - 8, ((int64_t)1 << 31) - 7,
        INT64_MAX};
    const enum pe_status wanted[] = {PE_POSITION, PE_POSITION, PE_OK, PE_OK, PE_POSITION, PE_POSITION};
    for (int i = 0; i < 6; i++) {
        double bad;
        pe_positions p = {.kind = PE_RANGE, .data = (char *)&starts[i]};
        expect(pe_check_positions(&freq, &p, 1, 8, &bad, NULL, NULL) == wanted[i], "the ends of a range");
        expect(pe_check_positions(&freq, &p, 1, 0, &bad, NULL, NULL) == PE_OK, "no positions");
    }
}

static void test_row_checks(void) {
    const struct {
        int64_t start, bad;
        enum pe_status wanted;
    } cases[] = {{0, 0, PE_OK},
                 {92, 0, PE_OK},
                 {93, 100, PE_OUT_OF_TABLE},
                 {-1, -1, PE_OUT_OF_TABLE},
                 {INT64_MAX, INT64_MAX, PE_OUT_OF_TABLE},
                 {INT64_MIN, INT64_MIN, PE_OUT_OF_TABLE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t bad = 0, rows[8];
        pe_positions range = {.kind = PE_RANGE, .data = (const char *)&cases[i].start};
        expect(pe_check_rows(&range, 1, 8, 100, NULL, &bad, NULL, NULL) == cases[i].wanted && bad == cases[i].bad,
               "a range of rows");
        for (int j = 0; j < 8; j++)
            rows[j] = cases[i].start > INT64_MAX - j ? INT64_MAX : cases[i].start + j; /* the same one by one */
        pe_positions listed = {.kind = PE_INT64, .data = (const char *)rows, .stride = 8};
        bad = 0;
        expect(pe_check_rows(&listed, 1, 8, 100, NULL, &bad, NULL, NULL) == cases[i].wanted && bad == cases[i].bad,
               "listed rows");
    }
}

static bool count_down(void *left) {
    return --*(int *)left == 0;
}

/* Nothing of the size of the positions is there: they all lie at one place. */
static void test_checks_stop(void) {
    const size_t many = (size_t)10 << 17;
    double inv_freq[1] = {1};
    pe_frequencies freq = {.inv_freq = inv_freq, .pairs = 1, .axes = 1, .scale = 1};
    pe_frequencies_seal(&freq);
    const int64_t zero = 0;
    const struct {
        pe_positions positions;
        size_t batch, seq;
    } cases[] = {{{.kind = PE_FLOAT64, .data = (const char *)&zero}, 1, many},
                 {{.kind = PE_INT64, .data = (const char *)&zero}, many / 8, 8},
                 {{.kind = PE_RANGE, .data = (const char *)&zero}, many, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const pe_positions *p = &cases[i].positions;
        size_t batch = cases[i].batch, seq = cases[i].seq;
        int64_t bad = 0;
        double far;
        expect(pe_positions_read(p, 1, batch, seq) == many, "how many positions are read");
        for (int wanted = 1; wanted < 10; wanted += 4) {
            int left = wanted;
            expect(pe_check_positions(&freq, p, batch, seq, &far, count_down, &left) == PE_STOPPED, "a check stops");
            left = wanted;
            expect(pe_check_rows(p, batch, seq, 8, NULL, &bad, count_down, &left) == PE_STOPPED,
                   "a check of rows stops");
        }
        int left = 100;
        expect(pe_check_positions(&freq, p, batch, seq, &far, count_down, &left) == PE_OK && left == 90,
               "a look every MiB");
        left = 100;
        expect(pe_check_rows(p, batch, seq, 8, NULL, &bad, count_down, &left) == PE_OK && left == 90,
               "a look every MiB");
    }
}

/* ---- one hash of fixed results ---- */

static uint64_t hash_level(const struct pe_kernels *kernels) {
    static struct rotation_case c;
    static double f[512];
    static const double bases[] = {10000, 500000, 1e6, 100, 12345.678, 2};
    struct source s = {.state = 20240229};
    uint64_t hash = hash_start;
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        pe_inv_freq(bases[i], 128, f);
        hash = hash_elements(hash, f, 64, PE_F64);
        pe_float32_powers(bases[i], 80, f);
        hash = hash_elements(hash, f, 40, PE_F64);
    }
    for (int i = 0; i < 200; i++) {
        while (!draw_rotation(&s, &c)) continue;
        pe_operand operands[2] = {{&c.x[0].view, &c.y[0].view}, {&c.x[1].view, &c.y[1].view}};
        pe_rotate(kernels, &c.how, &c.rows.rows, operands, c.n, NULL, NULL);
        for (int k = 0; k < c.n; k++) {
            enum pe_dtype dtype = c.y[k].view.dtype;
            hash = hash_elements(hash, c.y[k].from, c.y[k].bytes / pe_itemsize(dtype), dtype);
        }
    }
    return hash;
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--calls") == 0)
            calls = strtoull(argv[i + 1], NULL, 0);
    }
    arenas_make();
    guard_catch(report_call);
    printf("seed %llu\n", seed);
    test_overlaps();
    test_large_overlaps();
    test_frequencies();
    test_position_checks();
    test_row_checks();
    test_checks_stop();
    test_stopping();
    test_tables();
    test_rotations();
    test_additions();
    for (int level = 0; level < pe_level_count(); level++)
        printf("hash core %-8s %016llx\n", pe_level(level)->name, (unsigned long long)hash_level(pe_level(level)));
    printf("%s\n", failures ? "FAILED" : "all as they should be");
    return failures > 0;
}
