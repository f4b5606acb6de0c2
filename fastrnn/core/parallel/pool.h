/* A pool of worker threads that serves one call at a time. */
#ifndef FR_POOL_H
#define FR_POOL_H

#include <stdatomic.h>

#include "../common.h"

#define FR_MOST_THREADS 1024 /* of a pool */

typedef void fr_task(void *context, int worker);

int fr_pool_num_threads(const fastrnn_pool *pool); /* as requested, including the caller's; 1 for NULL */
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
