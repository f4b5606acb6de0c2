/* A stream's memory: a header, then for each layer both h buffers and c. */
#ifndef FR_STREAM_H
#define FR_STREAM_H

#include "model.h"
#include "sequence.h"

bool fr_stream_is_valid(const fastrnn_model *model, const void *stream);

/* The layers in turn, from layer 0 on: each call sets `state` to the next one. */
fr_arena fr_stream_layers(const void *stream);
void fr_stream_layer(const fastrnn_model *model, int64_t layer, int64_t num_rows, const void *stream, fr_arena *layers,
                     fr_state *state);

/* Every layer has taken so many steps more. */
void fr_stream_advance(void *stream, int64_t num_steps);

#endif
