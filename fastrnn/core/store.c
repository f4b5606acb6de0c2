#include "store.h"

#include <string.h>

#include "error.h"

#define LAYOUT_VERSION 2

static const char store_magic[8] = "FASTRNNM"; /* without the terminating zero */

typedef struct fr_store_header {
    char magic[8];
    uint32_t version, real_size, vector_length, unused; /* real_size in bytes */
    uint64_t fingerprint;
    int64_t capacity, extra_size;
} fr_store_header;

static bool has_streams(const fastrnn_layer *layer) { return layer && layer->num_directions == 1 && !layer->reverse; }

static fr_store_header header_of(const fastrnn_layer *layer, int64_t capacity, int64_t extra_size)
{
    fr_store_header header = {.version = LAYOUT_VERSION, .real_size = (uint32_t)layer->backend.kernels->real_size,
                              .vector_length = (uint32_t)layer->backend.kernels->vector_length,
                              .fingerprint = layer->fingerprint, .capacity = capacity, .extra_size = extra_size};
    memcpy(header.magic, store_magic, sizeof store_magic);
    return header;
}

bool fr_store_is_of(const fastrnn_layer *layer, const void *store)
{
    if (!has_streams(layer) || !store || (uintptr_t)store % FR_ALIGNMENT != 0)
        return false;
    const fr_store_header *found = store, wanted = header_of(layer, found->capacity, found->extra_size);
    return memcmp(found, &wanted, sizeof wanted) == 0;
}

int64_t fr_store_capacity(const void *store) { return ((const fr_store_header *)store)->capacity; }
int64_t fr_store_extra_size(const void *store) { return ((const fr_store_header *)store)->extra_size; }

static void *address(const void *memory) { return (void *)(uintptr_t)memory; }

/* The parts of a store after its header; `states` points to the first layer's states. */
typedef struct fr_store_pieces {
    unsigned char *parities, *marks; /* (capacity) */
    fr_arena states;
} fr_store_pieces;

static fr_store_pieces pieces_of(const void *store)
{
    fr_arena arena = fr_arena_of(address(store));
    fr_store_pieces pieces;
    fr_take(&arena, 1, sizeof(fr_store_header));
    pieces.parities = fr_take(&arena, 1, (size_t)fr_store_capacity(store));
    pieces.marks = fr_take(&arena, 1, (size_t)fr_store_capacity(store));
    pieces.states = arena;
    return pieces;
}

bool fr_slots_are_distinct(const int64_t *slots, int64_t count, int64_t capacity, unsigned char *marks)
{
    int64_t marked = 0;
    for (; marked < count && fr_in_range(slots[marked], 0, capacity - 1) && !marks[slots[marked]]; marked++)
        marks[slots[marked]] = 1;
    for (int64_t i = 0; i < marked; i++)
        marks[slots[i]] = 0;
    return marked == count;
}

bool fr_store_has_slots(void *store, int64_t count, const int64_t *slots)
{
    const int64_t capacity = fr_store_capacity(store);
    return slots ? fr_slots_are_distinct(slots, count, capacity, pieces_of(store).marks) : count == capacity;
}


fr_states fr_store_states(const void *store)
{
    const fr_store_pieces pieces = pieces_of(store);
    return (fr_states){.parities = pieces.parities, .buffers = pieces.states.next, .capacity = fr_store_capacity(store)};
}

static size_t h_bytes(const fastrnn_layer *layer, const fr_cell *cell)
{
    return (size_t)cell->h_stride * layer->backend.kernels->real_size;
}

static size_t c_bytes(const fastrnn_layer *layer, const fr_cell *cell)
{
    return cell->kind == FASTRNN_LSTM ? (size_t)cell->c_stride * layer->backend.kernels->real_size : 0;
}

/* The states of the next layer; advances the arena. */
static void next_slots(const fastrnn_layer *layer, int64_t layer_index, int64_t capacity, fr_arena *arena, fr_slots *slots)
{
    const fr_cell *cell = &layer->cells[layer_index];
    const size_t h = h_bytes(layer, cell), c = c_bytes(layer, cell);
    for (int parity = 0; parity < 2; parity++) {
        slots->h[parity] = fr_take(arena, (size_t)capacity, h);
        slots->c[parity] = fr_take(arena, (size_t)capacity, c);
    }
}

bool fr_states_add_bytes(size_t *total, const fastrnn_layer *layer, int64_t capacity)
{
    bool fits = true;
    for (int64_t i = 0; i < layer->num_layers; i++)
        for (int parity = 0; parity < 2; parity++)
            fits = fits && fr_add_bytes(total, (size_t)capacity, h_bytes(layer, &layer->cells[i])) &&
                   fr_add_bytes(total, (size_t)capacity, c_bytes(layer, &layer->cells[i]));
    return fits;
}

void fr_states_slots(const fr_states *states, const fastrnn_layer *layer, int64_t layer_index, fr_slots *slots)
{
    fr_arena arena = {states->buffers};
    slots->parities = states->parities;
    for (int64_t i = 0; i <= layer_index; i++)
        next_slots(layer, i, states->capacity, &arena, slots);
}

void fr_states_advance(unsigned char *parities, const fr_rows *rows)
{
    for (int64_t row = 0; row < rows->count; row++)
        parities[fr_slot(rows, row)] ^= fr_length(rows, row) > 0;
}

fastrnn_status fastrnn_store_size(const fastrnn_layer *layer, int64_t capacity, int64_t extra_size, size_t *size)
{
    if (!layer || !size)
        return fr_fail_null(layer ? "size" : "layer");
    if (!has_streams(layer))
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "layer has the reverse direction, which cannot run in a stream");
    if (capacity < 0 || extra_size < 0)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "capacity is %lld and extra_size %lld, wanted at least 0", (long long)capacity,
                       (long long)extra_size);
    *size = 0;
    if (capacity > FR_MOST_ROWS || extra_size > FR_MOST_ROWS)
        return fr_fail_size("the store");
    fr_add_bytes(size, 1, sizeof(fr_store_header));
    if (!fr_add_bytes(size, 1, (size_t)capacity) || !fr_add_bytes(size, 1, (size_t)capacity) ||
        !fr_states_add_bytes(size, layer, capacity) ||
        !fr_add_bytes(size, (size_t)capacity, (size_t)extra_size * layer->backend.kernels->real_size))
        return fr_fail_size("the store");
    return FASTRNN_OK;
}

fastrnn_status fastrnn_store_init(const fastrnn_layer *layer, int64_t capacity, int64_t extra_size, void *store)
{
    size_t size;
    const fastrnn_status status = fastrnn_store_size(layer, capacity, extra_size, &size);
    if (status != FASTRNN_OK)
        return status;
    if (!store || (uintptr_t)store % FR_ALIGNMENT != 0)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "store is NULL or not aligned to %d bytes", FR_ALIGNMENT);
    memset(store, 0, size);
    const fr_store_header header = header_of(layer, capacity, extra_size);
    memcpy(store, &header, sizeof header);
    return FASTRNN_OK;
}

static char *extra_of(const fastrnn_layer *layer, const void *store)
{
    fr_arena arena = pieces_of(store).states;
    fr_slots slots;
    for (int64_t i = 0; i < layer->num_layers; i++)
        next_slots(layer, i, fr_store_capacity(store), &arena, &slots);
    return arena.next;
}

static size_t extra_bytes(const fastrnn_layer *layer, const void *store)
{
    return (size_t)fr_store_extra_size(store) * layer->backend.kernels->real_size;
}

void *fastrnn_store_extra(const fastrnn_layer *layer, void *store, int64_t slot)
{
    if (!fr_store_is_of(layer, store) || !fr_in_range(slot, 0, fr_store_capacity(store) - 1) || fr_store_extra_size(store) == 0)
        return NULL;
    return fr_at(extra_of(layer, store), slot, extra_bytes(layer, store));
}

fastrnn_status fr_store_check(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots)
{
    if (!fr_store_is_of(layer, store))
        return fr_fail_store();
    return count >= 0 && fr_store_has_slots(address(store), count, slots) ? FASTRNN_OK
                                                                          : fr_fail_slots(slots, count, fr_store_capacity(store));
}

/* Vectors of one kind (h, c or extra), in the slots and in part `index` of an array (parts, count, width). */
typedef struct fr_vectors {
    void *buffers[2];              /* (capacity, stride) */
    const unsigned char *parities; /* which buffer a slot's vector is in; NULL: the first */
    void *array;
    int64_t index, width, stride;
} fr_vectors;

static void transfer_vectors(const fr_vectors *vectors, int64_t count, const int64_t *slots, size_t e, fr_transfer *transfer)
{
    for (int64_t row = 0; row < count; row++) {
        const int64_t slot = slots ? slots[row] : row;
        void *buffer = vectors->buffers[vectors->parities ? vectors->parities[slot] : 0];
        void *element = vectors->array ? fr_at(vectors->array, (vectors->index * count + row) * vectors->width, e) : NULL;
        transfer(fr_at(buffer, slot * vectors->stride, e), vectors->stride, element, vectors->width, e);
    }
}

void fr_store_transfer(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots,
                       const fr_state_arrays *arrays, fr_transfer *transfer)
{
    const size_t e = layer->backend.kernels->real_size;
    fr_store_pieces all = pieces_of(store);
    for (int64_t i = 0; i < layer->num_layers; i++) {
        const fr_cell *cell = &layer->cells[i];
        fr_slots states;
        next_slots(layer, i, fr_store_capacity(store), &all.states, &states);
        const fr_vectors h = {.buffers = {states.h[0], states.h[1]}, .parities = all.parities, .array = arrays->h, .index = i,
                              .width = cell->h_size, .stride = cell->h_stride};
        transfer_vectors(&h, count, slots, e, transfer);
        if (cell->kind != FASTRNN_LSTM)
            continue;
        const fr_vectors c = {.buffers = {states.c[0], states.c[1]}, .parities = all.parities, .array = arrays->c, .index = i,
                              .width = cell->hidden_size, .stride = cell->c_stride};
        transfer_vectors(&c, count, slots, e, transfer);
    }
    const int64_t extra_size = fr_store_extra_size(store);
    const fr_vectors extra = {.buffers = {all.states.next}, .array = arrays->extra, .width = extra_size, .stride = extra_size};
    if (extra_size)
        transfer_vectors(&extra, count, slots, e, transfer);
}

static void set_vector(void *vector, int64_t stride, void *element, int64_t width, size_t e)
{
    fr_load_row(vector, element, width, stride, e);
}

fastrnn_status fastrnn_store_set(const fastrnn_layer *layer, void *store, int64_t count, const int64_t *slots, const void *h0,
                                 const void *c0)
{
    const fastrnn_status status = fr_store_check(layer, store, count, slots);
    const fr_state_arrays arrays = {.h = address(h0), .c = address(c0)};
    if (status == FASTRNN_OK)
        fr_store_transfer(layer, store, count, slots, &arrays, set_vector);
    return status;
}

static void get_vector(void *vector, int64_t stride, void *element, int64_t width, size_t e)
{
    (void)stride;
    if (element)
        memcpy(element, vector, (size_t)width * e);
}

fastrnn_status fastrnn_store_get(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots, void *hn,
                                 void *cn)
{
    const fastrnn_status status = fr_store_check(layer, store, count, slots);
    const fr_state_arrays arrays = {.h = hn, .c = cn};
    if (status == FASTRNN_OK)
        fr_store_transfer(layer, store, count, slots, &arrays, get_vector);
    return status;
}
