/* Processors and affinity on Linux. */
#define _GNU_SOURCE /* sched_getcpu, cpu_set_t, pthread_setaffinity_np */

#include "os.h"

#if defined(FR_OS_LINUX)

#include <pthread.h>
#include <sched.h>
#include <string.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

_Static_assert(sizeof(cpu_set_t) == sizeof(fr_affinity), "both are sets of the same processors");

fr_affinity fr_affinity_get(void)
{
    cpu_set_t allowed;
    fr_affinity affinity = {{0}};
    if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) == 0)
        memcpy(&affinity, &allowed, sizeof allowed);
    return affinity;
}

void fr_affinity_set(const fr_affinity *affinity)
{
    cpu_set_t allowed;
    memcpy(&allowed, affinity, sizeof allowed);
    if (CPU_COUNT(&allowed) > 0)
        pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
}

#if defined(__aarch64__)
bool fr_processor_has_dotprod(void) { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#else
bool fr_processor_has_dotprod(void) { return false; }
#endif

int fr_processor(void) { return sched_getcpu(); }

void fr_processor_leave(int number)
{
    cpu_set_t allowed, others;
    if (number < 0 || number >= CPU_SETSIZE || pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) != 0)
        return;
    others = allowed;
    CPU_CLR(number, &others);
    if (CPU_COUNT(&others) > 0 && pthread_setaffinity_np(pthread_self(), sizeof others, &others) == 0)
        pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
}

#endif
