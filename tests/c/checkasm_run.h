/* Rows of cosines and sines whose positions count up, tried as checkasm.c tries the others: included there, after
 * checkasm_sincos.h. However they are made, they must have the bits that the scalar level gives each pair by itself.
 */
#ifndef POSENC_TESTS_CHECKASM_RUN_H
#define POSENC_TESTS_CHECKASM_RUN_H

/* the turns of a run, by the level's own float64 rows */
static void draw_turns(const struct pe_kernels *kernels, const double *inv_freq, size_t pairs, double *turn) {
    static const double times[PE_RUN_TURNS] = {1, 2, 3, 4, PE_RUN_STRIP};
    struct pe_sincos job = {.position = times,
                            .inv_freq = inv_freq,
                            .scale = 1,
                            .cos = (char *)turn,
                            .sin = (char *)(turn + pairs),
                            .cos_step = (ptrdiff_t)(16 * pairs),
                            .sin_step = (ptrdiff_t)(16 * pairs),
                            .rows = PE_RUN_TURNS,
                            .pairs = pairs};
    kernels->sincos_f64(&job);
}

static double draw_start(struct source *s) {
    double sign = one_in(s, 2) ? -1 : 1;
    if (one_in(s, 3)) return (double)draw(s, 100) - 50;
    return sign * floor((one_in(s, 2) ? 65536 : 0x1p30) * draw_unit(s));
}

/* a frequency; one in three takes some position of the run as near to quarter turns as a double can, a few are zero or have
 * no float32 */
static double draw_turning(struct source *s, double start) {
    double p = start + (double)draw(s, trial.rows), turns = floor(fabs(p) / 2 * draw_unit(s));
    if (one_in(s, 20)) return one_in(s, 2) ? 0 : ldexp(draw_unit(s), -(int)draw(s, 1070));
    if (one_in(s, 10)) return 0x1p31 * draw_unit(s) / fmax(1, fmax(fabs(start), fabs(start + (double)trial.rows)));
    return p != 0 && one_in(s, 3) ? turns * half_pi / p : draw_frequency(s, 1);
}

/* Slow frequencies: angles of a few thousandths; half of them up to one, or close to a multiple of a quarter turn. */
static double draw_slow(struct source *s, double start, unsigned kind) {
    double reach = fabs(start) + PE_RUN_MOST, turns = floor(fabs(start) * 0x1p-12 * draw_unit(s));
    if (kind == 0 || one_in(s, 2)) return draw_unit(s) * 0x1p-11 / reach;
    return kind == 1 || start == 0 ? draw_unit(s) / reach : turns * half_pi / start;
}

static void try_run(const struct pe_kernels *kernels, bool zipped, struct source *s) {
    double position[PE_RUN_MOST], start = draw_start(s);
    size_t pairs = trial.pairs, width = zipped ? 2 * pairs : pairs;
    double *turn = (double *)guard_place(&memory[0], trial.place, 2 * PE_RUN_TURNS * pairs * 8, trial.shift * 8);
    double *inv_freq = (double *)guard_place(&memory[1], trial.place, pairs * 8, trial.shift * 8);
    unsigned slow = one_in(s, 3) ? (unsigned)draw(s, 3) : 3;
    for (size_t i = 0; i < pairs; i++)
        inv_freq[i] = slow < 3 && !one_in(s, 20) ? draw_slow(s, start, slow) : draw_turning(s, start);
    draw_turns(kernels, inv_freq, pairs, turn);
    for (size_t j = 0; j < trial.rows; j++) position[j] = start + (double)j;
    struct rows cos = lay_out(2, trial.rows, width * 4, 4, false);
    struct rows sin = zipped ? cos : lay_out(3, trial.rows, width * 4, 4, false);
    clear(&cos), clear(&sin), keep(&cos), keep(&sin);
    struct pe_sincos_run run = {.rows = {.position = position,
                                         .inv_freq = inv_freq,
                                         .scale = trial.scale,
                                         .cos = zipped ? cos.first + 4 : cos.first,
                                         .sin = sin.first,
                                         .cos_step = cos.step,
                                         .sin_step = sin.step,
                                         .rows = trial.rows,
                                         .pairs = pairs},
                                .turn = turn,
                                .turn_step = pairs,
                                .zipped = zipped};
    ptrdiff_t element = zipped ? 8 : 4;
    for (size_t j = 0; j < trial.rows; j++)
        for (size_t i = 0; i < pairs; i++) {
            struct pe_sincos one = run.rows;
            one.position += j, one.inv_freq += i, one.rows = one.pairs = 1;
            one.cos = in_image(&cos, cos.first) + (zipped ? 4 : 0) + (ptrdiff_t)j * cos.step + (ptrdiff_t)i * element;
            one.sin = in_image(&sin, sin.first) + (ptrdiff_t)j * sin.step + (ptrdiff_t)i * element;
            pe_level(0)->sincos_f32(&one);
        }
    tried++;
    kernels->sincos_run(&run);
    compare(&cos, PE_F32, "the cosines");
    compare(&sin, PE_F32, "the sines");
}

static void try_runs(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level};
    trial.kernel = "sincos_run", trial.dtype = PE_F32;
    for (unsigned which = 0; which < 2 * PLACES; which++) {
        trial.place = (enum place)(which / 2);
        for (size_t pairs = 0; pairs <= most_pairs; pairs++) {
            draw_layout(s, 8);
            trial.pairs = one_in(s, 50) ? 512 + draw(s, 200) : pairs;
            trial.rows = 1 + draw(s, trial.pairs <= most_pairs && one_in(s, 6) ? PE_RUN_MOST : 4 * PE_RUN_STRIP);
            trial.scale = one_in(s, 3) ? draw_unit(s) - 0.5 : 1;
            try_run(kernels, which % 2, s);
        }
    }
}

#endif
