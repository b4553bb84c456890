/* Rows of float32 cosines and sines at positions that count up: a template, included once per ISA after sincos.inc.h.
 *
 * A row is the one before it turned by its frequencies, in float64: four products a pair, where an angle of its own takes
 * fourteen. The first row of a run is that of sincos_f64. Of each four rows three are the first one turned once, twice and
 * three times, and the next four begin with it turned four times; a strip of rows begins with the first row of the strip
 * before it, turned as often as a strip is long. A turn keeps the length of the error of (cos, sin) and adds less than
 * 2^-51.2 to it (the turn's own error, two roundings each), so those of PE_RUN_MOST rows, nineteen turns at most, are below
 * 2^-46.9 of their scale, which the first row has already.
 *
 * The bits are those of sincos_f32 and sincos_zip, wherever a run begins. What these round to float32 has a relative error
 * below 2^-35.6; here, of numbers from PE_RUN_LEAST on, another 2^-36.5. Together that is less than PE_RUN_DOUBT units of a
 * float64's last place, by a hair, as fewer numbers would be below a smaller LEAST: what is further than this from the middle
 * between two float32 is on the same side of it both ways. All else, some blocks in a hundred, is made again by the steps of
 * the other kernels: a bit is noted for it, without a branch, and it is done when a strip of rows is complete.
 *
 * An angle that grows from zero on, and does not leave the first eighth of a turn, is different. Its sine is a sum of two
 * products of one sign in every turn, and so are their errors: they stay below 2^-45 of the sine, however small it is. Slow
 * frequencies, and those of scaled tables most of all, would else be made again row after row.
 *
 * Needs, besides what sincos.inc.h needs,
 *     f_low_mixed(x, y)     f_low, its lanes in any order
 *     f_suspect(x, y, add, bits, u, v, least)     whether in some lane the sum of x and add, or of y and add, as integers of
 *                                                 32 bits that wrap, has none of the bits, or |u| or |v| is below least
 */
/* A strip's rows are written in blocks of pairs, whose turns then come from the first cache. More rows at once take longer
 * where they are short, fewer where they are long. */
enum { RUN_STRIP = PE_RUN_STRIP, RUN_TURNS = PE_RUN_TURNS - 1, RUN_BLOCKS = SINCOS_BLOCK / PL };

struct sincos_run {
    struct pe_sincos job; /* of up to SINCOS_BLOCK pairs */
    const double *turn;
    size_t turn_step;
    ptrdiff_t below; /* to the same row of the next strip */
    struct sincos_turns turns;
    PE_ALIGNED(64) double cos[SINCOS_BLOCK], sin[SINCOS_BLOCK]; /* of a strip's first row */
    PE_ALIGNED(64) float least[SINCOS_BLOCK];                   /* below this it must be made again */
    uint16_t again[RUN_BLOCKS];                                 /* a bit for each row of the strip */
};

PE_FN void run_turn(const struct sincos_run *run, size_t times, size_t i, size_t n, P *cos, P *sin) {
    const double *turn = run->turn + 2 * (times - 1) * run->turn_step + i;
    P c = p_ld(turn, n), s = p_ld(turn + run->turn_step, n), x = *cos, y = *sin;
    *cos = p_fnma(y, s, p_mul(x, c));
    *sin = p_fma(x, s, p_mul(y, c));
}

/* Whether it must be made again. Of a float64 that is less than PE_RUN_DOUBT from a middle the low 29 bits, plus as much and
 * half of their range, wrap to less than 2 * PE_RUN_DOUBT. */
PE_FN int run_suspect(P c, P s, F fc, F fs, F least) {
    enum { HALF = 1 << 28, BITS = (1 << 29) - 1, DOUBT = (int32_t)PE_RUN_DOUBT };
    return f_suspect(p_low_mixed(c), p_low_mixed(s), HALF + DOUBT, BITS & ~(2 * DOUBT - 1), fc, fs, least);
}

/* What is written next is fetched: of many rows at once the hardware does not run ahead. */
PE_FN void run_fetch(const float *from, ptrdiff_t below, size_t n) {
    for (size_t k = 0; k < n; k += 64 / sizeof *from) PE_PREFETCH2((const char *)(from + k) + below);
}

/* where a row goes, its block of pairs fetched in the next strip */
PE_FN void run_row(const struct sincos_run *run, size_t row, size_t i, enum sincos_form form, float **cos,
                   float **sin) {
    *cos = (float *)(run->job.cos + (ptrdiff_t)row * run->job.cos_step);
    *sin = (float *)(run->job.sin + (ptrdiff_t)row * run->job.sin_step);
    if (form == SINCOS_ZIP) {
        run_fetch(*sin + 2 * i, run->below, 2 * FL);
    } else {
        run_fetch(*cos + i, run->below, FL);
        run_fetch(*sin + i, run->below, FL);
    }
}

/* PL pairs, or n of them, in `count` rows from one on */
PE_FN void run_pairs(struct sincos_run *run, size_t row, size_t count, size_t i, size_t n, enum sincos_form form) {
    P cos = p_ld(run->cos + i, PL), sin = p_ld(run->sin + i, PL);
    F least = ld_f32(run->least + i);
    unsigned again = 0;
    for (size_t first = 0; first < count; first += RUN_TURNS) {
        for (size_t k = 0; k < RUN_TURNS && first + k < count; k++) {
            P c = cos, s = sin;
            float *to_cos, *to_sin;
            if (k) run_turn(run, k, i, n, &c, &s);
            F fc = p_narrow(c), fs = p_narrow(s);
            run_row(run, row + first + k, i, form, &to_cos, &to_sin);
            sincos_store_pairs(to_cos, to_sin, fc, fs, i, n, form);
            again |= (unsigned)run_suspect(c, s, fc, fs, least) << (first + k);
        }
        if (first + RUN_TURNS < count) run_turn(run, RUN_TURNS, i, n, &cos, &sin);
    }
    cos = p_ld(run->cos + i, PL), sin = p_ld(run->sin + i, PL);
    run_turn(run, RUN_TURNS + 1, i, n, &cos, &sin);
    p_st_f64(run->cos + i, cos, PL), p_st_f64(run->sin + i, sin, PL);
    run->again[i / PL] = (uint16_t)again;
}

/* the same for what is rare, the end of a run or of its rows: called, not expanded */
PE_KERNEL PE_NOINLINE void run_rest(struct sincos_run *run, size_t row, size_t count, size_t i, size_t n,
                                    enum sincos_form form) {
    run_pairs(run, row, count, i, n, form);
}

PE_FN void run_again(const struct sincos_run *run, size_t row, enum sincos_form form) {
    size_t pairs = run->job.pairs;
    for (size_t i = 0; i < pairs; i += PL)
        for (unsigned again = run->again[i / PL]; again; again &= again - 1)
            sincos_rest_f32(&run->job, &run->turns, row + pe_lowest(again), 1, i, form);
}

/* Below what results are made again: by the scale, but for slow angles, where it keeps clear of what float32 has no exponent
 * for. Where nothing turns, it is zero. */
PE_FN F run_least(const struct pe_sincos *job, size_t i, size_t n) {
    double first = job->position[0], last = fabs(job->position[job->rows - 1]), slow = first < 0 ? 0 : 0.75;
    P w = p_ld(job->inv_freq + i, n), least = p_abs(p_mul(p_set(job->scale), p_set(PE_RUN_LEAST)));
    F beyond = p_narrow(p_sub(p_mul(p_abs(w), p_set(last)), p_set(slow)));
    F turns = p_narrow(p_mul(w, p_set(0x1p1000))); /* zero just where w is: float32 has no exponent for all that turn */
    return f_nonzero(turns, f_blend(p_narrow(least), f_set(0x1p-120f), beyond));
}

/* the first row, and what is too small for it and its followers */
PE_FN void run_begin(struct sincos_run *run) {
    const struct pe_sincos *job = &run->job;
    struct pe_sincos first = *job;
    P scale = p_set(job->scale);
    size_t last = job->pairs / PL * PL;
    if (last < job->pairs) p_st_f64(run->cos + last, p_set(0.0), PL), p_st_f64(run->sin + last, p_set(0.0), PL);
    first.cos = (char *)run->cos, first.sin = (char *)run->sin, first.scale = 1, first.rows = 1;
    sincos_f64(&first);
    sincos_turns(job, &run->turns);
    for (size_t i = 0; i < job->pairs; i += PL) {
        size_t n = job->pairs - i < PL ? job->pairs - i : PL;
        P cos = p_ld(run->cos + i, PL), sin = p_add(p_ld(run->sin + i, PL), p_set(0.0)); /* no -0 */
        st_f32(run->least + i, run_least(job, i, n));
        p_st_f64(run->cos + i, p_mul(cos, scale), PL), p_st_f64(run->sin + i, p_mul(sin, scale), PL);
    }
}

PE_FN void run_block(struct sincos_run *run, enum sincos_form form) {
    size_t pairs = run->job.pairs, rows = run->job.rows, whole = pairs / PL * PL;
    run_begin(run);
    for (size_t j = 0; j < rows; j += RUN_STRIP) {
        size_t count = rows - j < RUN_STRIP ? rows - j : RUN_STRIP;
        if (PE_CASES && count == RUN_STRIP)
            for (size_t i = 0; i < whole; i += PL) run_pairs(run, j, RUN_STRIP, i, PL, form);
        else
            for (size_t i = 0; i < whole; i += PL) run_rest(run, j, count, i, PL, form);
        if (whole < pairs) run_rest(run, j, count, whole, pairs - whole, form);
        run_again(run, j, form);
    }
}

PE_FN void run_rows(const struct pe_sincos_run *given, enum sincos_form form) {
    struct sincos_run run;
    run.turn_step = given->turn_step, run.below = RUN_STRIP * given->rows.sin_step;
    size_t size = (form == SINCOS_ZIP ? 2 : 1) * sizeof(float);
    for (size_t i = 0; i < given->rows.pairs; i += SINCOS_BLOCK) {
        run.job = given->rows, run.turn = given->turn + i;
        run.job.each = NULL, run.job.as_float32 = 0, run.job.inv_freq += i;
        run.job.pairs = given->rows.pairs - i < SINCOS_BLOCK ? given->rows.pairs - i : SINCOS_BLOCK;
        run.job.cos += i * size, run.job.sin += i * size;
        run_block(&run, form);
    }
}

PE_KERNEL void sincos_run(const struct pe_sincos_run *run) {
    if (!PE_CASES)
        run_rows(run, run->zipped ? SINCOS_ZIP : SINCOS_F32);
    else if (run->zipped)
        run_rows(run, SINCOS_ZIP);
    else
        run_rows(run, SINCOS_F32);
}
