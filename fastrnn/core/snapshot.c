/* A stream's state as bytes that any machine restores; fastrnn.h has the format. */
#include <string.h>

#include "stream.h"
#include "structs.h"

static const char magic[8] = "FASTRNNS"; /* without the terminating zero */
#define VERSION 1
#define HEADER_BYTES 32

static void put(unsigned char *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get(const unsigned char *from, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

/* Reals from this machine's byte order to little-endian, and back: the same. */
static void copy_reals(void *to, const void *from, int64_t count, size_t element_size)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (int64_t i = 0; i < count; i++)
        for (size_t byte = 0; byte < element_size; byte++)
            *(char *)fr_at(to, i * (int64_t)element_size + (int64_t)byte, 1) =
                *(const char *)fr_at(from, (i + 1) * (int64_t)element_size - 1 - (int64_t)byte, 1);
#else
    memcpy(to, from, (size_t)count * element_size);
#endif
}

/* Rows of `width` reals, adjacent in the snapshot, `stride` apart in the stream. */
static void save_rows(char *snapshot, const void *vectors, int64_t rows, int64_t width, int64_t stride, size_t e)
{
    for (int64_t row = 0; row < rows; row++)
        copy_reals(fr_at(snapshot, row * width, e), fr_at(vectors, row * stride, e), width, e);
}

/* The units that pad a row start as numbers, as those of a new stream do. */
static void load_rows(const char *snapshot, void *vectors, int64_t rows, int64_t width, int64_t stride, size_t e)
{
    memset(vectors, 0, (size_t)(rows * stride) * e);
    for (int64_t row = 0; row < rows; row++)
        copy_reals(fr_at(vectors, row * stride, e), fr_at(snapshot, row * width, e), width, e);
}

fastrnn_status fastrnn_stream_snapshot_size(const fastrnn_layer *layer, int64_t num_rows, size_t *size)
{
    size_t stream; /* of which the arrays are a part: if its size fits, so does theirs */
    const fastrnn_status status = size ? fastrnn_stream_size(layer, num_rows, &stream) : FASTRNN_ERROR_ARGUMENT;
    if (status != FASTRNN_OK)
        return status;
    const fr_cell *cell = &layer->cells[0];
    const size_t width = (size_t)(cell->h_size + (cell->kind == FASTRNN_LSTM ? cell->hidden_size : 0));
    *size = HEADER_BYTES + (size_t)layer->num_layers * (size_t)num_rows * width * layer->backend.kernels->real_size;
    return FASTRNN_OK;
}

/* The arrays, h of all layers first, then c: into the snapshot, or out of it. */
static void transfer(const fastrnn_layer *layer, void *stream, void *snapshot, bool saves)
{
    const int64_t rows = fr_stream_num_rows(stream);
    const size_t e = layer->backend.kernels->real_size;
    char *at = fr_at(snapshot, HEADER_BYTES, 1);
    for (int part = 0; part < (layer->cells[0].kind == FASTRNN_LSTM ? 2 : 1); part++) {
        fr_arena layers = fr_stream_layers(stream);
        for (int64_t i = 0; i < layer->num_layers; i++) {
            const fr_cell *cell = &layer->cells[i];
            fr_state state;
            fr_stream_layer(layer, i, rows, stream, &layers, &state);
            void *vectors = part ? state.c : fr_stream_h(&state);
            const int64_t width = part ? cell->hidden_size : cell->h_size, stride = part ? cell->c_stride : cell->h_stride;
            if (saves)
                save_rows(at, vectors, rows, width, stride, e);
            else
                load_rows(at, vectors, rows, width, stride, e);
            at += (size_t)(rows * width) * e;
        }
    }
}

static bool is_of(const fastrnn_layer *layer, int64_t num_rows, const void *stream)
{
    return fr_stream_is_valid(layer, stream) && fr_stream_num_rows(stream) == num_rows;
}

fastrnn_status fastrnn_stream_snapshot(const fastrnn_layer *layer, int64_t num_rows, const void *stream, void *snapshot)
{
    if (!is_of(layer, num_rows, stream) || !snapshot)
        return FASTRNN_ERROR_ARGUMENT;
    unsigned char *header = snapshot;
    memcpy(header, magic, sizeof magic);
    put(header + 8, VERSION, 4);
    put(header + 12, layer->backend.kernels->real_size, 4);
    put(header + 16, layer->fingerprint, 8);
    put(header + 24, (uint64_t)num_rows, 8);
    transfer(layer, (void *)(uintptr_t)stream, snapshot, true);
    return FASTRNN_OK;
}

fastrnn_status fastrnn_snapshot_describe(const void *snapshot, size_t size, fastrnn_snapshot_info *info)
{
    const size_t first = FR_SIZE_UP_TO(fastrnn_snapshot_info, num_rows);
    if (!snapshot || !info || !fr_struct_size(info, first))
        return FASTRNN_ERROR_ARGUMENT;
    const unsigned char *header = snapshot;
    if (size < HEADER_BYTES || memcmp(header, magic, sizeof magic) != 0)
        return FASTRNN_ERROR_SNAPSHOT;
    const fastrnn_snapshot_info found = {.version = (uint32_t)get(header + 8, 4), .real_size = (uint32_t)get(header + 12, 4),
                                         .fingerprint = get(header + 16, 8), .num_rows = (int64_t)get(header + 24, 8)};
    fr_struct_write(info, &found, sizeof found, first);
    return FASTRNN_OK;
}

fastrnn_status fastrnn_stream_restore(const fastrnn_layer *layer, int64_t num_rows, void *stream, const void *snapshot,
                                      size_t size)
{
    size_t wanted;
    fastrnn_snapshot_info info = {.struct_size = sizeof info};
    if (!is_of(layer, num_rows, stream) || fastrnn_stream_snapshot_size(layer, num_rows, &wanted) != FASTRNN_OK)
        return FASTRNN_ERROR_ARGUMENT;
    const fastrnn_status status = fastrnn_snapshot_describe(snapshot, size, &info);
    if (status != FASTRNN_OK)
        return status;
    if (info.version != VERSION || info.real_size != layer->backend.kernels->real_size ||
        info.fingerprint != layer->fingerprint || info.num_rows != num_rows || size != wanted)
        return FASTRNN_ERROR_SNAPSHOT;
    transfer(layer, stream, (void *)(uintptr_t)snapshot, false);
    return FASTRNN_OK;
}
