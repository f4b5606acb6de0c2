/* Layers of int8 weights. The integers of every instruction set are compared with those of a naive implementation exactly, and each
 * step with naive arithmetic on the layer's own previous state: the roundings of one step's floats must not add up to another integer
 * in the next. That rows, threads and calls change no bit is tested in test_core.c.
 *
 * Usage: test_int8 [reduced] */
#include <float.h>
#include <math.h>

#include "../../fastrnn/core/dispatch.h"
#include "../../fastrnn/core/int8_weights.h"
#include "testing.h"

static float *floats(int64_t count) { return block((size_t)count * sizeof(float)); }

static float *random_floats(int64_t count, double bound)
{
    float *values = floats(count);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(bound * random_value());
    return values;
}

/* A block of exactly this size, aligned for kernels. */
static void *aligned_block(int64_t bytes)
{
    void *memory = aligned_alloc(64, (size_t)fr_round_up(bytes > 0 ? bytes : 1, 64));
    if (!memory)
        exit(2);
    return memset(memory, POISON, (size_t)fr_round_up(bytes > 0 ? bytes : 1, 64));
}

/* ---- The naive implementation ---------------------------------------------------------------------------------- */

/* A row of reals as scale * q, as kernels/int8.h says. Reads subnormal numbers as zero, as kernels do. */
static float naive_quantize(const float *x, int64_t k, int32_t *q)
{
    float largest = 127 * FLT_MIN;
    bool finite = true;
    for (int64_t i = 0; i < k; i++) {
        finite &= isfinite(x[i]) != 0;
        largest = fmaxf(largest, fabsf(x[i]));
    }
    const float factor = 127 / largest;
    for (int64_t i = 0; i < k; i++)
        q[i] = finite && fabsf(x[i]) >= FLT_MIN ? (int32_t)rint((double)(x[i] * factor)) : 0;
    return finite ? largest / 127 : NAN;
}

static int64_t naive_sum(const int32_t *a, const int32_t *b, int64_t k)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += a[i] * b[i];
    return sum;
}

/* ---- Weights --------------------------------------------------------------------------------------------------- */

static void test_weights(void)
{
    const double bounds[] = {1, 1e-3, 1e30, FLT_MAX, 127 * FLT_MIN, FLT_MIN, 1e-40, 0};
    for (int i = 0; i < LENGTH(bounds); i++)
        for (int64_t k = 0; k < 40; k++) {
            float *row = random_floats(k, bounds[i]), *again = floats(k);
            if (k)
                row[k / 2] = (float)bounds[i] * (k % 2 ? -1 : 1);
            const float scale = fr_int8_scale(row, k);
            bool exact = true, close = true, same = true;
            int largest = 0;
            for (int64_t j = 0; j < k; j++) {
                const int q = fr_int8_of(row[j], scale);
                again[j] = scale * (float)q;
                exact &= (double)again[j] == (double)scale * q && q >= -127 && q <= 127;
                close &= fabs((double)row[j] - (double)scale * q) <= (double)scale * (0.5 + 1e-3);
                largest = abs(q) > largest ? abs(q) : largest;
            }
            const float scale_again = fr_int8_scale(again, k);
            for (int64_t j = 0; j < k; j++)
                same &= fr_int8_of(again[j], scale_again) == fr_int8_of(row[j], scale);
            in_context("bound %g, k %d", bounds[i], (int)k);
            check(scale >= FLT_MIN && exact, "scale * q is exact, and scale is normal");
            check(close, "a weight is within half a scale");
            check(largest == (k && bounds[i] > 127 * FLT_MIN ? 127 : largest), "the largest weight is 127");
            check(same && scale == scale_again, "rounding a rounded row does not change it");
            free(row);
            free(again);
        }
    end_group("int8: weights");
}

/* ---- Products -------------------------------------------------------------------------------------------------- */

/* Row `row` of x: usual numbers, or one of what a row may hold. */
static void fill_row(float *x, int64_t k, int64_t row)
{
    for (int64_t i = 0; i < k; i++)
        x[i] = (float)(3 * random_value());
    for (int64_t i = 0; i < k; i++)
        switch (row % 11) {
        case 2: x[i] = 0; break;
        case 3: x[i] *= 1e-40f; break;           /* subnormal */
        case 4: x[i] *= i % 2 ? 1e-37f : 1e-45f; break; /* a scale of a zero or subnormal row, but values that are not */
        case 5: x[i] *= 1e36f; break;
        case 6: x[i] = (float)(i % 2 ? -127 : 127) * (i % 3 ? 0.5f : 1); break;
        case 7: x[i] = i == k - 1 ? NAN : x[i]; break;
        case 8: x[i] = i == 0 ? -INFINITY : x[i]; break;
        case 9: x[i] = (float)((int)(random_bits() % 255) - 127) + 0.5f * (i > 0); break; /* ties */
        default: break;
        }
}

/* The sums of a kernel's product are those of naive integers: with weights of scale 1 and no bias, out is (float)sum * scale of the row. */
static void check_product(const fr_kernels *kernels, int64_t rows, int64_t k, int64_t blocks, int gates, bool extreme)
{
    const int64_t V = kernels->vector_length, columns = fr_round_up(k, 4), units = blocks * V;
    uint8_t *panels = aligned_block(columns * gates * units);
    float *scales = aligned_block(gates * units * 4), *bias = aligned_block(gates * units * 4), *x = floats(rows * k);
    float *out = aligned_block(rows * gates * units * 4);
    char *scratch = aligned_block(fr_int8_scratch(rows, 0, k));
    int32_t *weights = block((size_t)(gates * units * k) * sizeof *weights), *q = block((size_t)k * sizeof *q);
    memset(panels, kernels->weight_offset, (size_t)(columns * gates * units));
    for (int64_t i = 0; i < gates * units; i++) {
        scales[i] = 1;
        bias[i] = 0;
    }
    for (int gate = 0; gate < gates; gate++)
        for (int64_t unit = 0; unit < units; unit++)
            for (int64_t i = 0; i < k; i++) {
                const int32_t weight = extreme ? (unit % 2 ? 127 : -127) : (int32_t)(random_bits() % 255) - 127;
                weights[(gate * units + unit) * k + i] = weight;
                panels[(((unit / V * columns + i / 4 * 4) * gates + gate * 4) * V) + unit % V * 4 + i % 4] =
                    (uint8_t)(weight + kernels->weight_offset);
            }
    for (int64_t row = 0; row < rows; row++)
        fill_row(x + row * k, k, extreme ? 6 : row + k);
    const fr_product_args args = {
        .rows = rows, .k = k, .blocks = blocks, .gates = gates, .in = x, .in_stride = k,
        .weights = {.type = FR_WEIGHT_INT8, .panels = panels, .panel_stride = columns * gates * V, .scales = scales}, .bias = bias,
        .out = out, .out_row_stride = gates * units, .out_block_stride = gates * V, .out_gate_stride = V, .scratch = scratch,
    };
    const uint64_t mode = fastrnn_fp_flush();
    kernels->product(&args);
    fastrnn_fp_restore(mode);
    bool same = true;
    for (int64_t row = 0; row < rows; row++) {
        const float scale = naive_quantize(x + row * k, k, q);
        for (int gate = 0; gate < gates; gate++)
            for (int64_t unit = 0; unit < units; unit++) {
                const float found = out[row * gates * units + (unit / V * gates + gate) * V + unit % V];
                const int64_t sum = naive_sum(weights + (gate * units + unit) * k, q, k);
                const float wanted = (float)sum * scale;
                same &= found == wanted || (isnan(found) && isnan(scale)) || (fabsf(wanted) < FLT_MIN && found == 0);
                same &= sum >= -INT32_MAX && sum <= INT32_MAX;
            }
    }
    in_context("%s rows %d k %d blocks %d gates %d", kernels->isa, (int)rows, (int)k, (int)blocks, gates);
    check(same, "the sums are those of naive integers");
    void *const memory[] = {panels, scales, bias, x, out, scratch, weights, q};
    for (int i = 0; i < LENGTH(memory); i++)
        free(memory[i]);
}

static void test_products(const fr_kernels *kernels, bool reduced)
{
    const int rows[] = {1, 2, 3, 4, 5, 6, 7, 13, 26}, ks[] = {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 18, 31, 33, 65, 100}, blocks[] = {1, 2, 3, 5, 9};
    int turn = 0;
    for (int i = 0; i < LENGTH(rows); i++)
        for (int j = 0; j < LENGTH(ks); j++)
            for (int gates = 1; gates <= 4; gates++)
                for (int b = 0; b < LENGTH(blocks); b++)
                    if (!reduced || turn++ % 7 == 0)
                        check_product(kernels, rows[i], ks[j], blocks[b], gates, false);
    for (int gates = 1; gates <= 4; gates += 3)
        check_product(kernels, 3, FR_INT8_MOST_COLUMNS, 1, gates, true);
    end_group("%s: int8 products have the sums of integers", kernels->isa);
}

/* ---- Steps ----------------------------------------------------------------------------------------------------- */

enum { MOST_LAYERS = 2, MOST_ROWS = 13 };
static const char *const kind_names[] = {"lstm", "gru", "rnn"};

/* One matrix as integers, with a scale for each row. */
typedef struct matrix {
    int64_t rows, k;
    int32_t *q;
    float *scales;
} matrix;

static matrix matrix_of(const float *weight, int64_t rows, int64_t k)
{
    matrix m = {rows, k, block((size_t)(rows * k) * sizeof(int32_t)), floats(rows)};
    for (int64_t row = 0; row < rows; row++) {
        m.scales[row] = fr_int8_scale(weight + row * k, k);
        for (int64_t i = 0; i < k; i++)
            m.q[row * k + i] = fr_int8_of(weight[row * k + i], m.scales[row]);
    }
    return m;
}

static void matrix_free(matrix *m)
{
    free(m->q);
    free(m->scales);
}

/* out[rows] += m . x */
static void add_product(const matrix *m, const float *x, double *out)
{
    int32_t *q = block((size_t)m->k * sizeof *q);
    const float scale = naive_quantize(x, m->k, q);
    for (int64_t row = 0; row < m->rows; row++)
        out[row] += (double)((float)naive_sum(m->q + row * m->k, q, m->k) * scale) * (double)m->scales[row];
    free(q);
}

typedef struct net {
    fastrnn_config config;
    int64_t G, P;
    fastrnn_cell cells[MOST_LAYERS];
    float *given[MOST_LAYERS][6];
    matrix ih[MOST_LAYERS], hh[MOST_LAYERS], hr[MOST_LAYERS];
} net;

static int64_t width_of(const net *n, int64_t layer) { return layer ? n->P : n->config.input_size; }

static net net_make(fastrnn_config config, fastrnn_cell cell, bool peephole)
{
    net n = {.config = config, .G = config.kind == FASTRNN_LSTM ? 4 : config.kind == FASTRNN_GRU ? 3 : 1};
    const int64_t H = config.hidden_size;
    n.P = config.proj_size ? config.proj_size : H;
    n.config.weight_dtype = FASTRNN_WEIGHTS_INT8;
    for (int64_t i = 0; i < config.num_layers; i++) {
        const int64_t I = width_of(&n, i);
        const int64_t counts[] = {n.G * H * I, n.G * H * n.P, n.G * H, n.G * H, config.proj_size ? n.P * H : 0, peephole ? 3 * H : 0};
        for (int j = 0; j < LENGTH(counts); j++)
            n.given[i][j] = random_floats(counts[j], 1 / sqrt(j == 4 ? (double)H : (double)(I + n.P + 2)));
        for (int64_t k = 0; k < I; k++)
            n.given[i][0][k] = 0; /* a row of zeros */
        for (int64_t k = 0; k < n.P; k++)
            n.given[i][1][(n.G * H - 1) * n.P + k] *= 1e-38f; /* a row whose scale would be subnormal */
        n.cells[i] = cell;
        n.cells[i].weight_ih = n.given[i][0], n.cells[i].weight_hh = n.given[i][1];
        n.cells[i].bias_ih = n.given[i][2], n.cells[i].bias_hh = n.given[i][3];
        n.cells[i].weight_hr = config.proj_size ? n.given[i][4] : NULL;
        n.cells[i].peephole = peephole ? n.given[i][5] : NULL;
        n.ih[i] = matrix_of(n.given[i][0], n.G * H, I);
        n.hh[i] = matrix_of(n.given[i][1], n.G * H, n.P);
        if (config.proj_size)
            n.hr[i] = matrix_of(n.given[i][4], n.P, H);
    }
    return n;
}

static void net_free(net *n)
{
    for (int64_t i = 0; i < n->config.num_layers; i++) {
        for (int j = 0; j < LENGTH(n->given[i]); j++)
            free(n->given[i][j]);
        matrix_free(&n->ih[i]);
        matrix_free(&n->hh[i]);
        matrix_free(&n->hr[i]);
    }
}

static double activation(fastrnn_activation f, double x)
{
    switch (f.name) {
    case FASTRNN_SIGMOID: return 1 / (1 + exp(-x));
    case FASTRNN_TANH: return tanh(x);
    case FASTRNN_RELU: return x > 0 ? x : 0;
    case FASTRNN_SOFTPLUS: return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
    default: return NAN; /* the tests use no other */
    }
}

static double clipped(double x, double bound) { return bound > 0 ? fmin(fmax(x, -bound), bound) : x; }

/* One step of one row of a layer: h (P) and c (H) from the layer's old state. Rounded to float where a kernel stores a vector that it
 * quantises within the step: the GRU's r * h, and the LSTM's output before the projection. */
static void naive_step(const net *n, int64_t layer, const float *x, const float *h, const float *c, double *new_h, double *new_c)
{
    const int64_t H = n->config.hidden_size, G = n->G;
    const fastrnn_cell_options *o = &n->cells[layer].options;
    const float *peephole = n->cells[layer].peephole;
    double *in = block((size_t)(G * H) * sizeof *in), *rec = block((size_t)(G * H) * sizeof *rec);
    float *hidden = floats(H);
    for (int64_t g = 0; g < G * H; g++) {
        in[g] = n->given[layer][2][g];
        rec[g] = n->given[layer][3][g];
    }
    add_product(&n->ih[layer], x, in);
    add_product(&n->hh[layer], h, rec);
#define GATE(index, value) activation(o->activations[index], clipped(value, o->gate_clip))
#define PEEP(gate, value) (peephole ? (double)peephole[(gate) * H + u] * (value) : 0)
    for (int64_t u = 0; n->config.kind == FASTRNN_RNN && u < H; u++)
        new_h[u] = GATE(0, in[u] + rec[u]);
    for (int64_t u = 0; n->config.kind == FASTRNN_LSTM && u < H; u++) {
        const double old = (double)c[u], i = GATE(0, in[u] + rec[u] + PEEP(0, old));
        const double f = o->coupled ? 1 - i : GATE(1, in[H + u] + rec[H + u] + PEEP(1, old));
        new_c[u] = clipped(f * old + i * GATE(2, in[2 * H + u] + rec[2 * H + u]), o->cell_clip);
        const double out = GATE(3, in[3 * H + u] + rec[3 * H + u] + PEEP(2, new_c[u])) * activation(o->activations[4], new_c[u]);
        hidden[u] = (float)out;
        if (!n->config.proj_size)
            new_h[u] = out;
    }
    if (n->config.proj_size) {
        memset(new_h, 0, (size_t)n->P * sizeof *new_h);
        add_product(&n->hr[layer], hidden, new_h);
        for (int64_t p = 0; p < n->P; p++)
            new_h[p] = clipped(new_h[p], o->proj_clip);
    }
    if (n->config.kind == FASTRNN_GRU) {
        for (int64_t u = 0; u < H; u++)
            hidden[u] = (float)(GATE(0, in[u] + rec[u]) * (double)h[u]);
        if (o->reset_before) {
            const matrix candidate = {H, H, n->hh[layer].q + 2 * H * H, n->hh[layer].scales + 2 * H};
            for (int64_t u = 0; u < H; u++)
                rec[2 * H + u] = n->given[layer][3][2 * H + u];
            add_product(&candidate, hidden, rec + 2 * H);
        }
        for (int64_t u = 0; u < H; u++) {
            const double r = o->reset_before ? 1 : GATE(0, in[u] + rec[u]), z = GATE(1, in[H + u] + rec[H + u]);
            const double candidate = GATE(2, in[2 * H + u] + r * rec[2 * H + u]);
            new_h[u] = (1 - z) * candidate + z * (double)h[u];
        }
    }
#undef GATE
#undef PEEP
    free(in);
    free(rec);
    free(hidden);
}

static bool near(const float *found, const double *wanted, int64_t count, double tolerance)
{
    bool ok = true;
    for (int64_t i = 0; i < count; i++) {
        const double ratio = fabs((double)found[i] - wanted[i]) / (tolerance * fmax(1, fabs(wanted[i])));
        ok &= ratio <= 1;
        worst_ratio = fmax(worst_ratio, ratio);
    }
    return ok;
}

/* Steps of a stream, each compared with naive arithmetic on the state before it. `inside`: a vector is quantised that was computed
 * within the step, so that a float's last bit may decide on an integer: of 127 parts, times a weight. */
static void check_steps(const net *n, const char *isa, int64_t B, bool inside)
{
    const int64_t I = n->config.input_size, H = n->config.hidden_size, P = n->P, L = n->config.num_layers;
    const bool lstm = n->config.kind == FASTRNN_LSTM;
    fastrnn_layer *layer = NULL;
    expect(fastrnn_layer_create(&n->config, n->cells, isa, NULL, &layer), FASTRNN_OK, "a layer");
    void *store = store_make(layer, B, 0);
    float *x = random_floats(B * I, 2), *y = floats(B * P), *h = random_floats(L * B * P, 1.5), *c = random_floats(L * B * H, 1.5);
    float *new_h = floats(L * B * P), *new_c = floats(L * B * H);
    double *wanted_h = block((size_t)P * sizeof *wanted_h), *wanted_c = block((size_t)H * sizeof *wanted_c);
    memset(h, 0, (size_t)P * sizeof *h); /* row 0 of the first layer */
    expect(fastrnn_store_set(layer, store, B, NULL, h, lstm ? c : NULL), FASTRNN_OK, "store set");
    const double tolerance = inside ? 0.02 : 4 * (sqrt((double)(I + P)) + 8) * 0x1p-24;
    bool h_near = true, c_near = true, y_same = true;
    for (int step = 0; step < 4; step++) {
        const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = B, .num_steps = 1, .store = store,
                                     .x = {x, NULL, I, I}, .y = {y, NULL, P, P}};
        expect(run(layer, &batch), FASTRNN_OK, "a step");
        expect(fastrnn_store_get(layer, store, B, NULL, new_h, lstm ? new_c : NULL), FASTRNN_OK, "store get");
        for (int64_t l = 0; l < L; l++)
            for (int64_t row = 0; row < B; row++) {
                const int64_t at = l * B + row;
                naive_step(n, l, l ? new_h + ((l - 1) * B + row) * P : x + row * I, h + at * P, c + at * H, wanted_h, wanted_c);
                h_near &= near(new_h + at * P, wanted_h, P, tolerance);
                c_near &= !lstm || near(new_c + at * H, wanted_c, H, tolerance);
            }
        y_same &= !memcmp(y, new_h + (L - 1) * B * P, (size_t)(B * P) * sizeof *y);
        memcpy(h, new_h, (size_t)(L * B * P) * sizeof *h);
        memcpy(c, new_c, (size_t)(L * B * H) * sizeof *c);
        for (int64_t i = 0; i < B * I; i++)
            x[i] = (float)(2 * random_value());
    }
    check(h_near && c_near, "a step is that of naive integers");
    check(y_same, "y is the last layer's h");
    void *const memory[] = {store, x, y, h, c, new_h, new_c, wanted_h, wanted_c};
    for (int i = 0; i < LENGTH(memory); i++)
        free(memory[i]);
    fastrnn_layer_destroy(layer);
}

static void test_steps(const char *isa, bool reduced)
{
    const int batches[] = {1, 2, 13, 3, 1, 5, 7};
    int turn = 0;
    for (int H = 1; H <= 65; H += reduced ? 7 : 1)
        for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++, turn++) {
            const int64_t I = (H * 5 + turn) % 40, P = kind == FASTRNN_LSTM && turn % 4 == 3 ? 1 + H / 2 : 0;
            fastrnn_cell cell = standard_cell((fastrnn_kind)kind);
            if (kind == FASTRNN_RNN && turn % 2)
                cell.options.activations[0].name = FASTRNN_RELU;
            net n = net_make(config_of((fastrnn_kind)kind, I, H, P, 1 + turn % 2, 1), cell, false);
            const int B = batches[turn % LENGTH(batches)];
            in_context("%s %s I %d H %d P %d L %d B %d", isa, kind_names[kind], (int)I, H, (int)P, (int)n.config.num_layers, B);
            check_steps(&n, isa, B, P != 0);
            net_free(&n);
        }
    end_group("%s: int8 steps", isa);
    for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
        for (int option = 0; option < 7; option++, turn++) {
            const bool lstm = kind == FASTRNN_LSTM, all = option == 6;
            fastrnn_cell cell = standard_cell((fastrnn_kind)kind);
            cell.options.gate_clip = option == 1 || all ? 0.2 : 0;
            cell.options.cell_clip = lstm && (option == 2 || all) ? 0.3 : 0;
            cell.options.coupled = lstm && (option == 3 || all);
            cell.options.reset_before = option == 4 || all;
            if (option == 5) /* whose output is above 1, and is not 0 in the padding */
                cell.options.activations[lstm ? 4 : kind == FASTRNN_GRU ? 2 : 0].name = FASTRNN_SOFTPLUS;
            net n = net_make(config_of((fastrnn_kind)kind, 6, 19, lstm && option % 2 ? 7 : 0, 2, 1), cell, lstm && (option == 0 || all));
            in_context("%s %s option %d", isa, kind_names[kind], option);
            check_steps(&n, isa, batches[turn % LENGTH(batches)], n.config.proj_size || cell.options.reset_before);
            net_free(&n);
        }
    end_group("%s: int8 steps with options", isa);
}

/* A NaN or an infinity in a row's input comes out as NaN in that row only, and does not stay in the others. */
static void test_isolation(const char *isa)
{
    for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
        for (int option = 0; option < 3; option++) {
            enum { B = 13, T = 3, I = 9, H = 19 };
            fastrnn_cell cell = standard_cell((fastrnn_kind)kind);
            cell.options.gate_clip = option == 1 ? 0.5 : 0;
            net n = net_make(config_of((fastrnn_kind)kind, I, H, kind == FASTRNN_LSTM && option == 2 ? 5 : 0, 2, 1), cell, false);
            fastrnn_layer *layer = NULL;
            expect(fastrnn_layer_create(&n.config, n.cells, isa, NULL, &layer), FASTRNN_OK, "a layer");
            float *x = random_floats(B * T * I, 2), *y = floats(B * T * n.P), *clean = floats(B * T * n.P);
            fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = B, .num_steps = T, .x = {x, NULL, T * I, I},
                                   .y = {clean, NULL, T * n.P, n.P}};
            expect(run(layer, &batch), FASTRNN_OK, "a run");
            x[(2 * T + 1) * I + 4] = NAN;
            x[(7 * T + 1) * I] = INFINITY;
            x[(8 * T + 1) * I + 8] = -INFINITY;
            batch.y.base = y;
            expect(run(layer, &batch), FASTRNN_OK, "a run");
            bool same = true, nan = true;
            for (int row = 0; row < B; row++) {
                const bool bad = row == 2 || row == 7 || row == 8;
                const int64_t at = row * T * n.P, good = (bad ? 1 : T) * n.P;
                same &= !memcmp(y + at, clean + at, (size_t)good * sizeof *y);
                for (int64_t i = good; i < T * n.P; i++)
                    nan &= isnan(y[at + i]) != 0;
            }
            in_context("%s %s option %d", isa, kind_names[kind], option);
            check(same, "a NaN touches no other row and no earlier step");
            check(nan, "and comes out as NaN");
            free(x);
            free(y);
            free(clean);
            fastrnn_layer_destroy(layer);
            net_free(&n);
        }
    end_group("%s: int8 rows with NaN and infinity", isa);
}

/* ---- Layers ---------------------------------------------------------------------------------------------------- */

static void test_bytes(const char *isa)
{
    net n = net_make(config_of(FASTRNN_LSTM, 128, 128, 0, 1, 1), standard_cell(FASTRNN_LSTM), false);
    fastrnn_layer *small = NULL, *wide = NULL;
    expect(fastrnn_layer_create(&n.config, n.cells, isa, NULL, &small), FASTRNN_OK, "int8");
    n.config.weight_dtype = FASTRNN_WEIGHTS_FLOAT32;
    expect(fastrnn_layer_create(&n.config, n.cells, isa, NULL, &wide), FASTRNN_OK, "float32");
    const double ratio = (double)fastrnn_layer_nbytes(small) / (double)fastrnn_layer_nbytes(wide);
    in_context("%s: %.4f", isa, ratio);
    check(ratio > 0.25 && ratio < 0.265, "a quarter of the bytes, and scales and biases");
    check(!strcmp(fastrnn_layer_isa(small), isa), "the instruction set is the named one");
    fastrnn_layer_destroy(small);
    fastrnn_layer_destroy(wide);
    net_free(&n);
    end_group("%s: bytes of int8 weights", isa);
}

static void test_wrong_layers(void)
{
    net n = net_make(config_of(FASTRNN_LSTM, 3, 5, 2, 2, 1), standard_cell(FASTRNN_LSTM), true);
    fastrnn_layer *layer = NULL;
    const float wrong[] = {INFINITY, -INFINITY, NAN};
    for (int64_t i = 0; i < 2; i++)
        for (int j = 0; j < 6; j++)
            for (int v = 0; v < LENGTH(wrong); v++) {
                const float usual = n.given[i][j][1];
                n.given[i][j][1] = wrong[v];
                in_context("layer %d tensor %d value %g", (int)i, j, (double)wrong[v]);
                const bool is_weight = j < 2 || j == 4;
                expect(fastrnn_layer_create(&n.config, n.cells, NULL, NULL, &layer), is_weight ? FASTRNN_ERROR_ARGUMENT : FASTRNN_OK,
                       "a weight, bias or peephole that is not finite");
                fastrnn_layer_destroy(is_weight ? NULL : layer);
                n.given[i][j][1] = usual;
            }
    net_free(&n);
    for (int more = 0; more < 2; more++) {
        net long_row = net_make(config_of(FASTRNN_RNN, FR_INT8_MOST_COLUMNS + more, 1, 0, 1, 1), standard_cell(FASTRNN_RNN), false);
        in_context("%d more columns", more);
        expect(fastrnn_layer_create(&long_row.config, long_row.cells, NULL, NULL, &layer), more ? FASTRNN_ERROR_ARGUMENT : FASTRNN_OK,
               "sums that could overflow");
        fastrnn_layer_destroy(more ? NULL : layer);
        net_free(&long_row);
    }
    end_group("refused int8 layers");
}

/* A name takes the best table that is not faster than it. */
static void test_names(void)
{
    const fr_kernels *kernels;
    for (size_t i = 0; (kernels = fr_kernels_at(i, FR_WEIGHT_INT8)) != NULL; i++) {
        in_context("%s", kernels->isa);
        check(fr_kernels_named(kernels->isa, FR_WEIGHT_INT8) == kernels, "a name is that of its table");
        check(fr_kernels_named(kernels->isa, FR_WEIGHT_FLOAT32) != NULL, "every name has a float32 table");
    }
    for (size_t i = 0; (kernels = fr_kernels_at(i, FR_WEIGHT_FLOAT32)) != NULL; i++) {
        const fr_kernels *int8 = fr_kernels_named(kernels->isa, FR_WEIGHT_INT8);
        check(int8 && !strcmp(int8->isa, kernels->isa), "a float32 table's name has an int8 table");
    }
    check(!fr_kernels_named("mmx", FR_WEIGHT_INT8), "an unknown name");
    end_group("names of int8's instruction sets");
}

int main(int argc, char **argv)
{
    const bool reduced = argc > 1 && !strcmp(argv[1], "reduced");
    const fr_kernels *kernels;
    test_weights();
    for (size_t i = 0; (kernels = fr_kernels_at(i, FR_WEIGHT_INT8)) != NULL; i++) {
        test_products(kernels, reduced);
        test_steps(kernels->isa, reduced);
        test_isolation(kernels->isa);
        test_bytes(kernels->isa);
    }
    test_names();
    test_wrong_layers();
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
