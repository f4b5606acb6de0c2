#include "poll.h"

#include "../cpu.h"
#include "../os/os.h"

#define POLL_SECONDS 0.02 /* between calls of `interrupted` */

bool fr_poll_look(fr_poll *poll)
{
    poll->work = 0;
    const double now = fr_seconds();
    if (poll->due == 0)
        poll->due = now + POLL_SECONDS;
    if (now < poll->due)
        return false;
    poll->due = now + POLL_SECONDS;
    const unsigned forks = fr_forks();
    fastrnn_status status = FASTRNN_OK;
    fr_fp_restore(poll->mode);
    if (poll->batch->interrupted(poll->batch->interrupted_context) != 0)
        status = FASTRNN_ERROR_INTERRUPTED;
    else if (poll->monitor && fr_forks() != forks)
        status = FASTRNN_ERROR_FORKED;
    fr_fp_flush();
    if (status != FASTRNN_OK)
        atomic_store_explicit(poll->status, status, memory_order_relaxed);
    return status != FASTRNN_OK;
}
