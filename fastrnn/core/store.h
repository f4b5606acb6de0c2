/* The state store: the states of rows between calls, each row in a slot of its own. fastrnn.h has the contract.
 *
 * Memory: header, parity of each slot (1 byte), a mark of each slot (1 byte; zero between calls), for each layer both h
 * buffers (capacity, h_stride) and c (capacity, c_stride), then the extra numbers (capacity, extra_size). A slot's current h
 * is in the buffer of its parity, which changes with every step, so the parity differs among slots with different numbers of
 * steps. */
#ifndef FR_STORE_H
#define FR_STORE_H

#include "layer.h"
#include "sequence.h"

/* The slot of one of a batch's rows. */
static inline int64_t fr_slot(const fr_rows *rows, int64_t row)
{
    row = fr_row_of_arrays(rows, row);
    return rows->batch->slots ? rows->batch->slots[row] : row;
}

/* Whether aligned memory has the header of a store of this layer. */
bool fr_store_is_of(const fastrnn_layer *layer, const void *store);
/* Whether these slots exist and are distinct. marks (capacity) are zero before and after. */
bool fr_slots_are_distinct(const int64_t *slots, int64_t count, int64_t capacity, unsigned char *marks);
/* Whether these `count` slots exist and are distinct; with slots NULL, whether the store has `count` slots. */
bool fr_store_has_slots(void *store, int64_t count, const int64_t *slots);

fastrnn_status fr_store_check(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots);
int64_t fr_store_capacity(const void *store);
int64_t fr_store_extra_size(const void *store);
unsigned char *fr_store_parities(void *store); /* (capacity) */

/* The states of `num_rows` rows are in memory layer after layer. Each call of fr_next_layer_state sets `state` to those of the
 * next layer and advances the arena. fr_store_states returns an arena at the first layer of a store. */
fr_arena fr_store_states(const void *store);
void fr_next_layer_state(const fastrnn_layer *layer, int64_t layer_index, int64_t num_rows, fr_arena *arena, fr_state *state);
bool fr_store_add_state_bytes(size_t *total, const fastrnn_layer *layer, int64_t num_rows);

/* Gives `count` consecutive slots the parity of the first one; copies h in those that had the other. Returns that parity. */
int fr_store_equalize_parities(const fastrnn_layer *layer, void *store, int64_t first_slot, int64_t count);
/* Updates the parities of these rows' slots after a run in place. */
void fr_store_advance(void *store, const fr_rows *rows);

/* Copies the rows' states from their slots to rows [at, at + rows->count) of `gathered`, which holds the states of the whole
 * batch and has parity 0. *copied counts the bytes since `interrupted` was called. False if the batch was interrupted. */
bool fr_store_gather(const fastrnn_layer *layer, const fr_rows *rows, int64_t at, void *gathered, size_t *copied);
/* Copies them back after the run. It is not interrupted: all slots change, or none. */
void fr_store_scatter(const fastrnn_layer *layer, const fr_rows *rows, int64_t at, const void *gathered);

/* Arrays as in fastrnn.h for `count` slots: h (L, count, P), c (L, count, H; not of a GRU or RNN), extra (count, E). */
typedef struct fr_state_arrays {
    void *h, *c, *extra;
} fr_state_arrays;

/* Called with each vector in a slot, of `stride` elements with padding, and its address in an array, or NULL without an array. */
typedef void fr_transfer(void *vector, int64_t stride, void *element, int64_t width, size_t element_size);
void fr_store_transfer(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots,
                       const fr_state_arrays *arrays, fr_transfer *transfer);

#endif
