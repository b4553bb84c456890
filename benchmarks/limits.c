/* The limits that the benchmarks compare with: what this machine does when it only moves the bytes.
 *
 * scale  x[i] *= factor, where it lies: what an in-place rotation reads and writes, and nothing else
 * copy   y[i] = x[i], with ordinary or with non-temporal stores: the same for a given output
 * fill   y[i] = value, likewise: the same for a table
 *
 * Written with the widest vectors that the processor has (AVX-512, else AVX2; elsewhere plain loops, whose stores are
 * all ordinary ones). A call runs on 1 to MAX_THREADS threads; the helpers are started once and stay.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum kind { SCALE, COPY, COPY_STREAM, FILL, FILL_STREAM, KINDS };
enum { MAX_THREADS = 64, SPINS = 20000, PAGE = 4096 };

/* What to do with one array. Multiples of 4 bytes; 64-byte aligned where the stores are non-temporal. */
struct region {
    float *y;
    const float *x;
    size_t bytes;
};

typedef void kernel(float *y, const float *x, size_t n, float value);

/* ---- kernels ---- */

static void scale_plain(float *y, const float *x, size_t n, float value) {
    (void)x;
    for (size_t i = 0; i < n; i++) y[i] *= value;
}

static void copy_plain(float *restrict y, const float *restrict x, size_t n, float value) {
    (void)value;
    for (size_t i = 0; i < n; i++) y[i] = x[i];
}

static void fill_plain(float *y, const float *x, size_t n, float value) {
    (void)x;
    for (size_t i = 0; i < n; i++) y[i] = value;
}

static kernel *const plain[KINDS] = {scale_plain, copy_plain, copy_plain, fill_plain, fill_plain};

#if defined(__x86_64__)
#include <immintrin.h>

#define UNROLL 4

/* One kernel: `vector_body` handles the W floats at index i, `tail` the float at index i. */
#define KERNEL(name, features, W, vector_body, tail)                                                      \
    __attribute__((target(features))) static void name(float *y, const float *x, size_t n, float value) { \
        size_t i = 0;                                                                                     \
        (void)x, (void)value;                                                                             \
        for (; i + UNROLL * W <= n;)                                                                      \
            for (size_t end = i + UNROLL * W; i < end; i += W) vector_body;                               \
        for (; i < n; i++) tail;                                                                          \
    }

#define KERNELS(isa, features, W, load, store, stream, mul, set1)                                \
    KERNEL(scale_##isa, features, W, store(y + i, mul(load(y + i), set1(value))), y[i] *= value) \
    KERNEL(copy_##isa, features, W, store(y + i, load(x + i)), y[i] = x[i])                      \
    KERNEL(copy_stream_##isa, features, W, stream(y + i, load(x + i)), y[i] = x[i])              \
    KERNEL(fill_##isa, features, W, store(y + i, set1(value)), y[i] = value)                     \
    KERNEL(fill_stream_##isa, features, W, stream(y + i, set1(value)), y[i] = value)             \
    static kernel *const isa[KINDS] = {scale_##isa, copy_##isa, copy_stream_##isa, fill_##isa, fill_stream_##isa};

KERNELS(avx2, "avx2", 8, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_stream_ps, _mm256_mul_ps, _mm256_set1_ps)
KERNELS(avx512, "avx512f", 16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_stream_ps, _mm512_mul_ps, _mm512_set1_ps)

static void fence(void) {
    _mm_sfence();
}

static kernel *const *choose(const char **name) {
    if (__builtin_cpu_supports("avx512f")) return *name = "AVX-512", avx512;
    if (__builtin_cpu_supports("avx2")) return *name = "AVX2", avx2;
    return *name = "plain C", plain;
}
#else
static void fence(void) {
}

static kernel *const *choose(const char **name) {
    return *name = "plain C", plain;
}
#endif

const char *limits_isa(void) {
    const char *name;
    choose(&name);
    return name;
}

/* ---- threads ---- */

struct task {
    const struct region *regions;
    int n_regions, threads;
    kernel *run;
    float value;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_uint generation;
    atomic_int left;
    int started;
    struct task task;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

/* The part-th of `threads` pieces of every region, cut at whole pages counted from its start. */
static void run_part(const struct task *task, int part) {
    for (int r = 0; r < task->n_regions; r++) {
        const struct region *region = task->regions + r;
        size_t pages = (region->bytes + PAGE - 1) / PAGE, threads = (size_t)task->threads;
        size_t from = pages * (size_t)part / threads * PAGE, to = pages * ((size_t)part + 1) / threads * PAGE;
        if (to > region->bytes) to = region->bytes;
        if (from < to)
            task->run(region->y + from / 4, region->x ? region->x + from / 4 : NULL, (to - from) / 4, task->value);
    }
    fence();
}

static unsigned await_next(unsigned seen) {
    for (int i = 0; i < SPINS; i++)
        if (atomic_load_explicit(&pool.generation, memory_order_acquire) != seen) return seen + 1;
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.generation) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    return seen + 1;
}

static void *helper(void *argument) {
    int part = (int)(intptr_t)argument;
    for (unsigned seen = 0;;) {
        seen = await_next(seen);
        if (part < pool.task.threads) run_part(&pool.task, part);
        atomic_fetch_sub_explicit(&pool.left, 1, memory_order_release);
    }
    return NULL;
}

/* Before the first call on several threads; the first time decides how many there are. False where there are fewer. */
bool limits_start(int threads) {
    if (pool.started || threads > MAX_THREADS) return pool.started >= threads - 1;
    for (int part = 1; part < threads; part++, pool.started++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, helper, (void *)(intptr_t)part)) return false;
    }
    return true;
}

/* Do it, on at most as many threads as were started, and return when all is done. One caller at a time. */
void limits_run(int kind, const struct region *regions, int n_regions, float value, int threads) {
    const char *name;
    struct task task = {regions, n_regions, threads, choose(&name)[kind], value};
    if (threads == 1) {
        run_part(&task, 0);
        return;
    }
    pool.task = task;
    atomic_store(&pool.left, pool.started);
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.generation, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    run_part(&task, 0);
    while (atomic_load_explicit(&pool.left, memory_order_acquire) > 0);
}
