/* What the pool needs of the operating system, under one name each. */
#ifndef PE_THREAD_H
#define PE_THREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PE_THREAD_STACK = 2 << 20 }; /* rows, turns and stages of a call take a tenth; some systems give 128 KiB */

#ifdef _WIN32

#include <windows.h>

typedef SRWLOCK pe_mutex;
typedef CONDITION_VARIABLE pe_condition;
#define PE_MUTEX     SRWLOCK_INIT
#define PE_CONDITION CONDITION_VARIABLE_INIT

static inline void pe_lock(pe_mutex *m) {
    AcquireSRWLockExclusive(m);
}
static inline bool pe_try_lock(pe_mutex *m) {
    return TryAcquireSRWLockExclusive(m) != 0;
}
static inline void pe_unlock(pe_mutex *m) {
    ReleaseSRWLockExclusive(m);
}
static inline void pe_wait(pe_condition *c, pe_mutex *m) {
    SleepConditionVariableSRW(c, m, INFINITE, 0);
}
static inline void pe_wait_ms(pe_condition *c, pe_mutex *m, unsigned ms) {
    SleepConditionVariableSRW(c, m, ms, 0);
}
static inline void pe_wake(pe_condition *c) {
    WakeAllConditionVariable(c);
}

#define PE_THREAD_BODY(name, argument) static DWORD WINAPI name(void *argument)
#define PE_THREAD_END                  return 0
static inline bool pe_thread_start(LPTHREAD_START_ROUTINE body, void *argument) {
    HANDLE handle = CreateThread(NULL, PE_THREAD_STACK, body, argument, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    return handle != NULL && CloseHandle(handle);
}
static inline uintptr_t pe_self(void) {
    return (uintptr_t)GetCurrentThreadId();
}
static inline void pe_at_fork(void (*in_child)(void)) {
    (void)in_child;
}

#else

#include <pthread.h>
#include <signal.h>
#include <time.h>

typedef pthread_mutex_t pe_mutex;
typedef pthread_cond_t pe_condition;
#define PE_MUTEX     PTHREAD_MUTEX_INITIALIZER
#define PE_CONDITION PTHREAD_COND_INITIALIZER

static inline void pe_lock(pe_mutex *m) {
    pthread_mutex_lock(m);
}
static inline bool pe_try_lock(pe_mutex *m) {
    return pthread_mutex_trylock(m) == 0;
}
static inline void pe_unlock(pe_mutex *m) {
    pthread_mutex_unlock(m);
}
static inline void pe_wait(pe_condition *c, pe_mutex *m) {
    pthread_cond_wait(c, m);
}
static inline void pe_wait_ms(pe_condition *c, pe_mutex *m, unsigned ms) {
    struct timespec until;
    timespec_get(&until, TIME_UTC);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000, until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(c, m, &until);
}
static inline void pe_wake(pe_condition *c) {
    pthread_cond_broadcast(c);
}

#define PE_THREAD_BODY(name, argument) static void *name(void *argument)
#define PE_THREAD_END                  return NULL
/* A thread that no signal reaches: handlers belong to the caller's threads. */
static inline bool pe_thread_start(void *(*body)(void *), void *argument) {
    pthread_attr_t how;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&how) != 0) return false;
    pthread_attr_setstacksize(&how, PE_THREAD_STACK);
    pthread_attr_setdetachstate(&how, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&thread, &how, body, argument) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&how);
    return started;
}
static inline uintptr_t pe_self(void) {
    return (uintptr_t)pthread_self();
}
static inline void pe_at_fork(void (*in_child)(void)) {
    pthread_atfork(NULL, NULL, in_child);
}

#endif

#endif
