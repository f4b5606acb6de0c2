/* What this processor and its operating system can run. */
#ifndef FR_CPU_H
#define FR_CPU_H

#include "common.h"

bool fr_cpu_has_scalar(void);
bool fr_cpu_has_avx2(void);   /* with FMA */
bool fr_cpu_has_avx512(void); /* F, DQ, BW, VL, with FMA */
bool fr_cpu_has_neon(void);

/* Flushes subnormal inputs and outputs of floating-point instructions to zero, until fr_fp_restore(returned value). A step
 * with a state that decays to subnormal numbers would take tens of times as long. */
unsigned long long fr_fp_flush(void);
void fr_fp_restore(unsigned long long mode);

#endif
