#include "cell.h"

#include <math.h>
#include <string.h>

static int num_gates(fastrnn_kind kind) { return kind == FASTRNN_LSTM ? 4 : kind == FASTRNN_GRU ? 3 : 1; }
static int num_columns(fastrnn_kind kind) { return kind == FASTRNN_RNN ? 1 : 4; }
static int num_activations(fastrnn_kind kind) { return kind == FASTRNN_LSTM ? 5 : num_gates(kind); }

static const fastrnn_activation_name standard_activations[][FASTRNN_MAX_ACTIVATIONS] = {
    [FASTRNN_LSTM] = {FASTRNN_SIGMOID, FASTRNN_SIGMOID, FASTRNN_TANH, FASTRNN_SIGMOID, FASTRNN_TANH},
    [FASTRNN_GRU] = {FASTRNN_SIGMOID, FASTRNN_SIGMOID, FASTRNN_TANH},
    [FASTRNN_RNN] = {FASTRNN_TANH},
};

static fastrnn_cell_options without_defaults(fastrnn_kind kind, fastrnn_cell_options options)
{
    for (int i = 0; i < num_activations(kind); i++)
        if (options.activations[i].name == FASTRNN_DEFAULT)
            options.activations[i] = (fastrnn_activation){.name = standard_activations[kind][i]};
    return options;
}

/* Whether a fused kernel can compute the cell's steps. options: without FASTRNN_DEFAULT. */
static bool is_standard(fastrnn_kind kind, const fr_backend *backend, const fastrnn_cell_options *options, bool peephole)
{
    if (backend->blas || peephole || options->cell_clip > 0 || options->gate_clip > 0 || options->coupled)
        return false;
    if (kind == FASTRNN_RNN && options->activations[0].name == FASTRNN_RELU)
        return true;
    if (kind == FASTRNN_GRU && options->reset_before)
        return false;
    for (int i = 0; i < num_activations(kind); i++)
        if (options->activations[i].name != standard_activations[kind][i])
            return false;
    return true;
}

/* What fr_cell_add_bytes and fr_cell_place have in common. */
typedef struct fr_cell_sizes {
    int64_t H, P, blocks, out_blocks;
    int gates, columns, recurrent_gates;
    bool standard;
    fastrnn_cell_options options; /* without FASTRNN_DEFAULT */
} fr_cell_sizes;

static fr_cell_sizes sizes_of(const fr_backend *backend, const fastrnn_config *config, const fastrnn_cell *source)
{
    const int64_t V = backend->kernels->vector_length;
    fr_cell_sizes s = {.H = config->hidden_size, .P = config->proj_size ? config->proj_size : config->hidden_size};
    s.blocks = fr_ceil_div(s.H, V);
    s.out_blocks = fr_ceil_div(s.P, V);
    s.gates = num_gates(config->kind);
    s.columns = num_columns(config->kind);
    s.options = without_defaults(config->kind, source->options);
    s.standard = is_standard(config->kind, backend, &s.options, source->peephole != NULL);
    s.recurrent_gates = config->kind == FASTRNN_GRU && !s.standard ? 2 : s.gates;
    return s;
}

bool fr_cell_add_bytes(size_t *total, const fr_backend *backend, const fastrnn_config *config, int64_t input_size,
                       const fastrnn_cell *source)
{
    const fr_cell_sizes s = sizes_of(backend, config, source);
    const size_t row = (size_t)backend->kernels->vector_length * backend->kernels->real_size;
    bool fits = fr_matrix_add_bytes(total, backend, s.gates, input_size, s.blocks) &&
                fr_matrix_add_bytes(total, backend, s.recurrent_gates, s.P, s.blocks) &&
                fr_add_bytes(total, (size_t)(s.columns * s.blocks), row);
    if (s.recurrent_gates != s.gates)
        fits = fits && fr_matrix_add_bytes(total, backend, 1, s.P, s.blocks);
    if (config->proj_size)
        fits = fits && fr_matrix_add_bytes(total, backend, 1, s.H, s.out_blocks) &&
               fr_add_bytes(total, (size_t)s.out_blocks, row);
    if (source->peephole)
        fits = fits && fr_add_bytes(total, (size_t)(3 * s.blocks), row);
    return fits;
}

bool fr_cell_fits(const fr_backend *backend, const fastrnn_config *config, int64_t input_size, const fastrnn_cell *source)
{
    const fr_cell_sizes s = sizes_of(backend, config, source);
    return fr_weights_fit(backend, source->weight_ih, s.gates * s.H, input_size) &&
           fr_weights_fit(backend, source->weight_hh, s.gates * s.H, s.P) &&
           (!config->proj_size || fr_weights_fit(backend, source->weight_hr, s.P, s.H));
}

/* The gate layout of a peephole's rows. */
static fr_gate_layout peephole_layout(const fr_cell *cell, const fr_backend *backend)
{
    return (fr_gate_layout){.block = backend->kernels->vector_length, .gate = cell->c_stride};
}

fr_cell fr_cell_place(fr_arena *arena, const fr_backend *backend, const fastrnn_config *config, int64_t input_size,
                      const fastrnn_cell *source)
{
    const fr_cell_sizes s = sizes_of(backend, config, source);
    const int64_t V = backend->kernels->vector_length;
    const size_t row = (size_t)V * backend->kernels->real_size;
    fr_cell cell = {.kind = config->kind, .input_size = input_size, .hidden_size = s.H, .h_size = s.P,
                    .h_stride = s.out_blocks * V, .c_stride = s.blocks * V, .columns = s.columns,
                    .standard = s.standard, .projected = config->proj_size != 0, .options = s.options};
    cell.gates = fr_gates_of(backend, s.blocks, s.columns);
    cell.input = fr_matrix_place(arena, backend, source->weight_ih, 0, s.gates, s.H, input_size);
    cell.recurrent = fr_matrix_place(arena, backend, source->weight_hh, 0, s.recurrent_gates, s.H, s.P);
    cell.bias = fr_take(arena, (size_t)(s.columns * s.blocks), row);
    memset(cell.bias, 0, (size_t)(s.columns * s.blocks) * row);
    fr_gates_add(backend, cell.gates, source->bias_ih, 0, s.gates, s.H, cell.bias);
    /* The GRU's recurrent bias of the candidate gate has its own column, as the reset gate multiplies it. */
    const int shared = config->kind == FASTRNN_GRU ? 2 : s.gates;
    fr_gates_add(backend, cell.gates, source->bias_hh, 0, shared, s.H, cell.bias);
    if (config->kind == FASTRNN_GRU)
        fr_gates_add(backend, cell.gates, source->bias_hh, 2, 1, s.H,
                     fr_at(cell.bias, 3 * cell.gates.gate, backend->kernels->real_size));
    if (s.recurrent_gates != s.gates)
        cell.candidate = fr_matrix_place(arena, backend, source->weight_hh, 2, 1, s.H, s.P);
    if (cell.projected) {
        cell.projection = fr_matrix_place(arena, backend, source->weight_hr, 0, 1, s.P, s.H);
        cell.zero_bias = fr_take(arena, (size_t)s.out_blocks, row);
        memset(cell.zero_bias, 0, (size_t)s.out_blocks * row);
    }
    if (source->peephole) {
        cell.peephole = fr_take(arena, (size_t)(3 * s.blocks), row);
        memset(cell.peephole, 0, (size_t)(3 * s.blocks) * row);
        fr_gates_add(backend, peephole_layout(&cell, backend), source->peephole, 0, 3, s.H, cell.peephole);
    }
    return cell;
}

void fr_cell_unpack(const fr_cell *cell, const fr_backend *backend, const fastrnn_cell_arrays *arrays, fastrnn_cell *source)
{
    const size_t e = backend->kernels->real_size;
    const int64_t H = cell->hidden_size;
    const int gates = cell->input.gates;
    fr_matrix_unpack(backend, &cell->input, 0, H, arrays->weight_ih);
    fr_matrix_unpack(backend, &cell->recurrent, 0, H, arrays->weight_hh);
    if (cell->candidate.gates)
        fr_matrix_unpack(backend, &cell->candidate, 2, H, arrays->weight_hh);
    fr_gates_unpack(backend, cell->gates, cell->bias, 0, gates, H, arrays->bias_ih);
    if (arrays->bias_hh)
        memset(arrays->bias_hh, 0, (size_t)(gates * H) * e);
    if (cell->kind == FASTRNN_GRU)
        fr_gates_unpack(backend, cell->gates, fr_at(cell->bias, 3 * cell->gates.gate, e), 2, 1, H, arrays->bias_hh);
    if (cell->projected)
        fr_matrix_unpack(backend, &cell->projection, 0, cell->h_size, arrays->weight_hr);
    if (cell->peephole)
        fr_gates_unpack(backend, peephole_layout(cell, backend), cell->peephole, 0, 3, H, arrays->peephole);
    *source = (fastrnn_cell){
        .weight_ih = arrays->weight_ih, .weight_hh = arrays->weight_hh, .bias_ih = arrays->bias_ih, .bias_hh = arrays->bias_hh,
        .weight_hr = cell->projected ? arrays->weight_hr : NULL, .peephole = cell->peephole ? arrays->peephole : NULL,
        .options = cell->options,
    };
}

static void hash_options(fastrnn_kind kind, const fastrnn_cell_options *options, uint64_t *hash)
{
    for (int i = 0; i < num_activations(kind); i++) {
        fr_hash_add(hash, (uint64_t)options->activations[i].name);
        fr_hash_add_double(hash, options->activations[i].alpha);
        fr_hash_add_double(hash, options->activations[i].beta);
    }
    fr_hash_add_double(hash, options->cell_clip);
    fr_hash_add_double(hash, options->gate_clip);
    fr_hash_add_double(hash, options->proj_clip);
    fr_hash_add(hash, kind == FASTRNN_LSTM && options->coupled);
    fr_hash_add(hash, kind == FASTRNN_GRU && options->reset_before);
}

static void hash_gates(const fr_backend *backend, fr_gate_layout layout, const void *in, int gates, int64_t units, uint64_t *hash)
{
    const size_t e = backend->kernels->real_size;
    for (int gate = 0; gate < gates; gate++)
        for (int64_t unit = 0; unit < units; unit++)
            fr_hash_add_reals(hash, fr_at(in, fr_gates_element(backend, layout, gate, unit), e), 1, e);
}

void fr_cell_hash(const fr_cell *cell, const fr_backend *backend, const fastrnn_cell *source, uint64_t *hash)
{
    const size_t e = backend->kernels->real_size;
    const int64_t H = cell->hidden_size, P = cell->h_size;
    const int gates = cell->input.gates;
    hash_options(cell->kind, &cell->options, hash);
    fr_hash_add(hash, source->peephole != NULL);
    const bool rounded = fr_weight_size(cell->input.weights.type) != (int64_t)e;
    if (rounded) {
        fr_matrix_hash(backend, &cell->input, H, hash);
        fr_matrix_hash(backend, &cell->recurrent, H, hash);
        fr_matrix_hash(backend, &cell->candidate, H, hash);
    } else {
        fr_hash_add_reals(hash, source->weight_ih, gates * H * cell->input_size, e);
        fr_hash_add_reals(hash, source->weight_hh, gates * H * P, e);
    }
    /* Biases and peepholes are hashed as prepared: sums of biases, and 0 for -0. */
    hash_gates(backend, cell->gates, cell->bias, cell->columns, H, hash);
    if (source->peephole)
        hash_gates(backend, peephole_layout(cell, backend), cell->peephole, 3, H, hash);
    if (cell->projected && rounded)
        fr_matrix_hash(backend, &cell->projection, P, hash);
    else if (cell->projected)
        fr_hash_add_reals(hash, source->weight_hr, P * H, e);
}

int64_t fr_cell_macs(const fr_cell *cell)
{
    return cell->input.macs + cell->recurrent.macs + cell->candidate.macs + cell->projection.macs;
}

bool fr_cell_needs_hidden(const fr_cell *cell)
{
    return cell->projected || (cell->kind == FASTRNN_GRU && !cell->standard);
}

int64_t fr_cell_scratch(const fr_cell *cell, const fr_backend *backend, int64_t rows)
{
    if (backend->kernels->weight_type == FR_WEIGHT_INT8) {
        const int64_t h_size = fr_max(cell->recurrent.k, cell->projection.k);
        return fr_int8_scratch(rows, cell->input.k, h_size) / (int64_t)backend->kernels->real_size;
    }
    int64_t product = fr_max(fr_matrix_scratch(backend, &cell->input), fr_matrix_scratch(backend, &cell->recurrent));
    return cell->projected ? fr_max(product, fr_matrix_scratch(backend, &cell->projection)) : product;
}

static fr_range hidden_blocks(const fr_cell *cell, const fr_team *team) { return fr_team_share(team, cell->input.blocks); }

static fr_range output_blocks(const fr_cell *cell, const fr_team *team)
{
    return fr_team_share(team, cell->projected ? cell->projection.blocks : cell->input.blocks);
}

fr_range fr_cell_outputs(const fr_cell *cell, const fr_backend *backend, const fr_team *team)
{
    const int64_t V = backend->kernels->vector_length;
    const fr_range blocks = output_blocks(cell, team);
    return (fr_range){blocks.begin * V, fr_min(blocks.end * V, cell->h_size)};
}

void fr_cell_project(const fr_cell *cell, const fr_backend *backend, const fr_team *team, int64_t rows, const void *x,
                     int64_t x_stride, void *pre, void *scratch)
{
    fr_matrix_product(backend, &cell->input, hidden_blocks(cell, team), rows, x, x_stride, cell->bias, pre, cell->gates,
                      scratch);
}

static void standard_step(const fr_cell *cell, const fr_backend *backend, fr_range blocks, const fr_step *step)
{
    const size_t e = backend->kernels->real_size;
    const int64_t gates = blocks.begin * cell->gates.block;
    const fr_step_args args = {
        .rows = step->rows, .blocks = blocks.end - blocks.begin,
        .backwards = (uintptr_t)step->h_in[0] > (uintptr_t)step->h_out[0], /* the two buffers are exchanged at every step */
        .x = step->pre ? NULL : step->x, .x_stride = step->x_stride, .input_size = cell->input_size,
        .pre = step->pre ? fr_at(step->pre, gates, e) : NULL, .pre_stride = cell->gates.row,
        .weight_ih = fr_matrix_weights(backend, &cell->input, blocks.begin),
        .weight_hh = fr_matrix_weights(backend, &cell->recurrent, blocks.begin), .bias = fr_at(cell->bias, gates, e),
        .h_in = step->h_in, .c_in = step->c_in, .h_out = cell->projected ? step->hidden : step->h_out, .c_out = step->c_out,
        .h_size = cell->h_size, .unit = blocks.begin * backend->kernels->vector_length,
        .activation = cell->options.activations[0].name, .scratch = step->scratch,
    };
    switch (cell->kind) {
    case FASTRNN_LSTM: backend->kernels->lstm_step(&args); break;
    case FASTRNN_GRU: backend->kernels->gru_step(&args); break;
    case FASTRNN_RNN: backend->kernels->rnn_step(&args); break;
    }
}

static void general_step(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_step *step)
{
    const size_t e = backend->kernels->real_size;
    const fr_gate_layout gates = cell->gates;
    const fr_range blocks = hidden_blocks(cell, team);
    const int64_t unit = blocks.begin * backend->kernels->vector_length;
    const void *h_in = step->h_in[0];
    fr_pointwise_args args = {
        .rows = step->rows, .blocks = blocks.end - blocks.begin,
        .gates = fr_at(step->pre, blocks.begin * gates.block, e),
        .row_stride = gates.row, .block_stride = gates.block, .gate_stride = gates.gate,
        .options = &cell->options, .peephole = cell->peephole ? fr_at(cell->peephole, unit, e) : NULL,
        .peephole_stride = cell->c_stride,
        .h_old = fr_at(h_in, unit, e), .h_old_stride = cell->h_stride,
        .h_out = fr_at(cell->projected ? step->hidden[0] : step->h_out[0], unit, e),
        .h_out_stride = cell->projected ? cell->c_stride : cell->h_stride,
        .c = cell->kind == FASTRNN_LSTM ? fr_at(step->c_out[0], unit, e) : NULL, .c_stride = cell->c_stride,
    };
    fr_matrix_product(backend, &cell->recurrent, blocks, step->rows, h_in, cell->h_stride, NULL, step->pre, gates,
                      step->scratch);
    switch (cell->kind) {
    case FASTRNN_LSTM: backend->kernels->lstm_pointwise(&args); break;
    case FASTRNN_RNN: backend->kernels->rnn_pointwise(&args); break;
    case FASTRNN_GRU: {
        fr_pointwise_args reset = args;
        reset.h_out = fr_at(step->hidden[0], unit, e);
        reset.h_out_stride = cell->c_stride;
        backend->kernels->gru_reset(&reset);
        if (cell->options.reset_before)
            fr_team_wait(team);
        const void *factor = cell->options.reset_before ? step->hidden[0] : h_in;
        fr_matrix_product(backend, &cell->candidate, blocks, step->rows, factor, cell->h_stride,
                          fr_at(cell->bias, 3 * gates.gate, e), fr_at(step->pre, 3 * gates.gate, e), gates, step->scratch);
        backend->kernels->gru_pointwise(&args);
        break;
    }
    }
}

/* What other members wrote is in their caches. Requesting all lines at once is faster than one after the other. */
static void prefetch(const fr_team *team, void *const *vectors, int64_t rows, int64_t stride, size_t element_size)
{
    if (team->size == 1)
        return;
    const int64_t bytes = stride * (int64_t)element_size;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t at = 0; at < bytes; at += FR_ALIGNMENT)
            __builtin_prefetch((const char *)vectors[row] + at);
}

void fr_cell_step(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_step *step)
{
    prefetch(team, step->h_in, step->rows, cell->h_stride, backend->kernels->real_size);
    if (cell->standard)
        standard_step(cell, backend, hidden_blocks(cell, team), step);
    else
        general_step(cell, backend, team, step);
    if (!cell->projected)
        return;
    fr_team_wait(team);
    const fr_range blocks = output_blocks(cell, team);
    const int64_t V = backend->kernels->vector_length;
    const fr_gate_layout layout = {.row = cell->h_stride, .block = V};
    fr_matrix_product(backend, &cell->projection, blocks, step->rows, step->hidden[0], cell->c_stride, cell->zero_bias,
                      step->h_out[0], layout, step->scratch);
    backend->kernels->clip(cell->options.proj_clip > 0 ? cell->options.proj_clip : INFINITY, step->rows,
                           (blocks.end - blocks.begin) * V,
                           fr_at(step->h_out[0], blocks.begin * V, backend->kernels->real_size), cell->h_stride);
}
