/* Runs of a plan: on the caller's thread, or shared with a thread pool. */
#ifndef FR_RUN_H
#define FR_RUN_H

#include "plan.h"
#include "store.h"

/* Runs a plan whose batch has rows, in a workspace aligned to FR_ALIGNMENT, in the library's floating-point mode. `states`: of the
 * store, in which the caller makes the new ones valid (fr_states_advance); without a store parities is NULL. `poll` is the caller's
 * thread's; it says whether the run was completed, and the caller may go on with it after that. */
void fr_plan_run(const fr_plan *plan, const fr_states *states, void *memory, fr_poll *poll);

#endif
