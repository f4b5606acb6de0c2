/* The state store of a model's streams. fastrnn.h has the contract.
 *
 * Memory: header, a mark of each slot (1 byte; zero between calls), then the states: for each op that has some, for each kind of
 * vectors, (count, capacity, width) floats. The same layout, with a slot for each of B rows, holds the states during a run. */
#ifndef FR_MODEL_STORE_H
#define FR_MODEL_STORE_H

#include "model.h"

/* FASTRNN_ERROR_STORE: not a store of this model. FASTRNN_ERROR_ARGUMENT: slots do not exist, or are not distinct. */
fastrnn_status fr_model_store_check(const fastrnn_model *model, const void *store, int64_t count, const int64_t *slots);

/* Copies the states of slots to rows 0, 1, ... of `states`, or back. With slots NULL, of all. False if the poll stopped it, which
 * it does only on the way there, so that all slots change or none. */
bool fr_model_store_gather(const fastrnn_model *model, const void *store, int64_t count, const int64_t *slots, float *states,
                           fr_poll *poll);
void fr_model_store_scatter(const fastrnn_model *model, void *store, int64_t count, const int64_t *slots, float *states);

#endif
