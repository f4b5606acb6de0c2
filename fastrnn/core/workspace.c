#include "workspace.h"

/* A piece that starts `*at` bytes into the memory. */
static void *cut(char *memory, size_t *at, int64_t count, int64_t width, size_t element_size)
{
    void *piece = memory ? memory + *at : NULL;
    *at += (size_t)fr_round_up(count * width * (int64_t)element_size, FR_ALIGNMENT);
    return piece;
}

static size_t cut_state(const fastrnn_layer *layer, int64_t rows, char *memory, fr_state *state)
{
    const fr_widths *most = &layer->widest;
    const size_t e = layer->backend.kernels->real_size;
    size_t at = 0;
    state->h[0] = cut(memory, &at, rows, most->h, e);
    state->h[1] = cut(memory, &at, rows, most->h, e);
    state->c = cut(memory, &at, rows, most->c, e);
    state->hidden = cut(memory, &at, most->hidden ? rows : 0, most->c, e);
    return at;
}

static size_t cut_buffers(const fastrnn_layer *layer, int64_t capacity, char *memory, fr_buffers *buffers)
{
    const fr_widths *most = &layer->widest;
    const size_t e = layer->backend.kernels->real_size;
    size_t at = 0;
    buffers->capacity = capacity;
    buffers->x = cut(memory, &at, capacity, most->x, e);
    buffers->pre = cut(memory, &at, capacity, most->pre, e);
    buffers->scratch = cut(memory, &at, most->scratch, 1, e);
    return at;
}

size_t fr_workspace_lay_out(const fastrnn_layer *layer, const fr_plan *plan, const fastrnn_batch *batch, int64_t total_steps,
                            void *memory, fr_workspace *workspace)
{
    const size_t e = layer->backend.kernels->real_size;
    const int64_t between = layer->num_layers > 1 ? total_steps : 0, width = layer->num_directions * layer->h_size;
    char *start = memory ? fr_arena_of(memory).next : NULL;
    size_t at = 0;
    int64_t slice_steps;
    fr_plan_slice_bounds(plan, batch, total_steps, &workspace->state_rows, &slice_steps);
    workspace->capacity = fr_max(workspace->state_rows, fr_min(layer->block_rows, slice_steps));
    workspace->step_offsets = cut(start, &at, between && batch->lengths ? batch->num_steps : 0, 1, sizeof(int64_t));
    workspace->between[0] = cut(start, &at, between, width, e);
    workspace->between[1] = cut(start, &at, layer->num_layers > 2 ? between : 0, width, e);
    fr_state state;
    fr_buffers buffers;
    workspace->state_bytes = cut_state(layer, workspace->state_rows, NULL, &state);
    workspace->buffers_bytes = cut_buffers(layer, workspace->capacity, NULL, &buffers);
    workspace->states = cut(start, &at, plan->num_teams, 1, workspace->state_bytes);
    workspace->buffers = cut(start, &at, plan->workers, 1, workspace->buffers_bytes);
    return at + FR_ALIGNMENT;
}

void fr_workspace_state(const fr_workspace *workspace, const fastrnn_layer *layer, int team, fr_state *state)
{
    cut_state(layer, workspace->state_rows, workspace->states + (size_t)team * workspace->state_bytes, state);
}

void fr_workspace_buffers(const fr_workspace *workspace, const fastrnn_layer *layer, int worker, fr_buffers *buffers)
{
    cut_buffers(layer, workspace->capacity, workspace->buffers + (size_t)worker * workspace->buffers_bytes, buffers);
}
