/* A small LSTM from C: one ragged batch, then the first step of a live stream. */
#include <stdio.h>
#include <stdlib.h>

#include "fastrnn.h"

enum { I = 2, H = 3, B = 3, T = 4 };

int main(void)
{
    float weight_ih[4 * H * I], weight_hh[4 * H * H], x[B * T * I], y[B * T * H] = {0};
    for (int i = 0; i < 4 * H * I; i++) weight_ih[i] = 0.1f * (float)(i % 5 - 1);
    for (int i = 0; i < 4 * H * H; i++) weight_hh[i] = 0.1f * (float)(i % 7 - 3);
    for (int i = 0; i < B * T * I; i++) x[i] = 0.5f + (float)(i % 3);

    const fastrnn_config config = {.struct_size = sizeof config, .kind = FASTRNN_LSTM, .input_size = I, .hidden_size = H,
                                   .num_layers = 1};
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weight_ih, .weight_hh = weight_hh};
    const int64_t lengths[B] = {4, 2, 1}, batch_sizes[T] = {3, 2, 1, 1}; /* longest row first */
    const fastrnn_view in = {.base = x, .row_stride = T * I, .step_stride = I};
    const fastrnn_view out = {.base = y, .row_stride = T * H, .step_stride = H};
    const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = B, .num_steps = T, .lengths = lengths,
                                 .batch_sizes = batch_sizes, .x = in, .y = out,
                                 .past_end = FASTRNN_PAST_END_ZERO, .padded_steps = T};
    fastrnn_layer *layer = NULL;
    fastrnn_plan plan = {.struct_size = sizeof plan}, step_plan = plan;
    size_t store_bytes = 0;
    fastrnn_status status = fastrnn_layer_create(&config, &cell, NULL, NULL, &layer);
    if (!status) status = fastrnn_plan_make(layer, &batch, &plan);
    void *workspace = malloc(plan.workspace_size);
    if (!status) status = fastrnn_plan_run(&plan, workspace);
    for (int row = 0; row < B; row++) printf("row %d ends at %.6f\n", row, y[(row * T + lengths[row] - 1) * H]);

    if (!status) status = fastrnn_store_size(layer, 1, 0, &store_bytes);
    void *store = aligned_alloc(64, store_bytes); /* a multiple of 64 */
    const fastrnn_batch step = {.struct_size = sizeof step, .num_rows = 1, .num_steps = 1, .x = in, .y = out, .store = store};
    if (!status) status = fastrnn_store_init(layer, 1, 0, store);
    if (!status) status = fastrnn_plan_make(layer, &step, &step_plan);
    void *step_workspace = malloc(step_plan.workspace_size);
    if (!status) status = fastrnn_plan_run(&step_plan, step_workspace);
    printf("a stream's first step gives %.6f\n%s\n", y[0], fastrnn_status_message(status));
    free(store), free(workspace), free(step_workspace), fastrnn_layer_destroy(layer);
    return status != FASTRNN_OK;
}
