/* The operating system's services that the core uses. The core is compiled with all files of this directory; the macros below
 * select which of them implement this interface. To port the core to another system, add a file and change the selection. */
#ifndef FR_OS_H
#define FR_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Time, threads, locks and forks: posix.c, else other.c, which cannot create threads. */
#if !defined(_WIN32)
#define FR_OS_POSIX
#endif

/* Processors: linux.c, else other.c, which knows none. */
#if defined(__linux__)
#define FR_OS_LINUX
#endif

/* ---- Time ------------------------------------------------------------------------------------------------------ */

double fr_seconds(void);        /* of a monotonic clock */
double fr_thread_seconds(void); /* processor time of this thread; the call takes about 0.3 us */

/* ---- Threads --------------------------------------------------------------------------------------------------- */

typedef struct fr_thread {
    void (*run)(void *argument);
    void *argument;
    uintptr_t handle; /* the system's */
} fr_thread;

/* Starts a thread that calls run(argument), with all signals blocked. *thread must stay where it is until the thread is joined.
 * Returns false if the system refused. */
bool fr_thread_create(fr_thread *thread, void (*run)(void *argument), void *argument);
void fr_thread_join(fr_thread *thread);

void fr_thread_yield(void);
void fr_thread_sleep(long nanoseconds); /* less than a second */

/* ---- Locks ----------------------------------------------------------------------------------------------------- */

typedef struct fr_lock fr_lock; /* a mutex and a condition variable */

fr_lock *fr_lock_create(void); /* NULL if the system refused it */
void fr_lock_destroy(fr_lock *lock);
void fr_lock_acquire(fr_lock *lock);
void fr_lock_release(fr_lock *lock);
void fr_lock_notify_all(fr_lock *lock);

/* Releases the lock, which the caller holds, sleeps until notified, and acquires it again. May wake up without notification. */
void fr_lock_wait(fr_lock *lock);

/* In a child after fork: makes the lock free, whichever thread of the parent held it. False if the system refused it. */
bool fr_lock_reset(fr_lock *lock);

/* ---- Files ----------------------------------------------------------------------------------------------------- */

/* The bytes of a file, which are in memory only as far as they are looked at, where the system can do that. Returns NULL, or the
 * reason for which there is none, such as "cannot be opened". */
const char *fr_file_map(const char *path, const void **data, size_t *size);
void fr_file_unmap(const void *data, size_t size);

/* ---- Forks ----------------------------------------------------------------------------------------------------- */

/* From the first call on, forks are counted, and `in_child` is called in each child by its only thread, which holds the process
 * lock. Later calls have no effect. */
void fr_fork_watch(void (*in_child)(void));

/* The number of counted forks between the process that called fr_fork_watch and this one. */
unsigned fr_forks(void);

/* The process lock. A counted fork waits for it, so that the child finds what the lock protects in a consistent state. */
void fr_process_lock(void);
void fr_process_unlock(void);

/* ---- Processors ------------------------------------------------------------------------------------------------ */

/* A set of processors: bit n % 64 of word n / 64 is processor n. Empty: not known. */
typedef struct fr_affinity {
    uint64_t words[16];
} fr_affinity;

fr_affinity fr_affinity_get(void);                /* the processors on which this thread may run */
void fr_affinity_set(const fr_affinity *affinity); /* no effect if empty */

int fr_processor(void); /* the number of the processor that runs this thread; -1: not known */

/* Whether an AArch64 processor has the instructions for dot products of bytes; false if not known. */
bool fr_processor_has_dotprod(void);

/* Moves this thread away from a processor, if it may run on another one. Its affinity stays as it is. */
void fr_processor_leave(int number);

#endif
