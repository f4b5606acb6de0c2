#include "monitor.h"

#include "../os/os.h"

#define WAITED_MAX 0.55       /* fraction of the time; a member with one unit block normally waits half of it for one with two */
#define UNSCHEDULED_MAX 0.2   /* fraction of the time */
#define LONG_MACS 5e6         /* about 100 us: in shorter calls reading the thread's processor time costs too much */
#define SHORT_MACS_SECOND 1e9 /* the least speed expected of a shorter call */
#define CHECK_SECONDS 200e-6  /* between checks, and before the first one */

fr_monitor fr_monitor_start(double macs)
{
    fr_monitor monitor = {.begin = fr_seconds(), .next_check = CHECK_SECONDS};
    if (macs >= LONG_MACS)
        monitor.begin_on_processor = fr_thread_seconds();
    else
        monitor.next_check += macs / SHORT_MACS_SECOND;
    return monitor;
}

double fr_monitor_unscheduled(const fr_monitor *monitor)
{
    if (monitor->begin_on_processor == 0)
        return 0;
    return fr_seconds() - monitor->begin - (fr_thread_seconds() - monitor->begin_on_processor);
}

void fr_monitor_check(fr_monitor *monitor, fastrnn_pool *pool, double others)
{
    const double passed = fr_seconds() - monitor->begin;
    if (passed < monitor->next_check)
        return;
    monitor->next_check = passed + CHECK_SECONDS;
    const bool is_long = monitor->begin_on_processor > 0;
    const double own = is_long ? fr_monitor_unscheduled(monitor) : passed, unscheduled = own > others ? own : others;
    if (monitor->waited > WAITED_MAX * passed || unscheduled > UNSCHEDULED_MAX * passed)
        fr_pool_set_oversubscribed(pool, monitor->waited > unscheduled ? monitor->waited : unscheduled);
}
