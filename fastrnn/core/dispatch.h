/* Which kernel table runs: by name, or the best that the processor allows. */
#ifndef FR_DISPATCH_H
#define FR_DISPATCH_H

#include "kernels/kernels.h"

/* The index-th runnable float table, best first; NULL past the last. */
const fr_kernels *fr_kernels_at(size_t index);

/* The float table called isa; NULL as name asks FASTRNN_ISA in the environment, then takes the best.
 * Returns NULL where the name is unknown or its instructions cannot run here. */
const fr_kernels *fr_kernels_named(const char *isa);

#endif
