#define _POSIX_C_SOURCE 200809L /* clock_gettime, which -std=c11 hides */

#include "clock.h"

#include <time.h>

double fr_seconds(void)
{
    struct timespec t;
#if defined(_WIN32)
    timespec_get(&t, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
