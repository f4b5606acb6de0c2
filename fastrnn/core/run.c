/* The runs of fastrnn.h: a batch, steps of a stream, a fixed length; on the caller's thread or shared by a pool. */
#include <limits.h>
#include <stdlib.h>

#include "clock.h"
#include "cpu.h"
#include "packed.h"
#include "stream.h"
#include "threads.h"
#include "unrolled.h"
#include "workspace.h"

struct fastrnn_unrolled {
    const fastrnn_model *model;
    int64_t num_steps;
    fr_node nodes[];
};

#define MOST_SHARED_TEAMS 2 /* teams of several members: one, or one a direction */

typedef struct fr_run {
    const fastrnn_model *model;
    const fastrnn_batch *batch;
    const fastrnn_boundary *boundary; /* NULL for a stream, whose state stays where it is */
    void *stream;
    const fastrnn_unrolled *unrolled; /* NULL: rows drop out */
    fr_plan plan;
    fr_workspace workspace;
    unsigned long long mode; /* the caller's floating-point mode */
    double begin;            /* seconds; of a shared call */
    atomic_bool stopped;
    fr_meeting teams[MOST_SHARED_TEAMS];
    fr_meeting everybody; /* after each layer, where directions run apart */
} fr_run;

/* One worker's part in a run. */
typedef struct fr_part {
    fr_run *run;
    fr_team team;
    int team_index;
    fr_state state; /* of one cell at a time */
    fr_buffers buffers;
    fr_rows rows;
    fr_poll poll;
} fr_part;

/* Between layers, steps stand one after the other, each as long as it has rows. */
static fastrnn_view between_view(const fr_run *run, int64_t layer)
{
    const int64_t width = run->model->num_directions * run->model->output_size;
    fastrnn_view view = {.base = run->workspace.between[layer & 1], .row_stride = width, .step_stride = width};
    if (run->batch->lengths)
        view.step_offsets = run->workspace.step_offsets;
    else
        view.step_stride *= run->batch->num_rows;
    return view;
}

static fr_sequence sequence_of(fr_part *part, int64_t index)
{
    const fr_run *run = part->run;
    const fastrnn_model *model = run->model;
    const int64_t layer = index / model->num_directions, direction = index % model->num_directions;
    return (fr_sequence){
        .cell = &model->cells[index], .backend = &model->backend, .rows = part->rows,
        .in = layer == 0 ? run->batch->x : between_view(run, layer - 1),
        .out = layer == model->num_layers - 1 ? run->batch->y : between_view(run, layer),
        .out_offset = direction * model->output_size, .reverse = direction == 1,
        .state = part->state, .buffers = part->buffers, .team = &part->team, .poll = &part->poll,
    };
}

static fr_sequence open_cell(fr_part *part, int64_t index)
{
    fr_sequence sequence = sequence_of(part, index);
    fr_state_load(sequence.cell, sequence.backend, &part->team, &part->rows, part->run->boundary, index, &sequence.state);
    fr_team_wait(&part->team);
    return sequence;
}

static void close_cell(const fr_part *part, int64_t index, const fr_sequence *sequence)
{
    fr_state_store(sequence->cell, sequence->backend, &part->team, &part->rows, part->run->boundary, index, &sequence->state);
}

static bool run_cell(fr_part *part, int64_t index)
{
    const fr_sequence sequence = open_cell(part, index);
    if (!fr_packed_run(&sequence))
        return false;
    close_cell(part, index, &sequence);
    return true;
}

static bool run_nodes(fr_part *part, const fastrnn_unrolled *unrolled)
{
    fr_sequence sequence = {0};
    fr_unrolled_block block = {0};
    const int64_t num_nodes = unrolled->model->num_cells * unrolled->num_steps;
    for (int64_t n = 0; n < num_nodes; n++) {
        const fr_node *node = &unrolled->nodes[n];
        if (node->opens)
            sequence = open_cell(part, node->cell);
        if (!fr_unrolled_step(node, &sequence, &block))
            return false;
        if (node->closes)
            close_cell(part, node->cell, &sequence);
    }
    return true;
}

static bool run_stream(fr_part *part)
{
    const fr_run *run = part->run;
    const size_t e = run->model->backend.kernels->element_size;
    fr_arena layers = fr_stream_layers(run->stream);
    for (int64_t i = 0; i < run->model->num_layers; i++) {
        fr_sequence sequence = sequence_of(part, i);
        const int64_t first = part->rows.first;
        sequence.state = fr_stream_layer(run->model, i, run->batch->num_rows, run->stream, &layers);
        for (int parity = 0; parity < 2; parity++)
            sequence.state.h[parity] = fr_at(sequence.state.h[parity], first * sequence.cell->h_stride, e);
        sequence.state.c = fr_at(sequence.state.c, first * sequence.cell->c_stride, e);
        sequence.state.hidden = part->state.hidden;
        if (!fr_packed_run(&sequence))
            return false;
    }
    return true;
}

/* Each team its own direction. The directions of a layer may take different times, so that teams meet after it. */
static void run_direction(fr_part *part, int worker)
{
    fr_run *run = part->run;
    const fr_team everybody = {.size = run->plan.workers, .index = worker, .barrier = &run->everybody.barrier};
    for (int64_t layer = 0; layer < run->model->num_layers; layer++) {
        if (!run_cell(part, layer * 2 + part->team_index) && worker == 0)
            atomic_store_explicit(&run->everybody.last_step, layer, memory_order_relaxed);
        fr_team_wait(&everybody);
        if (atomic_load_explicit(&run->everybody.last_step, memory_order_relaxed) <= layer)
            return;
    }
}

static bool run_slice(fr_part *part)
{
    const fr_run *run = part->run;
    if (run->stream)
        return run_stream(part);
    if (run->unrolled)
        return run_nodes(part, run->unrolled);
    for (int64_t i = 0; i < run->model->num_cells; i++)
        if (!run_cell(part, i))
            return false;
    return true;
}

static void run_part(void *context, int worker)
{
    fr_run *run = context;
    fr_part part = {.run = run};
    fr_meeting own = {.last_step = LLONG_MAX};
    if (worker > 0) { /* it still has the floating-point mode of some earlier caller */
        fr_fp_restore(run->mode);
        fr_fp_flush();
    }
    part.team = fr_plan_team(&run->plan, worker, &part.team_index);
    part.state = fr_workspace_state(&run->workspace, run->model, part.team_index);
    part.buffers = fr_workspace_buffers(&run->workspace, run->model, worker);
    part.poll = (fr_poll){.batch = run->batch, .asks = worker == 0, .mode = run->mode, .begin = run->begin, .meeting = &own,
                          .stopped = &run->stopped};
    if (part.team.size > 1) {
        part.poll.meeting = &run->teams[part.team_index];
        part.team.barrier = &part.poll.meeting->barrier;
    }
    if (run->plan.directions_apart) {
        part.rows = fr_plan_slice(&run->plan, run->batch, 0);
        run_direction(&part, worker);
        return;
    }
    bool goes_on = true;
    for (int64_t slice = part.team_index; slice < run->plan.num_slices && goes_on; slice += run->plan.num_teams) {
        part.rows = fr_plan_slice(&run->plan, run->batch, slice);
        goes_on = run_slice(&part);
    }
}

#define SPIN_MACS 1e3 /* what one look at the others counts for in the poll */

static void share(fr_run *run, fastrnn_pool *pool)
{
    for (int i = 0; i < MOST_SHARED_TEAMS; i++)
        run->teams[i].last_step = LLONG_MAX;
    run->everybody.last_step = LLONG_MAX;
    run->begin = fr_seconds();
    fr_pool_start(pool, run->plan.workers, run_part, run);
    run_part(run, 0);
    const double worked = fr_seconds() - run->begin;
    fr_spin spin = {0};
    fr_poll poll = {.batch = run->batch, .asks = true, .mode = run->mode, .stopped = &run->stopped};
    while (!fr_pool_is_done(pool)) {
        fr_spin_pause(&spin);
        if (!run->stopped)
            fr_poll_stops(&poll, SPIN_MACS);
    }
    const double waited = fr_spin_seconds(&spin);
    if (waited > worked / 4)
        fr_pool_set_crowded(pool, waited);
    fr_pool_leave(pool);
}

static bool view_is_valid(const fastrnn_view *view, int64_t total_steps, int64_t width)
{
    return view->base || view->rows || total_steps == 0 || width == 0;
}

/* `run` says what; the rest is filled in here. */
static fastrnn_status start(fr_run *run, void *memory)
{
    const fastrnn_model *model = run->model;
    const fastrnn_batch *batch = run->batch;
    if (!model || !batch || !memory)
        return FASTRNN_ERROR_ARGUMENT;
    int64_t total_steps;
    const fastrnn_status status = fr_batch_check(batch, &total_steps);
    if (status != FASTRNN_OK || batch->num_rows == 0)
        return status;
    if (!view_is_valid(&batch->x, total_steps, model->input_size) || !view_is_valid(&batch->y, total_steps, model->output_size))
        return FASTRNN_ERROR_ARGUMENT;
    const bool together = run->unrolled != NULL;
    run->plan = fr_plan_of(model, batch, total_steps, fr_pool_num_threads(batch->pool), fr_pool_threshold(batch->pool), together);
    int workers = run->plan.workers;
    if (workers > 1)
        workers = fr_pool_enter(batch->pool, workers, fr_plan_macs(model, total_steps));
    const bool shared = workers > 1;
    run->plan = shared ? fr_plan_with(run->plan, workers) : fr_plan_of(model, batch, total_steps, 1, 1, together);
    size_t total = 0;
    if (!fr_workspace_lay_out(model, &run->plan, batch, total_steps, memory, &run->workspace, &total)) {
        if (shared)
            fr_pool_leave(batch->pool);
        return FASTRNN_ERROR_SIZE;
    }
    if (model->num_layers > 1 && batch->lengths)
        for (int64_t step = 0, offset = 0; step < batch->num_steps; offset += batch->batch_sizes[step++])
            run->workspace.step_offsets[step] = offset;
    run->mode = fr_fp_flush();
    if (shared)
        share(run, batch->pool);
    else
        run_part(run, 0);
    fr_fp_restore(run->mode);
    return run->stopped ? FASTRNN_ERROR_INTERRUPTED : FASTRNN_OK;
}

fastrnn_status fastrnn_workspace_size(const fastrnn_model *model, const fastrnn_batch *batch, size_t *size)
{
    if (!model || !batch || !size)
        return FASTRNN_ERROR_ARGUMENT;
    int64_t total_steps;
    const fastrnn_status status = fr_batch_check(batch, &total_steps);
    if (status != FASTRNN_OK)
        return status;
    *size = 0;
    fr_workspace unused;
    /* With the pool or, if it is in use by then, without; a fixed length keeps directions together. */
    for (int i = 0; i < 4; i++) {
        const fr_plan plan = fr_plan_of(model, batch, total_steps, i & 1 ? fr_pool_num_threads(batch->pool) : 1,
                                        fr_pool_threshold(batch->pool), i & 2);
        size_t total = FR_ALIGNMENT;
        if (!fr_workspace_lay_out(model, &plan, batch, total_steps, NULL, &unused, &total))
            return FASTRNN_ERROR_SIZE;
        *size = total > *size ? total : *size;
    }
    return FASTRNN_OK;
}

fastrnn_status fastrnn_run(const fastrnn_model *model, const fastrnn_batch *batch, const fastrnn_boundary *boundary,
                           void *workspace)
{
    fr_run run = {.model = model, .batch = batch, .boundary = boundary};
    return boundary ? start(&run, workspace) : FASTRNN_ERROR_ARGUMENT;
}

fastrnn_status fastrnn_stream_run(const fastrnn_model *model, const fastrnn_batch *batch, void *stream, void *workspace)
{
    fr_run run = {.model = model, .batch = batch, .stream = stream};
    if (!fr_stream_is_valid(model, stream) || !batch || batch->lengths)
        return FASTRNN_ERROR_ARGUMENT;
    const fastrnn_status status = start(&run, workspace);
    if (status == FASTRNN_OK || status == FASTRNN_ERROR_INTERRUPTED)
        fr_stream_advance(stream, batch->num_steps);
    return status;
}

fastrnn_status fastrnn_unrolled_create(const fastrnn_model *model, int64_t num_steps, fastrnn_unrolled **plan)
{
    if (!model || !plan || !fr_in_range(num_steps, 0, FR_MOST_ROWS))
        return FASTRNN_ERROR_ARGUMENT;
    size_t bytes = sizeof(fastrnn_unrolled);
    if (!fr_add_bytes(&bytes, (size_t)num_steps, (size_t)model->num_cells * sizeof(fr_node)))
        return FASTRNN_ERROR_SIZE;
    fastrnn_unrolled *made = malloc(bytes);
    if (!made)
        return FASTRNN_ERROR_MEMORY;
    made->model = model;
    made->num_steps = num_steps;
    fr_unrolled_lay_out(made->nodes, model->num_cells, num_steps);
    *plan = made;
    return FASTRNN_OK;
}

void fastrnn_unrolled_destroy(fastrnn_unrolled *plan) { free(plan); }

fastrnn_status fastrnn_unrolled_run(const fastrnn_unrolled *plan, const fastrnn_batch *batch,
                                    const fastrnn_boundary *boundary, void *workspace)
{
    if (!plan || !batch || !boundary || batch->lengths || batch->num_steps != plan->num_steps)
        return FASTRNN_ERROR_ARGUMENT;
    if (plan->num_steps == 0) /* no node would carry the initial state over */
        return fastrnn_run(plan->model, batch, boundary, workspace);
    fr_run run = {.model = plan->model, .batch = batch, .boundary = boundary, .unrolled = plan};
    return start(&run, workspace);
}
