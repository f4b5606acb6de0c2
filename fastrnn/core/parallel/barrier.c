#include "barrier.h"

#include "../os/os.h"
#include "spin.h"

double fr_barrier_wait(fr_barrier *barrier, int size)
{
    const unsigned phase = atomic_load_explicit(&barrier->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) == size - 1) {
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
