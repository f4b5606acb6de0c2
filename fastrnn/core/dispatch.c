#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "cpu.h"

typedef struct fr_candidate {
    const fr_kernels *kernels;
    bool (*runs_here)(void);
} fr_candidate;

static const fr_candidate candidates[] = { /* the first that has the type and runs here is taken */
#define FR_CANDIDATE(isa) {&fr_kernels_##isa, fr_cpu_has_##isa}, {&fr_kernels_##isa##_float16, fr_cpu_has_##isa},
    FR_FOR_EACH_ISA(FR_CANDIDATE)
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
    const fr_kernels *kernels;
    for (size_t i = 0; (kernels = fr_kernels_at(i, type)) != NULL; i++)
        if (strcmp(kernels->isa, isa) == 0)
            return kernels;
    return NULL;
}
