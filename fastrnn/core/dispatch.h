/* Selects a kernel table: by name, or the fastest that this processor can run. */
#ifndef FR_DISPATCH_H
#define FR_DISPATCH_H

#include "kernels/kernels.h"

/* The index-th instruction set that can run here, best first: its table for weights of this type; NULL past the last. */
const fr_kernels *fr_kernels_at(size_t index, fr_weight_type type);

/* The table of the instruction set of this name for weights of this type, other than double; if the set has none, that of the
 * next slower set. If isa is NULL, the environment variable FASTRNN_ISA names it, and if that is not set, it is the fastest.
 * Returns NULL if the name is unknown or this processor lacks the instructions. */
const fr_kernels *fr_kernels_named(const char *isa, fr_weight_type type);

#endif
