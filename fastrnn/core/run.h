/* Runs of a plan: on the caller's thread, or shared with a thread pool. */
#ifndef FR_RUN_H
#define FR_RUN_H

#include "plan.h"

/* Runs a plan whose batch has rows, in a workspace aligned to FR_ALIGNMENT, in the library's floating-point mode. `poll` is the
 * caller's thread's; it says whether the run was completed, and the caller may go on with it after that. */
void fr_plan_run(const fr_plan *plan, void *memory, fr_poll *poll);

#endif
