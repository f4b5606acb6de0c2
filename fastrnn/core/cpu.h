/* What this processor and its operating system can run. */
#ifndef FR_CPU_H
#define FR_CPU_H

#include "common.h"

bool fr_cpu_has_scalar(void);
bool fr_cpu_has_avx2(void);   /* with FMA and F16C */
bool fr_cpu_has_avx512(void); /* F, DQ, BW, VL, with FMA */
bool fr_cpu_has_neon(void);
/* The same sets with products of bytes: */
bool fr_cpu_has_avx2_vnni(void);
bool fr_cpu_has_avx512_vnni(void);
bool fr_cpu_has_neon_dotprod(void);

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
 * decay to subnormal numbers would take tens of times as long. Inline, and the register is written only if that changes it, as a
 * step may take 0.05 us only. */
#if defined(__x86_64__)
#define FR_FP_FLUSH (1ULL << 6 | 1ULL << 15) /* MXCSR: denormals are zeros, flush to zero */
static inline unsigned long long fr_fp_mode(void) { return __builtin_ia32_stmxcsr(); }
static inline void fr_fp_set(unsigned long long mode) { __builtin_ia32_ldmxcsr((unsigned)mode); }
#elif defined(__aarch64__)
#define FR_FP_FLUSH (1ULL << 24)
static inline unsigned long long fr_fp_mode(void)
{
    unsigned long long mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static inline void fr_fp_set(unsigned long long mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
#define FR_FP_FLUSH 0ULL
static inline unsigned long long fr_fp_mode(void) { return 0; }
static inline void fr_fp_set(unsigned long long mode) { (void)mode; }
#endif

static inline unsigned long long fr_fp_flush(void)
{
    const unsigned long long mode = fr_fp_mode();
    if ((mode & FR_FP_FLUSH) != FR_FP_FLUSH)
        fr_fp_set(mode | FR_FP_FLUSH);
    return mode;
}

static inline void fr_fp_restore(unsigned long long mode) { fr_fp_set(mode); }

#endif
