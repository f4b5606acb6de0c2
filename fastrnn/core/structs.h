/* Public structs whose first member is `size_t struct_size`, set by the caller to sizeof(the struct) of the fastrnn.h that it
 * was compiled with. The library may be newer or older: a newer version appends members, and zero is every member's
 * default.
 */
#ifndef FR_STRUCTS_H
#define FR_STRUCTS_H

#include <string.h>

#include "common.h"

#define FR_STRUCT_MOST ((size_t)1 << 12) /* bytes; a larger struct_size is taken for an uninitialized one */

/* The size of a struct whose last member is this one. */
#define FR_SIZE_UP_TO(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))

/* struct_size, or 0 if it is out of range. `first` is the size of the struct's first version. */
static inline size_t fr_struct_size(const void *given, size_t first)
{
    size_t size;
    memcpy(&size, given, sizeof size);
    return size >= first && size <= FR_STRUCT_MOST ? size : 0;
}

/* False if struct_size is out of range, or if an option is set that this version, of `known` bytes, does not know. */
static inline bool fr_struct_is_known(const void *given, size_t known, size_t first)
{
    const size_t size = fr_struct_size(given, first);
    for (size_t i = known; i < size; i++)
        if (((const char *)given)[i])
            return false;
    return size != 0;
}

/* Copies a caller's struct into this version's. Members that the caller's version lacks become zero. Returns false as above. */
static inline bool fr_struct_read(void *to, size_t known, size_t first, const void *given)
{
    if (!fr_struct_is_known(given, known, first))
        return false;
    const size_t size = fr_struct_size(given, first);
    memset(to, 0, known);
    memcpy(to, given, size < known ? size : known);
    return true;
}

/* The inverse: fills the caller's struct except for struct_size. Members that this version does not have become zero. */
static inline bool fr_struct_write(void *given, const void *from, size_t known, size_t first)
{
    const size_t size = fr_struct_size(given, first), start = sizeof(size_t);
    if (!size)
        return false;
    memset((char *)given + start, 0, size - start);
    memcpy((char *)given + start, (const char *)from + start, (size < known ? size : known) - start);
    return true;
}

#endif
