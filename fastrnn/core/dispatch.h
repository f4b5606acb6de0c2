/* Selects a kernel table: by name, or the best one that the processor can run. */
#ifndef FR_DISPATCH_H
#define FR_DISPATCH_H

#include "kernels/kernels.h"

/* The index-th runnable float table, best first; NULL past the last. */
const fr_kernels *fr_kernels_at(size_t index);

/* The float table named isa. If isa is NULL, the one that the environment variable FASTRNN_ISA names or, if it is not set, the
 * best one. Returns NULL if the name is unknown or its instructions cannot run here. */
const fr_kernels *fr_kernels_named(const char *isa);

#endif
