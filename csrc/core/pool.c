/* A pool of workers, started when a call first wants them and asleep between calls.
 *
 * A worker that has just worked looks out for the next call for some tens of microseconds before it sleeps: to wake it takes
 * its caller ten, and it comes after as many again, while one that looks out has its part within a fifth of one. It finds
 * everything without a lock: a call opens the door to so many, each takes a seat and is inside, and the caller who has shut
 * the door waits until nobody is. Only one caller has the workers at a time; others work alone, which neither
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
enum { INSIDE = 1 << 16 };           /* one of those inside, in `door`; seats are fewer */
enum { HOMES = 64 };                 /* of more threads than that, some share one: see `work` */

struct job {
    pe_part *run;
    void *call;
    size_t parts, homes;
    atomic_bool stopped;
    atomic_size_t next[HOMES]; /* of each home: the parts of home h end before (h + 1) * parts / homes */
};

/* what workers look at, what callers lock, and what calls of medium length note lie in cache lines of their own */
static struct {
    PE_ALIGNED(64) atomic_uint calls; /* goes up with each job */
    atomic_uint door;                 /* seats that are free, and in units of INSIDE who is inside */
    atomic_uint awake;                /* workers that do not sleep */
    atomic_uint numbered;             /* counts workers as they begin */
    struct job *job;                  /* for those inside */
    PE_ALIGNED(64) pe_mutex busy;     /* held by the caller who has the workers */
    pe_mutex lock;                    /* of the conditions */
    pe_condition called, left;
    atomic_bool awaited; /* the caller sleeps until nobody is inside */
    size_t workers;
    bool prepared;
    PE_ALIGNED(64) atomic_uintptr_t caller; /* see pe_at_hand; times in microseconds */
    atomic_uint threads, last, since, told, wait;
} pool = {.busy = PE_MUTEX, .lock = PE_MUTEX, .called = PE_CONDITION, .left = PE_CONDITION};

static bool stop_asked(void *job) {
    return atomic_load_explicit(&((struct job *)job)->stopped, memory_order_relaxed);
}

static size_t first_part(const struct job *job, size_t home) {
    return job->parts / job->homes * home + job->parts % job->homes * home / job->homes;
}

/* First the parts of one's own home. They lie side by side, and are the same ones in each of several calls, whose data is
 * then in this processor's cache, and no other one fetches it ahead. Taken as they come, parts of 32 KiB of each head take
 * 1.4 times as long while caches hold them, and twice as long where two processors have no cache in common. Then what others
 * have not begun. */
static void work(struct job *job, size_t home, pe_poll *poll, void *context) {
    for (size_t k = 0; k < job->homes; k++) {
        size_t at = (home + k) % job->homes, end = first_part(job, at + 1);
        while (!stop_asked(job)) {
            size_t part = atomic_fetch_add(&job->next[at], 1);
            if (part >= end) break;
            if (job->run(job->call, part, poll, context) != PE_OK) atomic_store(&job->stopped, true);
        }
    }
}

/* ---- workers ---- */

static unsigned await_call(unsigned seen) {
    for (int i = 0; i < LOOKS; i++) {
        unsigned calls = atomic_load_explicit(&pool.calls, memory_order_acquire);
        if (calls != seen) return calls;
        PE_PAUSE();
    }
    atomic_fetch_sub(&pool.awake, 1); /* and then one more look: a caller calls, and then counts who is awake */
    pe_lock(&pool.lock);
    unsigned calls;
    while ((calls = atomic_load(&pool.calls)) == seen) pe_wait(&pool.called, &pool.lock);
    pe_unlock(&pool.lock);
    atomic_fetch_add(&pool.awake, 1);
    return calls;
}

static bool enter(void) {
    unsigned door = atomic_load(&pool.door);
    while (door % INSIDE > 0)
        if (atomic_compare_exchange_weak(&pool.door, &door, door - 1 + INSIDE)) return true;
    return false;
}

static void leave(void) { /* and the job may be gone */
    if (atomic_fetch_sub(&pool.door, INSIDE) >= 2 * INSIDE || !atomic_load(&pool.awaited)) return;
    pe_lock(&pool.lock);
    pe_wake(&pool.left);
    pe_unlock(&pool.lock);
}

PE_THREAD_BODY(serve, calls_before) {
    atomic_fetch_add(&pool.awake, 1);
    size_t number = atomic_fetch_add(&pool.numbered, 1);
    for (unsigned seen = (unsigned)(size_t)calls_before;;) {
        seen = await_call(seen);
        if (!enter()) continue;
        struct job *job = pool.job;
        work(job, 1 + number % (job->homes - 1), stop_asked, job);
        leave();
    }
    PE_THREAD_END;
}

#ifndef _WIN32
static void forget_workers(void) {
    pool.busy = pool.lock = (pe_mutex)PE_MUTEX;
    pool.called = pool.left = (pe_condition)PE_CONDITION;
    pool.workers = 0;
    if (pool.job) atomic_store(&pool.job->stopped, true); /* a signal's handler has forked under way: parts are lost */
    pool.job = NULL;
    atomic_store(&pool.door, 0);
    atomic_store(&pool.awake, 0);
    atomic_store(&pool.awaited, false);
    atomic_store(&pool.threads, 1);
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

static void publish(struct job *job, unsigned seats) {
    pool.job = job;
    atomic_store(&pool.door, seats);
    atomic_fetch_add(&pool.calls, 1);
    if (atomic_load(&pool.awake) >= seats) return;
    pe_lock(&pool.lock);
    pe_wake(&pool.called);
    pe_unlock(&pool.lock);
}

static bool somebody_inside(void) {
    return atomic_load(&pool.door) >= INSIDE;
}

/* nobody else comes; those inside are waited for, and asked to stop where the caller is */
static void withdraw(struct job *job, pe_poll *poll, void *context) {
    atomic_fetch_and(&pool.door, ~(INSIDE - 1u));
    for (int i = 0; i < LOOKS && somebody_inside(); i++) PE_PAUSE();
    if (!somebody_inside()) return;
    pe_lock(&pool.lock);
    atomic_store(&pool.awaited, true); /* and then one more look: who leaves does so, and then asks */
    while (somebody_inside()) {
        pe_wait_ms(&pool.left, &pool.lock, POLL_MS);
        if (poll == NULL || stop_asked(job) || !somebody_inside()) continue;
        pe_unlock(&pool.lock); /* a poll may wait for the interpreter */
        if (poll(context)) atomic_store(&job->stopped, true);
        pe_lock(&pool.lock);
    }
    atomic_store(&pool.awaited, false);
    pe_unlock(&pool.lock);
}

enum pe_status pe_share(pe_part *run, void *call, size_t parts, size_t threads, pe_poll *poll, void *context) {
    struct job job; /* most of its homes are nobody's */
    size_t helpers = threads < parts ? threads : parts;
    bool shared = helpers > 1 && pe_try_lock(&pool.busy);
    job.run = run, job.call = call, job.parts = parts;
    job.homes = !shared ? 1 : helpers < HOMES ? helpers : HOMES;
    atomic_init(&job.stopped, false);
    for (size_t h = 0; h < job.homes; h++) atomic_init(&job.next[h], first_part(&job, h));
    if (shared) {
        start_workers(helpers - 1);
        publish(&job, (unsigned)helpers - 1);
    }
    work(&job, 0, poll, context);
    if (shared) withdraw(&job, poll, context);
    if (shared && pool.job) { /* NULL in a child that was forked meanwhile, whose lock is a new one */
        pool.job = NULL;
        pe_unlock(&pool.busy);
    }
    return stop_asked(&job) ? PE_STOPPED : PE_OK;
}

/* ---- calls of medium length ----
 *
 * A call of some microseconds up to hundreds gains where workers look out, and loses where they are to be woken. So it takes
 * those who are awake. Nobody would be in a loop of such calls: once one thread's calls have begun no more than NEAR_US apart
 * for as long, one of them is treated as a large one, which wakes the workers, and those that follow keep them awake. That
 * costs 15 us. So the time until it is done again doubles, up to WAIT_MOST_US, and each call that is shared takes GAIN_US off:
 * with two of them or more it has paid, with one, or with calls too far apart, it is hardly done any more. Calls of two
 * threads in turn stay alone: each has a processor. How many threads there may be is Python's to say, and asked once in
 * TOLD_US.
 */

enum { NEAR_US = 1000, GAIN_US = 500, TOLD_US = 10000, WAIT_MOST_US = 64000 };

#define GET(member)        atomic_load_explicit(&pool.member, memory_order_relaxed)
#define SET(member, value) atomic_store_explicit(&pool.member, value, memory_order_relaxed)

void pe_told(size_t threads, bool large, unsigned now) {
    unsigned wait = GET(wait) * 2;
    if (large || GET(awake) > 0) wait = 0;
    SET(wait, wait < NEAR_US ? NEAR_US : wait < WAIT_MOST_US ? wait : WAIT_MOST_US);
    SET(threads, (unsigned)threads);
    SET(told, now);
    SET(last, now);
    SET(since, now - NEAR_US);
    SET(caller, pe_self());
}

size_t pe_at_hand(size_t most, unsigned now) {
    uintptr_t self = pe_self();
    size_t awake = GET(awake), threads = GET(threads);
    bool goes_on = GET(caller) == self && now - GET(last) < NEAR_US;
    SET(last, now);
    if (!goes_on) {
        SET(caller, self);
        SET(since, now);
    }
    if (now - GET(since) < NEAR_US) return 1;
    if (now - GET(told) >= (awake > 0 || threads == 1 ? TOLD_US : GET(wait))) return 0;
    if (awake == 0 || threads <= 1) return 1;
    SET(wait, GET(wait) > GAIN_US ? GET(wait) - GAIN_US : 0);
    most = most < threads ? most : threads;
    return most < 1 + awake ? most : 1 + awake;
}
