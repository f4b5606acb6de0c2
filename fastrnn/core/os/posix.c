/* Time, threads, locks and forks of POSIX systems. */
#define _POSIX_C_SOURCE 200809L /* -std=c11 hides POSIX from the system's headers */

#include "os.h"

#if defined(FR_OS_POSIX)

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../allocator.h"

#define STACK_BYTES (1 << 20)

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double fr_seconds(void) { return seconds_of(CLOCK_MONOTONIC); }
double fr_thread_seconds(void) { return seconds_of(CLOCK_THREAD_CPUTIME_ID); }

static void *run_thread(void *argument)
{
    const fr_thread *thread = argument;
    thread->run(thread->argument);
    return NULL;
}

_Static_assert(sizeof(pthread_t) <= sizeof(uintptr_t), "fr_thread.handle holds a pthread_t");

bool fr_thread_create(fr_thread *thread, void (*run)(void *argument), void *argument)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    thread->run = run;
    thread->argument = argument;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: signals are handled on the program's own threads */
    pthread_t handle;
    const bool created = pthread_create(&handle, &attributes, run_thread, thread) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (created)
        memcpy(&thread->handle, &handle, sizeof handle);
    return created;
}

void fr_thread_join(fr_thread *thread)
{
    pthread_t handle;
    memcpy(&handle, &thread->handle, sizeof handle);
    pthread_join(handle, NULL);
}

void fr_thread_yield(void) { sched_yield(); }
void fr_thread_sleep(long nanoseconds) { nanosleep(&(struct timespec){.tv_nsec = nanoseconds}, NULL); }

struct fr_lock {
    pthread_mutex_t mutex;
    pthread_cond_t notified;
};

bool fr_lock_reset(fr_lock *lock)
{
    if (pthread_mutex_init(&lock->mutex, NULL) != 0)
        return false;
    if (pthread_cond_init(&lock->notified, NULL) == 0)
        return true;
    pthread_mutex_destroy(&lock->mutex);
    return false;
}

fr_lock *fr_lock_create(void)
{
    fr_lock *lock = fr_allocate(sizeof *lock);
    if (lock && fr_lock_reset(lock))
        return lock;
    fr_free(lock);
    return NULL;
}

void fr_lock_destroy(fr_lock *lock)
{
    pthread_cond_destroy(&lock->notified);
    pthread_mutex_destroy(&lock->mutex);
    fr_free(lock);
}

void fr_lock_acquire(fr_lock *lock) { pthread_mutex_lock(&lock->mutex); }
void fr_lock_release(fr_lock *lock) { pthread_mutex_unlock(&lock->mutex); }
void fr_lock_wait(fr_lock *lock) { pthread_cond_wait(&lock->notified, &lock->mutex); }
void fr_lock_notify_all(fr_lock *lock) { pthread_cond_broadcast(&lock->notified); }

const char *fr_file_map(const char *path, const void **data, size_t *size)
{
    struct stat status;
    void *mapped = MAP_FAILED;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return "cannot be opened";
    const bool is_file = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
    if (is_file && status.st_size > 0)
        mapped = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (!is_file || status.st_size <= 0 || mapped == MAP_FAILED)
        return !is_file ? "is no regular file" : status.st_size <= 0 ? "is empty" : "cannot be mapped";
    *data = mapped;
    *size = (size_t)status.st_size;
    return NULL;
}

void fr_file_unmap(const void *data, size_t size) { munmap((void *)(uintptr_t)data, size); }

static pthread_mutex_t process_mutex = PTHREAD_MUTEX_INITIALIZER;

void fr_process_lock(void) { pthread_mutex_lock(&process_mutex); }
void fr_process_unlock(void) { pthread_mutex_unlock(&process_mutex); }

static atomic_uint forks;
static void (*fork_handler)(void);

unsigned fr_forks(void) { return atomic_load_explicit(&forks, memory_order_relaxed); }

static void after_fork_in_child(void)
{
    atomic_fetch_add(&forks, 1);
    fork_handler();
    fr_process_unlock();
}

static void watch_forks(void) { pthread_atfork(fr_process_lock, fr_process_unlock, after_fork_in_child); }

void fr_fork_watch(void (*in_child)(void))
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    fr_process_lock();
    if (!fork_handler)
        fork_handler = in_child;
    fr_process_unlock();
    pthread_once(&once, watch_forks);
}

#endif
