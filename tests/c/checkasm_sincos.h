/* The kernels of cosines and sines, against the scalar level's, one pair at a time, and the C library: included in checkasm.c,
 * after checkasm_trial.h.
 */
#ifndef POSENC_TESTS_CHECKASM_SINCOS_H
#define POSENC_TESTS_CHECKASM_SINCOS_H

static const double half_pi = 0x1.921fb54442d18p+0;

static double draw_frequency(struct source *s, double fastest) {
    switch (draw(s, 8)) {
        case 0: return fastest;
        case 1: return -fastest * draw_unit(s);
        case 2: return one_in(s, 2) ? 0.0 : 0x1p-1060; /* subnormal */
        default: return fastest * draw_unit(s) / (double)(1u << draw(s, 20));
    }
}

/* |position| < limit; one in four as near a multiple of pi/2 as a double gets for a frequency of the row */
static double draw_position(struct source *s, double limit, const double *inv_freq) {
    double sign = one_in(s, 2) ? -1 : 1, near = 0;
    switch (draw(s, 8)) {
        case 0: return sign * 0.0;
        case 1: return sign * (double)draw(s, 65536);
        case 2: return sign * 4096 * draw_unit(s);
        case 3: return 0x1p-1060 * draw_unit(s);
        case 4:
        case 5:
            near = (double)(draw_bits(s) >> 34) * half_pi / inv_freq[draw(s, trial.pairs)];
            if (fabs(near) < limit) return near;
            break;
        default: break;
    }
    return sign * limit * draw_unit(s);
}

static void draw_numbers(struct source *s, double *position, size_t positions, double *inv_freq) {
    double fastest = one_in(s, 3) ? 4 : 1, limit = 0x1p31 * (1 - 0x1p-24) / fastest;
    for (size_t i = 0; i < trial.pairs; i++) inv_freq[i] = draw_frequency(s, fastest);
    for (size_t i = 0; i < positions; i++) position[i] = trial.pairs ? draw_position(s, limit, inv_freq) : 0;
    if (!trial.as_float32) return;
    for (size_t i = 0; i < trial.pairs; i++) inv_freq[i] = (double)(float)inv_freq[i];
    for (size_t i = 0; i < positions; i++) position[i] = (double)(float)position[i];
}

/* the scalar level, one pair at a time, into the images */
static void sincos_by_pair(const struct pe_sincos *job, bool wide, const struct rows *cos, const struct rows *sin) {
    pe_sincos_kernel *kernel = wide ? pe_level(0)->sincos_f64 : pe_level(0)->sincos_f32;
    size_t size = wide ? 8 : 4;
    for (size_t j = 0; j < job->rows; j++)
        for (size_t i = 0; i < job->pairs; i++) {
            struct pe_sincos one = *job;
            one.position = job->each ? job->each + i : job->position + j, one.each = NULL;
            one.inv_freq = job->inv_freq + i, one.rows = one.pairs = 1;
            one.cos = in_image(cos, cos->first) + (ptrdiff_t)j * cos->step + (ptrdiff_t)(i * size);
            one.sin = in_image(sin, sin->first) + (ptrdiff_t)j * sin->step + (ptrdiff_t)(i * size);
            kernel(&one);
        }
}

static void try_sincos(const struct pe_kernels *kernels, bool wide, struct source *s) {
    size_t size = wide ? 8 : 4, positions = trial.each ? trial.pairs : trial.rows;
    if (trial.each && trial.rows > 1) trial.rows = 1;
    double *position = (double *)guard_place(&memory[0], trial.place, positions * 8, trial.shift * 8);
    double *inv_freq = (double *)guard_place(&memory[1], trial.place, trial.pairs * 8, trial.shift * 8);
    draw_numbers(s, position, positions, inv_freq);
    struct rows cos = lay_out(2, trial.rows, trial.pairs * size, size, false);
    trial.padding += draw(s, 3);
    struct rows sin = lay_out(3, trial.rows, trial.pairs * size, size, false);
    clear(&cos), clear(&sin), keep(&cos), keep(&sin);
    double unused = 0;
    struct pe_sincos job = {.position = trial.each ? &unused : position,
                            .each = trial.each ? position : NULL,
                            .inv_freq = inv_freq,
                            .scale = trial.scale,
                            .as_float32 = trial.as_float32,
                            .cos = cos.first,
                            .sin = sin.first,
                            .cos_step = cos.step,
                            .sin_step = sin.step,
                            .rows = trial.rows,
                            .pairs = trial.pairs};
    sincos_by_pair(&job, wide, &cos, &sin);
    tried++;
    (wide ? kernels->sincos_f64 : kernels->sincos_f32)(&job);
    compare(&cos, wide ? PE_F64 : PE_F32, "the cosines");
    compare(&sin, wide ? PE_F64 : PE_F32, "the sines");
}

static void try_all_sincos(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level};
    for (unsigned which = 0; which < 3 * PLACES; which++) {
        bool wide = which % 3 == 1;
        trial.kernel = wide ? "sincos_f64" : "sincos_f32";
        trial.dtype = wide ? PE_F64 : PE_F32;
        trial.as_float32 = which % 3 == 2;
        trial.place = (enum place)(which / 3);
        for (trial.pairs = 0; trial.pairs <= most_pairs; trial.pairs++)
            for (unsigned how = 0; how < 4; how++) {
                trial.each = how & 1, trial.scale = how & 2 ? 0.5 + draw_unit(s) : 1;
                if (trial.as_float32) trial.scale = (double)(float)trial.scale;
                draw_layout(s, 8);
                try_sincos(kernels, wide, s);
            }
    }
}

/* Not too far from the C library, which is right to an ulp of float64: 1e-11 for angles below 1e5. */
static void try_truth(const struct pe_kernels *kernels, struct source *s) {
    for (int i = 0; i < 2000; i++) {
        double p = 1e5 * (2 * draw_unit(s) - 1), w = draw_unit(s), c, d;
        float narrow_c, narrow_d;
        struct pe_sincos job = {
            .position = &p, .inv_freq = &w, .scale = 1, .cos = (char *)&c, .sin = (char *)&d, .rows = 1, .pairs = 1};
        kernels->sincos_f64(&job);
        if (!(fabs(c - cos(p * w)) < 1e-10 && fabs(d - sin(p * w)) < 1e-10)) fail("sincos_f64 is far from the truth");
        job.cos = (char *)&narrow_c, job.sin = (char *)&narrow_d;
        kernels->sincos_f32(&job);
        if (!(fabs((double)narrow_c - c) < 0x1.01p-25 && fabs((double)narrow_d - d) < 0x1.01p-25))
            fail("sincos_f32 is not sincos_f64 rounded");
    }
}

static bool is_near(double got, double wanted, double tolerance) {
    return fabs(got - wanted) <= tolerance * fabs(wanted);
}

/* Angles that nearly cancel a multiple of pi/2, one in each quarter, found by continued fractions; the cosine or sine
 * that is nearly zero, from mpmath with 400 bits. */
static void try_cancellation(const struct pe_kernels *kernels) {
    static const struct {
        double position, inv_freq, cos, sin;
    } cases[] = {{0x1.93e202798af0bp+30, 0x1.999999999999ap-4, 1, -0x1.1a4b994775ed0p-55},
                 {0x1.68933c75acba4p+30, 0x1.bb5fad00ab22cp-1, 0x1.103bf21acaae0p-53, 1},
                 {0x1.55202aefde314p+30, 1, -1, -0x1.10c745b9374bcp-52},
                 {0x1.55202aefde314p+29, 1, 0x1.10c745b9374bcp-53, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double c, d;
        float narrow_c, narrow_d;
        struct pe_sincos job = {.position = &cases[i].position,
                                .inv_freq = &cases[i].inv_freq,
                                .scale = 1,
                                .cos = (char *)&c,
                                .sin = (char *)&d,
                                .rows = 1,
                                .pairs = 1};
        kernels->sincos_f64(&job);
        if (!is_near(c, cases[i].cos, 0x1p-52) || !is_near(d, cases[i].sin, 0x1p-52))
            fail("sincos_f64 where angle and multiple of pi/2 cancel");
        job.cos = (char *)&narrow_c, job.sin = (char *)&narrow_d;
        kernels->sincos_f32(&job);
        if (!is_near((double)narrow_c, cases[i].cos, 0x1p-24) || !is_near((double)narrow_d, cases[i].sin, 0x1p-24))
            fail("sincos_f32 where angle and multiple of pi/2 cancel");
    }
}

static uint64_t hash_sincos(uint64_t hash, const struct pe_kernels *kernels, struct source *s) {
    double position[64], inv_freq[67];
    trial = (struct trial){.level = trial.level, .rows = 64, .pairs = 67};
    for (int which = 0; which < 60; which++) {
        bool wide = which % 3 == 1;
        trial.as_float32 = which % 3 == 2;
        draw_numbers(s, position, 64, inv_freq);
        ptrdiff_t step = 67 * (wide ? 8 : 4);
        struct pe_sincos job = {.position = position,
                                .inv_freq = inv_freq,
                                .scale = which % 2 ? 1.25 : 1,
                                .as_float32 = trial.as_float32,
                                .cos = memory[2].begin,
                                .sin = memory[3].begin,
                                .cos_step = step,
                                .sin_step = step,
                                .rows = 64,
                                .pairs = 67};
        (wide ? kernels->sincos_f64 : kernels->sincos_f32)(&job);
        hash = hash_elements(hash, job.cos, 64 * 67, wide ? PE_F64 : PE_F32);
        hash = hash_elements(hash, job.sin, 64 * 67, wide ? PE_F64 : PE_F32);
    }
    return hash;
}

#endif
