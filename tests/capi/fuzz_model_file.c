/* A libFuzzer target for the reader of files: any bytes are a model or are refused, and a model that is made runs.
 *
 *     tests/capi/fuzz.sh SECONDS */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fastrnn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(const fastrnn_model *model)
{
    fastrnn_model_info info = {.struct_size = sizeof info};
    if (fastrnn_model_describe(model, &info) || info.input_size > 64 || info.output_size > 64)
        return;
    enum { T = 3 };
    const int64_t steps = fastrnn_model_output_steps(model, T);
    if (steps > 64)
        return;
    void *x = calloc((size_t)(T * info.input_size), sizeof(int64_t));
    float *y = malloc((size_t)(steps * info.output_size + 1) * sizeof *y);
    const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = 1, .num_steps = T,
                                 .x = {.base = x, .row_stride = T * info.input_size, .step_stride = info.input_size},
                                 .y = {.base = y, .row_stride = steps * info.output_size, .step_stride = info.output_size}};
    fastrnn_model_plan *plan;
    size_t bytes;
    if (fastrnn_model_plan_size(model, &batch, &bytes) == FASTRNN_OK && bytes < (size_t)1 << 24) {
        void *memory = malloc(bytes);
        if (fastrnn_model_plan_make(model, &batch, memory, bytes, &plan) != FASTRNN_OK || fastrnn_model_plan_run(plan) != FASTRNN_OK)
            abort();
        free(memory);
    }
    free(x), free(y);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fastrnn_model *model = NULL;
    uint8_t *copy = malloc(size ? size : 1); /* of exactly this size, so that the sanitizer sees a byte too many */
    memcpy(copy, data, size);
    const fastrnn_status status = fastrnn_model_load_memory(copy, size, NULL, &model);
    free(copy);
    if (status == FASTRNN_OK)
        run(model);
    else if (!*fastrnn_last_error())
        abort();
    fastrnn_model_destroy(model);
    return 0;
}
