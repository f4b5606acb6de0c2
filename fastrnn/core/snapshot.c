/* States as bytes that any machine restores; fastrnn.h has the format. */
#include "snapshot.h"

#include <string.h>

#include "error.h"
#include "store.h"
#include "structs.h"

static const char snapshot_magic[8] = "FASTRNNS"; /* without the terminating zero */

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

void fr_snapshot_copy_reals(void *to, const void *from, int64_t count, size_t real_size)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (int64_t i = 0; i < count; i++)
        for (size_t byte = 0; byte < real_size; byte++)
            *(char *)fr_at(to, i * (int64_t)real_size + (int64_t)byte, 1) =
                *(const char *)fr_at(from, (i + 1) * (int64_t)real_size - 1 - (int64_t)byte, 1);
#else
    memcpy(to, from, (size_t)count * real_size);
#endif
}

void fr_snapshot_put_header(void *snapshot, const fastrnn_snapshot_info *info)
{
    unsigned char *header = snapshot;
    memcpy(header, snapshot_magic, sizeof snapshot_magic);
    put(header + 8, info->version, 4);
    put(header + 12, info->real_size, 4);
    put(header + 16, info->fingerprint, 8);
    put(header + 24, (uint64_t)info->num_rows, 8);
    put(header + 32, (uint64_t)info->extra_size, 8);
}

bool fr_snapshot_has_header(const void *snapshot, size_t size, const fastrnn_snapshot_info *info)
{
    unsigned char wanted[FR_SNAPSHOT_HEADER];
    fr_snapshot_put_header(wanted, info);
    return size >= sizeof wanted && memcmp(snapshot, wanted, sizeof wanted) == 0;
}

static void save_vector(void *vector, int64_t stride, void *element, int64_t width, size_t element_size)
{
    (void)stride;
    fr_snapshot_copy_reals(element, vector, width, element_size);
}

static void restore_vector(void *vector, int64_t stride, void *element, int64_t width, size_t element_size)
{
    fr_load_row(vector, NULL, width, stride, element_size);
    fr_snapshot_copy_reals(vector, element, width, element_size);
}

/* The arrays follow the header, one after the other. */
static fr_state_arrays arrays_of(const fastrnn_layer *layer, int64_t count, const void *snapshot)
{
    const fr_cell *cell = &layer->cells[0];
    const size_t e = layer->backend.kernels->real_size;
    const int64_t vectors = layer->num_layers * count;
    fr_state_arrays arrays = {.h = fr_at(snapshot, FR_SNAPSHOT_HEADER, 1)};
    arrays.c = fr_at(arrays.h, vectors * cell->h_size, e);
    arrays.extra = cell->kind == FASTRNN_LSTM ? fr_at(arrays.c, vectors * cell->hidden_size, e) : arrays.c;
    return arrays;
}

static fastrnn_snapshot_info info_of(const fastrnn_layer *layer, const void *store, int64_t count)
{
    return (fastrnn_snapshot_info){.version = FR_SNAPSHOT_VERSION, .real_size = (uint32_t)layer->backend.kernels->real_size,
                                   .fingerprint = layer->fingerprint, .num_rows = count,
                                   .extra_size = fr_store_extra_size(store)};
}

fastrnn_status fastrnn_snapshot_size(const fastrnn_layer *layer, const void *store, int64_t count, size_t *size)
{
    size_t largest; /* the arrays are smaller than a store of as many slots: if that fits size_t, so do they */
    if (!size)
        return fr_fail_null("size");
    if (count < 0)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "count is %lld, wanted at least 0", (long long)count);
    if (!fr_store_is_of(layer, store))
        return fr_fail_store();
    const fastrnn_status status = fastrnn_store_size(layer, count, fr_store_extra_size(store), &largest);
    if (status != FASTRNN_OK)
        return status;
    const fr_cell *cell = &layer->cells[0];
    const int64_t width = cell->h_size + (cell->kind == FASTRNN_LSTM ? cell->hidden_size : 0);
    *size = FR_SNAPSHOT_HEADER + (size_t)count * (size_t)(layer->num_layers * width + fr_store_extra_size(store)) *
                                     layer->backend.kernels->real_size;
    return FASTRNN_OK;
}

fastrnn_status fastrnn_snapshot_save(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots,
                                     void *snapshot)
{
    const fastrnn_status status = fr_store_check(layer, store, count, slots);
    if (status != FASTRNN_OK || !snapshot)
        return status != FASTRNN_OK ? status : fr_fail_null("snapshot");
    const fastrnn_snapshot_info info = info_of(layer, store, count);
    fr_snapshot_put_header(snapshot, &info);
    const fr_state_arrays arrays = arrays_of(layer, count, snapshot);
    fr_store_transfer(layer, store, count, slots, &arrays, save_vector);
    return FASTRNN_OK;
}

fastrnn_status fastrnn_snapshot_describe(const void *snapshot, size_t size, fastrnn_snapshot_info *info)
{
    const size_t first = FR_SIZE_UP_TO(fastrnn_snapshot_info, extra_size);
    if (!snapshot)
        return fr_fail_null("snapshot");
    if (!info || !fr_struct_size(info, first))
        return fr_fail_struct("info");
    const unsigned char *header = snapshot;
    if (size < FR_SNAPSHOT_HEADER || memcmp(header, snapshot_magic, sizeof snapshot_magic) != 0)
        return fr_fail(FASTRNN_ERROR_SNAPSHOT, "the %zu bytes do not begin with the header of a snapshot", size);
    const fastrnn_snapshot_info found = {.version = (uint32_t)get(header + 8, 4), .real_size = (uint32_t)get(header + 12, 4),
                                         .fingerprint = get(header + 16, 8), .num_rows = (int64_t)get(header + 24, 8),
                                         .extra_size = (int64_t)get(header + 32, 8)};
    fr_struct_write(info, &found, sizeof found, first);
    return FASTRNN_OK;
}

fastrnn_status fr_fail_snapshot(const void *snapshot, size_t size, const fastrnn_snapshot_info *wanted, size_t wanted_size)
{
    fastrnn_snapshot_info found = {.struct_size = sizeof found};
    if (fastrnn_snapshot_describe(snapshot, size, &found) != FASTRNN_OK)
        return FASTRNN_ERROR_SNAPSHOT;
    const char *what = found.version != wanted->version           ? "another version"
                       : found.real_size != wanted->real_size     ? "another dtype"
                       : found.fingerprint != wanted->fingerprint ? "other weights"
                                                                  : "another extra_size, or is cut";
    if (found.num_rows != wanted->num_rows)
        return fr_fail(FASTRNN_ERROR_SNAPSHOT, "the snapshot has %lld rows, but count is %lld", (long long)found.num_rows,
                       (long long)wanted->num_rows);
    return fr_fail(FASTRNN_ERROR_SNAPSHOT, "the snapshot of %zu bytes, wanted %zu, is of %s", size, wanted_size, what);
}

fastrnn_status fastrnn_snapshot_restore(const fastrnn_layer *layer, void *store, int64_t count, const int64_t *slots,
                                        const void *snapshot, size_t size)
{
    size_t wanted;
    fastrnn_status status = fr_store_check(layer, store, count, slots);
    if (status == FASTRNN_OK)
        status = fastrnn_snapshot_size(layer, store, count, &wanted);
    if (status != FASTRNN_OK || !snapshot)
        return status != FASTRNN_OK ? status : fr_fail_null("snapshot");
    const fastrnn_snapshot_info info = info_of(layer, store, count);
    if (size != wanted || !fr_snapshot_has_header(snapshot, size, &info))
        return fr_fail_snapshot(snapshot, size, &info, wanted);
    const fr_state_arrays arrays = arrays_of(layer, count, snapshot);
    fr_store_transfer(layer, store, count, slots, &arrays, restore_vector);
    return FASTRNN_OK;
}
