/* Layers x directions: creation, workspace, and the runs of fastrnn.h. */
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "packed.h"
#include "unrolled.h"

struct fastrnn_model {
    fr_backend backend;
    fastrnn_blas blas; /* what backend.blas points to */
    int64_t num_layers, num_directions, num_cells;
    int64_t input_size, output_size; /* I and P */
    size_t nbytes;
    void *weights;
    fr_cell cells[]; /* l0, l0 reverse, l1, ... */
};

struct fastrnn_unrolled {
    const fastrnn_model *model;
    int64_t num_steps;
    fr_node nodes[];
};

#define MOST_UNITS ((int64_t)1 << 22) /* with these bounds no product of two sizes below leaves int64_t */
#define MOST_ROWS ((int64_t)1 << 38)
#define MOST_LAYERS ((int64_t)1 << 16)

const char *fastrnn_status_message(fastrnn_status status)
{
    switch (status) {
    case FASTRNN_OK: return "no error";
    case FASTRNN_ERROR_ARGUMENT: return "a size, pointer or option is out of range";
    case FASTRNN_ERROR_MEMORY: return "out of memory";
    case FASTRNN_ERROR_SIZE: return "the sizes' product does not fit in memory's address range";
    case FASTRNN_ERROR_ISA: return "the instruction set is unknown or cannot run on this processor";
    case FASTRNN_ERROR_BLAS: return "float64 runs through BLAS, and none was given";
    case FASTRNN_ERROR_INTERRUPTED: return "interrupted";
    }
    return "unknown status";
}

const char *fastrnn_version(void) { return FASTRNN_VERSION; }

const char *fastrnn_isa(size_t index)
{
    const fr_kernels *kernels = fr_kernels_at(index);
    return kernels ? kernels->isa : NULL;
}

static bool in_range(int64_t value, int64_t least, int64_t most) { return value >= least && value <= most; }

static bool config_is_valid(const fastrnn_config *config, const fastrnn_cell *cells)
{
    const bool lstm = config->kind == FASTRNN_LSTM;
    if (!in_range(config->kind, FASTRNN_LSTM, FASTRNN_RNN) || !in_range(config->dtype, FASTRNN_FLOAT32, FASTRNN_FLOAT64) ||
        !in_range(config->input_size, 0, MOST_UNITS) || !in_range(config->hidden_size, 1, MOST_UNITS) ||
        !in_range(config->proj_size, 0, lstm ? MOST_UNITS : 0) || !in_range(config->num_layers, 1, MOST_LAYERS))
        return false;
    const int64_t num_cells = config->num_layers * (config->bidirectional ? 2 : 1);
    for (int64_t i = 0; i < num_cells; i++) {
        if (!cells[i].weight_ih || !cells[i].weight_hh || (config->proj_size && !cells[i].weight_hr) ||
            (cells[i].peephole && !lstm) || !(cells[i].cell_clip >= 0) || !(cells[i].gate_clip >= 0) ||
            !(cells[i].proj_clip >= 0))
            return false;
        for (int j = 0; j < FASTRNN_MAX_ACTIVATIONS; j++)
            if (!in_range(cells[i].activations[j].name, 0, FASTRNN_NUM_ACTIVATIONS - 1))
                return false;
    }
    return true;
}

fastrnn_status fastrnn_model_create(const fastrnn_config *config, const fastrnn_cell *cells, const char *isa,
                                    const fastrnn_blas *blas, fastrnn_model **model)
{
    if (!config || !cells || !model || !config_is_valid(config, cells))
        return FASTRNN_ERROR_ARGUMENT;
    if (config->dtype == FASTRNN_FLOAT64 && !blas)
        return FASTRNN_ERROR_BLAS;
    const fr_kernels *kernels = fr_kernels_named(isa);
    if (!kernels)
        return FASTRNN_ERROR_ISA;
    if (config->dtype == FASTRNN_FLOAT64)
        kernels = &fr_kernels_scalar_f64;
    fr_backend backend = {.kernels = kernels, .blas = blas};
    const int64_t D = config->bidirectional ? 2 : 1, P = config->proj_size ? config->proj_size : config->hidden_size;
    const int64_t num_cells = config->num_layers * D;
    size_t nbytes = 0;
    for (int64_t i = 0; i < num_cells; i++)
        if (!fr_cell_add_bytes(&nbytes, &backend, config, i < D ? config->input_size : D * P, &cells[i]))
            return FASTRNN_ERROR_SIZE;
    fastrnn_model *made = malloc(sizeof *made + (size_t)num_cells * sizeof *made->cells);
    void *weights = malloc(nbytes + FR_ALIGNMENT);
    if (!made || !weights) {
        free(made);
        free(weights);
        return FASTRNN_ERROR_MEMORY;
    }
    *made = (fastrnn_model){.backend = backend, .num_layers = config->num_layers, .num_directions = D,
                            .num_cells = num_cells, .input_size = config->input_size, .output_size = P,
                            .nbytes = nbytes, .weights = weights};
    if (blas) {
        made->blas = *blas;
        made->backend.blas = &made->blas;
    }
    fr_arena arena = fr_arena_of(weights);
    for (int64_t i = 0; i < num_cells; i++)
        made->cells[i] = fr_cell_place(&arena, &made->backend, config, i < D ? config->input_size : D * P, &cells[i]);
    *model = made;
    return FASTRNN_OK;
}

void fastrnn_model_destroy(fastrnn_model *model)
{
    if (model)
        free(model->weights);
    free(model);
}

const char *fastrnn_model_isa(const fastrnn_model *model) { return model->backend.kernels->isa; }
size_t fastrnn_model_nbytes(const fastrnn_model *model) { return model->nbytes; }

/* Everything a run needs; one cell runs at a time, so they share. */
typedef struct fr_workspace {
    fr_state state;
    fr_buffers buffers;
    int64_t *step_offsets; /* (T): where step t starts in `between` */
    void *between[2];      /* (total_steps, D*P): what one layer hands to the next */
} fr_workspace;

/* Adds up the workspace, and cuts it from the arena if there is one. */
static bool lay_out(const fastrnn_model *model, int64_t num_rows, int64_t total_steps, fr_arena *arena,
                    fr_workspace *workspace, size_t *total)
{
    const size_t e = model->backend.kernels->element_size;
    int64_t h = 0, c = 0, x = 0, pre = 0, scratch = 0, capacity = num_rows;
    for (int64_t i = 0; i < model->num_cells; i++)
        capacity = fr_max(capacity, fr_block_capacity(&model->cells[i], &model->backend, num_rows, total_steps));
    for (int64_t i = 0; i < model->num_cells; i++) {
        const fr_cell *cell = &model->cells[i];
        h = fr_max(h, cell->h_stride);
        c = fr_max(c, cell->c_stride);
        x = fr_max(x, cell->input_size);
        pre = fr_max(pre, cell->gates.row);
        scratch = fr_max(scratch, fr_cell_scratch(cell, &model->backend, num_rows));
    }
    const bool stacked = model->num_layers > 1;
    const int64_t between = stacked ? total_steps : 0;
    const size_t width = (size_t)(model->num_directions * model->output_size) * e;
    workspace->buffers.capacity = capacity;
    struct {
        void **piece;
        size_t count, bytes;
    } pieces[] = {
        {&workspace->state.h[0], (size_t)num_rows, (size_t)h * e},
        {&workspace->state.h[1], (size_t)num_rows, (size_t)h * e},
        {&workspace->state.c, (size_t)num_rows, (size_t)c * e},
        {&workspace->buffers.x, (size_t)capacity, (size_t)x * e},
        {&workspace->buffers.pre, (size_t)capacity, (size_t)pre * e},
        {&workspace->buffers.scratch, (size_t)scratch, e},
        {(void **)&workspace->step_offsets, (size_t)between, sizeof(int64_t)},
        {&workspace->between[0], (size_t)between, width},
        {&workspace->between[1], (size_t)(model->num_layers > 2 ? between : 0), width},
    };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        if (!fr_add_bytes(total, pieces[i].count, pieces[i].bytes))
            return false;
        if (arena)
            *pieces[i].piece = fr_take(arena, pieces[i].count, pieces[i].bytes);
    }
    return true;
}

fastrnn_status fastrnn_workspace_size(const fastrnn_model *model, int64_t num_rows, int64_t total_steps, size_t *size)
{
    if (!model || !size || !in_range(num_rows, 0, INT64_MAX) || !in_range(total_steps, 0, INT64_MAX))
        return FASTRNN_ERROR_ARGUMENT;
    fr_workspace unused;
    *size = FR_ALIGNMENT;
    if (num_rows > MOST_ROWS || total_steps > MOST_ROWS || !lay_out(model, num_rows, total_steps, NULL, &unused, size))
        return FASTRNN_ERROR_SIZE;
    return FASTRNN_OK;
}

/* The lengths must describe what batch_sizes says, or a run would leave its buffers. */
static bool batch_is_valid(const fastrnn_batch *batch, int64_t *total_steps)
{
    *total_steps = 0;
    if (!in_range(batch->num_rows, 0, MOST_ROWS) || !in_range(batch->num_steps, 0, MOST_ROWS) ||
        (batch->lengths == NULL) != (batch->batch_sizes == NULL))
        return false;
    if (!batch->lengths) {
        if (batch->num_rows && batch->num_steps > MOST_ROWS / batch->num_rows)
            return false;
        *total_steps = batch->num_rows * batch->num_steps;
        return true;
    }
    if (batch->num_rows == 0 || batch->lengths[0] != batch->num_steps)
        return batch->num_rows == 0 && batch->num_steps == 0;
    int64_t row = batch->num_rows;
    for (int64_t step = 0; step < batch->num_steps; step++) {
        for (; row > 0 && batch->lengths[row - 1] <= step; row--)
            if (batch->lengths[row - 1] < 0 || (row > 1 && batch->lengths[row - 2] < batch->lengths[row - 1]))
                return false;
        if (batch->batch_sizes[step] != row)
            return false;
        *total_steps += row;
    }
    for (; row > 0; row--)
        if (batch->lengths[row - 1] != batch->num_steps)
            return false;
    return true;
}

/* A run in progress: what its cells share. */
typedef struct fr_run {
    const fastrnn_model *model;
    const fastrnn_batch *batch;
    const fastrnn_boundary *boundary;
    fr_workspace workspace;
} fr_run;

static bool view_is_valid(const fastrnn_view *view, int64_t total_steps, int64_t width)
{
    return view->base || view->rows || total_steps == 0 || width == 0;
}

static fastrnn_status start(fr_run *run, const fastrnn_model *model, const fastrnn_batch *batch,
                            const fastrnn_boundary *boundary, void *memory)
{
    int64_t total_steps;
    if (!model || !batch || !memory || !batch_is_valid(batch, &total_steps) ||
        !view_is_valid(&batch->x, total_steps, model->input_size) ||
        !view_is_valid(&batch->y, total_steps, model->output_size))
        return FASTRNN_ERROR_ARGUMENT;
    run->model = model;
    run->batch = batch;
    run->boundary = boundary;
    fr_arena arena = fr_arena_of(memory);
    size_t total = 0;
    if (!lay_out(model, batch->num_rows, total_steps, &arena, &run->workspace, &total))
        return FASTRNN_ERROR_SIZE;
    if (model->num_layers > 1 && batch->batch_sizes)
        for (int64_t step = 0, offset = 0; step < batch->num_steps; offset += batch->batch_sizes[step++])
            run->workspace.step_offsets[step] = offset;
    return FASTRNN_OK;
}

/* Between layers, steps stand one after the other, each as long as it has rows. */
static fastrnn_view between_view(const fr_run *run, int64_t layer)
{
    const int64_t width = run->model->num_directions * run->model->output_size;
    if (run->batch->batch_sizes)
        return (fastrnn_view){.base = run->workspace.between[layer & 1], .row_stride = width, .step_stride = width,
                              .step_offsets = run->workspace.step_offsets};
    return (fastrnn_view){.base = run->workspace.between[layer & 1], .row_stride = width,
                          .step_stride = run->batch->num_rows * width};
}

static fr_sequence sequence_of(const fr_run *run, int64_t index)
{
    const fastrnn_model *model = run->model;
    const int64_t layer = index / model->num_directions, direction = index % model->num_directions;
    fr_sequence sequence = {.cell = &model->cells[index], .backend = &model->backend, .batch = run->batch,
                            .reverse = direction == 1, .state = run->workspace.state, .buffers = run->workspace.buffers};
    sequence.in = layer == 0 ? run->batch->x : between_view(run, layer - 1);
    sequence.out = layer == model->num_layers - 1 ? run->batch->y : between_view(run, layer);
    sequence.out_offset = direction * model->output_size;
    return sequence;
}

fastrnn_status fastrnn_run(const fastrnn_model *model, const fastrnn_batch *batch, const fastrnn_boundary *boundary,
                           void *workspace)
{
    fr_run run;
    fastrnn_status status = boundary ? start(&run, model, batch, boundary, workspace) : FASTRNN_ERROR_ARGUMENT;
    if (status != FASTRNN_OK || batch->num_rows == 0)
        return status;
    const unsigned long long mode = fr_fp_flush();
    fr_poll poll = fr_poll_start(batch, mode);
    for (int64_t i = 0; i < model->num_cells && status == FASTRNN_OK; i++) {
        fr_sequence sequence = sequence_of(&run, i);
        fr_state_load(sequence.cell, &model->backend, &sequence.state, batch->num_rows, i, boundary);
        status = fr_packed_run(&sequence, &poll);
        if (status == FASTRNN_OK)
            fr_state_store(sequence.cell, &model->backend, &sequence.state, batch, i, boundary);
    }
    fr_fp_restore(mode);
    return status;
}

/* A stream's memory: one header, then for each layer both h buffers and c. */
typedef struct fr_stream_header {
    int64_t first; /* fr_state.first of every layer: all rows take every step */
} fr_stream_header;

static bool stream_cell(const fastrnn_model *model, int64_t index, int64_t num_rows, fr_arena *arena, fr_state *state,
                        size_t *total)
{
    const fr_cell *cell = &model->cells[index];
    const size_t e = model->backend.kernels->element_size, rows = (size_t)num_rows;
    const size_t sizes[] = {(size_t)cell->h_stride * e, (size_t)cell->h_stride * e,
                            cell->kind == FASTRNN_LSTM ? (size_t)cell->c_stride * e : 0};
    void **const pieces[] = {&state->h[0], &state->h[1], &state->c};
    for (int i = 0; i < 3; i++) {
        if (!fr_add_bytes(total, rows, sizes[i]))
            return false;
        if (arena)
            *pieces[i] = fr_take(arena, rows, sizes[i]);
    }
    return true;
}

fastrnn_status fastrnn_stream_size(const fastrnn_model *model, int64_t num_rows, size_t *size)
{
    if (!model || !size || model->num_directions != 1 || num_rows < 0)
        return FASTRNN_ERROR_ARGUMENT;
    fr_state unused;
    *size = FR_ALIGNMENT; /* the header */
    for (int64_t i = 0; i < model->num_cells; i++)
        if (num_rows > MOST_ROWS || !stream_cell(model, i, num_rows, NULL, &unused, size))
            return FASTRNN_ERROR_SIZE;
    return FASTRNN_OK;
}

static bool stream_is_valid(const void *stream) { return stream && (uintptr_t)stream % FR_ALIGNMENT == 0; }

/* The stream's layers in turn: set `state` to the next one. */
static fr_arena stream_arena(const void *stream)
{
    fr_arena arena = fr_arena_of((void *)(uintptr_t)stream);
    fr_take(&arena, 1, sizeof(fr_stream_header));
    return arena;
}

fastrnn_status fastrnn_stream_set(const fastrnn_model *model, int64_t num_rows, void *stream,
                                  const fastrnn_boundary *boundary)
{
    size_t total = 0;
    if (fastrnn_stream_size(model, num_rows, &total) != FASTRNN_OK || !stream_is_valid(stream) || !boundary)
        return FASTRNN_ERROR_ARGUMENT;
    memset(stream, 0, total);
    fr_arena arena = stream_arena(stream);
    for (int64_t i = 0; i < model->num_cells; i++) {
        fr_state state;
        stream_cell(model, i, num_rows, &arena, &state, &total);
        fr_state_load(&model->cells[i], &model->backend, &state, num_rows, i, boundary);
    }
    return FASTRNN_OK;
}

fastrnn_status fastrnn_stream_get(const fastrnn_model *model, int64_t num_rows, const void *stream,
                                  const fastrnn_boundary *boundary)
{
    size_t total = 0;
    if (fastrnn_stream_size(model, num_rows, &total) != FASTRNN_OK || !stream_is_valid(stream) || !boundary)
        return FASTRNN_ERROR_ARGUMENT;
    fr_arena arena = stream_arena(stream);
    const fastrnn_batch now = {.num_rows = num_rows};
    for (int64_t i = 0; i < model->num_cells; i++) {
        fr_state state;
        stream_cell(model, i, num_rows, &arena, &state, &total);
        state.first = (int)((const fr_stream_header *)stream)->first;
        fr_state_store(&model->cells[i], &model->backend, &state, &now, i, boundary);
    }
    return FASTRNN_OK;
}

fastrnn_status fastrnn_stream_run(const fastrnn_model *model, const fastrnn_batch *batch, void *stream, void *workspace)
{
    fr_run run;
    if (!stream_is_valid(stream) || !model || model->num_directions != 1 || !batch || batch->lengths)
        return FASTRNN_ERROR_ARGUMENT;
    fastrnn_status status = start(&run, model, batch, NULL, workspace);
    if (status != FASTRNN_OK || batch->num_rows == 0)
        return status;
    fr_stream_header *header = stream;
    fr_arena arena = stream_arena(stream);
    size_t total = 0;
    const unsigned long long mode = fr_fp_flush();
    fr_poll poll = fr_poll_start(batch, mode);
    for (int64_t i = 0; i < model->num_cells && status == FASTRNN_OK; i++) {
        fr_sequence sequence = sequence_of(&run, i);
        stream_cell(model, i, batch->num_rows, &arena, &sequence.state, &total);
        sequence.state.first = (int)header->first;
        status = fr_packed_run(&sequence, &poll);
    }
    fr_fp_restore(mode);
    header->first = (header->first + batch->num_steps) & 1;
    return status;
}

fastrnn_status fastrnn_unrolled_create(const fastrnn_model *model, int64_t num_steps, fastrnn_unrolled **plan)
{
    if (!model || !plan || !in_range(num_steps, 0, MOST_ROWS))
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
    fr_run run;
    if (!plan || !batch || !boundary || batch->lengths || batch->num_steps != plan->num_steps)
        return FASTRNN_ERROR_ARGUMENT;
    const fastrnn_model *model = plan->model;
    if (plan->num_steps == 0) /* no node would carry the initial state over */
        return fastrnn_run(model, batch, boundary, workspace);
    fastrnn_status status = start(&run, model, batch, boundary, workspace);
    if (status != FASTRNN_OK || batch->num_rows == 0)
        return status;
    fr_sequence sequence = {0};
    fr_unrolled_block block = {0};
    const unsigned long long mode = fr_fp_flush();
    fr_poll poll = fr_poll_start(batch, mode);
    const int64_t num_nodes = model->num_cells * plan->num_steps;
    for (int64_t n = 0; n < num_nodes && status == FASTRNN_OK; n++) {
        const fr_node *node = &plan->nodes[n];
        if (node->opens) {
            sequence = sequence_of(&run, node->cell);
            fr_state_load(sequence.cell, &model->backend, &sequence.state, batch->num_rows, node->cell, boundary);
        }
        fr_unrolled_step(node, &sequence, &block);
        if (node->closes)
            fr_state_store(sequence.cell, &model->backend, &sequence.state, batch, node->cell, boundary);
        if (fr_poll_stops(&poll, sequence.cell, batch->num_rows))
            status = FASTRNN_ERROR_INTERRUPTED;
    }
    fr_fp_restore(mode);
    return status;
}

fastrnn_status fastrnn_activate(const char *isa, fastrnn_activation activation, int64_t count, const float *x, float *y)
{
    const fr_kernels *kernels = fr_kernels_named(isa);
    if (!kernels)
        return FASTRNN_ERROR_ISA;
    if (!in_range(activation.name, 0, FASTRNN_NUM_ACTIVATIONS - 1) || count < 0 || !x || !y)
        return FASTRNN_ERROR_ARGUMENT;
    kernels->activate(activation, count, x, y);
    return FASTRNN_OK;
}

fastrnn_status fastrnn_probe_fma(const char *isa, int64_t rounds, int64_t *multiply_adds, double *sum)
{
    const fr_kernels *kernels = fr_kernels_named(isa);
    if (!kernels)
        return FASTRNN_ERROR_ISA;
    if (!in_range(rounds, 0, MOST_ROWS) || !multiply_adds || !sum)
        return FASTRNN_ERROR_ARGUMENT;
    *sum = kernels->probe_fma(rounds, multiply_adds);
    return FASTRNN_OK;
}

fastrnn_status fastrnn_probe_read(const char *isa, int64_t times, int64_t count, const float *values, double *sum)
{
    const fr_kernels *kernels = fr_kernels_named(isa);
    if (!kernels)
        return FASTRNN_ERROR_ISA;
    if (times < 0 || count < 0 || count % FASTRNN_PROBE_BLOCK || !values || (uintptr_t)values % FR_ALIGNMENT || !sum)
        return FASTRNN_ERROR_ARGUMENT;
    *sum = kernels->probe_read(times, count, values);
    return FASTRNN_OK;
}
