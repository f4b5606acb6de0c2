#include "run.h"

#include <limits.h>

#include "cpu.h"
#include "os/os.h"
#include "packed.h"
#include "parallel/region.h"
#include "unrolled.h"

#define MOST_SHARED_TEAMS 2 /* teams of several members: one, or one a direction */

/* Memory that all workers of a shared call use. */
typedef struct fr_shared_run {
    fr_team_sync teams[MOST_SHARED_TEAMS];
    fr_team_sync everybody; /* after each layer, where directions run apart */
    fr_region region;
} fr_shared_run;

typedef struct fr_run {
    const fr_plan *plan;
    fr_partition partition; /* the plan's, with as many workers as the thread pool gave */
    const fr_layout *layout;
    const fr_states *states; /* of the slots; parities is NULL without a store */
    char *memory;          /* the workspace, aligned */
    fr_poll *poll;         /* the caller's thread's, between the parts of a call */
    fr_shared_run *shared; /* NULL: the caller's thread runs alone */
} fr_run;

/* One worker's part in a run. */
typedef struct fr_part {
    fr_run *run;
    fr_team team;
    int team_index;
    fr_poll poll;
    bool last_layer;
    fr_sequence sequence; /* of the cell that is running */
} fr_part;

static const int64_t *step_offsets(const fr_run *run)
{
    return run->layout->has_step_offsets ? (const int64_t *)(void *)(run->memory + run->layout->step_offsets) : NULL;
}

static fr_view packed_view(const fr_run *run, void *base, int64_t row_stride)
{
    return fr_packed_view(base, row_stride, step_offsets(run), run->plan->batch->num_rows);
}

static fr_view view_of(const fr_run *run, const fastrnn_view *view, bool packed)
{
    return packed ? packed_view(run, view->base, view->row_stride) : fr_callers_view(view);
}

/* A view of the outputs of layer `layer_index`, which are the inputs of the next. */
static fr_view between_view(const fr_run *run, int64_t layer_index)
{
    const fastrnn_layer *layer = run->plan->layer;
    return packed_view(run, run->memory + run->layout->between[layer_index & 1], layer->num_directions * layer->h_size);
}

static void enter_cell(fr_part *part, int64_t layer_index, int64_t direction)
{
    const fr_run *run = part->run;
    const fastrnn_layer *layer = run->plan->layer;
    fr_sequence *sequence = &part->sequence;
    sequence->cell = &layer->cells[layer_index * layer->num_directions + direction];
    sequence->in = layer_index == 0 ? view_of(run, &run->plan->batch->x, run->plan->packed_x) : between_view(run, layer_index - 1);
    part->last_layer = layer_index == layer->num_layers - 1;
    sequence->out = part->last_layer ? view_of(run, &run->plan->batch->y, run->plan->batch->packed) : between_view(run, layer_index);
    sequence->out_offset = direction * layer->h_size;
    sequence->reverse = direction == 1 || layer->reverse;
    if (run->states->parities)
        fr_states_slots(run->states, layer, layer_index, &sequence->slots);
}

static bool load_state(fr_part *part)
{
    fr_state_load(&part->sequence, &part->team, part->sequence.cell - part->run->plan->layer->cells);
    return fr_poll_settle(&part->poll, &part->team, 0);
}

static void save_state(fr_part *part)
{
    fr_state_save(&part->sequence, &part->team, part->sequence.cell - part->run->plan->layer->cells);
    if (part->last_layer)
        fr_sequence_fill(&part->sequence, &part->team);
}

static bool run_cell(fr_part *part, int64_t layer_index, int64_t direction)
{
    enter_cell(part, layer_index, direction);
    if (!load_state(part) || !fr_packed_run(&part->sequence, &part->team))
        return false;
    save_state(part);
    return true;
}

static bool run_cells(fr_part *part)
{
    for (int64_t layer_index = 0; layer_index < part->run->plan->layer->num_layers; layer_index++)
        for (int64_t direction = 0; direction < part->run->plan->layer->num_directions; direction++)
            if (!run_cell(part, layer_index, direction))
                return false;
    return true;
}

static bool run_nodes(fr_part *part, const fastrnn_unrolled *unrolled)
{
    fr_block block = {0};
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
            save_state(part);
    }
    return true;
}

/* Each team runs its own direction. The directions of a layer may take different times, so that the teams wait for each other
 * after it. */
static void run_direction(fr_part *part, int worker)
{
    fr_team_sync *everybody = &part->run->shared->everybody;
    const fr_team workers = {.size = part->run->partition.workers, .index = worker, .barrier = &everybody->barrier};
    for (int64_t layer_index = 0; layer_index < part->run->plan->layer->num_layers; layer_index++) {
        if (!run_cell(part, layer_index, part->team_index) && worker == 0)
            atomic_store_explicit(&everybody->last_step, layer_index, memory_order_relaxed);
        fr_team_wait(&workers);
        if (atomic_load_explicit(&everybody->last_step, memory_order_relaxed) <= layer_index)
            return;
    }
}

static bool run_slice(fr_part *part, int64_t slice)
{
    const fr_run *run = part->run;
    const fastrnn_batch *batch = run->plan->batch;
    fr_partition_slice(&run->partition, run->plan, slice, &part->sequence.rows);
    /* Without steps no node would load and store the state. */
    return batch->unrolled && batch->num_steps ? run_nodes(part, batch->unrolled) : run_cells(part);
}

/* The poll of a worker's part; the caller's thread continues its own. */
static fr_poll poll_of(const fr_run *run, int worker)
{
    const fr_poll *callers = run->poll;
    if (worker > 0) /* the caller's thread may already change the rest */
        return (fr_poll){.batch = callers->batch, .mode = callers->mode, .status = callers->status};
    return *callers;
}

static void run_slices(fr_part *part)
{
    const fr_run *run = part->run;
    bool goes_on = true;
    for (int64_t slice = part->team_index; slice < run->partition.num_slices && goes_on; slice += run->partition.num_teams) {
        if (slice > part->team_index)
            fr_team_wait(&part->team); /* the next slice's rows are divided differently: a member may still read this state */
        goes_on = run_slice(part, slice);
    }
}

static void run_part(void *context, int worker)
{
    fr_run *run = context;
    fr_part part;
    part.run = run;
    const fr_plan *plan = run->plan;
    fr_partition_team(&run->partition, worker, &part.team_index, &part.team);
    part.poll = poll_of(run, worker);
    if (part.team.size > 1) {
        part.poll.sync = &run->shared->teams[part.team_index];
        part.team.barrier = &part.poll.sync->barrier;
    }
    part.sequence.backend = &plan->layer->backend;
    part.sequence.poll = &part.poll;
    part.sequence.slots.parities = NULL;
    fr_layout_state(run->layout, plan->layer, run->memory, part.team_index, &part.sequence.state);
    fr_layout_buffers(run->layout, plan->layer, run->memory, worker, &part.sequence.buffers);
    if (run->partition.directions_apart) {
        fr_partition_slice(&run->partition, plan, 0, &part.sequence.rows);
        run_direction(&part, worker);
    } else {
        run_slices(&part);
    }
    if (worker == 0) {
        run->poll->work = part.poll.work;
        run->poll->due = part.poll.due;
    }
}

#define TIME_SLICE_MACS 1e8 /* about 2 ms: longer than a worker usually waits for a processor */

/* Whether the call is shared even if the pool is oversubscribed: its workers run independent slices, so one that is not scheduled
 * delays no other, and the call takes longer than a time slice. */
static bool tolerates_oversubscription(const fr_plan *plan)
{
    return plan->shared.num_teams == plan->shared.workers && !plan->shared.directions_apart && plan->macs > TIME_SLICE_MACS;
}

static void share(fr_run *run, fastrnn_pool *pool)
{
    fr_shared_run shared = {.region = fr_region_make(pool, run_part, run, run->plan->macs, run->poll->mode),
                            .everybody.last_step = LLONG_MAX};
    shared.everybody.barrier.forks = shared.region.forks;
    for (int i = 0; i < MOST_SHARED_TEAMS; i++) {
        shared.teams[i].last_step = LLONG_MAX;
        shared.teams[i].barrier.forks = shared.region.forks;
    }
    run->shared = &shared;
    fr_region_run(&shared.region, run->partition.workers, run->poll, tolerates_oversubscription(run->plan));
}

static bool view_is_valid(const fastrnn_view *view, int64_t total_steps, int64_t width)
{
    return view->base || view->rows || total_steps == 0 || width == 0;
}

static bool pads(const fastrnn_batch *batch)
{
    return batch->past_end != FASTRNN_PAST_END_NOTHING && batch->padded_steps > 0 && !batch->packed;
}

static void compute(fr_run *run)
{
    const fastrnn_batch *batch = run->plan->batch;
    if (run->layout->has_step_offsets)
        fr_count_offsets(batch->batch_sizes, batch->num_steps, (int64_t *)(void *)(run->memory + run->layout->step_offsets));
    if (run->partition.workers > 1)
        share(run, batch->pool);
    else
        run_part(run, 0);
}

static bool views_are_valid(const fr_plan *plan)
{
    const fastrnn_batch *batch = plan->batch;
    return view_is_valid(&batch->x, plan->total_steps, plan->layer->input_size) &&
           view_is_valid(&batch->y, plan->total_steps + pads(batch), plan->layer->h_size);
}

void fr_plan_run(const fr_plan *plan, const fr_states *states, void *memory, fr_poll *poll)
{
    const fastrnn_batch *batch = plan->batch;
    fr_run run = {.plan = plan, .partition = plan->alone, .layout = &plan->alone_layout, .states = states, .memory = memory,
                  .poll = poll};
    if (plan->shared.workers > 1) {
        const int workers = fr_pool_enter(batch->pool, plan->shared.workers, plan->macs, tolerates_oversubscription(plan));
        if (workers > 1) {
            run.partition = plan->shared;
            run.layout = &plan->shared_layout;
            fr_partition_keep(&run.partition, workers);
        }
    }
    compute(&run);
}

fastrnn_status fastrnn_plan_run(const fastrnn_plan *caller_plan, void *workspace)
{
    if (!caller_plan || !workspace || caller_plan->struct_size < sizeof *caller_plan)
        return FASTRNN_ERROR_ARGUMENT;
    const fr_plan *plan = (const void *)caller_plan->opaque;
    if (!plan->layer)
        return FASTRNN_ERROR_ARGUMENT;
    if (plan->batch->num_rows == 0)
        return FASTRNN_OK;
    if (!views_are_valid(plan))
        return FASTRNN_ERROR_ARGUMENT;
    atomic_int status = FASTRNN_OK;
    fr_poll poll = {.batch = plan->batch, .asks = true, .mode = fr_fp_flush(), .status = &status};
    const fr_states states = plan->batch->store ? fr_store_states(plan->batch->store) : (fr_states){0};
    fr_plan_run(plan, &states, fr_arena_of(workspace).next, &poll);
    fr_fp_restore(poll.mode);
    if (states.parities && status == FASTRNN_OK) {
        const fr_rows rows = {.batch = plan->batch, .indices = plan->row_indices, .stride = 1, .count = plan->batch->num_rows};
        fr_states_advance(states.parities, &rows);
    }
    return (fastrnn_status)status;
}
