/* The state store: the states of rows between calls, each row in a slot of its own. fastrnn.h has the contract.
 *
 * Memory: header, parity of each slot (1 byte), a mark of each slot (1 byte; zero between calls), for each layer two buffers of h
 * (capacity, h_stride) and two of c (capacity, c_stride), then the extra numbers (capacity, extra_size). A slot's state is in the
 * buffers of its parity, which changes with every run of the slot. */
#ifndef FR_STORE_H
#define FR_STORE_H

#include "layer.h"
#include "sequence.h"

/* Whether aligned memory has the header of a store of this layer. */
bool fr_store_is_of(const fastrnn_layer *layer, const void *store);
/* Whether these slots exist and are distinct. marks (capacity) are zero before and after. */
bool fr_slots_are_distinct(const int64_t *slots, int64_t count, int64_t capacity, unsigned char *marks);
/* Whether these `count` slots exist and are distinct; with slots NULL, whether the store has `count` slots. */
bool fr_store_has_slots(void *store, int64_t count, const int64_t *slots);

fastrnn_status fr_store_check(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots);
int64_t fr_store_capacity(const void *store);
int64_t fr_store_extra_size(const void *store);

/* The states of a layer's slots: in its store, or in that of a model. */
typedef struct fr_states {
    unsigned char *parities; /* (capacity); NULL: no store */
    char *buffers;           /* aligned */
    int64_t capacity;
} fr_states;
fr_states fr_store_states(const void *store);
/* Adds the bytes of the buffers; false if that overflows. */
bool fr_states_add_bytes(size_t *total, const fastrnn_layer *layer, int64_t capacity);
/* Sets *slots to those of one layer of the stack. */
void fr_states_slots(const fr_states *states, const fastrnn_layer *layer, int64_t layer_index, fr_slots *slots);
/* After a run has succeeded: the rows' new states become those of their slots. */
void fr_states_advance(unsigned char *parities, const fr_rows *rows);

/* Arrays as in fastrnn.h for `count` slots: h (L, count, P), c (L, count, H; not of a GRU or RNN), extra (count, E). */
typedef struct fr_state_arrays {
    void *h, *c, *extra;
} fr_state_arrays;

/* Called with each vector in a slot, of `stride` elements with padding, and its address in an array, or NULL without an array. */
typedef void fr_transfer(void *vector, int64_t stride, void *element, int64_t width, size_t element_size);
void fr_store_transfer(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots,
                       const fr_state_arrays *arrays, fr_transfer *transfer);

#endif
