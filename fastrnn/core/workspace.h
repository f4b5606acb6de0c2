/* The memory of a call, cut from one block of the caller's. */
#ifndef FR_WORKSPACE_H
#define FR_WORKSPACE_H

#include "plan.h"

typedef struct fr_workspace {
    int64_t *step_offsets; /* (T): where step t starts in `between`; with unequal lengths only */
    void *between[2];      /* (total_steps, D*P): what one layer hands to the next */
    char *states, *buffers;  /* of team 0 and worker 0; the others' follow */
    size_t state_bytes, buffers_bytes;
    int64_t state_rows, capacity;
} fr_workspace;

/* Cuts the memory, and returns its size; with NULL, only that. total_steps and the number of rows are at most
 * layer->most_steps. */
size_t fr_workspace_lay_out(const fastrnn_layer *layer, const fr_plan *plan, const fastrnn_batch *batch, int64_t total_steps,
                            void *memory, fr_workspace *workspace);

void fr_workspace_state(const fr_workspace *workspace, const fastrnn_layer *layer, int team, fr_state *state);
void fr_workspace_buffers(const fr_workspace *workspace, const fastrnn_layer *layer, int worker, fr_buffers *buffers);

#endif
