/* A small LSTM from C: one ragged batch, then one step of a live stream. */
#include <stdio.h>
#include <stdlib.h>

#include "fastrnn.h"

enum { INPUT = 2, HIDDEN = 3, ROWS = 3, STEPS = 4 };

int main(void)
{
    float weight_ih[4 * HIDDEN * INPUT], weight_hh[4 * HIDDEN * HIDDEN], x[ROWS * STEPS * INPUT], y[ROWS * STEPS * HIDDEN] = {0};
    for (int i = 0; i < 4 * HIDDEN * INPUT; i++) weight_ih[i] = 0.1f * (float)(i % 5 - 2);
    for (int i = 0; i < 4 * HIDDEN * HIDDEN; i++) weight_hh[i] = 0.1f * (float)(i % 7 - 3);
    for (int i = 0; i < ROWS * STEPS * INPUT; i++) x[i] = (float)(i % 3 - 1);

    const fastrnn_config config = {.kind = FASTRNN_LSTM, .input_size = INPUT, .hidden_size = HIDDEN, .num_layers = 1};
    const fastrnn_cell cell = {.weight_ih = weight_ih, .weight_hh = weight_hh,
                               .activations = {{.name = FASTRNN_SIGMOID}, {.name = FASTRNN_SIGMOID}, {.name = FASTRNN_TANH},
                                               {.name = FASTRNN_SIGMOID}, {.name = FASTRNN_TANH}}};
    const int64_t lengths[ROWS] = {4, 2, 1}, batch_sizes[STEPS] = {3, 2, 1, 1}; /* longest row first */
    const fastrnn_view in = {.base = x, .row_stride = STEPS * INPUT, .step_stride = INPUT};
    const fastrnn_view out = {.base = y, .row_stride = STEPS * HIDDEN, .step_stride = HIDDEN};
    const fastrnn_batch batch = {.num_rows = ROWS, .num_steps = STEPS, .lengths = lengths, .batch_sizes = batch_sizes, .x = in, .y = out};
    const fastrnn_batch step = {.num_rows = 1, .num_steps = 1, .x = in, .y = out};
    const fastrnn_boundary zero = {0};
    fastrnn_model *model = NULL;
    size_t bytes = 0, stream_bytes = 0;
    fastrnn_status status = fastrnn_model_create(&config, &cell, NULL, NULL, &model);
    if (!status) status = fastrnn_workspace_size(model, ROWS, 4 + 2 + 1, &bytes);
    if (!status) status = fastrnn_stream_size(model, 1, &stream_bytes);
    void *workspace = malloc(bytes), *stream = aligned_alloc(64, (stream_bytes + 63) / 64 * 64);
    if (!status) status = fastrnn_run(model, &batch, &zero, workspace);
    for (int row = 0; row < ROWS; row++) printf("row %d ends at %.6f\n", row, y[(row * STEPS + lengths[row] - 1) * HIDDEN]);
    if (!status) status = fastrnn_stream_set(model, 1, stream, &zero);
    if (!status) status = fastrnn_stream_run(model, &step, stream, workspace);
    printf("a stream's first step gives %.6f: %s\n", y[0], fastrnn_status_message(status));
    free(stream), free(workspace), fastrnn_model_destroy(model);
    return status != FASTRNN_OK;
}
