#include "allocator.h"

#include <stdlib.h>

#include "error.h"
#include "structs.h"

static void *allocate_by_malloc(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void release_by_free(void *context, void *memory)
{
    (void)context;
    free(memory);
}

static const fastrnn_allocator standard = {.allocate = allocate_by_malloc, .release = release_by_free};
static fastrnn_allocator current = {.allocate = allocate_by_malloc, .release = release_by_free};

fastrnn_status fastrnn_set_allocator(const fastrnn_allocator *allocator)
{
    fastrnn_allocator given = standard;
    if (allocator && !fr_struct_read(&given, sizeof given, FR_SIZE_UP_TO(fastrnn_allocator, context), allocator))
        return fr_fail_struct("allocator");
    if (!given.allocate || !given.release)
        return fr_fail_null(given.allocate ? "allocator->release" : "allocator->allocate");
    current = given;
    return FASTRNN_OK;
}

/* In front of a block. */
typedef struct fr_origin {
    void *memory;
    void (*release)(void *context, void *memory);
    void *context;
} fr_origin;

_Static_assert(sizeof(fr_origin) <= FR_ALIGNMENT, "a block's origin fits in front of it");

void *fr_allocate(size_t size)
{
    const fr_origin origin = {.release = current.release, .context = current.context};
    if (size > SIZE_MAX - 2 * FR_ALIGNMENT)
        return NULL;
    char *memory = current.allocate(current.context, size + 2 * FR_ALIGNMENT);
    if (!memory)
        return NULL;
    fr_arena arena = fr_arena_of(memory);
    fr_origin *before = fr_take(&arena, 1, sizeof *before);
    *before = origin;
    before->memory = memory;
    return arena.next;
}

void fr_free(void *block)
{
    if (!block)
        return;
    const fr_origin origin = *(const fr_origin *)(const void *)((char *)block - FR_ALIGNMENT);
    origin.release(origin.context, origin.memory);
}
