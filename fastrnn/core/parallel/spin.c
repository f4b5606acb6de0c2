#include "spin.h"

#include "../cpu.h"
#include "../os/os.h"

#define SPIN_PAUSES 1000    /* after this many fr_spin_pause yields */
#define SPIN_SECONDS 25e-6  /* about the time of these pauses */
#define YIELD_PAUSES 4000   /* 1 ms or more; after this many it sleeps */
#define SLEEP_NANOSECONDS 50000

void fr_spin_pause(fr_spin *spin)
{
    if (spin->pauses < SPIN_PAUSES) {
        spin->pauses++;
        fr_cpu_pause();
        return;
    }
    if (spin->since == 0)
        spin->since = fr_seconds() - SPIN_SECONDS;
    if (spin->pauses < SPIN_PAUSES + YIELD_PAUSES) {
        spin->pauses++;
        fr_thread_yield();
    } else {
        fr_thread_sleep(SLEEP_NANOSECONDS);
    }
}

double fr_spin_seconds(const fr_spin *spin) { return spin->since > 0 ? fr_seconds() - spin->since : 0; }
