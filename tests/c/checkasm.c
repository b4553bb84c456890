/* Every kernel of every level this processor can run, without Python.
 *
 *     checkasm [--seed N] [--level NAME] [--most PAIRS] [--bench]
 *
 * A rotation must equal the loop over pairs that the papers write; a row of cosines and sines must equal the scalar
 * level's, made one pair at a time; an addition the loop over elements; bit for bit, but any NaN for a NaN. Every number of pairs from 0 to 257 (--most) is
 * tried with each way to lie in memory, between pages that trap; nothing outside the stated elements may change. What a
 * kernel may be asked is written in csrc/kernels/kernels.h. The first failures are printed with all that it takes to
 * repeat them.
 * Prints one hash of the results for each level and verb: the same on every level and every processor.
 */
#include "guard.h"
#include "testing.h"

#include <math.h>
#include <time.h>

#include "../../csrc/core/dispatch.h"

enum { WIDE_PAIRS = 32768, MEMORY = 1 << 20, MARGIN = 64, CANARY = 0xa5 };

/* ---- what is being tried: for the report, and for whoever lays it out ---- */

static struct trial {
    const char *level, *kernel;
    enum pe_dtype dtype;
    enum place place;
    enum values values;
    size_t rows, pairs, shift, padding, apart; /* shift, padding, apart: elements */
    bool in_place, one_table_row, backwards, stream;
    bool each, as_float32;
    double scale;
} trial;
static unsigned long long seed = 1, tried, failed;
static size_t most_pairs = 257;

static void report_trial(void) {
    fprintf(stderr,
            "  kernel %s, level %s, %s, %s, seed %llu, case %llu\n"
            "  rows %zu, pairs %zu, buffers %s (shift %zu), %zu elements between rows, %zu between halves\n"
            "  in place %d, one table row %d, backwards %d, streamed %d, position for each pair %d, as_float32 %d, "
            "scale %a\n",
            trial.kernel, trial.level, dtype_name[trial.dtype], values_name[trial.values], seed, tried, trial.rows,
            trial.pairs, place_name[trial.place], trial.shift, trial.padding, trial.apart, trial.in_place,
            trial.one_table_row, trial.backwards, trial.stream, trial.each, trial.as_float32, trial.scale);
}

static void fail(const char *what) { /* the first failures in full */
    if (failed++ >= 10) return;
    fprintf(stderr, "FAILED: %s\n", what);
    report_trial();
}

/* ---- rows in guarded memory ---- */

static struct guard memory[4]; /* x or positions, y or frequencies, cosines, sines */
static char *image[4];         /* copies of them: before the call, or as they should be after it */
struct rows {
    char *from, *first; /* lowest byte, row 0 */
    ptrdiff_t step;
    size_t bytes;
    int where; /* index of memory */
};

static size_t whole_lines(size_t bytes) {
    return (bytes + PE_STREAM_ALIGNMENT - 1) / PE_STREAM_ALIGNMENT * PE_STREAM_ALIGNMENT;
}

static struct rows lay_out(int where, size_t n, size_t row_bytes, size_t unit, bool aligned) {
    size_t step = row_bytes + trial.padding * unit, shift = aligned ? 0 : trial.shift * unit;
    if (aligned) step = whole_lines(step);
    size_t bytes = n ? (n - 1) * step + row_bytes : 0;
    struct rows r = {.step = (ptrdiff_t)step, .bytes = bytes, .where = where};
    r.from = guard_place(&memory[where], trial.place, aligned ? whole_lines(bytes) : bytes, shift);
    r.first = r.from;
    if (trial.backwards && n) r.first += (n - 1) * step, r.step = -r.step;
    return r;
}

/* the rows and what lies close around them */
static char *surroundings(const struct rows *r, size_t *bytes) {
    const struct guard *g = &memory[r->where];
    char *low = r->from - g->begin < MARGIN ? g->begin : r->from - MARGIN;
    char *high = g->end - (r->from + r->bytes) < MARGIN ? g->end : r->from + r->bytes + MARGIN;
    *bytes = (size_t)(high - low);
    return low;
}

static char *in_image(const struct rows *r, const char *p) {
    return image[r->where] + (p - memory[r->where].begin);
}

static void clear(const struct rows *r) {
    size_t bytes;
    char *low = surroundings(r, &bytes);
    memset(low, CANARY, bytes);
}

static void keep(const struct rows *r) {
    size_t bytes;
    const char *low = surroundings(r, &bytes);
    memcpy(in_image(r, low), low, bytes);
}

/* rows and surroundings must be as their image is */
static void compare(const struct rows *r, enum pe_dtype dtype, const char *what) {
    size_t bytes, size = pe_itemsize(dtype);
    const char *low = surroundings(r, &bytes), *wanted = in_image(r, low);
    size_t i = first_difference(low, wanted, bytes / size, dtype);
    if (i == bytes / size) return;
    char text[128];
    snprintf(text, sizeof text, "%s: element %td from the lowest row's start is 0x%llx, not 0x%llx", what,
             (ptrdiff_t)i - (r->from - low) / (ptrdiff_t)size, (unsigned long long)load_bits(low + i * size, size),
             (unsigned long long)load_bits(wanted + i * size, size));
    fail(text);
}

/* ---- rotations ---- */

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
    bool beside = one_in(s, 2); /* rows that go together follow each other, or lie as far apart as there are rows */
    struct rows x = lay_out(0, all, row, size, trial.stream && trial.in_place);
    struct rows y = trial.in_place ? x : lay_out(1, all, row, size, trial.stream);
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
                         .x_step = x.step * (ptrdiff_t)(beside ? together : 1),
                         .y_step = y.step * (ptrdiff_t)(beside ? together : 1),
                         .x_apart = x.step * (ptrdiff_t)(beside ? 1 : trial.rows),
                         .y_apart = y.step * (ptrdiff_t)(beside ? 1 : trial.rows),
                         .together = together,
                         .cos = cos.first,
                         .sin = sin.first,
                         .table_step = trial.one_table_row ? 0 : cos.step,
                         .gap = (ptrdiff_t)gap,
                         .rows = trial.rows,
                         .pairs = trial.pairs,
                         .ahead = one_in(s, 2) ? memory[0].end : NULL, /* only a hint: it may point anywhere */
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

/* ---- rows of cosines and sines ---- */

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

/* ---- products for gradients ---- */

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

#include "checkasm_add.h"
#include "checkasm_bias.h"
#include "checkasm_relative.h"
#include "checkasm_run.h"
#include "checkasm_tally.h"

/* ---- one hash of fixed results ---- */

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

static uint64_t hash_level(const struct pe_kernels *kernels) {
    struct source s = {.state = 20240229};
    return hash_sincos(hash_rotations(hash_start, kernels, &s), kernels, &s);
}

/* ---- benchmark ---- */

static double seconds(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { BENCH_ROWS = 16, BENCH_PAIRS = 64 }; /* heads of 128 elements, all in L1 */

static void run_once(const struct pe_kernels *kernels, int which) {
    static double position[BENCH_ROWS], inv_freq[BENCH_PAIRS];
    if (which >= 2 * PE_DTYPES) {
        bool wide = which > 2 * PE_DTYPES;
        ptrdiff_t step = BENCH_PAIRS * (wide ? 8 : 4);
        for (int i = 0; i < BENCH_ROWS; i++) position[i] = 1000 + i;
        for (int i = 0; i < BENCH_PAIRS; i++) inv_freq[i] = 1.0 / (1 + i);
        struct pe_sincos job = {.position = position,
                                .inv_freq = inv_freq,
                                .scale = 1,
                                .cos = memory[2].begin,
                                .sin = memory[3].begin,
                                .cos_step = step,
                                .sin_step = step,
                                .rows = BENCH_ROWS,
                                .pairs = BENCH_PAIRS};
        (wide ? kernels->sincos_f64 : kernels->sincos_f32)(&job);
        return;
    }
    enum pe_dtype dtype = (enum pe_dtype)(which / 2);
    ptrdiff_t step = 2 * BENCH_PAIRS * (ptrdiff_t)pe_itemsize(dtype);
    struct pe_run run = {.x = memory[0].begin,
                         .y = memory[0].begin,
                         .x_step = step,
                         .y_step = step,
                         .cos = memory[2].begin,
                         .sin = memory[3].begin,
                         .table_step = BENCH_PAIRS * (dtype == PE_F64 ? 8 : 4),
                         .gap = step / 2,
                         .rows = BENCH_ROWS,
                         .together = 1,
                         .pairs = BENCH_PAIRS};
    (which % 2 ? kernels->interleaved : kernels->half)[dtype](&run);
}

/* ns for a row of 64 pairs: the best of some runs */
static double time_kernel(const struct pe_kernels *kernels, int which) {
    for (int k = 0; k < 4; k++) memset(memory[k].begin, 0, 65536);
    double best = 1;
    for (int attempt = 0; attempt < 20; attempt++) {
        double start = seconds();
        for (int i = 0; i < 500; i++) run_once(kernels, which);
        double each = (seconds() - start) / (500 * BENCH_ROWS);
        if (each < best) best = each;
    }
    return 1e9 * best;
}

static void bench(void) {
    printf("ns for a row of %d pairs, in place\n%-24s", BENCH_PAIRS, "");
    for (int level = 0; level < pe_level_count(); level++) printf("%10s", pe_level(level)->name);
    for (int which = 0; which < 2 * PE_DTYPES + 2; which++) {
        char name[64] = "";
        if (which < 2 * PE_DTYPES)
            snprintf(name, sizeof name, "%s %s", which % 2 ? "interleaved" : "half", dtype_name[which / 2]);
        else
            snprintf(name, sizeof name, "sincos %s", dtype_name[which - 2 * PE_DTYPES]);
        printf("\n%-24s", name);
        for (int level = 0; level < pe_level_count(); level++) printf("%10.1f", time_kernel(pe_level(level), which));
    }
    printf("\n");
}

static void check_level(const struct pe_kernels *kernels) {
    struct source s = {.state = seed};
    unsigned long long failed_before = failed;
    trial = (struct trial){.level = kernels->name};
    tried = 0;
    try_rotations(kernels, &s);
    try_all_halves(kernels, &s);
    try_all_sincos(kernels, &s);
    try_truth(kernels, &s);
    try_cancellation(kernels);
    try_all_products(kernels, &s);
    try_widening(kernels, &s);
    try_moves(kernels, &s);
    try_adds(kernels, &s);
    try_zips(kernels, &s);
    try_biases(kernels, &s);
    try_relative(kernels, &s);
    try_tallies(kernels, &s);
    try_runs(kernels, &s);
    printf("%-8s %llu cases, %llu failed\n", kernels->name, tried, failed - failed_before);
    printf("hash kernels %-8s %016llx\n", kernels->name, (unsigned long long)hash_level(kernels));
    printf("hash add     %-8s %016llx\n", kernels->name, (unsigned long long)hash_adds(kernels));
    printf("hash bias    %-8s %016llx\n", kernels->name, (unsigned long long)hash_biases(kernels));
    printf("hash relative %-7s %016llx\n", kernels->name, (unsigned long long)hash_relative(kernels));
    printf("hash tally   %-8s %016llx\n", kernels->name, (unsigned long long)hash_tallies(kernels));
    fflush(stdout);
}

int main(int argc, char **argv) {
    const char *only = NULL;
    bool timing = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0)
            timing = true;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--level") == 0 && i + 1 < argc)
            only = argv[++i];
        else if (strcmp(argv[i], "--most") == 0 && i + 1 < argc)
            most_pairs = strtoull(argv[++i], NULL, 0);
        else
            return fprintf(stderr, "usage: %s [--seed N] [--level NAME] [--most PAIRS] [--bench]\n", argv[0]), 2;
    }
    if (most_pairs > 1024) most_pairs = 1024; /* what the memory holds */
    for (int k = 0; k < 4; k++) memory[k] = guard_make(MEMORY), image[k] = malloc(MEMORY + 65536);
    if (timing) return bench(), 0;
    guard_catch(report_trial);
    printf("seed %llu\n", seed);
    int levels = 0;
    for (int level = 0; level < pe_level_count(); level++) {
        if (only && strcmp(pe_level(level)->name, only) != 0) continue;
        check_level(pe_level(level));
        levels++;
    }
    if (levels == 0) return fprintf(stderr, "no level %s on this processor\n", only), 2;
    return failed > 0;
}
