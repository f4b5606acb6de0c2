/* A program that tests/capi/builds.sh links with every build of the library: its results on every instruction set.
 *
 * Usage: program [only ISA]. Prints each instruction set with a hash of the bits of one call of an LSTM, a GRU and an RNN, of one
 * with float16 and one with int8 weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fastrnn.h>

enum { I = 13, H = 37, B = 5, T = 9 };

static float weights[4 * H * (H + I)], x[B * T * I], y[B * T * H];

static void fill(float *values, int count, int step)
{
    for (int i = 0; i < count; i++)
        values[i] = (float)(i * step % 97 - 48) / 151;
}

static uint64_t hash(uint64_t h, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        h = (h ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
    return h;
}

static fastrnn_status run(const char *isa, fastrnn_kind kind, fastrnn_weight_dtype weight_dtype, uint64_t *bits)
{
    const fastrnn_config config = {.struct_size = sizeof config, .kind = kind, .input_size = I, .hidden_size = H, .num_layers = 1,
                                   .weight_dtype = weight_dtype};
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weights, .weight_hh = weights + 4 * H * I};
    const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = B, .num_steps = T,
                                 .x = {.base = x, .row_stride = T * I, .step_stride = I},
                                 .y = {.base = y, .row_stride = T * H, .step_stride = H}};
    fastrnn_layer *layer = NULL;
    fastrnn_plan plan = {.struct_size = sizeof plan};
    fastrnn_status status = fastrnn_layer_create(&config, &cell, isa, NULL, &layer);
    if (!status)
        status = fastrnn_plan_make(layer, &batch, &plan);
    void *workspace = malloc(plan.workspace_size);
    if (!status)
        status = fastrnn_plan_run(&plan, workspace);
    if (!status)
        *bits = hash(*bits, y, sizeof y);
    free(workspace);
    fastrnn_layer_destroy(layer);
    return status;
}

int main(int argc, char **argv)
{
    const char *isa;
    fill(weights, 4 * H * (H + I), 31);
    fill(x, B * T * I, 17);
    if (strcmp(fastrnn_version(), FASTRNN_VERSION) != 0 || fastrnn_abi_version() != FASTRNN_ABI_VERSION)
        return puts("the library is of another version"), 1;
    for (size_t i = 0; (isa = fastrnn_isa(i)) != NULL; i++) {
        printf("%s", isa);
        for (int type = FASTRNN_WEIGHTS_FLOAT32; type <= FASTRNN_WEIGHTS_INT8; type++) {
            uint64_t bits = 14695981039346656037u;
            fastrnn_status status = FASTRNN_OK;
            for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN && !status; kind++)
                status = run(isa, (fastrnn_kind)kind, (fastrnn_weight_dtype)type, &bits);
            if (status)
                printf(" [%s]", fastrnn_last_error());
            else
                printf(" %016llx", (unsigned long long)bits);
        }
        printf("\n");
    }
    if (argc > 1 && (strcmp(fastrnn_isa(0), argv[1]) != 0 || fastrnn_isa(1)))
        return printf("the library has not %s alone\n", argv[1]), 1;
    return 0;
}
