/* Every instruction set for which this architecture has a kernel table, the fastest first: X(name). */
#ifndef FR_ISA_LIST_H
#define FR_ISA_LIST_H

#if defined(__x86_64__)
#define FR_FOR_EACH_ISA(X) X(avx512) X(avx2) X(scalar)
#elif defined(__aarch64__)
#define FR_FOR_EACH_ISA(X) X(neon) X(scalar)
#else
#define FR_FOR_EACH_ISA(X) X(scalar)
#endif

#endif
