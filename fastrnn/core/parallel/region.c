#include "region.h"

#include "../cpu.h"
#include "../os/os.h"
#include "spin.h"

fr_region fr_region_make(fastrnn_pool *pool, fr_task *task, void *context, double macs, unsigned long long mode)
{
    return (fr_region){.pool = pool, .task = task, .context = context, .macs = macs, .mode = mode, .forks = fr_forks(),
                       .monitor = fr_monitor_start(macs)};
}

static void help(void *argument, int worker)
{
    fr_region *region = argument;
    const fr_monitor monitor = fr_monitor_start(region->macs);
    fr_fp_restore(region->mode); /* the thread still has the mode of some earlier caller */
    fr_fp_flush();
    region->task(region->context, worker);
    const double unscheduled = fr_monitor_unscheduled(&monitor);
    if (unscheduled > 0)
        atomic_store_explicit(&region->unscheduled, (long long)(1e9 * unscheduled), memory_order_relaxed);
}

/* The work that the caller reports to the poll each time it has checked whether the other workers are done. */
#define SPIN_WORK 1e3
#define YIELD_WORK 1e7 /* if it yielded: that may take a time slice */

void fr_region_run(fr_region *region, int workers, fr_poll *poll, bool tolerates_oversubscription)
{
    poll->monitor = &region->monitor;
    fr_pool_start(region->pool, workers, help, region);
    region->task(region->context, 0);
    fr_spin spin = {0};
    while (fr_forks() == region->forks && !fr_pool_is_done(region->pool)) {
        fr_spin_pause(&spin);
        if (*poll->status == FASTRNN_OK)
            fr_poll_stops(poll, spin.since > 0 ? YIELD_WORK : SPIN_WORK);
    }
    poll->monitor = NULL;
    if (fr_forks() != region->forks) { /* a forked child: it has no other workers, and the fork handler has released the pool */
        if (*poll->status == FASTRNN_OK)
            *poll->status = FASTRNN_ERROR_FORKED;
        return;
    }
    region->monitor.waited += fr_spin_seconds(&spin);
    if (!tolerates_oversubscription)
        fr_monitor_check(&region->monitor, region->pool, 1e-9 * (double)region->unscheduled);
    fr_pool_leave(region->pool);
}
