/* Worker threads for one call at a time, and the barrier at which a team of them meets. */
#ifndef FR_THREADS_H
#define FR_THREADS_H

#include <stdatomic.h>

#include "common.h"

#define FR_MOST_THREADS 1024 /* of a pool */

/* Spins; after a while it gives the processor away between looks, and later sleeps between them: others who wait for the
 * processor may have a lower priority, and get it only then. */
typedef struct fr_spin {
    int looks;
    double since; /* seconds: about when it began; 0 for a short spin */
} fr_spin;
void fr_spin_pause(fr_spin *spin);
double fr_spin_seconds(const fr_spin *spin); /* since it began; 0 for a short spin */

/* Cache lines of their own: arrivals must not disturb those who watch the phase. */
typedef struct fr_barrier {
    _Alignas(FR_ALIGNMENT) atomic_int arrived;
    _Alignas(FR_ALIGNMENT) atomic_uint phase;
    unsigned forks; /* fr_forks() where it was made */
} fr_barrier;

/* The workers that run one cell in lockstep, seen by one of them. */
typedef struct fr_team {
    int size, index;
    fr_barrier *barrier; /* not looked at if size is 1 */
} fr_team;

/* How many forks lead to this process from the one that made the first pool: it changes for a call in whose midst a
 * child was born, and the other threads of that call are not in the child. */
unsigned fr_forks(void);

/* Until every member of the team is here, or it can't be as this is a child of the process that made the barrier; what
 * they wrote before is seen after. Returns the seconds that this took, or 0 where it was short. */
double fr_team_wait(const fr_team *team);

/* This member's part of [0, count). */
static inline fr_range fr_team_share(const fr_team *team, int64_t count)
{
    if (team->size == 1) /* divisions count in a step of a tenth of a microsecond */
        return (fr_range){0, count};
    return (fr_range){count * team->index / team->size, count * (team->index + 1) / team->size};
}

typedef void fr_task(void *context, int worker);

int fr_pool_num_threads(const fastrnn_pool *pool); /* as asked for; 1 for NULL */
double fr_pool_threshold(const fastrnn_pool *pool); /* as set by fastrnn_pool_set_threshold */

/* Take the pool for a call of about `macs` multiply-adds, until fr_pool_leave. Returns how many threads run it, the
 * caller's among them: `workers`, or fewer where the system refused some. 1, the pool not taken, where it is in use,
 * where the others sleep and the call would be over before they come, or where it is crowded and the call cannot bear
 * that. */
int fr_pool_enter(fastrnn_pool *pool, int workers, double macs, bool tolerates_oversubscription);
void fr_pool_start(fastrnn_pool *pool, int workers, fr_task *task, void *context); /* on workers 1, 2, ... */
bool fr_pool_is_done(fastrnn_pool *pool);
void fr_pool_leave(fastrnn_pool *pool);

/* Somebody else keeps the processors busy: the caller waited so many seconds too long for the others. For some time
 * sharing would cost more than it gives: fr_pool_enter refuses, and a call that is under way goes on alone. */
void fr_pool_set_oversubscribed(fastrnn_pool *pool, double waited);
bool fr_pool_is_oversubscribed(fastrnn_pool *pool);

#endif
