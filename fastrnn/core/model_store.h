/* The state store of a model's streams. fastrnn.h has the contract.
 *
 * Memory: header, parity and mark of each slot (1 byte each; marks are zero between calls), then for each op that has some the
 * states of the slots: of a layer as in its own store, of a convolution two buffers of tails (capacity, tail_steps, I). A run changes
 * the parities after its last stage. */
#ifndef FR_MODEL_STORE_H
#define FR_MODEL_STORE_H

#include "model.h"
#include "store.h"

/* FASTRNN_ERROR_STORE: not a store of this model. FASTRNN_ERROR_ARGUMENT: slots do not exist, or are not distinct. */
fastrnn_status fr_model_store_check(const fastrnn_model *model, const void *store, int64_t count, const int64_t *slots);

/* The states of an op that is a layer, and the tails of one that has tail_steps. */
fr_states fr_model_store_states(const fastrnn_model *model, const void *store, int64_t op);
fr_tails fr_model_store_tails(const fastrnn_model *model, const void *store, int64_t op, const int64_t *slots);
/* After a run has succeeded: the rows' new states become those of their slots. */
void fr_model_store_advance(void *store, const fr_rows *rows);

#endif
