#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "cpu.h"

typedef struct fr_candidate {
    const fr_kernels *kernels;
    bool (*runs_here)(void);
} fr_candidate;

static const fr_candidate candidates[] = { /* the first that has the type and runs here is taken */
#define FR_CANDIDATE(isa, weights) {&fr_kernels_##isa##weights, fr_cpu_has_##isa},
#define FR_INT8_CANDIDATE(isa) FR_CANDIDATE(isa, _int8)
#if defined(FASTRNN_ONLY_FLOAT32)
#define FR_CANDIDATES(isa) FR_CANDIDATE(isa, )
#else
#define FR_CANDIDATES(isa) FR_CANDIDATE(isa, ) FR_CANDIDATE(isa, _float16) FR_INT8_CANDIDATE(isa)
#endif
    FR_FOR_EACH_ISA(FR_CANDIDATES, FR_INT8_CANDIDATE)
#undef FR_CANDIDATES
#undef FR_INT8_CANDIDATE
#undef FR_CANDIDATE
};

const fr_kernels *fr_kernels_at(size_t index, fr_weight_type type)
{
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++)
        if (candidates[i].kernels->weight_type == type && candidates[i].runs_here() && index-- == 0)
            return candidates[i].kernels;
    return NULL;
}

const fr_kernels *fr_kernels_named(const char *isa, fr_weight_type type)
{
    if (!isa)
        isa = getenv("FASTRNN_ISA");
    if (!isa || !*isa)
        return fr_kernels_at(0, type);
    bool named = false;
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        if (!candidates[i].runs_here())
            continue;
        named |= strcmp(candidates[i].kernels->isa, isa) == 0;
        if (named && candidates[i].kernels->weight_type == type)
            return candidates[i].kernels;
    }
    return NULL;
}
