#define _POSIX_C_SOURCE 200809L /* clock_gettime, which -std=c11 hides */

#include "clock.h"

#include <time.h>

static double seconds(struct timespec t) { return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec; }

#if defined(_WIN32)

double fr_seconds(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return seconds(t);
}

double fr_thread_seconds(void) { return fr_seconds(); }

#else

double fr_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return seconds(t);
}

double fr_thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return seconds(t);
}

#endif
