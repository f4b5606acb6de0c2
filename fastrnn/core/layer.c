#include "layer.h"

#include "allocator.h"
#include "dispatch.h"
#include "error.h"
#include "parallel/pool.h"
#include "structs.h"

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
    case FASTRNN_ERROR_FORKED:
        return "the process was forked during this call, and the child has none of the threads that shared it";
    case FASTRNN_ERROR_SNAPSHOT: return "not a snapshot of this layer or model and number of rows";
    case FASTRNN_ERROR_STORE: return "not a state store of this layer on this instruction set, or of this model";
    case FASTRNN_ERROR_ID: return "an id is not the index of a row of the embedding's weight";
    case FASTRNN_ERROR_FILE: return "not a readable file of this library's format";
    }
    return "unknown status";
}

const char *fastrnn_version(void) { return FASTRNN_VERSION; }
int fastrnn_abi_version(void) { return FASTRNN_ABI_VERSION; }

const char *fastrnn_isa(size_t index)
{
    const fr_kernels *kernels = fr_kernels_at(index, FR_WEIGHT_FLOAT32);
    return kernels ? kernels->isa : NULL;
}

const char *fastrnn_activation_info(size_t index, fastrnn_activation *activation, int *has_defaults)
{
    static const struct {
        const char *name;
        fastrnn_activation activation;
        int has_defaults;
    } all[] = {
#define FR_ROW(NAME, name, alpha, beta, has_defaults) {name, {FASTRNN_##NAME, alpha, beta}, has_defaults},
        FASTRNN_FOR_EACH_ACTIVATION(FR_ROW)
#undef FR_ROW
    };
    if (index >= sizeof all / sizeof *all)
        return NULL;
    if (activation)
        *activation = all[index].activation;
    if (has_defaults)
        *has_defaults = all[index].has_defaults;
    return all[index].name;
}

/* The index-th of an array of cells. */
static bool read_cell(fastrnn_cell *cell, const fastrnn_cell *given, int64_t index)
{
    const char *at = (const char *)given + (size_t)index * given->struct_size;
    return fr_struct_read(cell, sizeof *cell, FR_SIZE_UP_TO(fastrnn_cell, options.reset_before), at) &&
           cell->struct_size == given->struct_size;
}

/* Adds a fault if a member is out of range. */
static void check_member(const char *name, int64_t value, int64_t least, int64_t most)
{
    if (!fr_in_range(value, least, most))
        fr_add_fault("config->%s is %lld, wanted %lld to %lld", name, (long long)value, (long long)least, (long long)most);
}

static bool config_is_valid(const fastrnn_config *config)
{
    const bool is_float = config->dtype == FASTRNN_FLOAT32;
    fr_clear_faults();
    check_member("kind", config->kind, FASTRNN_LSTM, FASTRNN_RNN);
    check_member("dtype", config->dtype, FASTRNN_FLOAT32, FASTRNN_FLOAT64);
    check_member("input_size", config->input_size, 0, FR_MOST_UNITS);
    check_member("hidden_size", config->hidden_size, 1, FR_MOST_UNITS);
    check_member("proj_size", config->proj_size, 0, config->kind == FASTRNN_LSTM ? FR_MOST_UNITS : 0);
    check_member("num_layers", config->num_layers, 1, FR_MOST_LAYERS);
    check_member("weight_dtype", config->weight_dtype, FASTRNN_WEIGHTS_FLOAT32, is_float ? FASTRNN_WEIGHTS_INT8 : FASTRNN_WEIGHTS_FLOAT32);
    if (config->bidirectional && config->reverse)
        fr_add_fault("config sets bidirectional and reverse, wanted at most one of them");
    return !fr_has_faults();
}

static fr_weight_type weight_type_of(const fastrnn_config *config)
{
    switch (config->weight_dtype) {
    case FASTRNN_WEIGHTS_FLOAT32: break;
    case FASTRNN_WEIGHTS_FLOAT16: return FR_WEIGHT_FLOAT16;
    case FASTRNN_WEIGHTS_INT8: return FR_WEIGHT_INT8;
    }
    return FR_WEIGHT_FLOAT32;
}

bool fr_config_read(fastrnn_config *config, const fastrnn_config *given)
{
    if (given && fr_struct_read(config, sizeof *config, FR_SIZE_UP_TO(fastrnn_config, reverse), given))
        return config_is_valid(config);
    fr_fail_struct("config");
    return false;
}

/* Adds what is wrong with the index-th cell. */
static void check_cell(const fastrnn_config *config, const fastrnn_cell *cell, int64_t index)
{
    const fastrnn_cell_options *options = &cell->options;
    const struct {
        const char *name;
        const void *array;
        bool wanted, possible;
    } arrays[] = {{"weight_ih", cell->weight_ih, true, true},
                  {"weight_hh", cell->weight_hh, true, true},
                  {"weight_hr", cell->weight_hr, config->proj_size != 0, true},
                  {"peephole", cell->peephole, false, config->kind == FASTRNN_LSTM}};
    const struct {
        const char *name;
        double clip;
    } clips[] = {{"cell_clip", options->cell_clip}, {"gate_clip", options->gate_clip}, {"proj_clip", options->proj_clip}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        if (arrays[i].array ? !arrays[i].possible : arrays[i].wanted)
            fr_add_fault("cells[%lld].%s is %s", (long long)index, arrays[i].name,
                         arrays[i].array ? "given, but the cell has none" : "NULL");
    for (size_t i = 0; i < sizeof clips / sizeof *clips; i++)
        if (!(clips[i].clip >= 0))
            fr_add_fault("cells[%lld].options.%s is negative or NaN", (long long)index, clips[i].name);
    for (int i = 0; i < FASTRNN_MAX_ACTIVATIONS; i++)
        if (!fr_in_range(options->activations[i].name, FASTRNN_DEFAULT, FASTRNN_NUM_ACTIVATIONS))
            fr_add_fault("cells[%lld].options.activations[%d].name is %lld, wanted 0 to %d", (long long)index, i,
                         (long long)options->activations[i].name, (int)FASTRNN_NUM_ACTIVATIONS);
}

static fastrnn_status check_cells(const fastrnn_config *config, const fastrnn_cell *cells, int64_t count)
{
    fr_clear_faults();
    for (int64_t i = 0; i < count; i++) {
        fastrnn_cell cell;
        if (!read_cell(&cell, cells, i))
            return fr_fail_struct("cells");
        check_cell(config, &cell, i);
    }
    return fr_has_faults() ? FASTRNN_ERROR_ARGUMENT : FASTRNN_OK;
}

/* The kernels for a layer, or NULL. */
static const fr_kernels *kernels_for(const fastrnn_config *config, const char *isa)
{
    const fr_kernels *kernels = fr_kernels_named(isa, weight_type_of(config));
#if defined(FASTRNN_ONLY_FLOAT32)
    return config->dtype == FASTRNN_FLOAT64 ? NULL : kernels;
#else
    return config->dtype == FASTRNN_FLOAT64 && kernels ? &fr_kernels_scalar_f64 : kernels;
#endif
}

static fr_widths widest_of(const fastrnn_layer *layer)
{
    fr_widths most = {0};
    for (int64_t i = 0; i < layer->num_cells; i++) {
        const fr_cell *cell = &layer->cells[i];
        most.h = fr_max(most.h, cell->h_stride);
        most.c = fr_max(most.c, cell->c_stride);
        most.x = fr_max(most.x, cell->input_size);
        most.pre = fr_max(most.pre, cell->gates.row);
        const int64_t scratch = fr_cell_scratch(cell, &layer->backend, 0);
        most.scratch = fr_max(most.scratch, scratch);
        most.scratch_row = fr_max(most.scratch_row, fr_cell_scratch(cell, &layer->backend, 1) - scratch);
        most.hidden = most.hidden || fr_cell_needs_hidden(cell);
    }
    return most;
}

#define BLOCK_BYTES (256 << 10) /* of gates computed ahead: they stay in L2 while weights are read through it */
#define BLOCK_ROWS_LEAST 128 /* with fewer, the inputs' weights are read often and drive the state's out of L3 */
#define BLOCK_ROWS_MOST 256

static int64_t block_rows_of(const fastrnn_layer *layer)
{
    const int64_t rows = BLOCK_BYTES / (layer->widest.pre * (int64_t)layer->backend.kernels->real_size);
    return fr_min(fr_max(rows, BLOCK_ROWS_LEAST), BLOCK_ROWS_MOST);
}

/* At most, each thread has every kind of vector for all rows and one block more. Rounding up may double that. */
static int64_t most_steps_of(const fastrnn_layer *layer)
{
    const fr_widths *most = &layer->widest;
    const uint64_t width = (uint64_t)(2 * most->h + 2 * most->c + most->x + most->pre + most->scratch_row + 2 * layer->num_directions * layer->h_size);
    const uint64_t bytes = (width + FR_ALIGNMENT) * layer->backend.kernels->real_size + FR_STATE_ADDRESSES * sizeof(void *);
    const uint64_t steps = (SIZE_MAX / 16 - (uint64_t)most->scratch * sizeof(double)) / FR_MOST_THREADS / bytes;
    return fr_min(FR_MOST_ROWS, (int64_t)steps - BLOCK_ROWS_MOST);
}

static uint64_t hash_of(const fastrnn_config *config)
{
    uint64_t hash = FR_HASH_START;
    const int64_t values[] = {config->kind,      config->dtype,      config->input_size,         config->hidden_size,
                              config->proj_size, config->num_layers, config->bidirectional != 0, config->reverse != 0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        fr_hash_add(&hash, (uint64_t)values[i]);
    if (config->weight_dtype != FASTRNN_WEIGHTS_FLOAT32) /* a float32 layer's hash is that of versions without smaller weights */
        fr_hash_add(&hash, (uint64_t)config->weight_dtype);
    return hash;
}

fastrnn_status fastrnn_layer_create(const fastrnn_config *given, const fastrnn_cell *cells, const char *isa,
                                    const fastrnn_blas *blas, fastrnn_layer **layer)
{
    fastrnn_config config;
    fastrnn_cell cell;
    fastrnn_blas known_blas = {0};
    if (!cells || !layer)
        return fr_fail_null(cells ? "layer" : "cells");
    if (!fr_config_read(&config, given))
        return FASTRNN_ERROR_ARGUMENT;
    if (blas && !fr_struct_read(&known_blas, sizeof known_blas, FR_SIZE_UP_TO(fastrnn_blas, dgemm), blas))
        return fr_fail_struct("blas");
    if (blas && config.weight_dtype != FASTRNN_WEIGHTS_FLOAT32)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "blas is given, but config->weight_dtype is not FASTRNN_WEIGHTS_FLOAT32");
    const int64_t D = config.bidirectional ? 2 : 1, P = config.proj_size ? config.proj_size : config.hidden_size;
    const int64_t num_cells = config.num_layers * D;
    if (check_cells(&config, cells, num_cells) != FASTRNN_OK)
        return FASTRNN_ERROR_ARGUMENT;
    if (config.dtype == FASTRNN_FLOAT64 && !blas)
        return fr_fail(FASTRNN_ERROR_BLAS, "config->dtype is FASTRNN_FLOAT64, and blas is NULL");
    const fr_kernels *kernels = kernels_for(&config, isa);
    if (!kernels && fr_kernels_named(isa, FR_WEIGHT_FLOAT32))
        return fr_fail(FASTRNN_ERROR_ISA, "config->dtype is %d and weight_dtype %d, which this build does not have",
                       (int)config.dtype, (int)config.weight_dtype);
    if (!kernels)
        return fr_fail_isa(isa);
    fr_backend backend = {.kernels = kernels, .blas = blas};
    size_t nbytes = 0;
    for (int64_t i = 0; i < num_cells; i++) {
        const int64_t width = i < D ? config.input_size : D * P;
        if (!read_cell(&cell, cells, i) || !fr_cell_add_bytes(&nbytes, &backend, &config, width, &cell))
            return fr_fail_size("the weights");
        if (!fr_cell_fits(&backend, &config, width, &cell))
            return fr_fail(FASTRNN_ERROR_ARGUMENT, "weights of cells[%lld] do not fit config->weight_dtype", (long long)i);
    }
    fastrnn_layer *made = fr_allocate(sizeof *made + (size_t)num_cells * sizeof *made->cells);
    void *weights = fr_allocate(nbytes);
    if (!made || !weights) {
        fr_free(made);
        fr_free(weights);
        return fr_fail_memory();
    }
    *made = (fastrnn_layer){.backend = backend, .num_layers = config.num_layers, .num_directions = D,
                            .num_cells = num_cells, .reverse = config.reverse != 0, .input_size = config.input_size, .h_size = P,
                            .nbytes = nbytes, .weights = weights};
    if (blas) {
        made->blas = known_blas;
        made->backend.blas = &made->blas;
    }
    fr_arena arena = fr_arena_of(weights);
    made->fingerprint = hash_of(&config);
    for (int64_t i = 0; i < num_cells; i++) {
        read_cell(&cell, cells, i);
        made->cells[i] = fr_cell_place(&arena, &made->backend, &config, i < D ? config.input_size : D * P, &cell);
        fr_cell_hash(&made->cells[i], &made->backend, &cell, &made->fingerprint);
        made->macs += (double)fr_cell_macs(&made->cells[i]);
    }
    made->widest = widest_of(made);
    made->block_rows = block_rows_of(made);
    made->most_steps = most_steps_of(made);
    *layer = made;
    return FASTRNN_OK;
}

void fastrnn_layer_destroy(fastrnn_layer *layer)
{
    if (layer)
        fr_free(layer->weights);
    fr_free(layer);
}

const char *fastrnn_layer_isa(const fastrnn_layer *layer) { return layer ? layer->backend.kernels->isa : NULL; }
size_t fastrnn_layer_nbytes(const fastrnn_layer *layer) { return layer ? layer->nbytes : 0; }
uint64_t fastrnn_layer_fingerprint(const fastrnn_layer *layer) { return layer ? layer->fingerprint : 0; }

fastrnn_status fastrnn_layer_unpack(const fastrnn_layer *layer, int64_t index, const fastrnn_cell_arrays *arrays,
                                    fastrnn_cell *cell)
{
    const size_t first = FR_SIZE_UP_TO(fastrnn_cell, options.reset_before);
    fastrnn_cell_arrays known;
    fastrnn_cell unpacked;
    if (!layer || !cell)
        return fr_fail_null(layer ? "cell" : "layer");
    if (!fr_in_range(index, 0, layer->num_cells - 1))
        return fr_fail_index("index", index, layer->num_cells);
    if (!fr_struct_size(cell, first))
        return fr_fail_struct("cell");
    if (!arrays || !fr_struct_read(&known, sizeof known, FR_SIZE_UP_TO(fastrnn_cell_arrays, peephole), arrays))
        return fr_fail_struct("arrays");
    fr_cell_unpack(&layer->cells[index], &layer->backend, &known, &unpacked);
    fr_struct_write(cell, &unpacked, sizeof unpacked, first);
    return FASTRNN_OK;
}
