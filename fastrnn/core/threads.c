#if defined(__linux__)
#define _GNU_SOURCE /* processors' numbers and affinity */
#else
#define _POSIX_C_SOURCE 200809L /* the headers' POSIX part, which -std=c11 hides */
#endif

#include "threads.h"

#include <stdlib.h>

#include "clock.h"

#if defined(_WIN32)

/* Without POSIX threads every call runs on its caller's. */
struct fastrnn_pool {
    int num_threads;
};

void fr_spin_pause(fr_spin *spin) { spin->looks++; }
double fr_spin_seconds(const fr_spin *spin) { (void)spin; return 0; }
double fr_team_wait(const fr_team *team) { (void)team; return 0; }
unsigned fr_forks(void) { return 0; }
int fr_pool_num_threads(const fastrnn_pool *pool) { (void)pool; return 1; }
double fr_pool_threshold(const fastrnn_pool *pool) { (void)pool; return 1; }
void fastrnn_pool_set_threshold(fastrnn_pool *pool, double threshold) { (void)pool, (void)threshold; }
int fr_pool_enter(fastrnn_pool *pool, int workers, double macs, bool tolerates_oversubscription)
{
    (void)pool, (void)workers, (void)macs, (void)tolerates_oversubscription;
    return 1;
}
void fr_pool_start(fastrnn_pool *pool, int workers, fr_task *task, void *context) { (void)pool, (void)workers, (void)task, (void)context; }
bool fr_pool_is_done(fastrnn_pool *pool) { (void)pool; return true; }
void fr_pool_leave(fastrnn_pool *pool) { (void)pool; }
void fr_pool_set_oversubscribed(fastrnn_pool *pool, double waited) { (void)pool, (void)waited; }
bool fr_pool_is_oversubscribed(fastrnn_pool *pool) { (void)pool; return false; }

fastrnn_status fastrnn_pool_create(int num_threads, fastrnn_pool **pool)
{
    if (num_threads < 1 || !pool)
        return FASTRNN_ERROR_ARGUMENT;
    *pool = calloc(1, sizeof **pool);
    return *pool ? FASTRNN_OK : FASTRNN_ERROR_MEMORY;
}

void fastrnn_pool_destroy(fastrnn_pool *pool) { free(pool); }

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

#define SPIN_LOOKS 1000      /* after this many checks the thread yields between checks */
#define SPIN_SECONDS 25e-6   /* about the time of these checks */
#define YIELD_LOOKS 4000     /* 1 ms or more; after this many the thread sleeps between checks */
#define SLEEP_NANOSECONDS 50000
#define AWAKE_SECONDS 200e-6 /* how long an idle worker polls for work before it sleeps */
#define WAKING_MACS 5e6      /* about 100 us of work: worth the 10 to 50 us that a worker takes to wake up */
#define LOOKS_PER_CLOCK 128
#define BACKOFF_MAX 64    /* calls run alone for at most this many times the wait that was too long */
#define BACKOFF_FACTOR 4  /* growth of that time if sharing does not pay again soon afterwards */

/* A region is announced by its number and the number of its workers, in one word: a worker that is late
 * for a region in which it had no part can't take the next one's count for it. */
#define WORKER_BITS 16
#define CLOSING_WORKERS 1 /* no call needs a region for itself alone */

typedef struct fr_worker {
    fastrnn_pool *pool;
    int index;
    unsigned long long seen; /* the region announced last before it started */
    pthread_t thread;
} fr_worker;

struct fastrnn_pool {
    int num_threads; /* the caller's among them */
#if defined(__linux__)
    cpu_set_t processors; /* its maker's; none if they are not known */
#endif
    double threshold;
    fastrnn_pool *next; /* of all pools, for fork */

    /* The caller's who has `taken` the pool. */
    int started;           /* workers that run */
    bool refused;          /* the system gave no more than these */
    double last_wanted;    /* seconds: when a short call last found sleepers */
    double backoff;        /* the pool stays oversubscribed for this many times the wait that showed it */
    int callers_processor; /* its number; -1: not known */
    fr_task *task;
    void *context;

    _Atomic double oversubscribed; /* seconds: calls run on one thread until then; first members of other teams read it, too */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    unsigned nudges; /* under the mutex: how often sleeping workers were woken to poll for work */
    atomic_int sleepers;
    _Alignas(FR_ALIGNMENT) atomic_flag taken;
    _Alignas(FR_ALIGNMENT) atomic_ullong region;
    _Alignas(FR_ALIGNMENT) atomic_int running; /* workers still inside the region */
    fr_worker workers[];
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

void fr_spin_pause(fr_spin *spin)
{
    if (spin->looks < SPIN_LOOKS) {
        spin->looks++;
        relax();
        return;
    }
    if (spin->since == 0)
        spin->since = fr_seconds() - SPIN_SECONDS;
    if (spin->looks < SPIN_LOOKS + YIELD_LOOKS) {
        spin->looks++;
        sched_yield();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NANOSECONDS}, NULL);
    }
}

double fr_spin_seconds(const fr_spin *spin) { return spin->since > 0 ? fr_seconds() - spin->since : 0; }

static atomic_uint forks;

unsigned fr_forks(void) { return atomic_load_explicit(&forks, memory_order_relaxed); }

double fr_team_wait(const fr_team *team)
{
    if (team->size == 1)
        return 0;
    fr_barrier *barrier = team->barrier;
    const unsigned phase = atomic_load_explicit(&barrier->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) == team->size - 1) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&barrier->phase, phase + 1, memory_order_release);
        return 0;
    }
    fr_spin spin = {0};
    while (atomic_load_explicit(&barrier->phase, memory_order_acquire) == phase) {
        if (spin.since > 0 && barrier->forks != fr_forks())
            break;
        fr_spin_pause(&spin);
    }
    return fr_spin_seconds(&spin);
}

/* Fork copies a pool without its threads: the child starts with none, free to be entered. */
static pthread_mutex_t pools_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t pools_once = PTHREAD_ONCE_INIT;
static fastrnn_pool *pools;

static bool make_locks(fastrnn_pool *pool)
{
    if (pthread_mutex_init(&pool->mutex, NULL) != 0)
        return false;
    if (pthread_cond_init(&pool->wake, NULL) == 0)
        return true;
    pthread_mutex_destroy(&pool->mutex);
    return false;
}

static void before_fork(void) { pthread_mutex_lock(&pools_mutex); }
static void after_fork_in_parent(void) { pthread_mutex_unlock(&pools_mutex); }
static void after_fork_in_child(void)
{
    atomic_fetch_add(&forks, 1);
    for (fastrnn_pool *pool = pools; pool; pool = pool->next) {
        pool->started = 0;
#if defined(__linux__)
        CPU_ZERO(&pool->processors); /* a child may pin itself: its threads inherit those of its first caller */
#endif
        pool->refused = !make_locks(pool);
        atomic_store(&pool->sleepers, 0);
        atomic_store(&pool->running, 0);
        atomic_flag_clear(&pool->taken);
    }
    pthread_mutex_unlock(&pools_mutex);
}

static void watch_forks(void) { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

fastrnn_status fastrnn_pool_create(int num_threads, fastrnn_pool **pool)
{
    if (num_threads < 1 || num_threads > FR_MOST_THREADS || !pool)
        return FASTRNN_ERROR_ARGUMENT;
    const size_t size = sizeof(fastrnn_pool) + (size_t)num_threads * sizeof(fr_worker);
    fastrnn_pool *made = aligned_alloc(FR_ALIGNMENT, (size_t)fr_round_up((int64_t)size, FR_ALIGNMENT));
    if (!made)
        return FASTRNN_ERROR_MEMORY;
    *made = (fastrnn_pool){.num_threads = num_threads, .threshold = 1, .backoff = 1, .taken = ATOMIC_FLAG_INIT};
    if (!make_locks(made)) {
        free(made);
        return FASTRNN_ERROR_MEMORY;
    }
#if defined(__linux__)
    if (pthread_getaffinity_np(pthread_self(), sizeof made->processors, &made->processors) != 0)
        CPU_ZERO(&made->processors);
#endif
    pthread_once(&pools_once, watch_forks);
    pthread_mutex_lock(&pools_mutex);
    made->next = pools;
    pools = made;
    pthread_mutex_unlock(&pools_mutex);
    *pool = made;
    return FASTRNN_OK;
}

void fastrnn_pool_destroy(fastrnn_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pools_mutex);
    for (fastrnn_pool **link = &pools; *link; link = &(*link)->next)
        if (*link == pool) {
            *link = pool->next;
            break;
        }
    pthread_mutex_unlock(&pools_mutex);
    if (pool->started)
        fr_pool_start(pool, CLOSING_WORKERS, NULL, NULL);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

#if defined(__linux__)

static int processor(void) { return sched_getcpu(); }

/* A thread inherits its maker's processors: those of the first caller, who may have been pinned to one. */
static void take_processors(const fastrnn_pool *pool)
{
    if (CPU_COUNT(&pool->processors) > 0)
        pthread_setaffinity_np(pthread_self(), sizeof pool->processors, &pool->processors);
}

/* A scheduler may leave two busy threads on one processor for long, with another one free. */
static void leave_processor(int number)
{
    cpu_set_t allowed, others;
    if (number < 0 || number >= CPU_SETSIZE || pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) != 0)
        return;
    others = allowed;
    CPU_CLR(number, &others);
    if (CPU_COUNT(&others) > 0 && pthread_setaffinity_np(pthread_self(), sizeof others, &others) == 0)
        pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
}

#else

static int processor(void) { return -1; }
static void take_processors(const fastrnn_pool *pool) { (void)pool; }
static void leave_processor(int number) { (void)number; }

#endif

/* The next region after `seen`; after a nudge `seen` itself. */
static unsigned long long next_region(fastrnn_pool *pool, unsigned long long seen)
{
    unsigned long long region;
    const double start = fr_seconds();
    for (int looks = 1;; looks++) {
        region = atomic_load_explicit(&pool->region, memory_order_acquire);
        if (region != seen)
            return region;
        if (looks % LOOKS_PER_CLOCK) {
            relax();
            continue;
        }
        const double waited = fr_seconds() - start;
        if (waited > AWAKE_SECONDS || waited < 0) /* no yield till then: it would cost a whole time slice */
            break;
    }
    pthread_mutex_lock(&pool->mutex);
    const unsigned nudges = pool->nudges;
    atomic_fetch_add(&pool->sleepers, 1);
    while ((region = atomic_load(&pool->region)) == seen && pool->nudges == nudges)
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
    return region;
}

static void *work(void *argument)
{
    const fr_worker *self = argument;
    fastrnn_pool *pool = self->pool;
    unsigned long long seen = self->seen;
    take_processors(pool);
    for (;;) {
        const unsigned long long region = next_region(pool, seen);
        if (region == seen)
            continue;
        seen = region;
        const int workers = (int)(region & ((1ULL << WORKER_BITS) - 1));
        if (workers == CLOSING_WORKERS)
            return NULL;
        if (self->index < workers) {
            if (pool->callers_processor >= 0 && processor() == pool->callers_processor)
                leave_processor(pool->callers_processor);
            pool->task(pool->context, self->index);
            atomic_fetch_sub_explicit(&pool->running, 1, memory_order_release);
        }
    }
}

static void start_threads(fastrnn_pool *pool)
{
    pthread_attr_t attributes;
    if (pool->refused || pool->started == pool->num_threads - 1 || pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, 1 << 20);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* workers inherit this: signals are for the program's own threads */
    while (pool->started < pool->num_threads - 1 && !pool->refused) {
        fr_worker *worker = &pool->workers[pool->started];
        worker->pool = pool;
        worker->index = pool->started + 1;
        worker->seen = atomic_load(&pool->region);
        if (pthread_create(&worker->thread, &attributes, work, worker) == 0)
            pool->started++;
        else
            pool->refused = true;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
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
    pthread_mutex_lock(&pool->mutex);
    pool->nudges++;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

/* A short call is over before a sleeper comes: it runs alone. Where such calls follow each other closely,
 * the workers are woken for the next. */
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
    pool->callers_processor = processor();
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

#endif
