/* The time loop over batch_sizes: finished rows drop out. */
#ifndef FR_PACKED_H
#define FR_PACKED_H

#include "sequence.h"

/* Returns false if the call must stop. */
bool fr_packed_run(const fr_sequence *sequence, const fr_team *team);

#endif
