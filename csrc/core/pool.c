/* A pool of workers, started when a call first wants them and asleep between calls.
 *
 * A worker that has just worked looks out for the next call for some tens of microseconds before it sleeps: waking it takes
 * longer than a call in a loop leaves it idle. Only one caller has the workers at a time; others work alone, which neither
 * oversubscribes the processors nor can wait for itself. A forked child has none, whatever its parent was at: locks are
 * made anew there, and nobody waits for threads that stayed behind.
 */
#define _POSIX_C_SOURCE 200809L /* sigfillset, pthread_sigmask */
#include "pool.h"

#include <stdatomic.h>

#include "thread.h"

#if defined(PE_X86_64)
#include <xmmintrin.h> /* all of immintrin.h takes a third of a second to compile */
#define PE_PAUSE() _mm_pause()
#elif defined(PE_ARM64) && defined(__GNUC__)
#define PE_PAUSE() __asm__ volatile("yield")
#else
#define PE_PAUSE() ((void)0)
#endif

enum { LOOKS = 2000, POLL_MS = 25 }; /* looks: 35 to 80 microseconds */

struct job {
    pe_part *run;
    void *call;
    size_t parts, seats; /* seats: how many workers may still come, under the lock */
    atomic_size_t next, inside;
    atomic_bool stopped;
};

static struct {
    pe_mutex busy; /* held by the caller who has the workers */
    pe_mutex lock;
    pe_condition called, left;
    struct job *job;
    size_t workers;
    bool prepared;
    atomic_uint calls; /* goes up with each job */
} pool = {.busy = PE_MUTEX, .lock = PE_MUTEX, .called = PE_CONDITION, .left = PE_CONDITION};

static bool stop_asked(void *job) {
    return atomic_load_explicit(&((struct job *)job)->stopped, memory_order_relaxed);
}

static void work(struct job *job, pe_poll *poll, void *context) {
    while (!stop_asked(job)) {
        size_t part = atomic_fetch_add(&job->next, 1);
        if (part >= job->parts) return;
        if (job->run(job->call, part, poll, context) != PE_OK) atomic_store(&job->stopped, true);
    }
}

/* ---- workers ---- */

static unsigned await_call(unsigned seen) {
    for (int i = 0; i < LOOKS; i++) {
        unsigned calls = atomic_load_explicit(&pool.calls, memory_order_acquire);
        if (calls != seen) return calls;
        PE_PAUSE();
    }
    pe_lock(&pool.lock);
    unsigned calls;
    while ((calls = atomic_load(&pool.calls)) == seen) pe_wait(&pool.called, &pool.lock);
    pe_unlock(&pool.lock);
    return calls;
}

PE_THREAD_BODY(serve, calls_before) {
    for (unsigned seen = (unsigned)(size_t)calls_before;;) {
        seen = await_call(seen);
        pe_lock(&pool.lock);
        struct job *job = pool.job;
        if (job && job->seats > 0) {
            job->seats--;
            atomic_fetch_add(&job->inside, 1);
        } else
            job = NULL;
        pe_unlock(&pool.lock);
        if (job == NULL) continue;
        work(job, stop_asked, job);
        pe_lock(&pool.lock);
        if (atomic_fetch_sub(&job->inside, 1) == 1) pe_wake(&pool.left); /* and the job may be gone */
        pe_unlock(&pool.lock);
    }
    PE_THREAD_END;
}

#ifndef _WIN32
static void forget_workers(void) {
    pool.busy = pool.lock = (pe_mutex)PE_MUTEX;
    pool.called = pool.left = (pe_condition)PE_CONDITION;
    pool.job = NULL;
    pool.workers = 0;
}
#endif

/* fewer than wanted where the system gives no more */
static void start_workers(size_t wanted) {
#ifndef _WIN32
    if (!pool.prepared) pe_at_fork(forget_workers);
#endif
    pool.prepared = true;
    void *calls = (void *)(size_t)atomic_load(&pool.calls);
    while (pool.workers < wanted && pe_thread_start(serve, calls)) pool.workers++;
}

/* ---- callers ---- */

static void publish(struct job *job) {
    pe_lock(&pool.lock);
    pool.job = job;
    atomic_fetch_add_explicit(&pool.calls, 1, memory_order_release);
    pe_wake(&pool.called);
    pe_unlock(&pool.lock);
}

/* nobody else comes; those inside are waited for, and asked to stop where the caller is */
static void withdraw(struct job *job, pe_poll *poll, void *context) {
    pe_lock(&pool.lock);
    pool.job = NULL;
    pe_unlock(&pool.lock);
    for (int i = 0; i < LOOKS && atomic_load(&job->inside) > 0; i++) PE_PAUSE();
    pe_lock(&pool.lock);
    while (atomic_load(&job->inside) > 0) {
        pe_wait_ms(&pool.left, &pool.lock, POLL_MS);
        if (poll == NULL || stop_asked(job) || atomic_load(&job->inside) == 0) continue;
        pe_unlock(&pool.lock); /* a poll may wait for the interpreter */
        if (poll(context)) atomic_store(&job->stopped, true);
        pe_lock(&pool.lock);
    }
    pe_unlock(&pool.lock);
}

enum pe_status pe_share(pe_part *run, void *call, size_t parts, size_t threads, pe_poll *poll, void *context) {
    struct job job = {.run = run, .call = call, .parts = parts};
    size_t helpers = threads < parts ? threads : parts;
    bool shared = helpers > 1 && pe_try_lock(&pool.busy);
    if (shared) {
        start_workers(helpers - 1);
        job.seats = helpers - 1;
        publish(&job);
    }
    work(&job, poll, context);
    if (shared) {
        withdraw(&job, poll, context);
        pe_unlock(&pool.busy);
    }
    return stop_asked(&job) ? PE_STOPPED : PE_OK;
}
