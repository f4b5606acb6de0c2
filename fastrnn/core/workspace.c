#include "workspace.h"

/* Adds a piece to *total and, from an arena that has memory, cuts it. */
static bool cut(fr_arena *arena, size_t *total, int64_t count, int64_t width, size_t element_size, void **piece)
{
    const size_t bytes = (size_t)width * element_size;
    if (!fr_add_bytes(total, (size_t)count, bytes))
        return false;
    *piece = arena->next ? fr_take(arena, (size_t)count, bytes) : NULL;
    return true;
}

static bool cut_state(const fastrnn_model *model, int64_t rows, fr_arena *arena, size_t *total, fr_state *state)
{
    const fr_widths most = model->widest;
    const size_t e = model->backend.kernels->element_size;
    return cut(arena, total, rows, most.h, e, &state->h[0]) && cut(arena, total, rows, most.h, e, &state->h[1]) &&
           cut(arena, total, rows, most.c, e, &state->c) && cut(arena, total, most.hidden ? rows : 0, most.c, e, &state->hidden);
}

static bool cut_buffers(const fastrnn_model *model, int64_t capacity, fr_arena *arena, size_t *total, fr_buffers *buffers)
{
    const fr_widths most = model->widest;
    const size_t e = model->backend.kernels->element_size;
    buffers->capacity = capacity;
    return cut(arena, total, capacity, most.x, e, &buffers->x) && cut(arena, total, capacity, most.pre, e, &buffers->pre) &&
           cut(arena, total, most.scratch, 1, e, &buffers->scratch);
}

bool fr_workspace_lay_out(const fastrnn_model *model, const fr_plan *plan, const fastrnn_batch *batch, int64_t total_steps,
                          void *memory, fr_workspace *workspace, size_t *total)
{
    const size_t e = model->backend.kernels->element_size;
    const int64_t between = model->num_layers > 1 ? total_steps : 0, width = model->num_directions * model->output_size;
    fr_arena arena = {0}, none = {0};
    if (memory)
        arena = fr_arena_of(memory);
    int64_t slice_steps;
    fr_plan_slice_bounds(plan, batch, total_steps, &workspace->state_rows, &slice_steps);
    workspace->capacity = fr_block_capacity(&model->cells[0], &model->backend, workspace->state_rows, slice_steps);
    fr_state state;
    fr_buffers buffers;
    workspace->state_bytes = workspace->buffers_bytes = 0;
    if (!cut(&arena, total, between && batch->lengths ? batch->num_steps : 0, 1, sizeof(int64_t), (void **)&workspace->step_offsets) ||
        !cut(&arena, total, between, width, e, &workspace->between[0]) ||
        !cut(&arena, total, model->num_layers > 2 ? between : 0, width, e, &workspace->between[1]) ||
        !cut_state(model, workspace->state_rows, &none, &workspace->state_bytes, &state) ||
        !cut_buffers(model, workspace->capacity, &none, &workspace->buffers_bytes, &buffers) ||
        !fr_add_bytes(total, (size_t)plan->num_teams, workspace->state_bytes) ||
        !fr_add_bytes(total, (size_t)plan->workers, workspace->buffers_bytes))
        return false;
    workspace->states = workspace->buffers = arena;
    if (arena.next)
        workspace->buffers.next += (size_t)plan->num_teams * workspace->state_bytes;
    return true;
}

fr_state fr_workspace_state(const fr_workspace *workspace, const fastrnn_model *model, int team)
{
    fr_arena arena = {workspace->states.next + (size_t)team * workspace->state_bytes};
    fr_state state = {0};
    size_t total = 0;
    cut_state(model, workspace->state_rows, &arena, &total, &state);
    return state;
}

fr_buffers fr_workspace_buffers(const fr_workspace *workspace, const fastrnn_model *model, int worker)
{
    fr_arena arena = {workspace->buffers.next + (size_t)worker * workspace->buffers_bytes};
    fr_buffers buffers;
    size_t total = 0;
    cut_buffers(model, workspace->capacity, &arena, &total, &buffers);
    return buffers;
}
