/* Threads for calls that are worth them: the one thing that outlives a call in core. */
#ifndef PE_POOL_H
#define PE_POOL_H

#include "posenc.h"

/* One part of a call, written apart from all others. Stops where its poll asks it to. */
typedef enum pe_status pe_part(void *call, size_t part, pe_poll *poll, void *context);

/* Do parts 0 .. parts - 1 on this thread and up to threads - 1 workers, each claimed by whoever is free; returns when all are
 * done, PE_OK, or when nobody is at one any more, PE_STOPPED: where `poll`, which this thread alone asks, said so. While
 * another caller has the workers, and in a process without threads, this thread does all of them. */
enum pe_status pe_share(pe_part *run, void *call, size_t parts, size_t threads, pe_poll *poll, void *context);

/* How many threads, of so many at most, share a call of medium length that begins now, in microseconds of any clock: those
 * that are awake, so that nobody is woken; 0 where the caller is to ask how many threads there are, to tell it, and to
 * share the call among all of them, which wakes them. */
size_t pe_at_hand(size_t most, unsigned now);
void pe_told(size_t threads, bool large, unsigned now); /* large: a call that was to be shared in any case */

#endif
