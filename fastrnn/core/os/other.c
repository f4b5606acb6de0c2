/* What standard C offers, for systems that have no file of their own here. */
#include "os.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "../allocator.h"

#if !defined(FR_OS_POSIX)

/* Standard C has calendar time only. */
double fr_seconds(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double fr_thread_seconds(void) { return fr_seconds(); }

/* No thread is created, so every call runs on its caller's thread, and the locks of pools are never waited for. */
struct fr_lock {
    char unused;
};

bool fr_thread_create(fr_thread *thread, void (*run)(void *argument), void *argument)
{
    (void)thread, (void)run, (void)argument;
    return false;
}

void fr_thread_join(fr_thread *thread) { (void)thread; }
void fr_thread_yield(void) {}
void fr_thread_sleep(long nanoseconds) { (void)nanoseconds; }

fr_lock *fr_lock_create(void)
{
    static fr_lock lock;
    return &lock;
}

void fr_lock_destroy(fr_lock *lock) { (void)lock; }
void fr_lock_acquire(fr_lock *lock) { (void)lock; }
void fr_lock_release(fr_lock *lock) { (void)lock; }
void fr_lock_wait(fr_lock *lock) { (void)lock; }
void fr_lock_notify_all(fr_lock *lock) { (void)lock; }
bool fr_lock_reset(fr_lock *lock) { (void)lock; return true; }

void fr_fork_watch(void (*in_child)(void)) { (void)in_child; }
unsigned fr_forks(void) { return 0; }

/* Standard C reads a file into memory. */
const char *fr_file_map(const char *path, const void **data, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return "cannot be opened";
    const long end = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    char *bytes = end > 0 && fseek(file, 0, SEEK_SET) == 0 ? fr_allocate((size_t)end) : NULL;
    const bool is_read = bytes && fread(bytes, 1, (size_t)end, file) == (size_t)end;
    fclose(file);
    *data = bytes;
    *size = (size_t)end;
    if (is_read)
        return NULL;
    fr_free(bytes);
    return end == 0 ? "is empty" : bytes || end < 0 ? "cannot be read" : "does not fit in memory";
}

void fr_file_unmap(const void *data, size_t size)
{
    (void)size;
    fr_free((void *)(uintptr_t)data);
}

/* Threads that the program itself creates may use it. */
static atomic_flag process_lock = ATOMIC_FLAG_INIT;

void fr_process_lock(void)
{
    while (atomic_flag_test_and_set_explicit(&process_lock, memory_order_acquire))
        ;
}

void fr_process_unlock(void) { atomic_flag_clear_explicit(&process_lock, memory_order_release); }

#endif

#if !defined(FR_OS_LINUX)

fr_affinity fr_affinity_get(void) { return (fr_affinity){{0}}; }
void fr_affinity_set(const fr_affinity *affinity) { (void)affinity; }
int fr_processor(void) { return -1; }
void fr_processor_leave(int number) { (void)number; }
bool fr_processor_has_dotprod(void) { return false; }

#endif
