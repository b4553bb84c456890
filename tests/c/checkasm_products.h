/* The products for gradients, widening and moves, each against its loop: included in checkasm.c, after checkasm_trial.h. */
#ifndef POSENC_TESTS_CHECKASM_PRODUCTS_H
#define POSENC_TESTS_CHECKASM_PRODUCTS_H

/* the sums as a loop over pairs, from and to the images */
static void products_by_loop(const struct pe_products *run, bool wide, const char *x, const char *g, char *straight,
                             char *crossed) {
    size_t size = wide ? 8 : 4, second = run->gap ? (size_t)run->gap / size : 1, step = run->gap ? 1 : 2;
    size_t sum = run->gap ? run->pairs : 1;
    for (size_t j = 0; j < run->rows; j++, x += run->x_step, g += run->g_step) {
        double *s = (double *)(void *)(straight + (ptrdiff_t)j * run->sum_step);
        double *c = (double *)(void *)(crossed + (ptrdiff_t)j * run->sum_step);
        for (size_t i = 0; i < run->pairs; i++) {
            double v[4];
            for (int k = 0; k < 4; k++) {
                const char *at = (k < 2 ? x : g) + (i * step + (k % 2 ? second : 0)) * size;
                float narrow;
                if (wide)
                    memcpy(&v[k], at, 8);
                else
                    memcpy(&narrow, at, 4), v[k] = (double)narrow;
            }
            double *s0 = s + i * step, *c0 = c + i * step;
            s0[0] += v[0] * v[2], s0[sum] += v[1] * v[3];
            c0[0] += v[1] * v[2], c0[sum] += v[0] * v[3];
        }
    }
}

static void try_products(const struct pe_kernels *kernels, bool wide, bool half, struct source *s) {
    size_t size = wide ? 8 : 4, member = trial.pairs * size, gap = half ? member + trial.apart * size : 0;
    size_t row = half && trial.pairs ? gap + member : 2 * member, sums = trial.one_table_row ? 1 : trial.rows;
    if (half && gap == 0) gap = size; /* of no pairs */
    struct rows x = lay_out(0, trial.rows, row, size, false), g = lay_out(1, trial.rows, row, size, false);
    trial.backwards = false;
    struct rows straight = lay_out(2, sums, 2 * trial.pairs * 8, 8, false);
    struct rows crossed = lay_out(3, sums, 2 * trial.pairs * 8, 8, false);
    clear(&x), clear(&g), clear(&straight), clear(&crossed);
    fill(s, x.from, x.bytes / size, wide ? PE_F64 : PE_F32, trial.values);
    fill(s, g.from, g.bytes / size, wide ? PE_F64 : PE_F32, UNIT);
    fill(s, straight.from, straight.bytes / 8, PE_F64, UNIT);
    fill(s, crossed.from, crossed.bytes / 8, PE_F64, UNIT);
    keep(&x), keep(&g), keep(&straight), keep(&crossed);
    struct pe_products run = {.x = x.first,
                              .g = g.first,
                              .x_step = x.step,
                              .g_step = g.step,
                              .gap = (ptrdiff_t)gap,
                              .straight = (double *)(void *)straight.first,
                              .crossed = (double *)(void *)crossed.first,
                              .sum_step = trial.one_table_row ? 0 : straight.step,
                              .rows = trial.rows,
                              .pairs = trial.pairs};
    products_by_loop(&run, wide, in_image(&x, x.first), in_image(&g, g.first), in_image(&straight, straight.first),
                     in_image(&crossed, crossed.first));
    tried++;
    (wide ? kernels->products_f64 : kernels->products_f32)(&run);
    compare(&straight, PE_F64, "the straight sums");
    compare(&crossed, PE_F64, "the crossed sums");
    compare(&x, wide ? PE_F64 : PE_F32, "the input");
}

static void try_all_products(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level};
    for (unsigned which = 0; which < 4 * PLACES; which++) {
        bool wide = which % 2, half = which / 2 % 2;
        trial.kernel = wide ? "products_f64" : "products_f32", trial.dtype = wide ? PE_F64 : PE_F32;
        trial.place = (enum place)(which / 4);
        for (trial.pairs = 0; trial.pairs <= most_pairs; trial.pairs++)
            for (unsigned how = 0; how < 2; how++) {
                trial.one_table_row = how, trial.values = (enum values)draw(s, VALUES);
                draw_layout(s, 8);
                try_products(kernels, wide, half, s);
            }
    }
}

/* every pattern once, and every length */
static void try_widening(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level, .rows = 1};
    for (unsigned which = 0; which < 2 * PLACES * (most_pairs + 2); which++) {
        bool brain = which % 2;
        size_t n = which / 2 / PLACES > most_pairs ? 65536 : which / 2 / PLACES;
        trial.kernel = brain ? "widen_bf16" : "widen_f16", trial.dtype = PE_F32, trial.pairs = n;
        trial.place = (enum place)(which / 2 % PLACES), trial.shift = draw(s, 16);
        struct rows x = lay_out(0, 1, 2 * n, 2, false), y = lay_out(1, 1, 4 * n, 4, false);
        clear(&y), keep(&y);
        for (size_t i = 0; i < n; i++) {
            uint16_t bits = (uint16_t)(n == 65536 ? i : draw_bits(s));
            memcpy(x.from + 2 * i, &bits, 2);
            float wanted = brain ? pe_float_from_bf16(bits) : pe_float_from_f16(bits);
            memcpy(in_image(&y, y.from) + 4 * i, &wanted, 4);
        }
        tried++;
        (brain ? kernels->widen_bf16 : kernels->widen_f16)((const uint16_t *)(void *)x.from, (float *)(void *)y.from,
                                                           n);
        compare(&y, PE_F32, "the result");
    }
}

/* ---- moves ---- */

static void try_moves(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level, .kernel = "stream", .rows = 1};
    for (unsigned which = 0; which < PLACES * 1024; which++) {
        size_t bytes = 2 * (which / PLACES);
        trial.place = (enum place)(which % PLACES), trial.pairs = bytes, trial.shift = 2 * draw(s, 32);
        struct rows x = lay_out(0, 1, bytes, 1, false), y = lay_out(1, 1, bytes, 1, false);
        clear(&y), keep(&y);
        fill(s, x.from, bytes / 2, PE_F16, ANY);
        memcpy(in_image(&y, y.from), x.from, bytes);
        tried++;
        kernels->stream(y.from, x.from, bytes);
        kernels->stream_end();
        compare(&y, PE_F16, "the copy");
    }
}

#endif
