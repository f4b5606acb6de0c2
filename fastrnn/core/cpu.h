/* What this processor and its operating system can run. */
#ifndef FR_CPU_H
#define FR_CPU_H

#include "common.h"

bool fr_cpu_has_scalar(void);
bool fr_cpu_has_avx2(void);   /* with FMA */
bool fr_cpu_has_avx512(void); /* F, DQ, BW, VL, with FMA */
bool fr_cpu_has_neon(void);

/* A short pause of a loop that waits for another thread. */
static inline void fr_cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Flush subnormal numbers to zero, on input and output, until fr_fp_restore(returned value). Without it, steps on states that
 * decay to subnormal numbers would take tens of times as long. */
unsigned long long fr_fp_flush(void);
void fr_fp_restore(unsigned long long mode);

#endif
