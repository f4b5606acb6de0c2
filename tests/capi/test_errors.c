/* The texts of fastrnn_last_error: each failure names the argument, what was found and what was wanted. Runs leave the text alone. */
#include "testing.h"

static void says(fastrnn_status found, fastrnn_status wanted, const char *text)
{
    in_context("%s", fastrnn_last_error());
    check(found == wanted && strcmp(fastrnn_last_error(), text) == 0, text);
}

int main(void)
{
    static float weights[4 * 3 * 3], x[8], y[8];
    fastrnn_config config = {.struct_size = sizeof config, .kind = FASTRNN_LSTM, .input_size = 3, .hidden_size = 3, .num_layers = 1};
    const fastrnn_config right = config;
    fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weights, .weight_hh = weights};
    fastrnn_layer *layer = NULL;
    check(strcmp(fastrnn_last_error(), "") == 0, "no failure yet");
    config.hidden_size = 0;
    config.num_layers = -1;
    says(fastrnn_layer_create(&config, &cell, NULL, NULL, &layer), FASTRNN_ERROR_ARGUMENT,
         "config->hidden_size is 0, wanted 1 to 4194304; config->num_layers is -1, wanted 1 to 65536");
    cell.weight_hh = NULL;
    cell.options.cell_clip = -1;
    says(fastrnn_layer_create(&right, &cell, NULL, NULL, &layer), FASTRNN_ERROR_ARGUMENT,
         "cells[0].weight_hh is NULL; cells[0].options.cell_clip is negative or NaN");
    cell = (fastrnn_cell){.struct_size = sizeof cell, .weight_ih = weights, .weight_hh = weights};
    says(fastrnn_layer_create(&right, &cell, "mmx", NULL, &layer), FASTRNN_ERROR_ISA,
         "isa is mmx: it is unknown, or this processor or this build does not have it");
    says(fastrnn_layer_create(&right, &cell, NULL, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "layer is NULL");
    config = right;
    config.struct_size = 3;
    says(fastrnn_layer_create(&config, &cell, NULL, NULL, &layer), FASTRNN_ERROR_ARGUMENT,
         "config is NULL, or its struct_size is wrong, or it sets a member that version " FASTRNN_VERSION " does not know");
    expect(fastrnn_layer_create(&right, &cell, NULL, NULL, &layer), FASTRNN_OK, "layer");

    fastrnn_plan plan = {.struct_size = sizeof plan};
    const int64_t lengths[] = {2, 1, 2}, batch_sizes[] = {3, 2}, slots[] = {0, 7};
    fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = 3, .num_steps = 2, .lengths = lengths, .batch_sizes = batch_sizes};
    says(fastrnn_plan_make(layer, &batch, &plan), FASTRNN_ERROR_ARGUMENT,
         "lengths[2] is 2, but the row before it has 1: wanted the longest rows first");
    batch.num_steps = 5;
    says(fastrnn_plan_make(layer, &batch, &plan), FASTRNN_ERROR_ARGUMENT, "lengths[0] is 2, but num_steps is 5");
    batch.lengths = NULL;
    says(fastrnn_plan_make(layer, &batch, &plan), FASTRNN_ERROR_ARGUMENT,
         "lengths is NULL, wanted lengths and batch_sizes, or neither");

    size_t size;
    expect(fastrnn_store_size(layer, 2, 0, &size), FASTRNN_OK, "size of a store");
    void *store = aligned_alloc(64, (size + 63) / 64 * 64);
    says(fastrnn_store_init(layer, 2, 0, (char *)store + 4), FASTRNN_ERROR_ARGUMENT, "store is NULL or not aligned to 64 bytes");
    memset(store, 0, size);
    says(fastrnn_store_get(layer, store, 2, NULL, x, y), FASTRNN_ERROR_STORE,
         "store is NULL, not initialized, or of another layer, model or instruction set");
    expect(fastrnn_store_init(layer, 2, 0, store), FASTRNN_OK, "store");
    says(fastrnn_store_set(layer, store, 2, slots, NULL, NULL), FASTRNN_ERROR_ARGUMENT,
         "slots[1] is 7, but the store's capacity is 2");
    batch = (fastrnn_batch){.struct_size = sizeof batch, .num_rows = 2, .num_steps = 3, .store = store};
    says(fastrnn_step_size(layer, &batch, &size), FASTRNN_ERROR_ARGUMENT, "num_steps is 3, wanted 1");

    fastrnn_model *model = NULL;
    const fastrnn_op ops[] = {
        {.struct_size = sizeof *ops, .kind = FASTRNN_OP_LAYER, .config = &right, .cells = &cell},
        {.struct_size = sizeof *ops, .kind = FASTRNN_OP_LINEAR, .input_size = 4, .output_size = 2, .weight = weights},
    };
    says(fastrnn_model_create(ops, 2, NULL, &model), FASTRNN_ERROR_ARGUMENT,
         "ops[1] takes vectors of 4 elements, but the op before it gives 3");
    says(fastrnn_model_load_memory("{}", 2, NULL, &model), FASTRNN_ERROR_FILE,
         "is no safetensors file: its header does not end inside its 2 bytes");

    says(fastrnn_plan_run(NULL, NULL), FASTRNN_ERROR_ARGUMENT, "is no safetensors file: its header does not end inside its 2 bytes");
    says(fastrnn_step_run(NULL, x, y), FASTRNN_ERROR_ARGUMENT, "is no safetensors file: its header does not end inside its 2 bytes");
    char path[1300];
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = 0;
    expect(fastrnn_model_load(path, NULL, &model), FASTRNN_ERROR_FILE, "no such file");
    const char *text = fastrnn_last_error();
    check(strlen(text) == 1023 && strcmp(text + 1020, "...") == 0, "a long text is cut");
    for (int status = FASTRNN_OK; status <= FASTRNN_ERROR_FILE + 1; status++)
        check(fastrnn_status_message((fastrnn_status)status)[0] != 0, "every status has a message");
    fastrnn_layer_destroy(layer);
    free(store);
    end_group("texts of errors");
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
