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

/* a table of entries low .. high, and more */
static struct pe_entries draw_entries(struct source *s, int operand, size_t rows, int32_t low, int32_t high) {
    size_t count = (size_t)(high - low) + 1 + draw(s, 3);
    if (count < PE_BLOCK) count = PE_BLOCK;
    trial.rows = rows;
    struct rows table = lay_out(operand, rows, 4 * count, 4, false);
    clear(&table), fill(s, table.from, table.bytes / 4, PE_F32, trial.values);
    return (struct pe_entries){(const float *)(void *)table.first, table.step / 4, count, low};
}

static float entry_of(const struct pe_entries *e, size_t row, int32_t n) {
    return e->first[(ptrdiff_t)row * e->step + n - e->least];
}

static void try_pick(const struct pe_kernels *kernels, struct source *s) {
    enum { AROUND = 2 * PE_BLOCK, MOST = 2 * MOST_PICKED + 2 * AROUND };
    static int32_t indices[MOST], reversed[MOST];
    trial.kernel = "pick";
    size_t columns = trial.pairs, rows = 1 + draw(s, 40), n = rows + columns + 2 * AROUND;
    bool query = !one_in(s, 3), key = !query || !one_in(s, 3), down = key || one_in(s, 2), add = !one_in(s, 3);
    draw_index(s, indices, n, down);
    for (size_t i = 0; i < n; i++) reversed[i] = indices[n - 1 - i];
    int32_t low = indices[down ? n - 1 : 0], high = indices[down ? 0 : n - 1];
    struct pe_pick job = {.index = indices + AROUND + rows, .reversed = reversed + (n - 1 - AROUND - rows)};
    if (query) job.of_query = draw_entries(s, 0, rows, low, high);
    if (key) job.of_key = draw_entries(s, 1, columns, low, high);
    trial.rows = rows;
    struct rows y = lay_out(2, rows, 4 * columns, 4, false);
    clear(&y), fill(s, y.from, y.bytes / 4, PE_F32, trial.values), keep(&y);
    job.x = add ? y.first : NULL, job.x_step = y.step, job.y = y.first, job.y_step = y.step;
    job.scale = 0.25f * (float)(1 + draw(s, 9)), job.rows = rows, job.columns = columns;
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            int32_t at = job.index[(ptrdiff_t)c - (ptrdiff_t)r];
            char *to = in_image(&y, y.first) + (ptrdiff_t)r * y.step + (ptrdiff_t)(4 * c);
            float value = query ? entry_of(&job.of_query, r, at) : 0;
            if (key) value += entry_of(&job.of_key, c, at);
            float product = job.scale * value;
            store_bits(to, 4, narrow(add ? widen(to, PE_F32) + product : value, PE_F32));
        }
    tried++;
    kernels->pick(&job);
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
        try_pick(kernels, s);
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
    static int32_t indices[256], reversed[256];
    struct source s = {.state = 20060304};
    uint64_t hash = hash_start;
    for (size_t n = PE_BLOCK; n <= 64; n += PE_BLOCK) {
        float *table = (float *)(void *)memory[0].begin, *y = (float *)(void *)memory[1].begin;
        fill(&s, table, 64 * 64, PE_F32, UNIT), fill(&s, y, 64 * 64, PE_F32, UNIT);
        draw_index(&s, indices, 256, true);
        for (size_t i = 0; i < 256; i++) reversed[i] = indices[255 - i];
        int32_t least = indices[255];
        struct pe_entries of_query = {table, 8, 512, least}, of_key = {table + 999, 16, 512, least};
        struct pe_pick job = {of_query, of_key, indices + 128, reversed + 127, (char *)y, (char *)y, 256, 256, 0.3f,
                              29,       n};
        kernels->pick(&job);
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
