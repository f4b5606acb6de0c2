/* Worker threads for one call at a time, and the barrier at which a team of them meets. */
#ifndef FR_THREADS_H
#define FR_THREADS_H

#include <stdatomic.h>

#include "common.h"

#define FR_MOST_THREADS 1024 /* of a pool */

/* Waits by spinning. After some time it yields the processor after each check, and later sleeps between checks: threads of a
 * lower priority get the processor only then. */
typedef struct fr_spin {
    int looks;
    double since; /* seconds: about when the wait began; 0 for a short wait */
} fr_spin;
void fr_spin_pause(fr_spin *spin);
double fr_spin_seconds(const fr_spin *spin); /* since the wait began; 0 for a short wait */

/* Each counter has its own cache line: an arrival must not evict the line of the phase, which the others poll. */
typedef struct fr_barrier {
    _Alignas(FR_ALIGNMENT) atomic_int arrived;
    _Alignas(FR_ALIGNMENT) atomic_uint phase;
    unsigned forks; /* fr_forks() when the barrier was made */
} fr_barrier;

/* The workers that run the steps of one cell together, as one of them sees them. */
typedef struct fr_team {
    int size, index;
    fr_barrier *barrier; /* unused if size is 1 */
} fr_team;

/* The number of forks between the process that made the first pool and this one. It changes during a call whose callback
 * forks: the child has none of the call's other threads. */
unsigned fr_forks(void);

/* Waits until every member of the team has called this function; memory that they wrote before is visible afterwards. Returns
 * at once in a process that was forked after the barrier was made. Returns the seconds waited, or 0 for a short wait. */
double fr_team_wait(const fr_team *team);

/* The part of [0, count) that this member computes. */
static inline fr_range fr_team_share(const fr_team *team, int64_t count)
{
    if (team->size == 1) /* two divisions are noticeable in a step of 0.1 us */
        return (fr_range){0, count};
    return (fr_range){count * team->index / team->size, count * (team->index + 1) / team->size};
}

typedef void fr_task(void *context, int worker);

int fr_pool_num_threads(const fastrnn_pool *pool); /* as asked for; 1 for NULL */
double fr_pool_threshold(const fastrnn_pool *pool); /* as set by fastrnn_pool_set_threshold */

/* Acquires the pool for a call of about `macs` multiply-adds, until fr_pool_leave. Returns the number of threads that run
 * the call, including the caller's: `workers`, or fewer if the system refused to create some. Returns 1, without acquiring
 * the pool, if the pool is in use, if its workers sleep and the call would end before they wake up, or if the pool is
 * oversubscribed and the call does not tolerate that. */
int fr_pool_enter(fastrnn_pool *pool, int workers, double macs, bool tolerates_oversubscription);
void fr_pool_start(fastrnn_pool *pool, int workers, fr_task *task, void *context); /* on workers 1, 2, ... */
bool fr_pool_is_done(fastrnn_pool *pool);
void fr_pool_leave(fastrnn_pool *pool);

/* Reports that other processes use the processors: the caller waited `waited` seconds too long for its workers. For some time
 * after that sharing would cost more than it gains, so fr_pool_enter returns 1, and a running call continues on its caller's
 * thread. */
void fr_pool_set_oversubscribed(fastrnn_pool *pool, double waited);
bool fr_pool_is_oversubscribed(fastrnn_pool *pool);

#endif
