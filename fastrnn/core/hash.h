/* A 64-bit hash of numbers, the same on machines of either byte order. Not for protection against forgery. */
#ifndef FR_HASH_H
#define FR_HASH_H

#include <string.h>

#include "common.h"

#define FR_HASH_START UINT64_C(0x243F6A8885A308D3)

/* Bijective in each argument: two inputs that differ in one value have different hashes. */
static inline void fr_hash_add(uint64_t *hash, uint64_t value)
{
    const uint64_t mixed = (*hash ^ value) * UINT64_C(0x9E3779B97F4A7C15);
    *hash = mixed ^ mixed >> 32;
}

static inline void fr_hash_add_double(uint64_t *hash, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    fr_hash_add(hash, bits);
}

/* An array of floats, two at a time, or of doubles. */
static inline void fr_hash_add_reals(uint64_t *hash, const void *array, int64_t count, size_t element_size)
{
    uint64_t wide;
    uint32_t pair[2];
    int64_t i = 0;
    if (element_size == sizeof wide)
        for (; i < count; i++) {
            memcpy(&wide, fr_at(array, i, sizeof wide), sizeof wide);
            fr_hash_add(hash, wide);
        }
    for (; i + 2 <= count; i += 2) {
        memcpy(pair, fr_at(array, i, sizeof *pair), sizeof pair);
        fr_hash_add(hash, pair[0] | (uint64_t)pair[1] << 32);
    }
    if (i < count) {
        memcpy(pair, fr_at(array, i, sizeof *pair), sizeof *pair);
        fr_hash_add(hash, pair[0]);
    }
}

#endif
