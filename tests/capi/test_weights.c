/* Compares layers of smaller weights with float32 layers of the rounded weights, bit for bit, and checks the conversions.
 *
 * Usage: test_weights [reduced] */
#include <math.h>

#include "../../fastrnn/core/dispatch.h"
#include "../../fastrnn/core/float16.h"
#include "testing.h"

#define MOST_CELLS 4
#define NUM_HALVES (1 << 16)

static const char *const kind_names[] = {"lstm", "gru", "rnn"};

/* ---- The conversions ------------------------------------------------------------------------------------------- */

static double half_value(int bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 0x3FF;
    const double magnitude = exponent == 31 ? (fraction ? NAN : INFINITY)
                             : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                            : ldexp(fraction, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static bool equal(double a, double b) { return (isnan(a) && isnan(b)) || (a == b && !signbit(a) == !signbit(b)); }

/* Those of float16.h, for every half, every tie between two and the numbers next to ties. */
static void test_rounding(void)
{
    bool exact = true, back = true, ties = true, near = true;
    for (int bits = 0; bits < NUM_HALVES; bits++) {
        const float value = fr_float16_to_float((uint16_t)bits);
        exact &= equal(value, half_value(bits));
        back &= isnan(value) ? fr_float16_of(value) == (bits | 0x200) : fr_float16_of(value) == bits;
        if ((bits & 0x7FFF) >= FR_FLOAT16_INFINITY)
            continue;
        const bool last = (bits & 0x7FFF) == FR_FLOAT16_INFINITY - 1; /* the next one up would be 65536 */
        const double next = last ? copysign(65536, value) : half_value(bits + 1);
        const float tie = (float)((half_value(bits) + next) / 2);
        ties &= fr_float16_of(tie) == bits + bits % 2 && fr_float16_fits(tie) == !last;
        near &= fr_float16_of(nextafterf(tie, 0)) == bits && fr_float16_of(nextafterf(tie, copysignf(INFINITY, tie))) == bits + 1;
    }
    check(exact, "every half widens to its value");
    check(back, "every half is the rounding of its value");
    check(ties, "ties round to even");
    check(near, "other numbers round to the nearest");
    check(fr_float16_of(1e-45f) == 0 && fr_float16_of(-1e-38f) == 0x8000 && fr_float16_of(3e38f) == FR_FLOAT16_INFINITY,
          "the smallest and the largest numbers");
    check(fr_float16_fits(INFINITY) && fr_float16_fits(NAN) && !fr_float16_fits(-1e5f), "infinity and NaN fit");
    end_group("float16: conversions");
}

/* Every half as a weight, in the floating-point mode of a run: of one row, and of as many as need several tiles. */
static void test_every_half(const char *isa)
{
    const fr_kernels *kernels = fr_kernels_named(isa, FR_WEIGHT_FLOAT16);
    const int64_t V = kernels->vector_length, most_rows = 40;
    uint16_t *weights = aligned_alloc(64, NUM_HALVES * sizeof *weights);
    float *bias = aligned_alloc(64, NUM_HALVES * sizeof *bias), *out = aligned_alloc(64, (size_t)most_rows * NUM_HALVES * sizeof *out);
    float in[40];
    if (!weights || !bias || !out)
        exit(2);
    memset(bias, 0, NUM_HALVES * sizeof *bias);
    for (int bits = 0; bits < NUM_HALVES; bits++)
        weights[bits] = (uint16_t)bits;
    for (int64_t row = 0; row < most_rows; row++)
        in[row] = 1;
    for (int gates = 1; gates <= 4; gates++)
        for (int64_t rows = 1; rows <= most_rows; rows += most_rows - 1) {
            const int64_t blocks = NUM_HALVES / V / gates, count = blocks * gates * V;
            const fr_product_args args = {
                .rows = rows, .k = 1, .blocks = blocks, .gates = gates, .in = in, .in_stride = 1,
                .weights = {.type = FR_WEIGHT_FLOAT16, .panels = weights, .panel_stride = gates * V * (int64_t)sizeof *weights},
                .bias = bias, .out = out, .out_row_stride = NUM_HALVES, .out_block_stride = gates * V, .out_gate_stride = V,
            };
            const uint64_t mode = fastrnn_fp_flush();
            kernels->product(&args);
            fastrnn_fp_restore(mode);
            bool same = true;
            for (int64_t row = 0; row < rows; row++)
                for (int64_t i = 0; i < count; i++)
                    same &= equal(out[row * NUM_HALVES + i], half_value((int)i) + 0.0); /* the chain begins with the bias 0 */
            in_context("%s, %d gates, %d rows", isa, gates, (int)rows);
            check(same, "every half is read as its value");
        }
    free(weights);
    free(bias);
    free(out);
    end_group("%s: every half as a weight", isa);
}

/* ---- Layers ---------------------------------------------------------------------------------------------------- */

enum { W_IH, W_HH, B_IH, B_HH, W_HR, PEEPHOLE, NUM_TENSORS };

typedef struct net {
    fastrnn_config config;
    int64_t G, P, D, num_cells;
    float *given[MOST_CELLS][NUM_TENSORS], *rounded[MOST_CELLS][NUM_TENSORS]; /* NULL if the net has no such tensor */
    int64_t counts[MOST_CELLS][NUM_TENSORS];
    fastrnn_cell cells[MOST_CELLS];
} net;

static net net_make(fastrnn_config config, fastrnn_cell cell, bool bias, bool peephole)
{
    net n = {.config = config, .G = config.kind == FASTRNN_LSTM ? 4 : config.kind == FASTRNN_GRU ? 3 : 1};
    const int64_t H = config.hidden_size;
    n.P = config.proj_size ? config.proj_size : H;
    n.D = config.bidirectional ? 2 : 1;
    n.num_cells = config.num_layers * n.D;
    for (int64_t i = 0; i < n.num_cells; i++) {
        const int64_t I = i < n.D ? config.input_size : n.D * n.P;
        const int64_t counts[NUM_TENSORS] = {n.G * H * I, n.G * H * n.P, bias ? n.G * H : 0, bias ? n.G * H : 0,
                                             config.proj_size ? n.P * H : 0, peephole ? 3 * H : 0};
        memcpy(n.counts[i], counts, sizeof counts);
        n.cells[i] = cell;
        for (int j = 0; j < NUM_TENSORS; j++) {
            if (!counts[j] && j != W_IH)
                continue;
            const double bound = 1 / sqrt((double)(j == W_HR ? H : I + n.P));
            n.given[i][j] = block((size_t)counts[j] * sizeof(float));
            n.rounded[i][j] = block((size_t)counts[j] * sizeof(float));
            for (int64_t at = 0; at < counts[j]; at++) { /* some are subnormal halves */
                const float value = (float)(random_value() * (at % 7 == 3 ? 1e-5 : bound));
                n.given[i][j][at] = value;
                n.rounded[i][j][at] = j == B_IH || j == B_HH || j == PEEPHOLE ? value : fr_float16_to_float(fr_float16_of(value));
            }
        }
    }
    return n;
}

static void net_free(net *n)
{
    for (int64_t i = 0; i < n->num_cells; i++)
        for (int j = 0; j < NUM_TENSORS; j++) {
            free(n->given[i][j]);
            free(n->rounded[i][j]);
        }
}

static fastrnn_status layer_create(net *n, bool rounded, fastrnn_weight_dtype weights, const char *isa, fastrnn_layer **layer)
{
    fastrnn_config config = n->config;
    config.weight_dtype = weights;
    for (int64_t i = 0; i < n->num_cells; i++) {
        float **from = rounded ? n->rounded[i] : n->given[i];
        n->cells[i].weight_ih = from[W_IH], n->cells[i].weight_hh = from[W_HH];
        n->cells[i].bias_ih = from[B_IH], n->cells[i].bias_hh = from[B_HH];
        n->cells[i].weight_hr = from[W_HR], n->cells[i].peephole = from[PEEPHOLE];
    }
    *layer = NULL;
    return fastrnn_layer_create(&config, n->cells, isa, NULL, layer);
}

static fastrnn_layer *layer_of(net *n, bool rounded, fastrnn_weight_dtype weights, const char *isa)
{
    fastrnn_layer *layer;
    expect(layer_create(n, rounded, weights, isa, &layer), FASTRNN_OK, "a layer");
    if (!layer)
        exit(2);
    return layer;
}

static fastrnn_pool *pool; /* that batches run on */

/* y, hn and cn of a call in one block: of a batch, through a store, or of prepared steps (T = 1). */
enum { RUN, STORED, STEP, NUM_WAYS };
static float *outputs(const fastrnn_layer *layer, const net *n, int64_t B, int64_t T, int way, const float *x, const float *h0,
                      size_t *bytes)
{
    const int64_t C = n->num_cells, H = n->config.hidden_size, width = n->D * n->P;
    const int64_t y_size = B * T * width, h_size = C * B * n->P, c_size = C * B * H;
    *bytes = (size_t)(y_size + h_size + c_size) * sizeof(float);
    float *out = memset(block(*bytes), 0, *bytes);
    int64_t lengths[64], batch_sizes[64];
    for (int64_t row = 0; row < B; row++)
        lengths[row] = T - (way == STEP ? 0 : row * T / (B + 1));
    for (int64_t step = 0; step < T; step++) {
        batch_sizes[step] = 0;
        for (int64_t row = 0; row < B; row++)
            batch_sizes[step] += lengths[row] > step;
    }
    const bool lstm = n->config.kind == FASTRNN_LSTM;
    fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = B, .num_steps = T, .lengths = lengths, .batch_sizes = batch_sizes,
                           .x = {(void *)(uintptr_t)x, NULL, T * n->config.input_size, n->config.input_size},
                           .y = {out, NULL, T * width, width}, .past_end = FASTRNN_PAST_END_ZERO, .padded_steps = T,
                           .h0 = h0, .c0 = lstm ? h0 : NULL, .hn = out + y_size, .cn = lstm ? out + y_size + h_size : NULL,
                           .pool = pool};
    if (way == RUN)
        expect(run(layer, &batch), FASTRNN_OK, "a run");
    if (way == STORED)
        expect(run_stored(layer, &batch), FASTRNN_OK, "a run of a store");
    if (way == STEP) {
        void *store = store_make(layer, B, 0);
        expect(fastrnn_store_set(layer, store, B, NULL, h0, lstm ? h0 : NULL), FASTRNN_OK, "the initial states");
        fastrnn_batch steps = {.struct_size = sizeof steps, .num_rows = B, .num_steps = 1, .x = batch.x, .y = batch.y,
                               .store = store, .pool = pool};
        size_t size = 0;
        fastrnn_step *step = NULL;
        expect(fastrnn_step_size(layer, &steps, &size), FASTRNN_OK, "the size of a step");
        void *memory = block(size);
        expect(fastrnn_step_prepare(layer, &steps, 0, memory, size, &step), FASTRNN_OK, "a prepared step");
        for (int i = 0; i < 2; i++)
            expect(fastrnn_step_run(step, x, out), FASTRNN_OK, "a step");
        expect(fastrnn_store_get(layer, store, B, NULL, batch.hn, batch.cn), FASTRNN_OK, "the states");
        free(memory);
        free(store);
    }
    return out;
}

/* A float16 layer has the bits of the float32 layer of its rounded weights. */
static void check_float16(net *n, const char *isa, int64_t B, int64_t T)
{
    fastrnn_layer *small = layer_of(n, false, FASTRNN_WEIGHTS_FLOAT16, isa), *wide = layer_of(n, true, FASTRNN_WEIGHTS_FLOAT32, isa);
    const int64_t x_size = B * T * n->config.input_size, h_size = n->num_cells * B * (n->P > n->config.hidden_size ? n->P : n->config.hidden_size);
    float *x = block((size_t)x_size * sizeof *x), *h0 = block((size_t)h_size * sizeof *h0);
    for (int64_t i = 0; i < x_size; i++)
        x[i] = (float)random_value();
    for (int64_t i = 0; i < h_size; i++)
        h0[i] = (float)random_value();
    const bool streams = n->D == 1 && !n->config.reverse;
    for (int way = RUN; way < (streams ? NUM_WAYS : STORED); way++) {
        if (way == STEP && T > 1)
            continue;
        size_t bytes;
        float *found = outputs(small, n, B, T, way, x, h0, &bytes), *wanted = outputs(wide, n, B, T, way, x, h0, &bytes);
        check(!memcmp(found, wanted, bytes), way == RUN ? "the bits of a run" : way == STORED ? "of a store" : "of steps");
        free(found);
        free(wanted);
    }
    free(x);
    free(h0);
    fastrnn_layer_destroy(small);
    fastrnn_layer_destroy(wide);
}

static void test_sizes(const char *isa, fastrnn_kind kind, int step)
{
    static const int batches[] = {1, 13, 2, 4, 1, 6, 3, 40, 5, 7, 12}, sizes[] = {1, 3, 16, 0, 9, 33};
    int turn = 0;
    for (int H = 1; H <= 65; H += step)
        for (int way = 0; way < 2; way++, turn++) {
            const int64_t B = batches[turn % LENGTH(batches)], T = way ? 1 : 4, I = sizes[turn % LENGTH(sizes)];
            const int64_t P = kind == FASTRNN_LSTM && turn % 3 == 2 ? 1 + (H * 7 + turn) % 40 : 0;
            const int directions = turn % 4 == 1 ? 2 : turn % 8 == 2 ? -1 : 1;
            net n = net_make(config_of(kind, I, H, P, 1 + turn / 2 % 2, directions), standard_cell(kind), turn % 5 != 4, false);
            if (kind == FASTRNN_RNN && turn % 2)
                for (int64_t cell = 0; cell < n.num_cells; cell++)
                    n.cells[cell].options.activations[0].name = FASTRNN_RELU;
            in_context("%s %s I %d H %d P %d L %d D %d B %d T %d", isa, kind_names[kind], (int)I, H, (int)P,
                       (int)n.config.num_layers, directions, (int)B, (int)T);
            check_float16(&n, isa, B, T);
            net_free(&n);
        }
    /* more weights than chunks and groups of tiles hold, and as many that float32's are chunked, too */
    for (int B = 1; B <= 45; B += 11) {
        const int H = kind == FASTRNN_RNN ? 520 : 264;
        net n = net_make(config_of(kind, 300, H, 0, 1, 1), standard_cell(kind), true, false);
        in_context("%s %s H %d B %d", isa, kind_names[kind], H, B);
        check_float16(&n, isa, B, 2);
        net_free(&n);
    }
    end_group("%s %s: float16 has the bits of rounded float32", isa, kind_names[kind]);
}

static void test_options(const char *isa)
{
    static const int batches[] = {1, 9, 5};
    int turn = 0;
    for (int H = 1; H <= 33; H += 16)
        for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
            for (int option = 0; option < 8; option++, turn++) {
                const bool lstm = kind == FASTRNN_LSTM, all = option == 7;
                fastrnn_cell cell = standard_cell((fastrnn_kind)kind);
                cell.options.gate_clip = option == 2 || all ? 0.2 : 0;
                cell.options.cell_clip = lstm && (option == 3 || all) ? 0.3 : 0;
                cell.options.coupled = lstm && (option == 4 || all);
                cell.options.reset_before = option == 5 || all;
                const int64_t P = lstm && turn % 2 ? 5 : 0;
                cell.options.proj_clip = P && (option == 6 || all) ? 0.05 : 0;
                cell.options.activations[0].name = option == 6 ? FASTRNN_SOFTSIGN : cell.options.activations[0].name;
                net n = net_make(config_of((fastrnn_kind)kind, 3, H, P, 1 + turn % 2, 1 + turn / 3 % 2), cell, true,
                                 lstm && (option == 1 || all));
                in_context("%s %s option %d H %d", isa, kind_names[kind], option, H);
                check_float16(&n, isa, batches[turn % LENGTH(batches)], 1 + turn % 4);
                net_free(&n);
            }
    end_group("%s: float16 with peephole, clips, coupled gates, reset before the product", isa);
}

/* ---- What a layer says about its weights ----------------------------------------------------------------------- */

static void test_identity(const char *isa)
{
    net n = net_make(config_of(FASTRNN_GRU, 5, 17, 0, 2, 1), standard_cell(FASTRNN_GRU), true, false);
    for (int option = 0; option < 2; option++) {
        for (int64_t i = 0; i < n.num_cells; i++)
            n.cells[i].options.reset_before = option; /* the candidate gate's recurrent weights are a matrix of their own */
        fastrnn_layer *small = layer_of(&n, false, FASTRNN_WEIGHTS_FLOAT16, isa), *again = layer_of(&n, true, FASTRNN_WEIGHTS_FLOAT16, isa);
        fastrnn_layer *wide = layer_of(&n, true, FASTRNN_WEIGHTS_FLOAT32, isa), *given = layer_of(&n, false, FASTRNN_WEIGHTS_FLOAT32, isa);
        const uint64_t fingerprint = fastrnn_layer_fingerprint(small);
        in_context("%s option %d", isa, option);
        check(fingerprint == fastrnn_layer_fingerprint(again), "weights that round to the same have the same fingerprint");
        check(fingerprint != fastrnn_layer_fingerprint(wide), "types of weights have different fingerprints");
        check(fastrnn_layer_fingerprint(wide) != fastrnn_layer_fingerprint(given), "weights have different fingerprints");
        const char *other;
        for (size_t i = 0; (other = fastrnn_isa(i)) != NULL; i++) {
            fastrnn_layer *elsewhere = layer_of(&n, false, FASTRNN_WEIGHTS_FLOAT16, other);
            check(fingerprint == fastrnn_layer_fingerprint(elsewhere), "the fingerprint is that of every instruction set");
            fastrnn_layer_destroy(elsewhere);
        }
        bool same = true;
        for (int64_t i = 0; i < n.num_cells; i++) {
            float *memory[2] = {block((size_t)n.counts[i][W_IH] * sizeof(float)), block((size_t)n.counts[i][W_HH] * sizeof(float))};
            const fastrnn_cell_arrays arrays = {.struct_size = sizeof arrays, .weight_ih = memory[0], .weight_hh = memory[1]};
            fastrnn_cell cell = {.struct_size = sizeof cell};
            expect(fastrnn_layer_unpack(small, i, &arrays, &cell), FASTRNN_OK, "unpack");
            for (int j = W_IH; j <= W_HH; j++) {
                same &= !memcmp(memory[j], n.rounded[i][j], (size_t)n.counts[i][j] * sizeof(float));
                free(memory[j]);
            }
        }
        check(same, "unpacked: the rounded weights");
        void *store = store_make(small, 2, 0), *other_store = store_make(wide, 2, 0);
        size_t size = 0;
        expect(fastrnn_snapshot_size(small, store, 2, &size), FASTRNN_OK, "the size of a snapshot");
        void *snapshot = block(size);
        expect(fastrnn_snapshot_save(small, store, 2, NULL, snapshot), FASTRNN_OK, "a snapshot");
        expect(fastrnn_snapshot_restore(again, store, 2, NULL, snapshot, size), FASTRNN_OK, "its restoration");
        expect(fastrnn_snapshot_restore(wide, other_store, 2, NULL, snapshot, size), FASTRNN_ERROR_SNAPSHOT, "in another layer");
        free(store);
        free(other_store);
        free(snapshot);
        fastrnn_layer_destroy(small);
        fastrnn_layer_destroy(again);
        fastrnn_layer_destroy(wide);
        fastrnn_layer_destroy(given);
    }
    net_free(&n);
    n = net_make(config_of(FASTRNN_LSTM, 128, 128, 0, 1, 1), standard_cell(FASTRNN_LSTM), true, false);
    fastrnn_layer *small = layer_of(&n, false, FASTRNN_WEIGHTS_FLOAT16, isa), *wide = layer_of(&n, false, FASTRNN_WEIGHTS_FLOAT32, isa);
    const double ratio = (double)fastrnn_layer_nbytes(small) / (double)fastrnn_layer_nbytes(wide);
    in_context("%s: %.4f", isa, ratio);
    check(ratio > 0.5 && ratio < 0.505, "half the bytes, and the biases");
    fastrnn_layer_destroy(small);
    fastrnn_layer_destroy(wide);
    net_free(&n);
    end_group("%s: fingerprints, unpacking, snapshots and bytes", isa);
}

static void test_wrong_weights(void)
{
    net n = net_make(config_of(FASTRNN_LSTM, 3, 5, 2, 2, 1), standard_cell(FASTRNN_LSTM), true, true);
    fastrnn_layer *layer;
    for (int64_t i = 0; i < n.num_cells; i++)
        for (int j = 0; j < NUM_TENSORS; j++) {
            const bool is_weight = j != B_IH && j != B_HH && j != PEEPHOLE;
            const float values[] = {65519.996f, -65520, 1e30f, INFINITY, NAN};
            for (int v = 0; v < LENGTH(values); v++) {
                float *at = &n.given[i][j][n.counts[i][j] - 1];
                const float usual = *at;
                *at = values[v];
                in_context("cell %d tensor %d value %g", (int)i, j, (double)values[v]);
                const bool wrong = is_weight && (v == 1 || v == 2);
                expect(layer_create(&n, false, FASTRNN_WEIGHTS_FLOAT16, NULL, &layer), wrong ? FASTRNN_ERROR_ARGUMENT : FASTRNN_OK,
                       "a weight that is out of range, or is not");
                fastrnn_layer_destroy(layer);
                expect(layer_create(&n, false, FASTRNN_WEIGHTS_FLOAT32, NULL, &layer), FASTRNN_OK, "the same in float32");
                fastrnn_layer_destroy(layer);
                *at = usual;
            }
        }
    expect(layer_create(&n, false, (fastrnn_weight_dtype)(FASTRNN_WEIGHTS_INT8 + 1), NULL, &layer), FASTRNN_ERROR_ARGUMENT, "an unknown type");
    expect(layer_create(&n, false, (fastrnn_weight_dtype)-1, NULL, &layer), FASTRNN_ERROR_ARGUMENT, "an unknown type");
    expect(layer_create(&n, false, FASTRNN_WEIGHTS_FLOAT16, "mmx", &layer), FASTRNN_ERROR_ISA, "an unknown instruction set");
    fastrnn_config config = n.config;
    config.weight_dtype = FASTRNN_WEIGHTS_FLOAT16;
    const fastrnn_blas blas = {.struct_size = sizeof blas};
    expect(fastrnn_layer_create(&config, n.cells, NULL, &blas, &layer), FASTRNN_ERROR_ARGUMENT, "float16 and BLAS");
    config.dtype = FASTRNN_FLOAT64;
    expect(fastrnn_layer_create(&config, n.cells, NULL, NULL, &layer), FASTRNN_ERROR_ARGUMENT, "float16 and double");
    net_free(&n);
    end_group("refused weights");
}

int main(int argc, char **argv)
{
    const bool reduced = argc > 1 && !strcmp(argv[1], "reduced"), emulated = argc > 2 && !strcmp(argv[2], "emulated");
    const char *isa;
    test_rounding();
    for (size_t i = 0; (isa = fastrnn_isa(i)) != NULL; i++) {
        if (emulated && !strcmp(isa, "scalar")) /* minutes; it runs elsewhere without an emulator */
            continue;
        test_every_half(isa);
        for (int threads = 1; threads <= 3; threads += 2) {
            if (threads > 1) {
                check(fastrnn_pool_create(threads, &pool) == FASTRNN_OK, "pool");
                fastrnn_pool_set_threshold(pool, 0);
            }
            for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
                test_sizes(isa, (fastrnn_kind)kind, reduced || threads > 1 ? 8 : 1);
            test_options(isa);
            fastrnn_pool_destroy(pool);
            pool = NULL;
        }
        test_identity(isa);
    }
    test_wrong_weights();
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
