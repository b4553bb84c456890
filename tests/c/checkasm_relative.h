/* The kernels of relative attention, tried as checkasm.c tries the others: included there, after its helpers.
 *
 * What is picked must be the very entries; a weighted sum must equal the loop that adds one product after the other.
 */
#ifndef POSENC_TESTS_CHECKASM_RELATIVE_H
#define POSENC_TESTS_CHECKASM_RELATIVE_H

enum { MOST_PICKED = 96 };

/* n numbers that go up, or down, by at most one, from a multiple of how often they move */
static void draw_index(struct source *s, int32_t *index, size_t n, bool down) {
    int32_t at = (int32_t)draw(s, 200) + (down ? (int32_t)n : 0);
    size_t steps = one_in(s, 4) ? 1000 : 1 + draw(s, 4);
    for (size_t i = 0; i < n; i++) {
        index[i] = at;
        if (draw(s, steps) == 0) at += down ? -1 : 1;
    }
}

static const enum pe_dtype entry_dtypes[] = {PE_F32, PE_F16, PE_BF16};

/* rows of entries low .. high, and more */
static struct pe_entries draw_entries(struct source *s, int operand, enum pe_dtype dtype, size_t rows, int32_t low,
                                      int32_t high) {
    size_t count = (size_t)(high - low) + 1 + draw(s, 3), size = pe_itemsize(dtype);
    if (count < PE_BLOCK) count = PE_BLOCK;
    trial.rows = rows;
    struct rows table = lay_out(operand, rows, size * count, size, false);
    clear(&table), fill(s, table.from, table.bytes / size, dtype, trial.values);
    return (struct pe_entries){table.first, table.step, count, low};
}

static float entry_of(const struct pe_entries *e, enum pe_dtype dtype, size_t row, int32_t n) {
    return widen(e->first + (ptrdiff_t)row * e->step + (ptrdiff_t)pe_itemsize(dtype) * (n - e->least), dtype);
}

static void try_pick_down(const struct pe_kernels *kernels, struct source *s) {
    enum { MOST = MOST_PICKED + 2 * MOST_PICKED + 3 * PE_BLOCK };
    static int32_t indices[MOST];
    enum pe_dtype dtype = entry_dtypes[draw(s, 3)];
    trial.kernel = "pick_down";
    size_t columns = trial.pairs, rows = 1 + draw(s, 40), below = columns + PE_BLOCK, n = below + 2 * rows + PE_BLOCK;
    size_t whole_rows = (rows + PE_BLOCK - 1) / PE_BLOCK * PE_BLOCK;
    size_t whole_columns = (columns + PE_BLOCK - 1) / PE_BLOCK * PE_BLOCK;
    draw_index(s, indices, n, false);
    struct pe_pick_down job = {.index = indices + below, .rows = rows, .columns = columns};
    job.of = draw_entries(s, 0, dtype, columns, indices[0], indices[n - 1]);
    trial.rows = whole_rows;
    struct rows y = lay_out(1, whole_rows, 4 * whole_columns, 4, false);
    clear(&y), fill(s, y.from, y.bytes / 4, PE_F32, trial.values), keep(&y);
    job.y = (float *)(void *)y.first, job.y_step = y.step / 4;
    tried++;
    kernels->pick_down[dtype](&job);
    for (size_t r = 0; r < whole_rows; r++)
        for (size_t c = 0; c < whole_columns; c++) {
            char *to = in_image(&y, y.first) + (ptrdiff_t)r * y.step + (ptrdiff_t)(4 * c);
            if (r < rows && c < columns) {
                float value = entry_of(&job.of, dtype, c, job.index[(ptrdiff_t)r - (ptrdiff_t)c]);
                store_bits(to, 4, narrow(value, PE_F32));
            } else {
                memcpy(to, y.first + (ptrdiff_t)r * y.step + (ptrdiff_t)(4 * c), 4); /* any number */
            }
        }
    compare(&y, PE_F32, "the result");
}

static void try_pick_across(const struct pe_kernels *kernels, struct source *s) {
    static int32_t indices[MOST_PICKED + PE_BLOCK];
    enum pe_dtype dtype = entry_dtypes[draw(s, 3)];
    trial.kernel = "pick_across";
    size_t n = trial.pairs, margin = n + PE_BLOCK;
    bool query = !one_in(s, 4), key = !query || !one_in(s, 3), down = one_in(s, 2), add = !one_in(s, 3);
    draw_index(s, indices, margin, down);
    if (one_in(s, 4))
        for (size_t i = 0; i < margin; i++) indices[i] = indices[0];
    int32_t low = indices[down ? margin - 1 : 0], high = indices[down ? 0 : margin - 1];
    struct pe_pick_across job = {.index = indices, .n = n, .scale = 0.25f * (float)(1 + draw(s, 9))};
    if (query) job.of = draw_entries(s, 0, dtype, 1, low < high ? low : high, low < high ? high : low);
    trial.rows = 1;
    struct rows keys = lay_out(1, 1, 4 * n, 4, false), y = lay_out(2, 1, 4 * n, 4, false);
    fill(s, keys.from, n, PE_F32, trial.values);
    clear(&y), fill(s, y.from, n, PE_F32, trial.values), keep(&y);
    job.keys = key ? (const float *)(void *)keys.first : NULL;
    job.y = (float *)(void *)y.first, job.x = add ? job.y : NULL;
    for (size_t c = 0; c < n; c++) {
        char *to = in_image(&y, y.first) + (ptrdiff_t)(4 * c);
        float value = query ? entry_of(&job.of, dtype, 0, indices[c]) : 0;
        if (key) value += job.keys[c];
        float product = job.scale * value;
        store_bits(to, 4, narrow(add ? widen(to, PE_F32) + product : value, PE_F32));
    }
    tried++;
    kernels->pick_across[dtype](&job);
    compare(&y, PE_F32, "the result");
}

static void try_transpose(const struct pe_kernels *kernels, struct source *s) {
    trial.kernel = "transpose";
    size_t columns = trial.pairs, rows = PE_BLOCK * (1 + draw(s, 3));
    trial.rows = rows;
    struct rows x = lay_out(0, rows, 4 * columns, 4, false);
    trial.rows = columns;
    struct rows y = lay_out(1, columns, 4 * rows, 4, false);
    clear(&y), keep(&y);
    fill(s, x.from, x.bytes / 4, PE_F32, ANY);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++)
            memcpy(in_image(&y, y.first) + (ptrdiff_t)c * y.step + (ptrdiff_t)(4 * r),
                   x.first + (ptrdiff_t)r * x.step + (ptrdiff_t)(4 * c), 4);
    tried++;
    kernels->transpose((const float *)(void *)x.first, x.step / 4, (float *)(void *)y.first, y.step / 4, rows, columns);
    compare(&y, PE_F32, "the result");
}

static void try_weigh(const struct pe_kernels *kernels, struct source *s) {
    bool wide = trial.dtype == PE_F64;
    trial.kernel = wide ? "weigh_f64" : "weigh_f32";
    size_t size = wide ? 8 : 4, n = trial.pairs, count = draw(s, 6), a_step = 1 + draw(s, 3);
    struct rows a = lay_out(0, count ? 1 : 0, size * ((count ? count - 1 : 0) * a_step + 1), size, false);
    struct rows b = lay_out(1, count, size * n, size, false), y = lay_out(2, 1, size * n, size, false);
    clear(&y);
    fill(s, a.from, a.bytes / size, trial.dtype, trial.values), fill(s, b.from, b.bytes / size, trial.dtype, UNIT);
    fill(s, y.from, n, trial.dtype, trial.values);
    keep(&y);
    for (size_t k = 0; k < count; k++)
        for (size_t i = 0; i < n; i++) {
            char *sum = in_image(&y, y.from) + i * size;
            const char *weight = a.from + k * a_step * size, *entry = b.first + (ptrdiff_t)k * b.step + i * size;
            if (wide) {
                double p, q, r;
                memcpy(&p, sum, 8), memcpy(&q, weight, 8), memcpy(&r, entry, 8);
                double product = q * r, next = p + product;
                store_bits(sum, 8, load_bits(&next, 8));
            } else {
                float product = widen(weight, PE_F32) * widen(entry, PE_F32);
                store_bits(sum, 4, narrow(widen(sum, PE_F32) + product, PE_F32));
            }
        }
    void *pa = a.from, *pb = b.first, *py = y.from;
    ptrdiff_t b_step = b.step / (ptrdiff_t)size;
    struct pe_weigh_f32 narrow_job = {py, pa, pb, (ptrdiff_t)a_step, b_step, n, count};
    struct pe_weigh_f64 wide_job = {py, pa, pb, (ptrdiff_t)a_step, b_step, n, count};
    tried++;
    if (wide)
        kernels->weigh_f64(&wide_job);
    else
        kernels->weigh_f32(&narrow_job);
    compare(&y, trial.dtype, "the result");
}

static void try_relative(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level};
    for (unsigned which = 0; which < PLACES * 300; which++) {
        trial.place = (enum place)(which % PLACES);
        trial.dtype = PE_F32, trial.values = (enum values)draw(s, VALUES);
        draw_layout(s, 4);
        trial.pairs = 1 + draw(s, MOST_PICKED);
        try_pick_down(kernels, s);
        trial.pairs = 1 + draw(s, MOST_PICKED);
        try_pick_across(kernels, s);
        trial.pairs = PE_BLOCK * (1 + draw(s, MOST_PICKED / PE_BLOCK - 2));
        try_transpose(kernels, s);
    }
    for (unsigned which = 0; which < 2 * PLACES * (most_pairs + 1); which++) {
        trial.place = (enum place)(which / 2 % PLACES);
        trial.dtype = which % 2 ? PE_F64 : PE_F32, trial.values = (enum values)draw(s, VALUES);
        draw_layout(s, 8);
        trial.pairs = which / 2 / PLACES;
        try_weigh(kernels, s);
    }
}

/* fixed results, summed up apart from the other kernels' */
static uint64_t hash_relative(const struct pe_kernels *kernels) {
    static int32_t indices[256];
    struct source s = {.state = 20060304};
    uint64_t hash = hash_start;
    for (size_t n = PE_BLOCK; n <= 64; n += PE_BLOCK) {
        float *table = (float *)(void *)memory[0].begin, *y = (float *)(void *)memory[1].begin;
        fill(&s, table, 64 * 64, PE_F32, UNIT), fill(&s, y, 64 * 64, PE_F32, UNIT);
        float *keys = y + 64 * 64;
        draw_index(&s, indices, 256, false);
        struct pe_entries entries = {(const char *)table, 32, 512, indices[0]};
        struct pe_pick_down down = {entries, indices + 128, keys, 64, 29, n};
        kernels->pick_down[PE_F32](&down);
        for (size_t r = 0; r < 29; r++) {
            struct pe_pick_across across = {entries, indices + 128 - r, keys + 64 * r, y + 64 * r, y + 64 * r, 0.3f,
                                            n - 3};
            kernels->pick_across[PE_F32](&across);
        }
        struct pe_weigh_f32 narrow_job = {y, table, table + 512, 3, 64, 50, n - 9};
        kernels->weigh_f32(&narrow_job);
        hash = hash_elements(hash, y, 64 * 64, PE_F32);
        fill(&s, memory[2].begin, 2048, PE_F64, UNIT);
        double *wide = (double *)(void *)memory[2].begin;
        struct pe_weigh_f64 wide_job = {wide, wide + 100, wide + 200, 2, 20, 19, n - 9};
        kernels->weigh_f64(&wide_job);
        hash = hash_elements(hash, wide, 2048, PE_F64);
    }
    return hash;
}

#endif
