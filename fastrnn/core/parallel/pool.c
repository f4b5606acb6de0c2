#include "pool.h"

#include "../allocator.h"
#include "../cpu.h"
#include "../error.h"
#include "../os/os.h"

#define AWAKE_SECONDS 200e-6 /* how long an idle worker polls for work before it sleeps */
#define WAKING_MACS 5e6      /* about 100 us of work: worth the 10 to 50 us that a worker takes to wake up */
#define POLLS_PER_CLOCK 128  /* polls for work between two readings of the clock */
#define BACKOFF_MAX 64       /* the pool stays oversubscribed for at most this many times the wait that showed it */
#define BACKOFF_FACTOR 4     /* growth of that factor if the pool is found oversubscribed again soon afterwards */

/* A region is announced by its number and the number of its workers, in one atomic word: a worker that wakes up late from a
 * region in which it had no part cannot combine one region's number with the next one's count. */
#define WORKER_BITS 16
#define CLOSING_WORKERS 1 /* ends the workers' threads: a call with one worker announces no region */

typedef struct fr_worker {
    fastrnn_pool *pool;
    int index;
    unsigned long long seen; /* the last region announced before this worker started */
    fr_thread thread;
} fr_worker;

struct fastrnn_pool {
    int num_threads;      /* including the caller's */
    fr_affinity affinity; /* of the thread that created the pool */
    double threshold;
    fastrnn_pool *next; /* in the list of all pools, for fork */

    /* Used by the caller that has acquired the pool. */
    int started;           /* workers that run */
    bool refused;          /* the system refused to create another thread */
    double last_wanted;    /* seconds: when a short call last found workers asleep */
    double backoff;        /* the pool stays oversubscribed for this many times the wait that showed it */
    int callers_processor; /* its number; -1: not known */
    fr_task *task;
    void *context;

    _Atomic double oversubscribed; /* seconds: calls run on one thread until then; read by the first member of every team */
    fr_lock *lock;                 /* on which idle workers sleep */
    unsigned wakeups;              /* guarded by the lock: how often they were woken */
    atomic_int sleepers;
    _Alignas(FR_ALIGNMENT) atomic_flag taken;
    _Alignas(FR_ALIGNMENT) atomic_ullong region;
    _Alignas(FR_ALIGNMENT) atomic_int running; /* workers still inside the region */
    fr_worker workers[];
};

/* Every pool of the process, guarded by the process lock. Fork copies a pool without its threads: in the child it starts with
 * none, and nobody has acquired it. */
static fastrnn_pool *pools;

static void reset_pools_after_fork(void)
{
    for (fastrnn_pool *pool = pools; pool; pool = pool->next) {
        pool->started = 0;
        pool->affinity = (fr_affinity){{0}}; /* a child may pin itself: its workers inherit the affinity of its first caller */
        pool->refused = !fr_lock_reset(pool->lock);
        atomic_store(&pool->sleepers, 0);
        atomic_store(&pool->running, 0);
        atomic_flag_clear(&pool->taken);
    }
}

fastrnn_status fastrnn_pool_create(int num_threads, fastrnn_pool **pool)
{
    if (!pool)
        return fr_fail_null("pool");
    if (!fr_in_range(num_threads, 1, FR_MOST_THREADS))
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "num_threads is %d, wanted 1 to %d", num_threads, FR_MOST_THREADS);
    const size_t size = sizeof(fastrnn_pool) + (size_t)num_threads * sizeof(fr_worker);
    fastrnn_pool *made = fr_allocate(size);
    if (!made)
        return fr_fail_memory();
    *made = (fastrnn_pool){.num_threads = num_threads, .threshold = 1, .backoff = 1, .taken = ATOMIC_FLAG_INIT};
    made->lock = fr_lock_create();
    if (!made->lock) {
        fr_free(made);
        return fr_fail_memory();
    }
    made->affinity = fr_affinity_get();
    fr_fork_watch(reset_pools_after_fork);
    fr_process_lock();
    made->next = pools;
    pools = made;
    fr_process_unlock();
    *pool = made;
    return FASTRNN_OK;
}

void fastrnn_pool_destroy(fastrnn_pool *pool)
{
    if (!pool)
        return;
    fr_process_lock();
    for (fastrnn_pool **link = &pools; *link; link = &(*link)->next)
        if (*link == pool) {
            *link = pool->next;
            break;
        }
    fr_process_unlock();
    if (pool->started)
        fr_pool_start(pool, CLOSING_WORKERS, NULL, NULL);
    for (int i = 0; i < pool->started; i++)
        fr_thread_join(&pool->workers[i].thread);
    fr_lock_destroy(pool->lock);
    fr_free(pool);
}

/* The next region after `seen`, or `seen` itself if the worker was woken to poll for work. */
static unsigned long long next_region(fastrnn_pool *pool, unsigned long long seen)
{
    unsigned long long region;
    const double start = fr_seconds();
    for (int polls = 1;; polls++) {
        region = atomic_load_explicit(&pool->region, memory_order_acquire);
        if (region != seen)
            return region;
        if (polls % POLLS_PER_CLOCK) {
            fr_cpu_pause();
            continue;
        }
        const double waited = fr_seconds() - start;
        if (waited > AWAKE_SECONDS || waited < 0) /* no yield before: it could take a whole time slice */
            break;
    }
    fr_lock_acquire(pool->lock);
    const unsigned wakeups = pool->wakeups;
    atomic_fetch_add(&pool->sleepers, 1);
    while ((region = atomic_load(&pool->region)) == seen && pool->wakeups == wakeups)
        fr_lock_wait(pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    fr_lock_release(pool->lock);
    return region;
}

static void work(void *argument)
{
    const fr_worker *self = argument;
    fastrnn_pool *pool = self->pool;
    unsigned long long seen = self->seen;
    fr_affinity_set(&pool->affinity); /* not that of the first caller, which may be pinned to one processor */
    for (;;) {
        const unsigned long long region = next_region(pool, seen);
        if (region == seen)
            continue;
        seen = region;
        const int workers = (int)(region & ((1ULL << WORKER_BITS) - 1));
        if (workers == CLOSING_WORKERS)
            return;
        if (self->index < workers) {
            /* A scheduler may leave two busy threads on one processor for long while another one is idle. */
            if (pool->callers_processor >= 0 && fr_processor() == pool->callers_processor)
                fr_processor_leave(pool->callers_processor);
            pool->task(pool->context, self->index);
            atomic_fetch_sub_explicit(&pool->running, 1, memory_order_release);
        }
    }
}

static void start_threads(fastrnn_pool *pool)
{
    while (pool->started < pool->num_threads - 1 && !pool->refused) {
        fr_worker *worker = &pool->workers[pool->started];
        worker->pool = pool;
        worker->index = pool->started + 1;
        worker->seen = atomic_load(&pool->region);
        if (fr_thread_create(&worker->thread, work, worker))
            pool->started++;
        else
            pool->refused = true;
    }
}

double fr_pool_threshold(const fastrnn_pool *pool) { return pool ? pool->threshold : 1; }

void fastrnn_pool_set_threshold(fastrnn_pool *pool, double threshold)
{
    if (pool)
        pool->threshold = threshold;
}

int fr_pool_num_threads(const fastrnn_pool *pool) { return pool ? pool->num_threads : 1; }

static bool is_awake(fastrnn_pool *pool)
{
    return (pool->refused || pool->started == pool->num_threads - 1) && atomic_load(&pool->sleepers) == 0;
}

static void wake(fastrnn_pool *pool)
{
    fr_lock_acquire(pool->lock);
    pool->wakeups++;
    fr_lock_notify_all(pool->lock);
    fr_lock_release(pool->lock);
}

/* A short call ends before a sleeping worker wakes up, so it runs alone. If such calls follow each other closely, the workers
 * are woken for the next one. */
static bool is_ready(fastrnn_pool *pool, double macs)
{
    if (macs >= WAKING_MACS * pool->threshold || is_awake(pool)) {
        start_threads(pool);
        return true;
    }
    const double now = fr_seconds(), since = now - pool->last_wanted;
    pool->last_wanted = now;
    if (since < AWAKE_SECONDS) {
        start_threads(pool);
        wake(pool);
    }
    return false;
}

int fr_pool_enter(fastrnn_pool *pool, int workers, double macs, bool tolerates_oversubscription)
{
    if (atomic_flag_test_and_set_explicit(&pool->taken, memory_order_acquire))
        return 1;
    if ((tolerates_oversubscription || !fr_pool_is_oversubscribed(pool)) && is_ready(pool, macs) && pool->started > 0)
        return (int)fr_min(workers, pool->started + 1);
    fr_pool_leave(pool);
    return 1;
}

void fr_pool_start(fastrnn_pool *pool, int workers, fr_task *task, void *context)
{
    pool->callers_processor = fr_processor();
    pool->task = task;
    pool->context = context;
    atomic_store_explicit(&pool->running, workers - 1, memory_order_relaxed);
    const unsigned long long number = (atomic_load_explicit(&pool->region, memory_order_relaxed) >> WORKER_BITS) + 1;
    atomic_store(&pool->region, number << WORKER_BITS | (unsigned long long)workers);
    if (atomic_load(&pool->sleepers))
        wake(pool);
}

bool fr_pool_is_done(fastrnn_pool *pool) { return atomic_load_explicit(&pool->running, memory_order_acquire) == 0; }

void fr_pool_set_oversubscribed(fastrnn_pool *pool, double waited)
{
    if (pool->threshold <= 0)
        return;
    const double now = fr_seconds(), before = atomic_load_explicit(&pool->oversubscribed, memory_order_relaxed);
    const bool soon = now - before < 2 * pool->backoff * waited;
    pool->backoff = !soon ? 1 : pool->backoff < BACKOFF_MAX ? pool->backoff * BACKOFF_FACTOR : BACKOFF_MAX;
    atomic_store_explicit(&pool->oversubscribed, now + pool->backoff * waited, memory_order_relaxed);
}

bool fr_pool_is_oversubscribed(fastrnn_pool *pool)
{
    const double oversubscribed = atomic_load_explicit(&pool->oversubscribed, memory_order_relaxed);
    return oversubscribed > 0 && fr_seconds() < oversubscribed;
}

void fr_pool_leave(fastrnn_pool *pool)
{
    atomic_flag_clear_explicit(&pool->taken, memory_order_release);
}
