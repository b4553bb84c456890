/* Memory that traps: bytes between two pages that may not be touched.
 *
 * A buffer that ends where the upper page begins catches a read or a write of one byte too many at once, without a
 * sanitizer; one that begins where the lower page ends catches the other side. Include this file first: it asks the C
 * library for mmap.
 */
#ifndef POSENC_TESTS_GUARD_H
#define POSENC_TESTS_GUARD_H

#if defined(__APPLE__)
#define _DARWIN_C_SOURCE 1
#else
#define _DEFAULT_SOURCE 1
#endif

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard {
    char *begin, *end; /* whole pages that may be touched; the pages before and after trap */
};

/* At least `bytes` bytes, for the rest of the process. */
static inline struct guard guard_make(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    char *map = mmap(NULL, inner + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (map == MAP_FAILED || mprotect(map, page, PROT_NONE) || mprotect(map + page + inner, page, PROT_NONE)) {
        perror("guard pages");
        exit(2);
    }
    return (struct guard){map + page, map + page + inner};
}

/* Where a buffer lies between its guard pages. */
enum place { AT_END, AT_BEGIN, INSIDE, PLACES };
static const char *const place_name[PLACES] = {"against the upper guard page", "against the lower guard page",
                                               "inside"};

/* `bytes` bytes there; inside means `shift` bytes after a 64-byte line begins. */
static inline char *guard_place(const struct guard *g, enum place place, size_t bytes, size_t shift) {
    if (place == AT_END) return g->end - bytes;
    return place == AT_BEGIN ? g->begin : g->begin + 64 + shift;
}

/* Call `report` and leave with status 1 when memory that traps is touched, or an instruction is not there. */
static void (*guard_report)(void);

static void guard_trapped(int signal_number) { /* the fault lies in the code under test, so stdio is not in use */
    fprintf(stderr, "FAILED: %s\n", signal_number == SIGILL ? "illegal instruction" : "touched memory outside");
    guard_report();
    _Exit(1);
}

static inline void guard_catch(void (*report)(void)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = guard_trapped;
    guard_report = report;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
}

#endif
