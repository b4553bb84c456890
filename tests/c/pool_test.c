/* The pool of threads by itself: every part is done once, several at once, none after the call; callers share it; a forked
 * child starts anew. Run with "fork" to include that. */
#define _POSIX_C_SOURCE 200809L
#include "../../csrc/core/pool.h"

#include <pthread.h>
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

int main(int argc, char **argv) {
    for (size_t parts = 0; parts <= MOST; parts++)
        for (size_t threads = 0; threads < 5; threads++) each_part_once(parts, threads);
    for (size_t threads = 2; threads < 5; threads++) {
        struct meeting m = {0, threads};
        CHECK(pe_share(meet, &m, threads, threads, NULL, NULL) == PE_OK);
        sleep_us(5000); /* workers sleep by now, and are woken */
    }
    stops();
    callers_at_once(argc > 1 && strcmp(argv[1], "fork") == 0);
    puts("ok");
    return 0;
}
