/* Memory of objects, from the caller's allocator if there is one. */
#ifndef FR_ALLOCATOR_H
#define FR_ALLOCATOR_H

#include "common.h"

/* A block aligned to FR_ALIGNMENT, or NULL. fr_free returns it to the allocator that it is from, whichever is set by then. */
void *fr_allocate(size_t size);
void fr_free(void *block); /* NULL: nothing */

#endif
