#include "model_store.h"

#include <string.h>

#include "error.h"
#include "snapshot.h"

#define LAYOUT_VERSION 2

static const char model_store_magic[8] = "FASTRNNO"; /* without the terminating zero */

typedef struct fr_model_store_header {
    char magic[8];
    uint32_t version, unused;
    uint64_t fingerprint;
    int64_t capacity, state_size;
} fr_model_store_header;

static bool has_streams(const fastrnn_model *model) { return model && model->first_not_streamed < 0; }

static fr_model_store_header header_of(const fastrnn_model *model, int64_t capacity)
{
    fr_model_store_header header = {.version = LAYOUT_VERSION, .fingerprint = model->fingerprint, .capacity = capacity,
                                    .state_size = model->state_size};
    memcpy(header.magic, model_store_magic, sizeof model_store_magic);
    return header;
}

static bool is_of(const fastrnn_model *model, const void *store)
{
    if (!has_streams(model) || !store || (uintptr_t)store % FR_ALIGNMENT != 0)
        return false;
    const fr_model_store_header *found = store, wanted = header_of(model, found->capacity);
    return memcmp(found, &wanted, sizeof wanted) == 0;
}

static int64_t capacity_of(const void *store) { return ((const fr_model_store_header *)store)->capacity; }

typedef struct fr_pieces {
    unsigned char *parities, *marks; /* (capacity) */
    char *states;
} fr_pieces;

static fr_pieces pieces_of(const void *store)
{
    fr_arena arena = fr_arena_of((void *)(uintptr_t)store);
    fr_pieces pieces;
    fr_take(&arena, 1, sizeof(fr_model_store_header));
    pieces.parities = fr_take(&arena, 1, (size_t)capacity_of(store));
    pieces.marks = fr_take(&arena, 1, (size_t)capacity_of(store));
    pieces.states = arena.next;
    return pieces;
}

static size_t tail_bytes(const fr_op *op) { return (size_t)(op->tail_steps * op->input_size) * sizeof(float); }

/* Adds the bytes of the states of the first `num_ops` ops; false if that overflows. */
static bool add_state_bytes(size_t *total, const fastrnn_model *model, int64_t num_ops, int64_t capacity)
{
    bool fits = true;
    for (const fr_op *op = model->ops; op < model->ops + num_ops && fits; op++) {
        if (op->options.kind == FASTRNN_OP_LAYER)
            fits = fr_states_add_bytes(total, op->layer, capacity);
        else
            fits = fr_add_bytes(total, (size_t)capacity, tail_bytes(op)) && fr_add_bytes(total, (size_t)capacity, tail_bytes(op));
    }
    return fits;
}

fr_states fr_model_store_states(const fastrnn_model *model, const void *store, int64_t op)
{
    const fr_pieces pieces = pieces_of(store);
    size_t before = 0;
    add_state_bytes(&before, model, op, capacity_of(store));
    return (fr_states){.parities = pieces.parities, .buffers = pieces.states + before, .capacity = capacity_of(store)};
}

fr_tails fr_model_store_tails(const fastrnn_model *model, const void *store, int64_t op, const int64_t *slots)
{
    const fr_states states = fr_model_store_states(model, store, op);
    fr_arena arena = {states.buffers};
    fr_tails tails = {.parities = states.parities, .slots = slots};
    for (int parity = 0; parity < 2; parity++)
        tails.buffers[parity] = fr_take(&arena, (size_t)states.capacity, tail_bytes(&model->ops[op]));
    return tails;
}

void fr_model_store_advance(void *store, const fr_rows *rows) { fr_states_advance(pieces_of(store).parities, rows); }

fastrnn_status fr_model_store_check(const fastrnn_model *model, const void *store, int64_t count, const int64_t *slots)
{
    if (!is_of(model, store))
        return fr_fail_store();
    const int64_t capacity = capacity_of(store);
    if (count < 0 || (!slots && count != capacity) ||
        (slots && !fr_slots_are_distinct(slots, count, capacity, pieces_of(store).marks)))
        return fr_fail_slots(slots, count, capacity);
    return FASTRNN_OK;
}

/* A vector of the slots' states: the index-th of one kind of an op's. `offset` numbers of a slot's state are before it. */
typedef struct fr_cursor {
    int64_t op, kind, index, offset, width;
    const unsigned char *parities;
    float *buffers[2]; /* (capacity, stride) */
    int64_t stride;
} fr_cursor;

#define BEFORE_FIRST {.index = -1}

static void find_buffers(const fastrnn_model *model, const void *store, fr_cursor *at)
{
    const fr_op *op = &model->ops[at->op];
    if (op->options.kind == FASTRNN_OP_LAYER) {
        const fr_cell *cell = &op->layer->cells[at->index];
        const fr_states states = fr_model_store_states(model, store, at->op);
        fr_slots slots;
        fr_states_slots(&states, op->layer, at->index, &slots);
        at->parities = slots.parities;
        for (int parity = 0; parity < 2; parity++)
            at->buffers[parity] = at->kind ? slots.c[parity] : slots.h[parity];
        at->stride = at->kind ? cell->c_stride : cell->h_stride;
    } else {
        const fr_tails tails = fr_model_store_tails(model, store, at->op, NULL);
        at->parities = tails.parities;
        memcpy(at->buffers, tails.buffers, sizeof at->buffers);
        at->stride = at->width;
    }
}

/* Goes to the next vector; false after the last. */
static bool next_vector(const fastrnn_model *model, const void *store, fr_cursor *at)
{
    at->offset += at->width;
    at->index++;
    for (; at->op < model->num_ops; at->op++, at->kind = 0) {
        const fr_op_state state = fr_op_state_of(&model->ops[at->op]);
        for (; at->kind < state.num_kinds; at->kind++, at->index = 0) {
            at->width = state.widths[at->kind];
            if (at->index < state.counts[at->kind]) {
                find_buffers(model, store, at);
                return true;
            }
        }
    }
    return false;
}

/* The vector of a slot, which is slots[row], or row if slots is NULL. */
static float *vector_of(const fr_cursor *at, const int64_t *slots, int64_t row)
{
    const int64_t slot = slots ? slots[row] : row;
    return at->buffers[at->parities[slot]] + slot * at->stride;
}

fastrnn_status fastrnn_model_store_size(const fastrnn_model *model, int64_t capacity, size_t *size)
{
    if (!model || !size)
        return fr_fail_null(model ? "size" : "model");
    if (!has_streams(model))
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "the model's op %lld cannot run in a stream", (long long)model->first_not_streamed);
    if (capacity < 0)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "capacity is %lld, wanted at least 0", (long long)capacity);
    size_t bytes = 0;
    if (capacity > FR_MOST_ROWS || !fr_add_bytes(&bytes, 1, sizeof(fr_model_store_header)) ||
        !fr_add_bytes(&bytes, 1, (size_t)capacity) || !fr_add_bytes(&bytes, 1, (size_t)capacity) ||
        !add_state_bytes(&bytes, model, model->num_ops, capacity))
        return fr_fail_size("the store");
    *size = bytes;
    return FASTRNN_OK;
}

fastrnn_status fastrnn_model_store_init(const fastrnn_model *model, int64_t capacity, void *store)
{
    size_t size = 0; /* for compilers that do not see that a failure ends here */
    const fastrnn_status status = fastrnn_model_store_size(model, capacity, &size);
    if (status != FASTRNN_OK)
        return status;
    if (!store || (uintptr_t)store % FR_ALIGNMENT != 0)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "store is NULL or not aligned to %d bytes", FR_ALIGNMENT);
    memset(store, 0, size);
    const fr_model_store_header header = header_of(model, capacity);
    memcpy(store, &header, sizeof header);
    return FASTRNN_OK;
}

fastrnn_status fastrnn_model_store_reset(const fastrnn_model *model, void *store, int64_t count, const int64_t *slots)
{
    const fastrnn_status status = fr_model_store_check(model, store, count, slots);
    if (status != FASTRNN_OK)
        return status;
    for (fr_cursor at = BEFORE_FIRST; next_vector(model, store, &at);)
        for (int64_t row = 0; row < count; row++)
            memset(vector_of(&at, slots, row), 0, (size_t)at.width * sizeof(float));
    return FASTRNN_OK;
}

static fastrnn_status check_layer(const fastrnn_model *model, const void *store, int64_t op, int64_t count, const int64_t *slots)
{
    const fastrnn_status status = fr_model_store_check(model, store, count, slots);
    if (status != FASTRNN_OK)
        return status;
    if (fr_in_range(op, 0, model->num_ops - 1) && model->ops[op].options.kind == FASTRNN_OP_LAYER)
        return FASTRNN_OK;
    return fr_fail(FASTRNN_ERROR_ARGUMENT, "op is %lld, wanted the index of a FASTRNN_OP_LAYER", (long long)op);
}

/* A row's vector in an array (L, count, width); NULL without an array. */
static float *in_array(float *array, const fr_cursor *at, int64_t count, int64_t row)
{
    return array ? array + (at->index * count + row) * at->width : NULL;
}

fastrnn_status fastrnn_model_store_set(const fastrnn_model *model, void *store, int64_t op, int64_t count, const int64_t *slots,
                                       const void *h0, const void *c0)
{
    const fastrnn_status status = check_layer(model, store, op, count, slots);
    if (status != FASTRNN_OK)
        return status;
    float *const arrays[] = {(void *)(uintptr_t)h0, (void *)(uintptr_t)c0};
    for (fr_cursor at = BEFORE_FIRST; next_vector(model, store, &at);)
        for (int64_t row = 0; at.op == op && row < count; row++)
            fr_load_row(vector_of(&at, slots, row), in_array(arrays[at.kind], &at, count, row), at.width, at.stride, sizeof(float));
    return FASTRNN_OK;
}

fastrnn_status fastrnn_model_store_get(const fastrnn_model *model, const void *store, int64_t op, int64_t count,
                                       const int64_t *slots, void *hn, void *cn)
{
    const fastrnn_status status = check_layer(model, store, op, count, slots);
    if (status != FASTRNN_OK)
        return status;
    float *const arrays[] = {hn, cn};
    for (fr_cursor at = BEFORE_FIRST; next_vector(model, store, &at);)
        for (int64_t row = 0; at.op == op && arrays[at.kind] && row < count; row++)
            fr_copy_vector(in_array(arrays[at.kind], &at, count, row), vector_of(&at, slots, row), at.width);
    return FASTRNN_OK;
}

static fastrnn_snapshot_info info_of(const fastrnn_model *model, int64_t count)
{
    return (fastrnn_snapshot_info){.version = FR_SNAPSHOT_VERSION, .real_size = sizeof(float), .fingerprint = model->fingerprint,
                                   .num_rows = count, .extra_size = model->state_size};
}

/* The states follow the header: (count, state_size). */
static char *in_snapshot(const fastrnn_model *model, const void *snapshot, const fr_cursor *at, int64_t row)
{
    return (char *)(uintptr_t)snapshot + FR_SNAPSHOT_HEADER + (row * model->state_size + at->offset) * (int64_t)sizeof(float);
}

fastrnn_status fastrnn_model_snapshot_size(const fastrnn_model *model, const void *store, int64_t count, size_t *size)
{
    size_t bytes = FR_SNAPSHOT_HEADER;
    if (!size)
        return fr_fail_null("size");
    if (count < 0)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "count is %lld, wanted at least 0", (long long)count);
    if (!is_of(model, store))
        return fr_fail_store();
    if (count > FR_MOST_ROWS || !fr_add_bytes(&bytes, (size_t)count, (size_t)model->state_size * sizeof(float)))
        return fr_fail_size("the snapshot");
    *size = FR_SNAPSHOT_HEADER + (size_t)count * (size_t)model->state_size * sizeof(float);
    return FASTRNN_OK;
}

fastrnn_status fastrnn_model_snapshot_save(const fastrnn_model *model, const void *store, int64_t count, const int64_t *slots,
                                           void *snapshot)
{
    const fastrnn_status status = fr_model_store_check(model, store, count, slots);
    if (status != FASTRNN_OK || !snapshot)
        return status != FASTRNN_OK ? status : fr_fail_null("snapshot");
    const fastrnn_snapshot_info info = info_of(model, count);
    fr_snapshot_put_header(snapshot, &info);
    for (fr_cursor at = BEFORE_FIRST; next_vector(model, store, &at);)
        for (int64_t row = 0; row < count; row++)
            fr_snapshot_copy_reals(in_snapshot(model, snapshot, &at, row), vector_of(&at, slots, row), at.width, sizeof(float));
    return FASTRNN_OK;
}

fastrnn_status fastrnn_model_snapshot_restore(const fastrnn_model *model, void *store, int64_t count, const int64_t *slots,
                                              const void *snapshot, size_t size)
{
    size_t wanted;
    fastrnn_status status = fr_model_store_check(model, store, count, slots);
    if (status == FASTRNN_OK)
        status = fastrnn_model_snapshot_size(model, store, count, &wanted);
    if (status != FASTRNN_OK || !snapshot)
        return status != FASTRNN_OK ? status : fr_fail_null("snapshot");
    const fastrnn_snapshot_info info = info_of(model, count);
    if (size != wanted || !fr_snapshot_has_header(snapshot, size, &info))
        return fr_fail_snapshot(snapshot, size, &info, wanted);
    for (fr_cursor at = BEFORE_FIRST; next_vector(model, store, &at);)
        for (int64_t row = 0; row < count; row++)
            fr_snapshot_copy_reals(vector_of(&at, slots, row), in_snapshot(model, snapshot, &at, row), at.width, sizeof(float));
    return FASTRNN_OK;
}
