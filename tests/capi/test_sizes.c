/* Every instruction set against the scalar code, over all sizes from 1 to 65: of the cells' units and inputs, with weights of each type.
 *
 * One row and several, and a first step from a given state. The sums have one order in all of them, so that the results differ by the
 * rounding of products and of activations. With int8 weights a last bit of a state can change the rounding of the next step's inputs,
 * so that those layers run one step. */
#include "testing.h"

enum { MOST = 65, ROWS = 5, STEPS = 4 };

static float weights[8 * MOST * MOST], state[2][ROWS * MOST], x[ROWS * STEPS * MOST];

typedef struct result {
    float y[ROWS * STEPS * MOST], hn[ROWS * MOST], cn[ROWS * MOST];
} result;

static void compute(const char *isa, const fastrnn_config *config, int64_t rows, int64_t steps, result *r)
{
    const int64_t H = config->hidden_size, I = config->input_size;
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weights, .weight_hh = weights + 4 * H * I, .bias_ih = weights,
                               .bias_hh = weights + 1};
    const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = rows, .num_steps = steps,
                                 .x = {.base = x, .row_stride = steps * I, .step_stride = I},
                                 .y = {.base = r->y, .row_stride = steps * H, .step_stride = H}, .h0 = state[0],
                                 .c0 = config->kind == FASTRNN_LSTM ? state[1] : NULL, .hn = r->hn,
                                 .cn = config->kind == FASTRNN_LSTM ? r->cn : NULL};
    fastrnn_layer *layer = NULL;
    memset(r, 0, sizeof *r);
    expect(fastrnn_layer_create(config, &cell, isa, NULL, &layer), FASTRNN_OK, "layer");
    expect(run(layer, &batch), FASTRNN_OK, "run");
    fastrnn_layer_destroy(layer);
}

static double largest_difference(const float *a, const float *b, int count)
{
    double most = 0;
    for (int i = 0; i < count; i++)
        most = fabs((double)a[i] - b[i]) <= most ? most : fabs((double)a[i] - b[i]); /* NaN, too */
    return most;
}

static void test_size(const char *isa, fastrnn_kind kind, fastrnn_weight_dtype dtype, int64_t size)
{
    static result found, wanted;
    const int64_t other = size * 29 % MOST + 1; /* each of 1 to 65 once */
    const fastrnn_config config = {.struct_size = sizeof config, .kind = kind, .input_size = other, .hidden_size = size,
                                   .num_layers = 1, .weight_dtype = dtype};
    for (int64_t rows = 1; rows <= ROWS; rows += ROWS - 1) {
        const int64_t steps = dtype == FASTRNN_WEIGHTS_INT8 ? 1 : STEPS;
        in_context("%s, kind %d, weights %d, H %d, I %d, B %d", isa, (int)kind, (int)dtype, (int)size, (int)other, (int)rows);
        compute(isa, &config, rows, steps, &found);
        compute("scalar", &config, rows, steps, &wanted);
        const int count = (int)(sizeof(result) / sizeof(float));
        const double difference = largest_difference((const float *)&found, (const float *)&wanted, count);
        worst_ratio = difference / 1e-5 > worst_ratio ? difference / 1e-5 : worst_ratio;
        check(difference <= 1e-5, "as the scalar code");
        check(wanted.y[0] != 0 && wanted.hn[size - 1] != 0, "the results are not zero");
    }
}

int main(void)
{
    const char *isa;
    for (int i = 0; i < LENGTH(weights); i++)
        weights[i] = (float)(0.5 * random_value());
    for (int i = 0; i < LENGTH(x); i++)
        x[i] = (float)(2 * random_value());
    for (int i = 0; i < ROWS * MOST; i++) {
        state[0][i] = (float)random_value();
        state[1][i] = (float)(2 * random_value());
    }
    for (size_t i = 0; (isa = fastrnn_isa(i)) != NULL; i++) {
        for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
            for (int dtype = FASTRNN_WEIGHTS_FLOAT32; dtype <= FASTRNN_WEIGHTS_INT8; dtype++)
                for (int64_t size = 1; size <= MOST; size++)
                    test_size(isa, (fastrnn_kind)kind, (fastrnn_weight_dtype)dtype, size);
        end_group("%s against scalar, sizes 1 to %d", isa, MOST);
    }
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
