/* A stream's memory: a header, for each layer both h buffers and c, then a mark for each row. */
#ifndef FR_STREAM_H
#define FR_STREAM_H

#include "layer.h"
#include "sequence.h"

/* Whether these can be a stream of so many rows and its layer. */
bool fr_stream_is_valid(const fastrnn_layer *layer, const void *stream);
int64_t fr_stream_num_rows(const void *stream);

/* The h that the next step reads. */
static inline void *fr_stream_h(const fr_state *state) { return state->h[state->parity]; }

/* The layers in turn, from layer 0 on: each call sets `state` to the next one. */
fr_arena fr_stream_layers(const void *stream);
void fr_stream_layer(const fastrnn_layer *layer, int64_t layer_index, int64_t num_rows, const void *stream, fr_arena *layers,
                     fr_state *state);

/* Every layer has taken so many steps more. */
void fr_stream_advance(void *stream, int64_t num_steps);

/* Rows slots[0], slots[1], ... of a stream to a new one in memory of fastrnn_stream_size's for so many rows, and back.
 * A row's h returns to the buffer that it came from, so that one parity holds for all rows. gather refuses slots that are
 * out of range or named twice, and can be interrupted. */
fastrnn_status fr_stream_gather(const fastrnn_layer *layer, const void *stream, const fastrnn_batch *batch, void *gathered);
void fr_stream_scatter(const fastrnn_layer *layer, const void *gathered, int64_t count, const int64_t *slots, void *stream);

#endif
