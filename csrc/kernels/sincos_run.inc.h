/* Rows of float32 cosines and sines at positions that count up: a template, included once per ISA after sincos.inc.h.
 *
 * A row is the one before it turned by its frequencies, in float64: four products a pair, where an angle of its own takes
 * fourteen. The first row of a run is that of sincos_f64. Of each four rows three are the first one turned once, twice and
 * three times, and the next four begin with it turned four times. A turn keeps the length of the error of (cos, sin) and
 * adds less than 2^-51.5 to it (the turn's own error, two roundings each), so those of PE_RUN_MOST rows are below 2^-47.5.
 *
 * The bits are those of sincos_f32 and sincos_zip, wherever a run begins. What these round to float32 has a relative error
 * below 2^-35.6; here, of numbers from PE_RUN_LEAST on, another 2^-37.5. Together that is less than PE_RUN_DOUBT units of a
 * float64's last place: what is further than this from the middle between two float32 is on the same side of it both ways.
 * All else, some blocks in a hundred, is made again by the steps of the other kernels: noted without a branch while a row
 * goes on, and done when four are complete.
 *
 * Needs, besides what sincos.inc.h needs,
 *     f_min(x, y)
 *     f_abs_int(x)  f_add_int(x, i)     of the bits as integers of 32 bits that wrap
 */
enum { RUN_ROWS = PE_RUN_TURNS, RUN_PAGE = 4096, RUN_NOTES = RUN_ROWS * (SINCOS_BLOCK / (2 * DL) + 1) };

struct sincos_run {
    struct pe_sincos job; /* of one block of pairs */
    const double *turn;
    size_t turn_step;
    ptrdiff_t below; /* to what is fetched */
    struct sincos_turns turns;
    PE_ALIGNED(64) double cos[SINCOS_BLOCK], sin[SINCOS_BLOCK]; /* of the first of four rows */
    PE_ALIGNED(64) float least[SINCOS_BLOCK];                   /* below this it must be made again */
    uint16_t note[RUN_NOTES];                                   /* what must be: pair * RUN_ROWS + row */
};

PE_FN void run_turn(const struct sincos_run *run, size_t times, size_t i, size_t n, P *cos, P *sin) {
    const double *turn = run->turn + 2 * (times - 1) * run->turn_step + i;
    P c = p_ld(turn, n), s = p_ld(turn + run->turn_step, n), x = *cos, y = *sin;
    *cos = p_fnma(y, s, p_mul(x, c));
    *sin = p_fma(x, s, p_mul(y, c));
}

/* Negative where the low 29 bits of a float64 are less than PE_RUN_DOUBT from those of a middle: moved to the top, a middle is
 * the integer furthest from zero, and adding as much goes over. */
PE_FN F run_middle(P x) {
    return f_add_int(f_abs_int(f_shl(p_low(x), 3)), (int32_t)(8 * PE_RUN_DOUBT));
}

/* What is written next is fetched: of four rows at once the hardware does not run ahead. */
PE_FN void run_fetch(const float *from, ptrdiff_t below, size_t n) {
    for (size_t k = 0; k < n; k += 64 / sizeof *from) PE_PREFETCH2((const char *)(from + k) + below);
}

/* bytes to the first row to come that is a page away */
PE_FN ptrdiff_t run_below(ptrdiff_t step) {
    size_t group = RUN_ROWS * (size_t)(step < 0 ? -step : step);
    return RUN_ROWS * step * (ptrdiff_t)(group && group < RUN_PAGE ? RUN_PAGE / group : 1);
}

/* One row's piece from cosines and sines; whether it must be made again. */
PE_FN int run_put(const struct sincos_run *run, F least, P c, P s, size_t row, size_t i, size_t n,
                  enum sincos_form form, int scaled) {
    const struct pe_sincos *job = &run->job;
    float *cos = (float *)(job->cos + (ptrdiff_t)row * job->cos_step);
    float *sin = (float *)(job->sin + (ptrdiff_t)row * job->sin_step);
    if (scaled) c = p_mul(c, p_set(job->scale)), s = p_mul(s, p_set(job->scale));
    F fc = p_narrow(c), fs = p_narrow(s);
    if (form == SINCOS_ZIP) {
        run_fetch(sin + 2 * i, run->below, 2 * FL);
        sincos_store_zipped(sin + 2 * i, fs, fc, n);
    } else {
        run_fetch(cos + i, run->below, FL);
        run_fetch(sin + i, run->below, FL);
        sincos_store_f32(cos + i, fc, n);
        sincos_store_f32(sin + i, fs, n);
    }
    F small = f_sub(f_min(f_abs(fc), f_abs(fs)), least);
    return f_any_negative(f_or(f_or(run_middle(c), run_middle(s)), small)) != 0;
}

/* PL pairs, or n of them, in `count` rows */
PE_FN size_t run_pairs(struct sincos_run *run, size_t row, size_t count, size_t i, size_t n, size_t notes,
                       enum sincos_form form, int scaled) {
    P cos = p_ld(run->cos + i, PL), sin = p_ld(run->sin + i, PL);
    F least = ld_f32(run->least + i);
    for (size_t k = 0; k < count; k++) {
        P c = cos, s = sin;
        if (k) run_turn(run, k, i, n, &c, &s);
        run->note[notes] = (uint16_t)(i * RUN_ROWS + k);
        notes += (size_t)run_put(run, least, c, s, row + k, i, n, form, scaled);
    }
    run_turn(run, RUN_ROWS, i, n, &cos, &sin);
    p_st_f64(run->cos + i, cos, PL), p_st_f64(run->sin + i, sin, PL);
    return notes;
}

PE_FN void run_again(struct sincos_run *run, size_t row, size_t notes, enum sincos_form form, int scaled) {
    const struct pe_sincos *job = &run->job;
    for (size_t k = 0; k < notes; k++) {
        size_t j = row + run->note[k] % RUN_ROWS, i = run->note[k] / RUN_ROWS;
        size_t n = job->pairs - i < PL ? job->pairs - i : PL;
        float *cos = (float *)(job->cos + (ptrdiff_t)j * job->cos_step);
        float *sin = (float *)(job->sin + (ptrdiff_t)j * job->sin_step);
        F cancelled = sincos_pairs_f32(*job, &run->turns, p_set(job->position[j]), cos, sin, i, n, form, scaled);
        if (PE_UNLIKELY(f_any_negative(cancelled))) pe_sincos_mend_row(*job, j, form);
    }
}

/* the first row, and what is too small for it */
PE_FN void run_begin(struct sincos_run *run) {
    const struct pe_sincos *job = &run->job;
    struct pe_sincos first = *job;
    F least = f_abs(p_narrow(p_mul(p_set(job->scale), p_set(PE_RUN_LEAST))));
    size_t last = job->pairs / PL * PL;
    if (last < job->pairs) p_st_f64(run->cos + last, p_set(0.0), PL), p_st_f64(run->sin + last, p_set(0.0), PL);
    first.cos = (char *)run->cos, first.sin = (char *)run->sin, first.scale = 1, first.rows = 1;
    sincos_f64(&first);
    for (size_t i = 0; i < job->pairs; i += PL) {
        size_t n = job->pairs - i < PL ? job->pairs - i : PL;
        p_st_f64(run->sin + i, p_add(p_ld(run->sin + i, PL), p_set(0.0)), PL); /* no -0 */
        st_f32(run->least + i, f_nonzero(p_narrow(p_ld(job->inv_freq + i, n)), least));
    }
    sincos_turns(job, &run->turns);
}

PE_FN void run_block(struct sincos_run *run, enum sincos_form form, int scaled) {
    size_t pairs = run->job.pairs, rows = run->job.rows, whole = pairs / PL * PL;
    run_begin(run);
    for (size_t j = 0; j < rows; j += RUN_ROWS) {
        size_t notes = 0, count = rows - j < RUN_ROWS ? rows - j : RUN_ROWS;
        if (PE_CASES && count == RUN_ROWS)
            for (size_t i = 0; i < whole; i += PL) notes = run_pairs(run, j, RUN_ROWS, i, PL, notes, form, scaled);
        else
            for (size_t i = 0; i < whole; i += PL) notes = run_pairs(run, j, count, i, PL, notes, form, scaled);
        if (whole < pairs) notes = run_pairs(run, j, count, whole, pairs - whole, notes, form, scaled);
        run_again(run, j, notes, form, scaled);
    }
}

PE_FN void run_rows(const struct pe_sincos_run *given, enum sincos_form form, int scaled) {
    struct sincos_run run;
    run.turn_step = given->turn_step, run.below = run_below(given->rows.sin_step);
    size_t size = (form == SINCOS_ZIP ? 2 : 1) * sizeof(float);
    for (size_t i = 0; i < given->rows.pairs; i += SINCOS_BLOCK) {
        run.job = given->rows, run.turn = given->turn + i;
        run.job.each = NULL, run.job.as_float32 = 0, run.job.inv_freq += i;
        run.job.pairs = given->rows.pairs - i < SINCOS_BLOCK ? given->rows.pairs - i : SINCOS_BLOCK;
        run.job.cos += i * size, run.job.sin += i * size;
        run_block(&run, form, scaled);
    }
}

PE_FN void run_scaled(const struct pe_sincos_run *run, enum sincos_form form) {
    if (PE_CASES && run->rows.scale == 1)
        run_rows(run, form, 0);
    else
        run_rows(run, form, 1);
}

PE_KERNEL void sincos_run(const struct pe_sincos_run *run) {
    if (!PE_CASES)
        run_scaled(run, run->zipped ? SINCOS_ZIP : SINCOS_F32);
    else if (run->zipped)
        run_scaled(run, SINCOS_ZIP);
    else
        run_scaled(run, SINCOS_F32);
}
