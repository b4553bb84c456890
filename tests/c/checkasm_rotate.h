/* The kernels of rotation, against the loop over pairs that the papers write: included in checkasm.c, after checkasm_trial.h. */
#ifndef POSENC_TESTS_CHECKASM_ROTATE_H
#define POSENC_TESTS_CHECKASM_ROTATE_H

/* the rotation as a loop over pairs, from one image into another */
static void rotate_by_loop(const struct pe_run *run, bool half, const char *x, char *y) {
    size_t size = pe_itemsize(trial.dtype), table_size = trial.dtype == PE_F64 ? 8 : 4;
    for (size_t j = 0; j < run->rows * run->together; j++)
        for (size_t i = 0; i < trial.pairs; i++) {
            ptrdiff_t row = (ptrdiff_t)(j / run->together), k = (ptrdiff_t)(j % run->together);
            size_t a = half ? i * size : 2 * i * size, b = half ? a + (size_t)run->gap : a + size;
            ptrdiff_t c = row * run->table_step + (ptrdiff_t)(i * table_size);
            const char *from = x + row * run->x_step + k * run->x_apart;
            char *to = y + row * run->y_step + k * run->y_apart;
            uint64_t first, second;
            turn(trial.dtype, from + a, from + b, run->cos + c, run->sin + c, &first, &second);
            store_bits(to + a, size, first), store_bits(to + b, size, second);
        }
}

static void try_rotation(const struct pe_kernels *kernels, bool half, struct source *s) {
    size_t size = pe_itemsize(trial.dtype), table_size = trial.dtype == PE_F64 ? 8 : 4;
    size_t member = trial.pairs * size, gap = member + trial.apart * size;
    if (trial.stream) gap = whole_lines(gap);
    size_t row = half && trial.pairs ? gap + member : 2 * member, table_rows = trial.one_table_row ? 1 : trial.rows;
    size_t together = one_in(s, 2) ? 1 : 1 + draw(s, 5), all = trial.rows * together;
    bool beside = one_in(s, 2);
    struct rows x, y;
    lay_out_both(all, row, size, &x, &y);
    struct rows cos = lay_out(2, table_rows, trial.pairs * table_size, table_size, false);
    struct rows sin = lay_out(3, table_rows, trial.pairs * table_size, table_size, false);
    clear(&x), clear(&y), clear(&cos), clear(&sin);
    enum pe_dtype table_dtype = trial.dtype == PE_F64 ? PE_F64 : PE_F32;
    fill(s, x.from, x.bytes / size, trial.dtype, trial.values);
    fill(s, cos.from, cos.bytes / table_size, table_dtype, one_in(s, 8) ? FINITE : UNIT);
    fill(s, sin.from, sin.bytes / table_size, table_dtype, UNIT);
    keep(&x), keep(&y);
    struct pe_run run = {.x = x.first,
                         .y = y.first,
                         .x_step = group_step(&x, together, beside),
                         .y_step = group_step(&y, together, beside),
                         .x_apart = step_apart(&x, beside),
                         .y_apart = step_apart(&y, beside),
                         .together = together,
                         .cos = cos.first,
                         .sin = sin.first,
                         .table_step = trial.one_table_row ? 0 : cos.step,
                         .gap = (ptrdiff_t)gap,
                         .rows = trial.rows,
                         .pairs = trial.pairs,
                         .ahead = one_in(s, 2) ? memory[0].end : NULL, /* only a hint: it may point anywhere */
                         .soon = beside ? 1 << 20 : 0,                 /* so is this */
                         .stream = trial.stream};
    rotate_by_loop(&run, half, in_image(&x, x.first), in_image(&y, y.first));
    tried++;
    (half ? kernels->half : kernels->interleaved)[trial.dtype](&run);
    kernels->stream_end();
    compare(&y, trial.dtype, "the result");
    if (!trial.in_place) compare(&x, trial.dtype, "the input");
}

static void draw_layout(struct source *s, size_t unit) {
    static const size_t row_counts[] = {1, 1, 2, 3, 5, 0};
    trial.rows = row_counts[draw(s, sizeof row_counts / sizeof *row_counts)];
    trial.shift = trial.place == INSIDE ? 1 + draw(s, 64 / unit - 1) : 0;
    trial.padding = one_in(s, 2) ? draw(s, 20) : 0;
    trial.apart = one_in(s, 4) ? draw(s, 20) : 0;
    trial.backwards = one_in(s, 4);
}

static void try_rotations(const struct pe_kernels *kernels, struct source *s) {
    for (unsigned which = 0; which < 2 * PE_DTYPES * PLACES; which++) {
        bool half = which % 2;
        trial.kernel = half ? "half" : "interleaved";
        trial.dtype = (enum pe_dtype)(which / 2 % PE_DTYPES);
        trial.place = (enum place)(which / 2 / PE_DTYPES);
        for (trial.pairs = 0; trial.pairs <= most_pairs; trial.pairs++)
            for (unsigned how = 0; how < 6; how++) {
                trial.in_place = how & 1, trial.one_table_row = how & 2, trial.stream = how & 4;
                if (trial.stream) trial.one_table_row = one_in(s, 2);
                trial.values = (enum values)draw(s, VALUES);
                draw_layout(s, pe_itemsize(trial.dtype));
                try_rotation(kernels, half, s);
            }
    }
}

/* every 16-bit pattern as an element */
static void try_all_halves(const struct pe_kernels *kernels, struct source *s) {
    trial = (struct trial){.level = trial.level, .rows = 1, .pairs = WIDE_PAIRS, .place = AT_END};
    for (unsigned which = 0; which < 4; which++) {
        bool half = which % 2;
        trial.kernel = half ? "half" : "interleaved";
        trial.dtype = which / 2 ? PE_BF16 : PE_F16;
        trial.values = ANY;
        struct rows x = lay_out(0, 1, 4 * WIDE_PAIRS, 2, false), y = lay_out(1, 1, 4 * WIDE_PAIRS, 2, false);
        struct rows cos = lay_out(2, 1, 4 * WIDE_PAIRS, 4, false), sin = lay_out(3, 1, 4 * WIDE_PAIRS, 4, false);
        for (unsigned i = 0; i < 65536; i++) store_bits(x.from + 2 * i, 2, i);
        fill(s, cos.from, WIDE_PAIRS, PE_F32, UNIT);
        fill(s, sin.from, WIDE_PAIRS, PE_F32, UNIT);
        struct pe_run run = {.x = x.from,
                             .y = y.from,
                             .cos = cos.from,
                             .sin = sin.from,
                             .gap = 2 * WIDE_PAIRS,
                             .rows = 1,
                             .together = 1,
                             .pairs = WIDE_PAIRS};
        keep(&y);
        rotate_by_loop(&run, half, x.from, in_image(&y, y.from));
        tried++;
        (half ? kernels->half : kernels->interleaved)[trial.dtype](&run);
        compare(&y, trial.dtype, "the result");
    }
}

static uint64_t hash_rotations(uint64_t hash, const struct pe_kernels *kernels, struct source *s) {
    static const size_t widths[] = {1, 7, 16, 64, 129};
    for (unsigned which = 0; which < 2 * PE_DTYPES * 5 * 2; which++) {
        enum pe_dtype dtype = (enum pe_dtype)(which / 2 % PE_DTYPES);
        size_t pairs = widths[which / 2 / PE_DTYPES % 5], size = pe_itemsize(dtype);
        char *x = memory[0].begin, *cos = memory[2].begin, *sin = memory[3].begin;
        fill(s, x, 4 * pairs, dtype, which / 2 / PE_DTYPES / 5 ? FINITE : UNIT);
        fill(s, cos, 2 * pairs, dtype == PE_F64 ? PE_F64 : PE_F32, UNIT);
        fill(s, sin, 2 * pairs, dtype == PE_F64 ? PE_F64 : PE_F32, UNIT);
        ptrdiff_t step = (ptrdiff_t)(2 * pairs * size), table_step = (ptrdiff_t)(pairs * (dtype == PE_F64 ? 8 : 4));
        struct pe_run run = {.x = x,
                             .y = x,
                             .x_step = step,
                             .y_step = step,
                             .cos = cos,
                             .sin = sin,
                             .table_step = table_step,
                             .gap = step / 2,
                             .rows = 2,
                             .together = 1,
                             .pairs = pairs};
        (which % 2 ? kernels->half : kernels->interleaved)[dtype](&run);
        hash = hash_elements(hash, x, 4 * pairs, dtype);
    }
    return hash;
}

#endif
