#include "stream.h"

#include <string.h>

typedef struct fr_stream_header {
    int64_t parity; /* fr_state.parity of every layer and row */
    int64_t num_rows;
} fr_stream_header;

static size_t c_bytes(const fastrnn_layer *layer, const fr_cell *cell)
{
    return cell->kind == FASTRNN_LSTM ? (size_t)cell->c_stride * layer->backend.kernels->real_size : 0;
}

static size_t h_bytes(const fastrnn_layer *layer, const fr_cell *cell)
{
    return (size_t)cell->h_stride * layer->backend.kernels->real_size;
}

static bool streams(const fastrnn_layer *layer) { return layer && layer->num_directions == 1 && !layer->reverse; }

bool fr_stream_is_valid(const fastrnn_layer *layer, const void *stream)
{
    return streams(layer) && stream && (uintptr_t)stream % FR_ALIGNMENT == 0;
}

int64_t fr_stream_num_rows(const void *stream) { return ((const fr_stream_header *)stream)->num_rows; }

fr_arena fr_stream_layers(const void *stream)
{
    fr_arena arena = fr_arena_of((void *)(uintptr_t)stream);
    fr_take(&arena, 1, sizeof(fr_stream_header));
    return arena;
}

void fr_stream_layer(const fastrnn_layer *layer, int64_t layer_index, int64_t num_rows, const void *stream, fr_arena *layers,
                     fr_state *state)
{
    const fr_cell *cell = &layer->cells[layer_index];
    state->parity = (int)((const fr_stream_header *)stream)->parity;
    state->h[0] = fr_take(layers, (size_t)num_rows, h_bytes(layer, cell));
    state->h[1] = fr_take(layers, (size_t)num_rows, h_bytes(layer, cell));
    state->c = fr_take(layers, (size_t)num_rows, c_bytes(layer, cell));
}

void fr_stream_advance(void *stream, int64_t num_steps)
{
    fr_stream_header *header = stream;
    header->parity = (header->parity + num_steps) & 1;
}

/* The marks, of a byte, are zero between calls: they find a row that is named twice. */
static bool slots_are_valid(const fastrnn_layer *layer, const void *stream, int64_t count, const int64_t *slots)
{
    size_t total, marks_bytes = 0;
    fr_add_bytes(&marks_bytes, 1, (size_t)fr_stream_num_rows(stream));
    if (fastrnn_stream_size(layer, fr_stream_num_rows(stream), &total) != FASTRNN_OK)
        return false;
    unsigned char *marks = fr_at(stream, (int64_t)(total - marks_bytes), 1);
    int64_t marked = 0;
    for (; marked < count && fr_in_range(slots[marked], 0, fr_stream_num_rows(stream) - 1) && !marks[slots[marked]]; marked++)
        marks[slots[marked]] = 1;
    for (int64_t i = 0; i < marked; i++)
        marks[slots[i]] = 0;
    return marked == count;
}

/* A piece of a copy takes some 10 ms where the target's pages are new. */
#define PIECE_BYTES ((size_t)16 << 20)

/* Vectors of `bytes` bytes, row from[i] to row to[i]; NULL: row i. False: `batch`, if given, was interrupted. */
static bool copy_rows(const fastrnn_batch *batch, int64_t count, const void *source, const int64_t *from, void *target,
                      const int64_t *to, size_t bytes)
{
    const int64_t piece = bytes && bytes < PIECE_BYTES ? (int64_t)(PIECE_BYTES / bytes) : 1;
    for (int64_t i = 0; bytes && i < count;) {
        for (const int64_t last = count - i < piece ? count : i + piece; i < last; i++)
            memcpy(fr_at(target, to ? to[i] : i, bytes), fr_at(source, from ? from[i] : i, bytes), bytes);
        if (i < count && batch && batch->interrupted && batch->interrupted(batch->interrupted_context) != 0)
            return false;
    }
    return true;
}

static bool copy_streams(const fastrnn_layer *layer, const fastrnn_batch *batch, int64_t count, const void *source,
                         const int64_t *from, void *target, const int64_t *to)
{
    fr_arena source_layers = fr_stream_layers(source), target_layers = fr_stream_layers(target);
    for (int64_t i = 0; i < layer->num_layers; i++) {
        const fr_cell *cell = &layer->cells[i];
        fr_state a, b;
        fr_stream_layer(layer, i, fr_stream_num_rows(source), source, &source_layers, &a);
        fr_stream_layer(layer, i, fr_stream_num_rows(target), target, &target_layers, &b);
        if (!copy_rows(batch, count, fr_stream_h(&a), from, fr_stream_h(&b), to, h_bytes(layer, cell)) ||
            !copy_rows(batch, count, a.c, from, b.c, to, c_bytes(layer, cell)))
            return false;
    }
    return true;
}

fastrnn_status fr_stream_gather(const fastrnn_layer *layer, const void *stream, const fastrnn_batch *batch, void *gathered)
{
    if (!slots_are_valid(layer, stream, batch->num_rows, batch->slots))
        return FASTRNN_ERROR_ARGUMENT;
    *(fr_stream_header *)gathered = (fr_stream_header){.num_rows = batch->num_rows};
    return copy_streams(layer, batch, batch->num_rows, stream, batch->slots, gathered, NULL) ? FASTRNN_OK
                                                                                             : FASTRNN_ERROR_INTERRUPTED;
}

void fr_stream_scatter(const fastrnn_layer *layer, const void *gathered, int64_t count, const int64_t *slots, void *stream)
{
    copy_streams(layer, NULL, count, gathered, NULL, stream, slots); /* all rows or none: never interrupted */
}

fastrnn_status fastrnn_stream_size(const fastrnn_layer *layer, int64_t num_rows, size_t *size)
{
    if (!streams(layer) || !size || num_rows < 0)
        return FASTRNN_ERROR_ARGUMENT;
    *size = 0;
    fr_add_bytes(size, 1, sizeof(fr_stream_header));
    const size_t rows = (size_t)num_rows;
    for (int64_t i = 0; i < layer->num_layers; i++) {
        const fr_cell *cell = &layer->cells[i];
        if (num_rows > FR_MOST_ROWS || !fr_add_bytes(size, rows, h_bytes(layer, cell)) ||
            !fr_add_bytes(size, rows, h_bytes(layer, cell)) || !fr_add_bytes(size, rows, c_bytes(layer, cell)))
            return FASTRNN_ERROR_SIZE;
    }
    return fr_add_bytes(size, 1, rows) ? FASTRNN_OK : FASTRNN_ERROR_SIZE;
}

/* A stream's rows are as they are stored, and no lengths are theirs. */
static const fr_team alone = {.size = 1};

fastrnn_status fastrnn_stream_set(const fastrnn_layer *layer, int64_t num_rows, void *stream,
                                  const fastrnn_boundary *boundary)
{
    size_t total;
    if (!fr_stream_is_valid(layer, stream) || !boundary || fastrnn_stream_size(layer, num_rows, &total) != FASTRNN_OK)
        return FASTRNN_ERROR_ARGUMENT;
    memset(stream, 0, total);
    ((fr_stream_header *)stream)->num_rows = num_rows;
    const fastrnn_batch batch = {.num_rows = num_rows};
    const fr_rows rows = {&batch, 0, 1, num_rows};
    fr_arena layers = fr_stream_layers(stream);
    for (int64_t i = 0; i < layer->num_layers; i++) {
        fr_state state;
        fr_stream_layer(layer, i, num_rows, stream, &layers, &state);
        fr_state_load(&layer->cells[i], &layer->backend, &alone, &rows, boundary, i, &state, NULL);
    }
    return FASTRNN_OK;
}

fastrnn_status fastrnn_stream_set_slots(const fastrnn_layer *layer, int64_t count, const int64_t *slots, void *stream,
                                        const fastrnn_boundary *boundary)
{
    if (!fr_stream_is_valid(layer, stream) || !boundary || count < 0 || (count && !slots) ||
        !slots_are_valid(layer, stream, count, slots))
        return FASTRNN_ERROR_ARGUMENT;
    const size_t e = layer->backend.kernels->real_size;
    const fastrnn_batch batch = {.num_rows = count};
    fr_arena layers = fr_stream_layers(stream);
    for (int64_t i = 0; i < layer->num_layers; i++) {
        const fr_cell *cell = &layer->cells[i];
        fr_state all;
        fr_stream_layer(layer, i, fr_stream_num_rows(stream), stream, &layers, &all);
        for (int64_t row = 0; row < count; row++) {
            const fr_rows rows = {&batch, row, 1, 1};
            fr_state one = {.h = {fr_at(fr_stream_h(&all), slots[row] * cell->h_stride, e)},
                            .c = fr_at(all.c, slots[row] * cell->c_stride, e)};
            fr_state_load(cell, &layer->backend, &alone, &rows, boundary, i, &one, NULL);
        }
    }
    return FASTRNN_OK;
}

fastrnn_status fastrnn_stream_get(const fastrnn_layer *layer, int64_t num_rows, const void *stream,
                                  const fastrnn_boundary *boundary)
{
    if (!fr_stream_is_valid(layer, stream) || !boundary || num_rows != fr_stream_num_rows(stream))
        return FASTRNN_ERROR_ARGUMENT;
    const fastrnn_batch batch = {.num_rows = num_rows};
    const fr_rows rows = {&batch, 0, 1, num_rows};
    fr_arena layers = fr_stream_layers(stream);
    for (int64_t i = 0; i < layer->num_layers; i++) {
        fr_state state;
        fr_stream_layer(layer, i, num_rows, stream, &layers, &state);
        fr_state_store(&layer->cells[i], &layer->backend, &alone, &rows, boundary, i, &state, NULL);
    }
    return FASTRNN_OK;
}
