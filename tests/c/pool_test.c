/* The pool of threads by itself: every part is done once, several at once, none after the call; callers share it; calls of
 * medium length take those who are awake; a forked child starts anew. Run with "fork" to include that. */
#define _POSIX_C_SOURCE 200809L
#include "../../csrc/core/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 100, CALLERS = 4, CALLS = 2000 };

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (condition) break;                                                    \
        fprintf(stderr, "FAILED, line %d: %s\n", __LINE__, #condition), abort(); \
    } while (0)

static void sleep_us(long us) {
    nanosleep(&(struct timespec){0, us * 1000}, NULL);
}

struct counted {
    int done[MOST]; /* no two threads write to one */
    size_t sum;
};

static enum pe_status count(void *call, size_t part, pe_poll *poll, void *context) {
    struct counted *c = call;
    (void)poll, (void)context;
    c->done[part]++;
    return PE_OK;
}

static void each_part_once(size_t parts, size_t threads) {
    struct counted c = {{0}, 0};
    CHECK(pe_share(count, &c, parts, threads, NULL, NULL) == PE_OK);
    for (size_t i = 0; i < MOST; i++) CHECK(c.done[i] == (i < parts));
}

/* ---- at once: each part waits until all have begun ---- */

struct meeting {
    atomic_size_t there;
    size_t parts;
};

static enum pe_status meet(void *call, size_t part, pe_poll *poll, void *context) {
    struct meeting *m = call;
    (void)part, (void)poll, (void)context;
    atomic_fetch_add(&m->there, 1);
    for (int i = 0; atomic_load(&m->there) < m->parts; i++) {
        CHECK(i < 100000); /* ten seconds */
        sleep_us(100);
    }
    return PE_OK;
}

static void all_meet(size_t threads) {
    struct meeting m = {0, threads};
    CHECK(pe_share(meet, &m, threads, threads, NULL, NULL) == PE_OK);
}

/* ---- homes: where the threads of a call begin ---- */

struct beginnings {
    atomic_size_t there;
    size_t threads;
    atomic_bool begun[MOST]; /* by a thread whose first part it was */
};

static enum pe_status begin_here(void *call, size_t part, pe_poll *poll, void *context) {
    struct beginnings *b = call;
    (void)poll, (void)context;
    if (atomic_load(&b->there) == b->threads) return PE_OK; /* nobody's first */
    atomic_store(&b->begun[part], true);
    atomic_fetch_add(&b->there, 1);
    for (int i = 0; atomic_load(&b->there) < b->threads; i++) {
        CHECK(i < 100000);
        sleep_us(100);
    }
    return PE_OK;
}

static void each_has_a_home(size_t parts, size_t threads) {
    struct beginnings b = {.threads = threads};
    CHECK(pe_share(begin_here, &b, parts, threads, NULL, NULL) == PE_OK);
    size_t homes = 0;
    for (size_t i = 0; i < parts; i++) homes += atomic_load(&b.begun[i]);
    CHECK(homes == threads);
    for (size_t h = 0; h < threads; h++) CHECK(atomic_load(&b.begun[h * parts / threads]));
}

/* ---- stops ---- */

struct stopping {
    atomic_size_t begun, under_way;
};

static bool stop_after_three(void *context) {
    return atomic_load(&((struct stopping *)context)->begun) >= 3;
}

static enum pe_status obey(void *call, size_t part, pe_poll *poll, void *context) {
    struct stopping *s = call;
    (void)part;
    atomic_fetch_add(&s->under_way, 1);
    atomic_fetch_add(&s->begun, 1);
    bool stop = false;
    for (int i = 0; i < 1000 && !stop; i++) stop = poll(context), sleep_us(100);
    atomic_fetch_sub(&s->under_way, 1);
    return stop ? PE_STOPPED : PE_OK;
}

/* the caller has no part any more: it asks while it waits */
static enum pe_status obey_in_one_part(void *call, size_t part, pe_poll *poll, void *context) {
    struct stopping *s = call;
    if (part == 0 && atomic_fetch_add(&s->begun, 0) == 0) {
        while (atomic_load(&s->under_way) == 0) sleep_us(10);
        return PE_OK;
    }
    atomic_fetch_add(&s->under_way, 1);
    atomic_fetch_add(&s->begun, 3);
    for (int i = 0; !poll(context); i++) {
        CHECK(i < 100000);
        sleep_us(100);
    }
    return PE_STOPPED;
}

static void stops(void) {
    struct stopping s = {0, 0};
    CHECK(pe_share(obey, &s, MOST, 3, stop_after_three, &s) == PE_STOPPED);
    CHECK(atomic_load(&s.under_way) == 0);
    size_t begun = atomic_load(&s.begun);
    CHECK(begun >= 3 && begun < MOST);
    sleep_us(20000);
    CHECK(atomic_load(&s.begun) == begun);
    struct stopping t = {0, 0};
    CHECK(pe_share(obey_in_one_part, &t, 2, 2, stop_after_three, &t) == PE_STOPPED);
}

/* ---- calls of medium length: the clock is this program's own ---- */

static unsigned clock_us = 0u - 700; /* soon over its end */

static size_t at_hand_after(unsigned us) {
    return pe_at_hand(MOST, clock_us += us);
}

static void told(size_t threads, bool large) {
    pe_told(threads, large, clock_us);
}

/* until nobody looks out: to be told lets the call that follows share with whoever does */
static void all_sleep(void) {
    for (int i = 0; told(2, true), at_hand_after(1) != 1; i++) {
        CHECK(i < 10000); /* ten seconds */
        sleep_us(1000);
    }
}

/* both leave at once: who sleeps meanwhile might find that the other does so by now */
static enum pe_status meet_awake(void *call, size_t part, pe_poll *poll, void *context) {
    struct meeting *m = call;
    (void)part, (void)poll, (void)context;
    atomic_fetch_add(&m->there, 1);
    while (atomic_load(&m->there) < m->parts) sched_yield();
    return PE_OK;
}

/* a worker looks out after a call, but not for long if others have the processors: so again, until it is seen */
static void shared_after_a_call(bool large) {
    for (int i = 0;; i++) {
        struct meeting m = {0, 2};
        CHECK(i < 10000);
        CHECK(at_hand_after(5000) == 1); /* after a pause calls would be alone */
        CHECK(pe_share(meet_awake, &m, 2, 2, NULL, NULL) == PE_OK);
        told(2, large);
        size_t found = at_hand_after(1);
        CHECK(found == 1 || found == 2);
        if (found == 2) break;
    }
}

/* calls that follow each other: alone for a millisecond, and then as a large one */
static void settles(void) {
    CHECK(at_hand_after(5000) == 1);
    for (int i = 0; i < 9; i++) CHECK(at_hand_after(100) == 1);
    CHECK(at_hand_after(99) == 1);
    CHECK(at_hand_after(1) == 0);
    CHECK(at_hand_after(0) == 0);
}

static void *call_once(void *ignored) {
    (void)ignored;
    CHECK(at_hand_after(0) == 1);
    return NULL;
}

/* one call shared for one that wakes does not pay: the time until the next goes on growing */
static void one_does_not_pay(void) {
    for (int i = 0;; i++) {
        CHECK(i < 1000);
        all_sleep();
        told(2, false), told(2, false); /* 4 ms */
        struct meeting m = {0, 2};
        CHECK(pe_share(meet_awake, &m, 2, 2, NULL, NULL) == PE_OK);
        if (at_hand_after(1) != 2) continue;
        sleep_us(20000);
        if (at_hand_after(1) == 1) break;
    }
    CHECK(at_hand_after(498) == 1);
    for (int i = 0; i < 5; i++) CHECK(at_hand_after(500) == 1);
    CHECK(at_hand_after(499) == 1 && at_hand_after(1) == 0);
}

static void medium_calls(void) {
    all_sleep();
    settles();
    for (unsigned wait = 2000; wait <= 256000; wait *= 2) { /* told, but nobody wakes: longer and longer */
        told(2, false);
        unsigned most = wait < 64000 ? wait : 64000;
        for (unsigned us = 0; us + 500 < most; us += 500) CHECK(at_hand_after(500) == 1);
        CHECK(at_hand_after(499) == 1);
        CHECK(at_hand_after(1) == 0);
    }
    told(2, true); /* a large call has woken them: not so long */
    CHECK(at_hand_after(500) == 1 && at_hand_after(499) == 1 && at_hand_after(1) == 0);
    told(1, false); /* one thread: asked again only after ten milliseconds */
    for (int i = 0; i < 19; i++) CHECK(at_hand_after(500) == 1);
    CHECK(at_hand_after(500) == 0);
    settles(); /* after a pause */
    pthread_t other;
    CHECK(pthread_create(&other, NULL, call_once, NULL) == 0 && pthread_join(other, NULL) == 0);
    CHECK(at_hand_after(0) == 1); /* two threads call in turn */
    settles();
    shared_after_a_call(true);
    shared_after_a_call(false);
    one_does_not_pay();
    all_sleep();
    settles();
}

/* ---- callers at once, and a child of one ---- */

static void *call_often(void *ignored) {
    (void)ignored;
    for (size_t i = 0; i < CALLS; i++) each_part_once(1 + i % MOST, 1 + i % 5);
    return NULL;
}

static void callers_at_once(bool forking) {
    pthread_t callers[CALLERS];
    for (int i = 0; i < CALLERS; i++) CHECK(pthread_create(&callers[i], NULL, call_often, NULL) == 0);
    for (int i = 0; forking && i < 50; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20); /* a child that hangs is killed */
            for (size_t parts = 1; parts < 20; parts++) each_part_once(parts, 3);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
}

/* a signal's handler forks while another thread is at its part: the child has not got what it would have done */

static bool fork_once(void *context) {
    pid_t *child = context;
    if (*child < 0) CHECK((*child = fork()) >= 0);
    return *child > 0;
}

static enum pe_status stay_until_stopped(void *call, size_t part, pe_poll *poll, void *context) {
    atomic_size_t *begun = call;
    (void)part;
    atomic_fetch_add(begun, 1);
    while (atomic_load(begun) < 2) sleep_us(10);
    if (poll == fork_once) return PE_OK; /* the caller: it asks while it waits */
    for (int i = 0; !poll(context); i++) {
        CHECK(i < 100000);
        sleep_us(100);
    }
    return PE_STOPPED;
}

static void forked_under_way(void) {
    pid_t child = -1;
    atomic_size_t begun = 0;
    alarm(60);
    CHECK(pe_share(stay_until_stopped, &begun, 2, 2, fork_once, &child) == PE_STOPPED);
    if (child == 0) {
        for (size_t parts = 1; parts < 20; parts++) each_part_once(parts, 3);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    alarm(0);
}

int main(int argc, char **argv) {
    for (size_t parts = 0; parts <= MOST; parts++)
        for (size_t threads = 0; threads < 5; threads++) each_part_once(parts, threads);
    for (size_t threads = 2; threads < 5; threads++) {
        all_meet(threads);
        sleep_us(5000); /* workers sleep by now, and are woken */
    }
    for (size_t parts = 4; parts <= MOST; parts += 13) { /* three workers by now; of fewer, some would share one */
        each_has_a_home(parts, 1);
        each_has_a_home(parts, 2);
        each_has_a_home(parts, 4);
    }
    stops();
    medium_calls();
    bool forking = argc > 1 && strcmp(argv[1], "fork") == 0;
    if (forking) forked_under_way();
    callers_at_once(forking);
    puts("ok");
    return 0;
}
