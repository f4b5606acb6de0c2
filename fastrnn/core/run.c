/* The runs of fastrnn.h: a batch, steps of a stream, a fixed length; on the caller's thread or shared by a pool. */
#include <limits.h>
#include <stdlib.h>

#include "cpu.h"
#include "packed.h"
#include "stream.h"
#include "threads.h"
#include "unrolled.h"
#include "workspace.h"

struct fastrnn_unrolled {
    const fastrnn_layer *layer;
    int64_t num_steps;
    fr_node nodes[];
};

#define MOST_SHARED_TEAMS 2 /* teams of several members: one, or one a direction */

/* What the workers of a shared call share. */
typedef struct fr_shared_run {
    fr_team_sync teams[MOST_SHARED_TEAMS];
    fr_team_sync everybody; /* after each layer, where directions run apart */
    fr_monitor monitor;       /* the caller's thread's */
    atomic_llong unscheduled;    /* nanoseconds that one of the others had no processor */
} fr_shared_run;

typedef struct fr_run {
    const fastrnn_layer *layer;
    const fastrnn_batch *batch;
    const fastrnn_boundary *boundary; /* NULL for a stream, whose state stays where it is */
    void *stream;
    const fastrnn_unrolled *unrolled; /* NULL: rows drop out */
    double macs;
    fr_plan plan;
    fr_workspace workspace;
    unsigned long long mode; /* the caller's floating-point mode */
    atomic_int status;       /* FASTRNN_OK, or why it shall stop */
    fr_shared_run *shared; /* NULL: the caller's thread runs alone */
} fr_run;

/* One worker's part in a run. */
typedef struct fr_part {
    fr_run *run;
    fr_team team;
    int team_index;
    fr_poll poll;
    bool last_layer;
    fr_sequence sequence; /* of one cell after the other */
} fr_part;

/* Between layers, steps stand one after the other, each as long as it has rows. */
static fastrnn_view between_view(const fr_run *run, int64_t layer_index)
{
    const int64_t width = run->layer->num_directions * run->layer->h_size;
    fastrnn_view view = {.base = run->workspace.between[layer_index & 1], .row_stride = width, .step_stride = width};
    if (run->batch->lengths)
        view.step_offsets = run->workspace.step_offsets;
    else
        view.step_stride *= run->batch->num_rows;
    return view;
}

static void enter_cell(fr_part *part, int64_t layer_index, int64_t direction)
{
    const fr_run *run = part->run;
    const fastrnn_layer *layer = run->layer;
    fr_sequence *sequence = &part->sequence;
    sequence->cell = &layer->cells[layer_index * layer->num_directions + direction];
    sequence->in = layer_index == 0 ? run->batch->x : between_view(run, layer_index - 1);
    part->last_layer = layer_index == layer->num_layers - 1;
    sequence->out = part->last_layer ? run->batch->y : between_view(run, layer_index);
    sequence->out_offset = direction * layer->h_size;
    sequence->reverse = direction == 1 || layer->reverse;
}

static int64_t cell_index(const fr_part *part) { return part->sequence.cell - part->run->layer->cells; }

static bool load_state(fr_part *part)
{
    fr_sequence *sequence = &part->sequence;
    fr_state_load(sequence->cell, sequence->backend, &part->team, &sequence->rows, part->run->boundary, cell_index(part),
                  &sequence->state, &part->poll);
    return fr_poll_settle(&part->poll, &part->team, 0);
}

static void store_state(fr_part *part)
{
    const fr_sequence *sequence = &part->sequence;
    fr_state_store(sequence->cell, sequence->backend, &part->team, &sequence->rows, part->run->boundary, cell_index(part),
                   &sequence->state, &part->poll);
    if (part->last_layer)
        fr_sequence_fill(sequence, &part->team);
}

static bool run_cell(fr_part *part, int64_t layer_index, int64_t direction)
{
    enter_cell(part, layer_index, direction);
    if (!load_state(part) || !fr_packed_run(&part->sequence, &part->team))
        return false;
    store_state(part);
    return true;
}

static bool run_cells(fr_part *part)
{
    for (int64_t layer_index = 0; layer_index < part->run->layer->num_layers; layer_index++)
        for (int64_t direction = 0; direction < part->run->layer->num_directions; direction++)
            if (!run_cell(part, layer_index, direction))
                return false;
    return true;
}

static bool run_nodes(fr_part *part, const fastrnn_unrolled *unrolled)
{
    fr_unrolled_block block = {0};
    const int64_t D = unrolled->layer->num_directions, num_nodes = unrolled->layer->num_cells * unrolled->num_steps;
    for (int64_t n = 0; n < num_nodes; n++) {
        const fr_node *node = &unrolled->nodes[n];
        if (node->opens) {
            enter_cell(part, node->cell / D, node->cell % D);
            if (!load_state(part))
                return false;
        }
        if (!fr_unrolled_step(node, &part->sequence, &part->team, &block))
            return false;
        if (node->closes)
            store_state(part);
    }
    return true;
}

static bool run_stream(fr_part *part)
{
    const fr_run *run = part->run;
    fr_sequence *sequence = &part->sequence;
    const size_t e = sequence->backend->kernels->real_size;
    const int64_t first = sequence->rows.first;
    fr_arena layers = fr_stream_layers(run->stream);
    for (int64_t layer_index = 0; layer_index < run->layer->num_layers; layer_index++) {
        enter_cell(part, layer_index, 0);
        fr_stream_layer(run->layer, layer_index, run->batch->num_rows, run->stream, &layers, &sequence->state);
        sequence->state.h[0] = fr_at(sequence->state.h[0], first * sequence->cell->h_stride, e);
        sequence->state.h[1] = fr_at(sequence->state.h[1], first * sequence->cell->h_stride, e);
        sequence->state.c = fr_at(sequence->state.c, first * sequence->cell->c_stride, e);
        if (!fr_packed_run(sequence, &part->team))
            return false;
    }
    return true;
}

/* Each team its own direction. The directions of a layer may take different times, so that teams meet after it. */
static void run_direction(fr_part *part, int worker)
{
    fr_team_sync *everybody = &part->run->shared->everybody;
    const fr_team workers = {.size = part->run->plan.workers, .index = worker, .barrier = &everybody->barrier};
    for (int64_t layer_index = 0; layer_index < part->run->layer->num_layers; layer_index++) {
        if (!run_cell(part, layer_index, part->team_index) && worker == 0)
            atomic_store_explicit(&everybody->last_step, layer_index, memory_order_relaxed);
        fr_team_wait(&workers);
        if (atomic_load_explicit(&everybody->last_step, memory_order_relaxed) <= layer_index)
            return;
    }
}

static bool run_slice(fr_part *part)
{
    const fr_run *run = part->run;
    return run->stream ? run_stream(part) : run->unrolled ? run_nodes(part, run->unrolled) : run_cells(part);
}

static void run_part(fr_run *run, int worker)
{
    fr_part part;
    part.run = run;
    if (worker > 0) { /* it still has the floating-point mode of some earlier caller */
        fr_fp_restore(run->mode);
        fr_fp_flush();
    }
    fr_plan_team(&run->plan, worker, &part.team_index, &part.team);
    part.poll = (fr_poll){.batch = run->batch, .asks = worker == 0, .mode = run->mode, .status = &run->status};
    if (part.team.size > 1) {
        part.poll.sync = &run->shared->teams[part.team_index];
        part.team.barrier = &part.poll.sync->barrier;
    }
    if (worker == 0 && run->shared)
        part.poll.monitor = &run->shared->monitor;
    part.sequence.backend = &run->layer->backend;
    part.sequence.poll = &part.poll;
    fr_workspace_state(&run->workspace, run->layer, part.team_index, &part.sequence.state);
    fr_workspace_buffers(&run->workspace, run->layer, worker, &part.sequence.buffers);
    if (run->plan.directions_apart) {
        fr_plan_slice(&run->plan, run->batch, 0, &part.sequence.rows);
        run_direction(&part, worker);
        return;
    }
    bool goes_on = true;
    for (int64_t slice = part.team_index; slice < run->plan.num_slices && goes_on; slice += run->plan.num_teams) {
        if (slice > part.team_index)
            fr_team_wait(&part.team); /* a slice of other rows is shared out otherwise: their state may still be read */
        fr_plan_slice(&run->plan, run->batch, slice, &part.sequence.rows);
        goes_on = run_slice(&part);
    }
}

static void help(void *context, int worker)
{
    fr_run *run = context;
    const fr_monitor monitor = fr_monitor_start(run->macs);
    run_part(run, worker);
    const double unscheduled = fr_monitor_unscheduled(&monitor);
    if (unscheduled > 0)
        atomic_store_explicit(&run->shared->unscheduled, (long long)(1e9 * unscheduled), memory_order_relaxed);
}

/* What a look at the others counts for in the poll. */
#define SPIN_WORK 1e3
#define YIELD_WORK 1e7 /* which may take a time slice */

#define TIME_SLICE_MACS 1e8 /* some 2 ms: long beside the time that a worker may be without its processor */

/* Workers that never meet lose little where they must share processors, if there is time to make up for it. */
static bool tolerates_oversubscription(const fr_run *run)
{
    return run->plan.num_teams == run->plan.workers && !run->plan.directions_apart && run->macs > TIME_SLICE_MACS;
}

static void share(fr_run *run, fastrnn_pool *pool)
{
    fr_shared_run shared = {.monitor = fr_monitor_start(run->macs), .everybody.last_step = LLONG_MAX};
    const unsigned forks = shared.everybody.barrier.forks = fr_forks();
    for (int i = 0; i < MOST_SHARED_TEAMS; i++) {
        shared.teams[i].last_step = LLONG_MAX;
        shared.teams[i].barrier.forks = forks;
    }
    run->shared = &shared;
    fr_pool_start(pool, run->plan.workers, help, run);
    run_part(run, 0);
    fr_spin spin = {0};
    fr_poll poll = {.batch = run->batch, .asks = true, .mode = run->mode, .monitor = &shared.monitor, .status = &run->status};
    while (fr_forks() == forks && !fr_pool_is_done(pool)) {
        fr_spin_pause(&spin);
        if (run->status == FASTRNN_OK)
            fr_poll_stops(&poll, spin.since > 0 ? YIELD_WORK : SPIN_WORK);
    }
    if (fr_forks() != forks) { /* the others' parts will not be done, and the pool is no longer this call's */
        if (run->status == FASTRNN_OK)
            run->status = FASTRNN_ERROR_FORKED;
        return;
    }
    shared.monitor.waited += fr_spin_seconds(&spin);
    if (!tolerates_oversubscription(run))
        fr_monitor_check(&shared.monitor, pool, 1e-9 * (double)shared.unscheduled);
    fr_pool_leave(pool);
}

static bool view_is_valid(const fastrnn_view *view, int64_t total_steps, int64_t width)
{
    return view->base || view->rows || total_steps == 0 || width == 0;
}

static bool fills(const fastrnn_batch *batch)
{
    return batch->past_end != FASTRNN_PAST_END_NOTHING && batch->padded_steps > 0 && !batch->y.step_offsets;
}

/* `run` says what; the rest is filled in here. */
static fastrnn_status start(fr_run *run, void *memory)
{
    const fastrnn_layer *layer = run->layer;
    const fastrnn_batch *batch = run->batch;
    if (!layer || !batch || !memory)
        return FASTRNN_ERROR_ARGUMENT;
    int64_t total_steps;
    const fastrnn_status status = fr_batch_check(batch, &total_steps);
    if (status != FASTRNN_OK || batch->num_rows == 0)
        return status;
    if (!view_is_valid(&batch->x, total_steps, layer->input_size) ||
        !view_is_valid(&batch->y, total_steps + fills(batch), layer->h_size))
        return FASTRNN_ERROR_ARGUMENT;
    const bool together = run->unrolled != NULL;
    if (batch->num_rows > layer->most_steps || total_steps > layer->most_steps)
        return FASTRNN_ERROR_SIZE;
    fr_plan_make(layer, batch, total_steps, fr_pool_num_threads(batch->pool), fr_pool_threshold(batch->pool), together, &run->plan);
    int workers = 1;
    if (run->plan.workers > 1) {
        run->macs = fr_plan_macs(layer, total_steps);
        workers = fr_pool_enter(batch->pool, run->plan.workers, run->macs, tolerates_oversubscription(run));
        if (workers > 1)
            fr_plan_keep(&run->plan, workers);
        else
            fr_plan_make(layer, batch, total_steps, 1, 1, together, &run->plan);
    }
    fr_workspace_lay_out(layer, &run->plan, batch, total_steps, memory, &run->workspace);
    if (layer->num_layers > 1 && batch->lengths)
        for (int64_t step = 0, offset = 0; step < batch->num_steps; offset += batch->batch_sizes[step++])
            run->workspace.step_offsets[step] = offset;
    run->mode = fr_fp_flush();
    if (workers > 1)
        share(run, batch->pool);
    else
        run_part(run, 0);
    fr_fp_restore(run->mode);
    return (fastrnn_status)run->status;
}

/* Room for the state of rows that a stream's run names, ahead of the rest of the workspace. */
static fastrnn_status add_gathered(const fastrnn_layer *layer, int64_t num_rows, size_t *size)
{
    size_t gathered;
    const fastrnn_status status = fastrnn_stream_size(layer, num_rows, &gathered);
    if (status != FASTRNN_OK)
        return status;
    return fr_add_bytes(size, 1, gathered + FR_ALIGNMENT) ? FASTRNN_OK : FASTRNN_ERROR_SIZE;
}

fastrnn_status fastrnn_workspace_size(const fastrnn_layer *layer, const fastrnn_batch *batch, size_t *size)
{
    if (!layer || !batch || !size)
        return FASTRNN_ERROR_ARGUMENT;
    int64_t total_steps;
    const fastrnn_status status = fr_batch_check(batch, &total_steps);
    if (status != FASTRNN_OK)
        return status;
    if (batch->num_rows > layer->most_steps || total_steps > layer->most_steps)
        return FASTRNN_ERROR_SIZE;
    *size = 0;
    fr_workspace unused;
    /* With the pool or, if it is in use by then, without; a fixed length keeps directions together. */
    for (int i = 0; i < 4; i++) {
        fr_plan plan;
        fr_plan_make(layer, batch, total_steps, i & 1 ? fr_pool_num_threads(batch->pool) : 1, fr_pool_threshold(batch->pool),
                     i & 2, &plan);
        const size_t one = fr_workspace_lay_out(layer, &plan, batch, total_steps, NULL, &unused);
        *size = one > *size ? one : *size;
    }
    return batch->slots ? add_gathered(layer, batch->num_rows, size) : FASTRNN_OK;
}

fastrnn_status fastrnn_run(const fastrnn_layer *layer, const fastrnn_batch *batch, const fastrnn_boundary *boundary,
                           void *workspace)
{
    fr_run run = {.layer = layer, .batch = batch, .boundary = boundary};
    return boundary ? start(&run, workspace) : FASTRNN_ERROR_ARGUMENT;
}

/* The named rows as a stream of their own. */
static fastrnn_status run_slots(const fastrnn_layer *layer, const fastrnn_batch *batch, void *stream, void *workspace)
{
    size_t bytes;
    void *gathered = fr_arena_of(workspace).next;
    fastrnn_status status = fastrnn_stream_size(layer, batch->num_rows, &bytes);
    if (status != FASTRNN_OK)
        return status;
    status = fr_stream_gather(layer, stream, batch, gathered);
    if (status != FASTRNN_OK)
        return status;
    fr_run run = {.layer = layer, .batch = batch, .stream = gathered};
    status = start(&run, fr_at(gathered, (int64_t)bytes, 1));
    if (status == FASTRNN_OK) {
        fr_stream_advance(gathered, batch->num_steps);
        fr_stream_scatter(layer, gathered, batch->num_rows, batch->slots, stream);
    }
    return status;
}

fastrnn_status fastrnn_stream_run(const fastrnn_layer *layer, const fastrnn_batch *batch, void *stream, void *workspace)
{
    if (!fr_stream_is_valid(layer, stream) || !batch || batch->lengths || batch->batch_sizes || !workspace)
        return FASTRNN_ERROR_ARGUMENT;
    if (batch->slots)
        return run_slots(layer, batch, stream, workspace);
    if (batch->num_rows != fr_stream_num_rows(stream))
        return FASTRNN_ERROR_ARGUMENT;
    fr_run run = {.layer = layer, .batch = batch, .stream = stream};
    const fastrnn_status status = start(&run, workspace);
    if (status == FASTRNN_OK || status == FASTRNN_ERROR_INTERRUPTED || status == FASTRNN_ERROR_FORKED)
        fr_stream_advance(stream, batch->num_steps);
    return status;
}

fastrnn_status fastrnn_unrolled_create(const fastrnn_layer *layer, int64_t num_steps, fastrnn_unrolled **plan)
{
    if (!layer || !plan || !fr_in_range(num_steps, 0, FR_MOST_ROWS))
        return FASTRNN_ERROR_ARGUMENT;
    size_t bytes = sizeof(fastrnn_unrolled);
    if (!fr_add_bytes(&bytes, (size_t)num_steps, (size_t)layer->num_cells * sizeof(fr_node)))
        return FASTRNN_ERROR_SIZE;
    fastrnn_unrolled *made = malloc(bytes);
    if (!made)
        return FASTRNN_ERROR_MEMORY;
    made->layer = layer;
    made->num_steps = num_steps;
    fr_unrolled_lay_out(made->nodes, layer->num_cells, num_steps);
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
        return fastrnn_run(plan->layer, batch, boundary, workspace);
    fr_run run = {.layer = plan->layer, .batch = batch, .boundary = boundary, .unrolled = plan};
    return start(&run, workspace);
}
