#include "stream.h"

#include <string.h>

typedef struct fr_stream_header {
    int64_t first; /* fr_state.first of every layer: all rows take every step */
} fr_stream_header;

static size_t c_bytes(const fastrnn_model *model, const fr_cell *cell)
{
    return cell->kind == FASTRNN_LSTM ? (size_t)cell->c_stride * model->backend.kernels->element_size : 0;
}

static size_t h_bytes(const fastrnn_model *model, const fr_cell *cell)
{
    return (size_t)cell->h_stride * model->backend.kernels->element_size;
}

static bool streams(const fastrnn_model *model) { return model && model->num_directions == 1 && !model->reverse; }

bool fr_stream_is_valid(const fastrnn_model *model, const void *stream)
{
    return streams(model) && stream && (uintptr_t)stream % FR_ALIGNMENT == 0;
}

fr_arena fr_stream_layers(const void *stream)
{
    fr_arena arena = fr_arena_of((void *)(uintptr_t)stream);
    fr_take(&arena, 1, sizeof(fr_stream_header));
    return arena;
}

void fr_stream_layer(const fastrnn_model *model, int64_t layer, int64_t num_rows, const void *stream, fr_arena *layers,
                     fr_state *state)
{
    const fr_cell *cell = &model->cells[layer];
    state->first = (int)((const fr_stream_header *)stream)->first;
    state->h[0] = fr_take(layers, (size_t)num_rows, h_bytes(model, cell));
    state->h[1] = fr_take(layers, (size_t)num_rows, h_bytes(model, cell));
    state->c = fr_take(layers, (size_t)num_rows, c_bytes(model, cell));
}

void fr_stream_advance(void *stream, int64_t num_steps)
{
    fr_stream_header *header = stream;
    header->first = (header->first + num_steps) & 1;
}

fastrnn_status fastrnn_stream_size(const fastrnn_model *model, int64_t num_rows, size_t *size)
{
    if (!streams(model) || !size || num_rows < 0)
        return FASTRNN_ERROR_ARGUMENT;
    *size = 0;
    fr_add_bytes(size, 1, sizeof(fr_stream_header));
    const size_t rows = (size_t)num_rows;
    for (int64_t i = 0; i < model->num_layers; i++) {
        const fr_cell *cell = &model->cells[i];
        if (num_rows > FR_MOST_ROWS || !fr_add_bytes(size, rows, h_bytes(model, cell)) ||
            !fr_add_bytes(size, rows, h_bytes(model, cell)) || !fr_add_bytes(size, rows, c_bytes(model, cell)))
            return FASTRNN_ERROR_SIZE;
    }
    return FASTRNN_OK;
}

/* A stream's rows are as they are stored, and no lengths are theirs. */
static const fr_team alone = {.size = 1};

fastrnn_status fastrnn_stream_set(const fastrnn_model *model, int64_t num_rows, void *stream,
                                  const fastrnn_boundary *boundary)
{
    size_t total;
    if (!fr_stream_is_valid(model, stream) || !boundary || fastrnn_stream_size(model, num_rows, &total) != FASTRNN_OK)
        return FASTRNN_ERROR_ARGUMENT;
    memset(stream, 0, total);
    const fastrnn_batch batch = {.num_rows = num_rows};
    const fr_rows rows = {&batch, 0, 1, num_rows};
    fr_arena layers = fr_stream_layers(stream);
    for (int64_t i = 0; i < model->num_layers; i++) {
        fr_state state;
        fr_stream_layer(model, i, num_rows, stream, &layers, &state);
        fr_state_load(&model->cells[i], &model->backend, &alone, &rows, boundary, i, &state, NULL);
    }
    return FASTRNN_OK;
}

fastrnn_status fastrnn_stream_get(const fastrnn_model *model, int64_t num_rows, const void *stream,
                                  const fastrnn_boundary *boundary)
{
    size_t total;
    if (!fr_stream_is_valid(model, stream) || !boundary || fastrnn_stream_size(model, num_rows, &total) != FASTRNN_OK)
        return FASTRNN_ERROR_ARGUMENT;
    const fastrnn_batch batch = {.num_rows = num_rows};
    const fr_rows rows = {&batch, 0, 1, num_rows};
    fr_arena layers = fr_stream_layers(stream);
    for (int64_t i = 0; i < model->num_layers; i++) {
        fr_state state;
        fr_stream_layer(model, i, num_rows, stream, &layers, &state);
        fr_state_store(&model->cells[i], &model->backend, &alone, &rows, boundary, i, &state, NULL);
    }
    return FASTRNN_OK;
}
