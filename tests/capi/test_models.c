/* Models: every op compared with a plain implementation in double, and equality of bits whoever shares the batch.
 *
 * Usage: test_models [reduced] [emulated]. Every array that the core sees is a heap block of exactly its size, filled with a poison pattern
 * if the core writes it; what it must not read is NaN, or an id that does not exist. run.sh makes the linker wrap the allocator and
 * the core's clock.
 *
 * Chains of random ops are run op by op: the model of the first k ops, then that of the first k + 1. What the last op adds is
 * compared with the plain implementation of that op alone, of the same float inputs, so that the tolerances are a few units in
 * the last place. Recurrent layers are compared, bit by bit, with the layer itself.
 */
#define _POSIX_C_SOURCE 200809L

#include <limits.h>
#include <unistd.h>

#include "testing.h"
#include "wrapped.h"

#define MOST_ROWS 9
#define MOST_OPS 7
#define MOST_CELLS 4
#define MOST_ARRAYS (6 * MOST_CELLS * MOST_OPS)
#define UNIT 0x1p-24 /* the largest relative error of rounding to float */

static double larger(double a, double b) { return a > b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t below(int64_t end) { return (int64_t)(random_bits() % (uint64_t)end); }

/* ---- Ragged rows ----------------------------------------------------------------------------------------------- */

/* Rows of vectors of floats, or of ids, each row in a block of its own. */
typedef struct table {
    int64_t B, width;
    bool ids;
    int64_t lengths[MOST_ROWS];
    void *rows[MOST_ROWS];
} table;

static size_t element(const table *t) { return t->ids ? sizeof(int64_t) : sizeof(float); }
static size_t row_bytes(const table *t, int64_t row) { return (size_t)(t->lengths[row] * t->width) * element(t); }

static table table_make(int64_t B, int64_t width, bool ids, const int64_t *lengths)
{
    table t = {.B = B, .width = width, .ids = ids};
    for (int64_t row = 0; row < B; row++) {
        t.lengths[row] = lengths[row];
        t.rows[row] = block(row_bytes(&t, row));
    }
    return t;
}

static void table_free(table *t)
{
    for (int64_t row = 0; row < t->B; row++)
        free(t->rows[row]);
}

static void table_fill(table *t, int64_t num_ids)
{
    for (int64_t row = 0; row < t->B; row++)
        for (int64_t i = 0; i < t->lengths[row] * t->width; i++)
            if (t->ids)
                ((int64_t *)t->rows[row])[i] = below(num_ids);
            else
                ((float *)t->rows[row])[i] = (float)(2 * random_value());
}

/* Rows chosen[0], chosen[1], ... from step first[i] on, length[i] steps. */
static table table_part(const table *t, int64_t count, const int64_t *chosen, const int64_t *first, const int64_t *length)
{
    table part = table_make(count, t->width, t->ids, length);
    for (int64_t i = 0; i < count; i++)
        memcpy(part.rows[i], (char *)t->rows[chosen[i]] + (size_t)(first[i] * t->width) * element(t), row_bytes(&part, i));
    return part;
}

static table table_row(const table *t, int64_t row)
{
    const int64_t start = 0;
    return table_part(t, 1, &row, &start, &t->lengths[row]);
}

static bool row_is(const table *t, int64_t row, const table *wanted, int64_t wanted_row)
{
    return t->lengths[row] == wanted->lengths[wanted_row] && !memcmp(t->rows[row], wanted->rows[wanted_row], row_bytes(t, row));
}

static bool table_is(const table *t, const table *wanted)
{
    bool same = t->B == wanted->B && t->width == wanted->width;
    for (int64_t row = 0; same && row < t->B; row++)
        same = row_is(t, row, wanted, row);
    return same;
}

/* Ragged lengths with ties, ones and zeros, in any order; the longest is T. */
static void random_lengths(int64_t B, int64_t T, bool ragged, int64_t *lengths)
{
    for (int64_t row = 0; row < B; row++)
        lengths[row] = ragged ? below(T + 1) : T;
    lengths[below(B)] = T;
    if (ragged && B > 3)
        lengths[1] = lengths[2];
}

/* ---- Chains of ops --------------------------------------------------------------------------------------------- */

typedef struct chain {
    int count;
    fastrnn_op ops[MOST_OPS];
    fastrnn_config configs[MOST_OPS];
    fastrnn_cell cells[MOST_OPS][MOST_CELLS];
    int64_t widths[MOST_OPS + 1]; /* of x, and after each op */
    int num_arrays;
    void *arrays[MOST_ARRAYS];
} chain;

static float *random_array(chain *c, int64_t count, double bound)
{
    float *values = block((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(bound * random_value());
    return c->arrays[c->num_arrays++] = values;
}

static chain *chain_make(int64_t width)
{
    chain *c = block(sizeof *c);
    memset(c, 0, sizeof *c);
    c->widths[0] = width;
    return c;
}

static void chain_free(chain *c)
{
    for (int i = 0; i < c->num_arrays; i++)
        free(c->arrays[i]);
    free(c);
}

static int64_t width_of(const chain *c) { return c->widths[c->count]; }

static fastrnn_op *add(chain *c, fastrnn_op_kind kind, int64_t output_size)
{
    fastrnn_op *op = &c->ops[c->count];
    *op = (fastrnn_op){.struct_size = sizeof *op, .kind = kind, .input_size = kind == FASTRNN_OP_LAYER ? 0 : width_of(c)};
    if (kind == FASTRNN_OP_EMBEDDING || kind == FASTRNN_OP_LINEAR || kind == FASTRNN_OP_CONV1D)
        op->output_size = output_size;
    c->widths[++c->count] = output_size;
    return op;
}

static void add_plain(chain *c, fastrnn_op_kind kind) { add(c, kind, width_of(c)); }

static void add_embedding(chain *c, int64_t num_ids, int64_t width)
{
    fastrnn_op *op = add(c, FASTRNN_OP_EMBEDDING, width);
    op->input_size = num_ids;
    op->weight = random_array(c, num_ids * width, 2);
}

static void add_linear(chain *c, int64_t outputs, bool bias)
{
    const int64_t inputs = width_of(c);
    fastrnn_op *op = add(c, FASTRNN_OP_LINEAR, outputs);
    op->weight = random_array(c, outputs * inputs, 2 / sqrt((double)inputs));
    op->bias = bias ? random_array(c, outputs, 1) : NULL;
}

static fastrnn_op *add_conv(chain *c, int64_t outputs, int64_t kernel, bool bias)
{
    const int64_t inputs = width_of(c);
    fastrnn_op *op = add(c, FASTRNN_OP_CONV1D, outputs);
    op->kernel_size = kernel;
    op->weight = random_array(c, outputs * inputs * kernel, 2 / sqrt((double)(inputs * kernel)));
    op->bias = bias ? random_array(c, outputs, 1) : NULL;
    return op;
}

static void add_causal_conv(chain *c, int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation)
{
    fastrnn_op *op = add_conv(c, outputs, kernel, true);
    op->stride = stride;
    op->dilation = dilation;
    op->padding_left = (kernel - 1) * dilation;
}

static void add_factors(chain *c, fastrnn_op_kind kind, bool weight, bool bias)
{
    fastrnn_op *op = add(c, kind, width_of(c));
    op->weight = weight ? random_array(c, width_of(c), 2) : NULL;
    op->bias = bias ? random_array(c, width_of(c), 1) : NULL;
    op->eps = kind == FASTRNN_OP_LAYER_NORM ? 1e-5 : 0;
}

static void add_activation(chain *c, int name)
{
    fastrnn_op *op = add(c, FASTRNN_OP_ACTIVATION, width_of(c));
    int defaults;
    fastrnn_activation_info((size_t)name, &op->activation, &defaults);
    if (!defaults)
        op->activation.alpha = 1.5, op->activation.beta = 0.5;
}

static void add_layer(chain *c, fastrnn_kind kind, int64_t H, int64_t P, int64_t L, int directions)
{
    const int i = c->count;
    const int64_t G = kind == FASTRNN_LSTM ? 4 : kind == FASTRNN_GRU ? 3 : 1, D = directions == 2 ? 2 : 1, out = P ? P : H;
    c->configs[i] = config_of(kind, width_of(c), H, P, L, directions);
    for (int64_t cell = 0; cell < L * D; cell++) {
        const int64_t I = cell < D ? width_of(c) : D * out;
        const double bound = 1 / sqrt((double)(I + out));
        c->cells[i][cell] = (fastrnn_cell){.struct_size = sizeof(fastrnn_cell), .weight_ih = random_array(c, G * H * I, bound),
                                           .weight_hh = random_array(c, G * H * out, bound), .bias_ih = random_array(c, G * H, 1),
                                           .weight_hr = P ? random_array(c, P * H, bound) : NULL};
    }
    fastrnn_op *op = add(c, FASTRNN_OP_LAYER, D * out);
    op->config = &c->configs[i];
    op->cells = c->cells[i];
}

static fastrnn_model *model_make(const chain *c, int count, const char *isa)
{
    fastrnn_model *model = NULL;
    const fastrnn_status status = fastrnn_model_create(c->ops, count, isa, &model);
    check(status == FASTRNN_OK, fastrnn_status_message(status));
    if (!model)
        exit(2);
    return model;
}

static fastrnn_model_info info_of(const fastrnn_model *model)
{
    fastrnn_model_info info = {.struct_size = sizeof info};
    check(fastrnn_model_describe(model, &info) == FASTRNN_OK, "describe");
    return info;
}

/* ---- The plain implementation of each op ----------------------------------------------------------------------- */

static const float *vector(const table *t, int64_t row, int64_t step) { return (const float *)t->rows[row] + step * t->width; }

/* bias + weight x, and the sum of the absolute values of the terms. */
static double naive_product(const float *weight, int64_t stride, const float *x, int64_t count, double start, double *terms)
{
    for (int64_t i = 0; i < count; i++) {
        start += (double)weight[i * stride] * (double)x[i];
        *terms += fabs((double)weight[i * stride] * (double)x[i]);
    }
    return start;
}

typedef struct element_of {
    double value, tolerance; /* tolerance 0: equal */
} element_of;

static element_of naive_conv(const fastrnn_op *op, const table *x, int64_t row, int64_t step, int64_t o)
{
    const int64_t I = op->input_size, K = op->kernel_size, dilation = op->dilation ? op->dilation : 1;
    const double bias = op->bias ? (double)((const float *)op->bias)[o] : 0;
    double sum = bias, terms = fabs(bias);
    for (int64_t k = 0; k < K; k++) {
        const int64_t time = step * (op->stride ? op->stride : 1) + k * dilation - op->padding_left;
        if (time >= 0 && time < x->lengths[row])
            sum = naive_product((const float *)op->weight + o * I * K + k, K, vector(x, row, time), I, sum, &terms);
    }
    return (element_of){sum, (2 + 2 * sqrt((double)(I * K))) * UNIT * terms};
}

static element_of naive_norm(const fastrnn_op *op, const float *x, int64_t i)
{
    const int64_t C = op->input_size;
    const float *weight = op->weight, *bias = op->bias;
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < C; j++)
        mean += (double)x[j] / (double)C;
    for (int64_t j = 0; j < C; j++)
        variance += ((double)x[j] - mean) * ((double)x[j] - mean) / (double)C;
    const double scaled = ((double)x[i] - mean) / sqrt(variance + op->eps) * (weight ? (double)weight[i] : 1);
    const double shift = bias ? (double)bias[i] : 0;
    return (element_of){scaled + shift, 8 * UNIT * (fabs(scaled) + fabs(shift) + 1)};
}

static element_of naive_softmax(const fastrnn_op *op, const float *x, int64_t i)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < op->input_size; j++)
        largest = larger(largest, (double)x[j]);
    for (int64_t j = 0; j < op->input_size; j++)
        sum += exp((double)x[j] - largest);
    const double distance = largest - (double)x[i];
    if (op->kind == FASTRNN_OP_LOG_SOFTMAX)
        return (element_of){-distance - log(sum), 4 * UNIT * (distance + log(sum) + 1)};
    return (element_of){exp(-distance) / sum, (8 + distance) * UNIT * exp(-distance) / sum + 1e-37};
}

/* Element i of the vector of a row at a step after the op, from its inputs x. `layer`: that before FASTRNN_OP_FINAL. */
static element_of naive_element(const fastrnn_op *op, const fastrnn_config *layer, const table *x, int64_t row, int64_t step,
                                int64_t i)
{
    const int64_t length = x->lengths[row];
    const float *weight = op->weight, *bias = op->bias;
    const float *here = x->ids || step >= length ? NULL : vector(x, row, step);
    double terms = 0, sum = 0;
    switch (op->kind) {
    case FASTRNN_OP_LAYER: break;
    case FASTRNN_OP_EMBEDDING:
        return (element_of){(double)weight[((const int64_t *)x->rows[row])[step] * op->output_size + i], 0};
    case FASTRNN_OP_LINEAR:
        terms = bias ? fabs((double)bias[i]) : 0;
        sum = naive_product(weight + i * op->input_size, 1, here, op->input_size, bias ? (double)bias[i] : 0, &terms);
        return (element_of){sum, (2 + 2 * sqrt((double)op->input_size)) * UNIT * terms};
    case FASTRNN_OP_CONV1D: return naive_conv(op, x, row, step, i);
    case FASTRNN_OP_LAYER_NORM: return naive_norm(op, here, i);
    case FASTRNN_OP_SCALE:
        sum = (double)weight[i] * (double)here[i];
        terms = bias ? (double)bias[i] : 0;
        return (element_of){sum + terms, 2 * UNIT * (fabs(sum) + fabs(terms))};
    case FASTRNN_OP_ACTIVATION:
        sum = naive_activation(op->activation, (double)here[i]);
        return (element_of){sum, 8 * UNIT * larger(1, fabs(sum))};
    case FASTRNN_OP_SOFTMAX:
    case FASTRNN_OP_LOG_SOFTMAX: return naive_softmax(op, here, i);
    case FASTRNN_OP_REVERSE: return (element_of){(double)vector(x, row, length - 1 - step)[i], 0};
    case FASTRNN_OP_LAST: return (element_of){length ? (double)vector(x, row, length - 1)[i] : 0, 0};
    case FASTRNN_OP_FIRST: return (element_of){length ? (double)vector(x, row, 0)[i] : 0, 0};
    case FASTRNN_OP_FINAL: {
        const bool at_start = layer->reverse || (layer->bidirectional && i >= op->input_size / 2);
        return (element_of){length ? (double)vector(x, row, at_start ? 0 : length - 1)[i] : 0, 0};
    }
    case FASTRNN_OP_MEAN:
        for (int64_t t = 0; t < length; t++) {
            sum += (double)vector(x, row, t)[i] / (double)length;
            terms += fabs((double)vector(x, row, t)[i]) / (double)length;
        }
        return (element_of){sum, UNIT * (fabs(sum) + 1e-6 * terms)};
    case FASTRNN_OP_MAX:
        sum = length ? -INFINITY : 0;
        for (int64_t t = 0; t < length; t++)
            sum = larger(sum, (double)vector(x, row, t)[i]);
        return (element_of){sum, 0};
    }
    return (element_of){NAN, 0};
}

static bool pools(fastrnn_op_kind kind) { return kind >= FASTRNN_OP_LAST && kind <= FASTRNN_OP_FINAL; }

static int64_t naive_steps(const fastrnn_op *op, int64_t steps)
{
    if (pools(op->kind))
        return 1;
    if (op->kind != FASTRNN_OP_CONV1D || steps == 0)
        return steps;
    const int64_t dilation = op->dilation ? op->dilation : 1, stride = op->stride ? op->stride : 1;
    int64_t count = 0; /* windows that fit */
    while (count * stride + (op->kernel_size - 1) * dilation < steps + op->padding_left + op->padding_right)
        count++;
    return count;
}

/* Checks the outputs y of one op with inputs x. */
static void check_op(const chain *c, int index, const table *x, const table *y, const char *isa)
{
    const fastrnn_op *op = &c->ops[index];
    bool lengths = true, near = true;
    if (op->kind == FASTRNN_OP_LAYER) {
        fastrnn_layer *layer = NULL;
        expect(fastrnn_layer_create(op->config, op->cells, isa, NULL, &layer), FASTRNN_OK, "the layer alone");
        for (int64_t row = 0; row < x->B; row++) {
            float *wanted = block(row_bytes(y, row));
            const fastrnn_view in = {.base = x->rows[row], .step_stride = x->width}, out = {.base = wanted, .step_stride = y->width};
            const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = 1, .num_steps = x->lengths[row], .x = in, .y = out};
            expect(run(layer, &batch), FASTRNN_OK, "the layer alone");
            near = near && x->lengths[row] == y->lengths[row] && !memcmp(wanted, y->rows[row], row_bytes(y, row));
            free(wanted);
        }
        fastrnn_layer_destroy(layer);
        check(near, "a layer has the bits that it has alone");
        return;
    }
    for (int64_t row = 0; row < x->B; row++) {
        lengths = lengths && y->lengths[row] == naive_steps(op, x->lengths[row]);
        for (int64_t step = 0; lengths && step < y->lengths[row]; step++)
            for (int64_t i = 0; i < y->width; i++) {
                const element_of wanted = naive_element(op, index ? c->ops[index - 1].config : NULL, x, row, step, i);
                const double error = fabs((double)vector(y, row, step)[i] - wanted.value);
                near = near && error <= wanted.tolerance;
                if (wanted.tolerance > 0)
                    worst_ratio = fmax(worst_ratio, error / wanted.tolerance);
            }
    }
    check(lengths, "the number of steps");
    check(near, "the plain implementation's result");
}

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

typedef enum layout { BATCH_MAJOR, TIME_MAJOR, ROW_POINTERS, PACKED, NUM_LAYOUTS } layout;

/* How a model is called. */
typedef struct calling {
    layout x, y; /* both packed or none, if the model does not pool */
    bool zeros;  /* past the rows' ends */
    fastrnn_pool *pool;
    void *store;
    const int64_t *slots;
    int (*interrupted)(void *);
    void *context;
} calling;

/* The arrays of a call, one vector after the other, and the view of them. */
typedef struct arrays {
    layout at;
    fastrnn_view view;
    size_t bytes, e;
    int64_t B, T, width;
    const table *rows;
    const int64_t *order; /* run order */
} arrays;

/* T: steps that are there for every row. */
static arrays arrays_make(layout at, const table *rows, int64_t T, const int64_t *order)
{
    arrays a = {.at = at, .e = element(rows), .B = rows->B, .T = T, .width = rows->width, .rows = rows, .order = order};
    int64_t total = a.B * T;
    for (int64_t row = 0, sum = 0; at == PACKED && row < a.B; row++)
        total = sum += rows->lengths[row];
    a.bytes = (size_t)(total * a.width) * a.e;
    a.view.row_stride = at == BATCH_MAJOR ? T * a.width : a.width;
    a.view.step_stride = at == TIME_MAJOR ? a.B * a.width : a.width;
    if (at == ROW_POINTERS) {
        void **pointers = block((size_t)a.B * sizeof *pointers);
        for (int64_t row = 0; row < a.B; row++)
            pointers[row] = block(row_bytes(rows, row));
        a.view.rows = pointers;
    } else {
        a.view.base = block(a.bytes);
    }
    return a;
}

static void arrays_free(arrays *a)
{
    for (int64_t row = 0; a->view.rows && row < a->B; row++)
        free(a->view.rows[row]);
    free((void *)(uintptr_t)a->view.rows);
    free(a->view.base);
}

/* The vector of a row, counted as in the arrays. */
static char *vector_in(const arrays *a, int64_t row, int64_t step)
{
    if (a->at == PACKED) {
        int64_t index = 0;
        for (int64_t t = 0; t <= step; t++)
            for (int64_t r = 0; r < a->B && (t < step || a->order[r] != row); r++)
                index += a->rows->lengths[a->order[r]] > t;
        return (char *)a->view.base + (size_t)(index * a->width) * a->e;
    }
    char *start = a->view.rows ? a->view.rows[row] : (char *)a->view.base + (size_t)(row * a->view.row_stride) * a->e;
    return start + (size_t)(step * a->view.step_stride) * a->e;
}

static void copy_rows(const arrays *a, bool to_arrays)
{
    const size_t bytes = (size_t)a->width * a->e;
    for (int64_t row = 0; row < a->B; row++)
        for (int64_t step = 0; step < a->rows->lengths[row]; step++) {
            char *in_row = (char *)a->rows->rows[row] + (size_t)step * bytes, *in_arrays = vector_in(a, row, step);
            memcpy(to_arrays ? in_arrays : in_row, to_arrays ? in_row : in_arrays, bytes);
        }
}

static bool is_zero(const char *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (memory[i])
            return false;
    return true;
}

/* What is past the rows' ends: zeros if asked for, else as before. */
static void check_ends(const arrays *a, bool zeros)
{
    bool right = true;
    for (int64_t row = 0; row < a->B && (a->at == BATCH_MAJOR || a->at == TIME_MAJOR); row++)
        for (int64_t step = a->rows->lengths[row]; step < a->T; step++) {
            const char *here = vector_in(a, row, step);
            right = right && (zeros ? is_zero(here, (size_t)a->width * a->e) : is_poison(here, (size_t)a->width * a->e));
        }
    check(right, zeros ? "zeros past the ends of rows" : "nothing is written past the ends of rows");
}

/* Rows in run order: longest first. */
static void sort_rows(const table *x, int64_t *order, int64_t *lengths, int64_t *batch_sizes)
{
    for (int64_t row = 0; row < x->B; row++) {
        int64_t at = row;
        for (; at > 0 && x->lengths[order[at - 1]] < x->lengths[row]; at--)
            order[at] = order[at - 1];
        order[at] = row;
    }
    for (int64_t row = 0; row < x->B; row++)
        lengths[row] = x->lengths[order[row]];
    for (int64_t step = 0; x->B && step < lengths[0]; step++) {
        batch_sizes[step] = 0;
        for (int64_t row = 0; row < x->B; row++)
            batch_sizes[step] += lengths[row] > step;
    }
}

/* Plans a call and runs it, in memory of exactly the size that it asks for, at an odd address. */
static fastrnn_status plan_and_run(const fastrnn_model *model, const fastrnn_batch *batch)
{
    size_t size = 0;
    fastrnn_model_plan *plan = NULL;
    fastrnn_status status = fastrnn_model_plan_size(model, batch, &size);
    if (status != FASTRNN_OK)
        return status;
    char *memory = block(size + 1);
    counts_memory = !batch->pool;
    allocations_left = 0;
    status = fastrnn_model_plan_make(model, batch, memory + 1, size, &plan);
    if (status == FASTRNN_OK)
        status = fastrnn_model_plan_run(plan);
    counts_memory = false;
    free(memory);
    return status;
}

/* y: made here if the call succeeds, or if it is interrupted. */
static fastrnn_status call(const fastrnn_model *model, const table *x, const calling *how, table *y)
{
    const fastrnn_model_info info = info_of(model);
    const layout y_layout = info.pools && how->y == PACKED ? TIME_MAJOR : how->y;
    int64_t order[MOST_ROWS], lengths[MOST_ROWS], T = 0, T_out = 0, out_lengths[MOST_ROWS];
    bool equal = true;
    for (int64_t row = 0; row < x->B; row++) {
        T = most(T, x->lengths[row]);
        out_lengths[row] = fastrnn_model_output_steps(model, x->lengths[row]);
        T_out = most(T_out, out_lengths[row]);
        equal = equal && x->lengths[row] == x->lengths[0];
    }
    int64_t *batch_sizes = block((size_t)T * sizeof *batch_sizes);
    sort_rows(x, order, lengths, batch_sizes);
    *y = table_make(x->B, info.output_size, false, out_lengths);
    arrays in = arrays_make(how->x, x, T + 2, order), out = arrays_make(y_layout, y, T_out + 1, order);
    if (in.view.base)
        memset(in.view.base, 0xFF, in.bytes); /* NaN, or an id that does not exist */
    copy_rows(&in, true);
    fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = x->B, .num_steps = T, .lengths = lengths,
                           .batch_sizes = batch_sizes, .row_indices = order, .x = in.view, .y = out.view,
                           .packed = how->x == PACKED, .pool = how->pool, .store = how->store, .slots = how->slots,
                           .interrupted = how->interrupted, .interrupted_context = how->context};
    if (equal && random_bits() % 2)
        batch.lengths = batch.batch_sizes = NULL;
    if (how->zeros) {
        batch.past_end = FASTRNN_PAST_END_ZERO;
        batch.padded_steps = y_layout == ROW_POINTERS ? 0 : T_out + 1;
    }
    const fastrnn_status status = plan_and_run(model, &batch);
    if (status == FASTRNN_OK) {
        copy_rows(&out, false);
        check_ends(&out, how->zeros);
    }
    arrays_free(&in), arrays_free(&out);
    free(batch_sizes);
    if (status != FASTRNN_OK && status != FASTRNN_ERROR_INTERRUPTED) {
        table_free(y);
        *y = (table){0};
    }
    return status;
}

static table result(const fastrnn_model *model, const table *x, const calling *how)
{
    table y;
    const fastrnn_status status = call(model, x, how, &y);
    check(status == FASTRNN_OK, fastrnn_status_message(status));
    return y;
}

static const calling plainly = {.x = BATCH_MAJOR, .y = BATCH_MAJOR};

static calling any_way(int turn, fastrnn_pool *pool)
{
    calling how = {.x = (layout)(turn % NUM_LAYOUTS), .y = (layout)(turn / 4 % 3), .zeros = turn % 3 == 0, .pool = pool};
    if (how.x == PACKED)
        how.y = PACKED;
    return how;
}

static void *model_store_make(const fastrnn_model *model, int64_t capacity, size_t *bytes)
{
    expect(fastrnn_model_store_size(model, capacity, bytes), FASTRNN_OK, "store size");
    void *store = aligned_alloc(64, *bytes);
    if (!store)
        exit(2);
    memset(store, POISON, *bytes);
    expect(fastrnn_model_store_init(model, capacity, store), FASTRNN_OK, "store init");
    return store;
}

/* ---- Random chains --------------------------------------------------------------------------------------------- */

static const int sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 50, 65};

static int64_t any_size(void) { return sizes[random_bits() % LENGTH(sizes)]; }

static void add_any_conv(chain *c, bool streams)
{
    const int64_t kernel = 1 + below(4), dilation = 1 + below(2), stride = 1 + below(2);
    if (streams) {
        add_causal_conv(c, any_size(), kernel, stride, dilation);
        return;
    }
    fastrnn_op *op = add_conv(c, any_size(), kernel, below(2));
    op->stride = stride;
    op->dilation = dilation;
    op->padding_left = below(4);
    op->padding_right = below(4);
}

static void add_any(chain *c, bool streams)
{
    switch (below(streams ? 7 : 10)) {
    case 0: add_linear(c, any_size(), below(2)); break;
    case 1: add_any_conv(c, streams); break;
    case 2: add_factors(c, FASTRNN_OP_LAYER_NORM, below(2), below(2)); break;
    case 3: add_factors(c, FASTRNN_OP_SCALE, true, below(2)); break;
    case 4: add_activation(c, (int)below(FASTRNN_NUM_ACTIVATIONS)); break;
    case 5: add_plain(c, below(2) ? FASTRNN_OP_SOFTMAX : FASTRNN_OP_LOG_SOFTMAX); break;
    case 6: add_layer(c, (fastrnn_kind)below(3), any_size(), 0, 1 + below(2), 1); break;
    case 7: add_plain(c, FASTRNN_OP_REVERSE); break;
    case 8:
        add_layer(c, FASTRNN_LSTM, 9, below(2) ? 5 : 0, 1 + below(2), 2 - 3 * (int)below(2));
        if (below(2) && c->count < MOST_OPS)
            add_plain(c, FASTRNN_OP_FINAL);
        break;
    default:
        if (c->count >= MOST_OPS / 2)
            add_plain(c, (fastrnn_op_kind)(FASTRNN_OP_LAST + below(4)));
        break;
    }
}

/* A bound on the layers' cells, which is small, as layers of two directions have two layers at most. */
static chain *random_chain(bool streams, bool *ids, int64_t *num_ids)
{
    *ids = below(3) == 0;
    *num_ids = 1 + below(20);
    chain *c = chain_make(*ids ? 1 : any_size());
    if (*ids)
        add_embedding(c, *num_ids, any_size());
    const int wanted = 1 + (int)below(MOST_OPS - 1);
    for (int tries = 0; c->count < wanted && tries < 20; tries++)
        add_any(c, streams);
    if (c->count == 0)
        add_plain(c, FASTRNN_OP_SOFTMAX);
    return c;
}

/* Every op of the chain against its plain implementation. Returns the result of the whole chain. */
static table check_ops(const chain *c, const table *x, const char *isa)
{
    table before = *x, after = {0};
    for (int k = 1; k <= c->count; k++) {
        fastrnn_model *model = model_make(c, k, isa);
        after = result(model, x, &plainly);
        check_op(c, k - 1, &before, &after, isa);
        if (k > 1)
            table_free(&before);
        before = after;
        fastrnn_model_destroy(model);
    }
    return after;
}

/* The same bits for a row alone, in any layout, for some of the rows in any order, and on any number of threads. */
static void check_sharing(const fastrnn_model *model, const table *x, const table *wanted, fastrnn_pool *const *pools)
{
    for (int turn = 0; turn < 12; turn++) {
        const calling how = any_way(turn, pools[turn % 3]);
        table y = result(model, x, &how);
        check(table_is(&y, wanted), "the same bits in any layout, on any number of threads");
        table_free(&y);
    }
    for (int64_t row = 0; row < x->B; row++) {
        const calling how = any_way((int)row, pools[row % 3]);
        table alone = table_row(x, row), y = result(model, &alone, &how);
        check(row_is(&y, 0, wanted, row), "a row alone has the bits that it has in the batch");
        table_free(&y), table_free(&alone);
    }
    int64_t chosen[MOST_ROWS], first[MOST_ROWS] = {0}, length[MOST_ROWS];
    const int64_t count = 1 + below(x->B);
    for (int64_t i = 0; i < count; i++) {
        chosen[i] = below(x->B);
        length[i] = x->lengths[chosen[i]];
    }
    table some = table_part(x, count, chosen, first, length), y = result(model, &some, &plainly);
    for (int64_t i = 0; i < count; i++)
        check(row_is(&y, i, wanted, chosen[i]), "the same bits among other rows");
    table_free(&y), table_free(&some);
}

/* Appends the vectors of `part` to the rows chosen[0], chosen[1], ... */
static void append(table *t, const table *part, const int64_t *chosen)
{
    for (int64_t i = 0; i < part->B; i++) {
        memcpy((float *)t->rows[chosen[i]] + t->lengths[chosen[i]] * t->width, part->rows[i], row_bytes(part, i));
        t->lengths[chosen[i]] += part->lengths[i];
    }
}

/* Whether the states in all slots are those of a snapshot. */
static bool model_store_has(const fastrnn_model *model, const void *store, int64_t capacity, const void *snapshot)
{
    size_t size = 0;
    expect(fastrnn_model_snapshot_size(model, store, capacity, &size), FASTRNN_OK, "snapshot size");
    void *now = block(size);
    expect(fastrnn_model_snapshot_save(model, store, capacity, NULL, now), FASTRNN_OK, "save");
    const bool same = !memcmp(now, snapshot, size);
    free(now);
    return same;
}

/* A snapshot of all slots, restored to another store, which takes the place of the first one. */
static void *check_snapshot(const fastrnn_model *model, void *store, int64_t capacity)
{
    size_t size = 0, bytes = 0;
    expect(fastrnn_model_snapshot_size(model, store, capacity, &size), FASTRNN_OK, "snapshot size");
    check(size == 40 + (size_t)(capacity * info_of(model).state_size) * sizeof(float), "the size that the header says");
    char *snapshot = block(size), *slot = block(40 + (size_t)info_of(model).state_size * sizeof(float));
    void *other = model_store_make(model, capacity, &bytes);
    expect(fastrnn_model_snapshot_save(model, store, capacity, NULL, snapshot), FASTRNN_OK, "save");
    for (int64_t i = 0; i < capacity; i++) { /* one slot after the other: the bytes of the whole */
        const size_t row = (size_t)info_of(model).state_size * sizeof(float);
        expect(fastrnn_model_snapshot_save(model, store, 1, &i, slot), FASTRNN_OK, "save a slot");
        check(!memcmp(slot + 40, snapshot + 40 + (size_t)i * row, row), "the states follow one another");
    }
    expect(fastrnn_model_snapshot_restore(model, other, capacity, NULL, snapshot, size), FASTRNN_OK, "restore");
    check(model_store_has(model, other, capacity, snapshot), "a store that was restored");
    free(snapshot), free(slot), free(store);
    return other;
}

/* Chunks of some slots at a time, in any order, have the bits of one call. */
static void check_chunks(const fastrnn_model *model, const table *given, fastrnn_pool *const *pools)
{
    const int64_t stride = info_of(model).stride, B = given->B;
    int64_t whole[MOST_ROWS], zeros[MOST_ROWS] = {0}, done[MOST_ROWS] = {0}, all[MOST_ROWS], left = 0;
    for (int64_t row = 0; row < B; row++) {
        all[row] = row;
        left += whole[row] = given->lengths[row] / stride * stride;
    }
    table x = table_part(given, B, all, zeros, whole), wanted = result(model, &x, &plainly);
    table found = table_make(B, wanted.width, false, wanted.lengths);
    memset(found.lengths, 0, sizeof found.lengths);
    size_t bytes;
    void *store = model_store_make(model, B, &bytes);
    for (int turn = 0; left > 0 && turn < 1000; turn++) {
        int64_t chosen[MOST_ROWS], length[MOST_ROWS], first[MOST_ROWS], count = 0;
        for (int64_t i = 0, start = below(B); i < B; i++)
            if (turn % 4 == 0 || below(2))
                chosen[count++] = (start + i) % B;
        for (int64_t i = 0; i < count; i++) {
            first[i] = done[chosen[i]];
            length[i] = least(stride * below(4), whole[chosen[i]] - first[i]);
            done[chosen[i]] += length[i];
            left -= length[i];
        }
        calling how = any_way(turn, pools[turn % 3]);
        how.store = store;
        how.slots = count == B && chosen[0] == 0 ? NULL : chosen;
        table part = table_part(&x, count, chosen, first, length), y = result(model, &part, &how);
        append(&found, &y, chosen);
        table_free(&part), table_free(&y);
        if (turn == 2)
            store = check_snapshot(model, store, B);
    }
    check(left == 0 && table_is(&found, &wanted), "chunks have the bits of one call");
    expect(fastrnn_model_store_reset(model, store, B, NULL), FASTRNN_OK, "reset");
    calling again = plainly;
    again.store = store;
    table y = result(model, &x, &again);
    check(table_is(&y, &wanted), "a store that was reset");
    table_free(&y), table_free(&x), table_free(&wanted), table_free(&found);
    free(store);
}

/* Numbers of weight and of bias that an op has, also if they are NULL. */
static int64_t weights_of(const fastrnn_op *op)
{
    switch (op->kind) {
    case FASTRNN_OP_EMBEDDING:
    case FASTRNN_OP_LINEAR: return op->input_size * op->output_size;
    case FASTRNN_OP_CONV1D: return op->input_size * op->output_size * op->kernel_size;
    case FASTRNN_OP_LAYER_NORM:
    case FASTRNN_OP_SCALE: return op->input_size;
    default: return 0;
    }
}

static int64_t biases_of(const fastrnn_op *op)
{
    if (op->kind == FASTRNN_OP_EMBEDDING)
        return 0;
    return op->output_size ? op->output_size : weights_of(op);
}

static bool is_given(const float *found, const float *given, int64_t count, float missing)
{
    for (int64_t i = 0; i < count; i++)
        if (found[i] != (given ? given[i] : missing))
            return false;
    return true;
}

/* The model gives the weights back that it was made of. */
static void check_unpacked(const chain *c, const fastrnn_model *model)
{
    for (int i = 0; i < c->count; i++) {
        const fastrnn_op *op = &c->ops[i];
        const int64_t weights = weights_of(op), biases = biases_of(op);
        float *weight = block((size_t)weights * sizeof(float)), *bias = block((size_t)biases * sizeof(float));
        expect(fastrnn_model_unpack(model, i, weight, bias), FASTRNN_OK, "unpack");
        check(is_given(weight, op->weight, weights, 1) && is_given(bias, op->bias, biases, 0), "the op's own weights");
        expect(fastrnn_model_unpack(model, i, NULL, NULL), FASTRNN_OK, "unpack nothing");
        free(weight), free(bias);
        const fastrnn_layer *layer = fastrnn_model_layer(model, i);
        if (!check((layer != NULL) == (op->kind == FASTRNN_OP_LAYER), "only ops that are layers have one") || !layer)
            continue;
        const fastrnn_cell *cell = op->cells;
        const int64_t G = op->config->kind == FASTRNN_LSTM ? 4 : op->config->kind == FASTRNN_GRU ? 3 : 1;
        const int64_t count = G * op->config->hidden_size * op->config->input_size;
        float *weight_ih = block((size_t)count * sizeof(float));
        const fastrnn_cell_arrays arrays = {.struct_size = sizeof arrays, .weight_ih = weight_ih};
        fastrnn_cell unpacked = {.struct_size = sizeof unpacked};
        expect(fastrnn_layer_unpack(layer, 0, &arrays, &unpacked), FASTRNN_OK, "unpack a layer");
        check(is_given(weight_ih, cell->weight_ih, count, 0), "the layer's own weights");
        free(weight_ih);
    }
    expect(fastrnn_model_unpack(model, c->count, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "unpack: no such op");
    expect(fastrnn_model_unpack(model, -1, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "unpack: op -1");
    expect(fastrnn_model_unpack(NULL, 0, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "unpack: no model");
    check(!fastrnn_model_layer(model, c->count) && !fastrnn_model_layer(NULL, 0), "no such layer");
}

static void test_chains(const char *isa, int count, fastrnn_pool *const *pools)
{
    for (int turn = 0; turn < count; turn++) {
        bool ids;
        int64_t num_ids, lengths[MOST_ROWS];
        chain *c = random_chain(turn % 2, &ids, &num_ids);
        const int64_t B = 1 + below(MOST_ROWS);
        random_lengths(B, turn % 5 == 0 ? below(3) : 1 + below(14), turn % 3, lengths);
        table x = table_make(B, c->widths[0], ids, lengths);
        table_fill(&x, num_ids);
        in_context("%s chain %d", isa, turn);
        table wanted = check_ops(c, &x, isa);
        fastrnn_model *model = model_make(c, c->count, isa);
        check_sharing(model, &x, &wanted, pools);
        check_unpacked(c, model);
        const fastrnn_model_info info = info_of(model);
        check(turn % 2 == 0 || info.first_not_streamed < 0, "a chain that streams");
        if (info.first_not_streamed < 0)
            check_chunks(model, &x, pools);
        fastrnn_model_destroy(model);
        table_free(&x), table_free(&wanted);
        chain_free(c);
    }
    end_group("%s: random chains of ops", isa);
}

/* ---- Special numbers ------------------------------------------------------------------------------------------- */

/* One row of x, `steps` steps of the chain's width. */
static table one_row(const chain *c, int64_t steps, const float *values)
{
    table x = table_make(1, c->widths[0], false, &steps);
    memcpy(x.rows[0], values, row_bytes(&x, 0));
    return x;
}

/* The result of the chain for such a row. */
static table result_of(const chain *c, const char *isa, int64_t steps, const float *values)
{
    fastrnn_model *model = model_make(c, c->count, isa);
    table x = one_row(c, steps, values), y = result(model, &x, &plainly);
    table_free(&x);
    fastrnn_model_destroy(model);
    return y;
}

/* A NaN or an infinity in one row changes no other row, and every NaN of a result has the same bits. */
static void test_not_finite(const char *isa, int count)
{
    for (int turn = 0; turn < count; turn++) {
        bool ids;
        int64_t num_ids, lengths[MOST_ROWS];
        chain *c = random_chain(turn % 2, &ids, &num_ids);
        random_lengths(5, 6, turn % 2, lengths);
        table x = table_make(5, c->widths[0], ids, lengths);
        table_fill(&x, num_ids);
        fastrnn_model *model = model_make(c, c->count, isa);
        table clean = result(model, &x, &plainly);
        for (int64_t i = 0; !ids && i < x.lengths[2] * x.width; i += 1 + below(3)) {
            float value = below(3) ? NAN : INFINITY;
            ((float *)x.rows[2])[i] = below(2) ? value : -value;
        }
        table y = result(model, &x, &plainly), alone = table_row(&x, 2), y2 = result(model, &alone, &plainly);
        in_context("%s chain %d", isa, turn);
        for (int64_t row = 0; row < 5; row++)
            check(row == 2 || row_is(&y, row, &clean, row), "the other rows");
        check(row_is(&y2, 0, &y, 2), "the row alone has the same bits, also of NaN");
        table_free(&x), table_free(&clean), table_free(&y), table_free(&alone), table_free(&y2);
        fastrnn_model_destroy(model);
        chain_free(c);
    }
    end_group("%s: NaN and infinities stay in their row", isa);
}

static void test_softmax(const char *isa)
{
    for (int log = 0; log < 2; log++)
        for (int i = 0; i < LENGTH(sizes); i++) {
            const int n = sizes[i];
            float values[65];
            chain *c = chain_make(n);
            add_plain(c, log ? FASTRNN_OP_LOG_SOFTMAX : FASTRNN_OP_SOFTMAX);
            in_context("%s, %d numbers, log %d", isa, n, log);
            for (int special = 0; special < 5; special++) {
                const float specials[] = {NAN, INFINITY, -INFINITY, 3e38F, -3e38F};
                for (int j = 0; j < n; j++)
                    values[j] = (float)random_value();
                values[below(n)] = specials[special];
                table y = result_of(c, isa, 1, values);
                bool all_nan = true, right = true;
                for (int j = 0; j < n; j++) {
                    const float found = vector(&y, 0, 0)[j];
                    all_nan = all_nan && isnan(found);
                    right = right && !isnan(found);
                }
                const bool nan = special < 2 || (special == 2 && n == 1);
                check(nan ? all_nan : right, "NaN for NaN and infinity, or if all are -infinity");
                table_free(&y);
            }
            chain_free(c);
        }
    end_group("%s: special numbers in softmax", isa);
}

/* Normalization is as exact far from 0: of x + offset, where x is exact. */
static void test_far_norm(const char *isa)
{
    for (int i = 1; i < LENGTH(sizes); i++) {
        const int n = sizes[i];
        float values[65];
        chain *c = chain_make(n);
        add_factors(c, FASTRNN_OP_LAYER_NORM, true, true);
        for (int j = 0; j < n; j++)
            values[j] = 4096 + (float)below(1 << 11) / 256;
        table x = one_row(c, 1, values), y = result_of(c, isa, 1, values);
        in_context("%s, %d numbers", isa, n);
        check_op(c, 0, &x, &y, isa);
        table_free(&x), table_free(&y);
        chain_free(c);
    }
    end_group("%s: layer normalization far from zero", isa);
}

static void test_pooled_nan(const char *isa)
{
    enum { T = 6, WIDTH = 5 };
    for (int kind = FASTRNN_OP_MEAN; kind <= FASTRNN_OP_MAX; kind++)
        for (int at = 0; at < T; at++) {
            float values[T * WIDTH];
            chain *c = chain_make(WIDTH);
            add_plain(c, (fastrnn_op_kind)kind);
            for (int i = 0; i < T * WIDTH; i++)
                values[i] = -1 - (float)fabs(random_value());
            values[at * WIDTH + 2] = NAN;
            table y = result_of(c, isa, T, values);
            for (int i = 0; i < WIDTH; i++)
                check(!isnan(vector(&y, 0, 0)[i]) == (i != 2), "NaN where there is one");
            table_free(&y);
            chain_free(c);
        }
    end_group("%s: pooling of NaN", isa);
}

/* Padding is zeros that are multiplied: with an infinite weight it gives NaN, in a stream too. */
static void test_padding(const char *isa)
{
    const float weights[] = {INFINITY, 1, 1}, negative = -0.0F, x[] = {1, 2, 3, 4};
    chain *c = chain_make(1);
    add_causal_conv(c, 1, 3, 1, 1);
    memcpy((float *)(uintptr_t)c->ops[0].weight, weights, sizeof weights);
    memcpy((float *)(uintptr_t)c->ops[0].bias, &negative, sizeof negative);
    table y = result_of(c, isa, 4, x);
    for (int step = 0; step < 4; step++)
        check(step < 2 ? isnan(vector(&y, 0, step)[0]) : isinf(vector(&y, 0, step)[0]), "0 times infinity in the padding");
    fastrnn_pool *const none[3] = {NULL};
    fastrnn_model *model = model_make(c, 1, isa);
    table in = one_row(c, 4, x);
    check_chunks(model, &in, none);
    table_free(&y), table_free(&in);
    fastrnn_model_destroy(model);
    chain_free(c);
    end_group("%s: padding is zeros", isa);
}

/* ---- States ---------------------------------------------------------------------------------------------------- */

/* States that are set are those from which a layer alone starts; those that are got are its final ones. */
static void test_states(const char *isa)
{
    for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++) {
        enum { B = 4, I = 3, H = 9, L = 2, T = 5, P = 6 };
        const int64_t p = kind == FASTRNN_LSTM ? P : 0, width = p ? p : H, lengths[] = {T, T, T, T}, slots[] = {2, 0, 3, 1};
        chain *c = chain_make(I);
        add_linear(c, 5, true);
        add_layer(c, (fastrnn_kind)kind, H, p, L, 1);
        add_causal_conv(c, 4, 3, 1, 1);
        fastrnn_model *front = model_make(c, 1, isa), *middle = model_make(c, 2, isa), *model = model_make(c, 3, isa);
        fastrnn_layer *layer = NULL;
        expect(fastrnn_layer_create(c->ops[1].config, c->ops[1].cells, isa, NULL, &layer), FASTRNN_OK, "the layer");
        table x = table_make(B, I, false, lengths);
        table_fill(&x, 1);
        float *h0 = random_array(c, L * B * H, 1), *c0 = random_array(c, L * B * H, 1);
        const float zeros[L * B * H] = {0};
        float hn[L * B * H], cn[L * B * H], found_h[L * B * H], found_c[L * B * H], y[B * T * H], in[B * T * 5];
        const size_t h_bytes = (size_t)(L * B * width) * sizeof(float), c_bytes = sizeof(float) * L * B * H;
        table inputs = result(front, &x, &plainly);
        for (int row = 0; row < B; row++)
            memcpy(&in[row * T * 5], inputs.rows[row], row_bytes(&inputs, row));
        const bool lstm = kind == FASTRNN_LSTM;
        const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = B, .num_steps = T, .h0 = h0, .c0 = lstm ? c0 : NULL,
                                     .hn = hn, .cn = lstm ? cn : NULL, .x = {.base = in, .row_stride = T * 5, .step_stride = 5},
                                     .y = {.base = y, .row_stride = T * width, .step_stride = width}};
        expect(run(layer, &batch), FASTRNN_OK, "the layer alone");
        size_t bytes;
        void *store = model_store_make(model, B, &bytes), *short_store = model_store_make(middle, B, &bytes);
        in_context("%s kind %d", isa, kind);
        expect(fastrnn_model_store_set(middle, short_store, 1, B, slots, h0, c0), FASTRNN_OK, "set");
        calling how = plainly;
        how.store = short_store;
        how.slots = slots;
        table outputs = result(middle, &x, &how);
        bool same = true;
        for (int row = 0; row < B; row++)
            same = same && !memcmp(outputs.rows[row], &y[row * T * width], row_bytes(&outputs, row));
        check(same, "the layer's outputs from these states");
        expect(fastrnn_model_store_get(middle, short_store, 1, B, slots, found_h, found_c), FASTRNN_OK, "get");
        check(!memcmp(found_h, hn, h_bytes) && (!lstm || !memcmp(found_c, cn, c_bytes)), "the layer's final states");
        /* In another model with the same layer. */
        expect(fastrnn_model_store_set(model, store, 1, B, NULL, h0, lstm ? c0 : NULL), FASTRNN_OK, "set in order");
        expect(fastrnn_model_store_get(model, store, 1, B, NULL, found_h, NULL), FASTRNN_OK, "get h alone");
        check(!memcmp(found_h, h0, h_bytes), "h as it was set");
        expect(fastrnn_model_store_reset(model, store, 2, slots), FASTRNN_OK, "reset two slots");
        expect(fastrnn_model_store_get(model, store, 1, B, slots, found_h, found_c), FASTRNN_OK, "get");
        for (int level = 0; level < L; level++) {
            check(!memcmp(&found_h[level * B * width], zeros, (size_t)(2 * width) * sizeof(float)), "these are zero");
            check(!memcmp(&found_h[(level * B + 2) * width], &h0[(level * B + 3) * width], (size_t)width * sizeof(float)), "others stay");
        }
        expect(fastrnn_model_store_set(model, store, 1, B, NULL, NULL, NULL), FASTRNN_OK, "set to zero");
        expect(fastrnn_model_store_get(model, store, 1, B, NULL, found_h, found_c), FASTRNN_OK, "get");
        check(!memcmp(found_h, zeros, h_bytes) && (!lstm || !memcmp(found_c, zeros, c_bytes)), "NULL is zero");
        expect(fastrnn_model_store_set(model, store, 0, B, NULL, h0, c0), FASTRNN_ERROR_ARGUMENT, "set: not a layer");
        expect(fastrnn_model_store_get(model, store, 3, B, NULL, found_h, found_c), FASTRNN_ERROR_ARGUMENT, "get: no such op");
        expect(fastrnn_model_store_get(model, store, -1, B, NULL, found_h, found_c), FASTRNN_ERROR_ARGUMENT, "get: op -1");
        table_free(&x), table_free(&inputs), table_free(&outputs);
        free(store), free(short_store);
        fastrnn_layer_destroy(layer);
        fastrnn_model_destroy(front), fastrnn_model_destroy(middle), fastrnn_model_destroy(model);
        chain_free(c);
    }
    end_group("%s: states of layers in a store", isa);
}

/* ---- Refusals -------------------------------------------------------------------------------------------------- */

/* embedding 7 -> 3, layer 4, linear 5, softmax */
static chain *small_chain(void)
{
    chain *c = chain_make(1);
    add_embedding(c, 7, 3);
    add_layer(c, FASTRNN_GRU, 4, 0, 1, 1);
    add_linear(c, 5, true);
    add_plain(c, FASTRNN_OP_SOFTMAX);
    return c;
}

static void refuse(const fastrnn_op *ops, int64_t count, const char *isa, fastrnn_status wanted, const char *what)
{
    fastrnn_model *model = NULL;
    expect(fastrnn_model_create(ops, count, isa, &model), wanted, what);
    check(!model, "a refused model is not made");
}

static void test_wrong_models(void)
{
    chain *c = small_chain();
    fastrnn_op ops[MOST_OPS];
    fastrnn_model *model = NULL;
    memcpy(ops, c->ops, sizeof ops);
    refuse(NULL, 4, NULL, FASTRNN_ERROR_ARGUMENT, "no ops");
    refuse(ops, 0, NULL, FASTRNN_ERROR_ARGUMENT, "none");
    refuse(ops, -1, NULL, FASTRNN_ERROR_ARGUMENT, "a negative number");
    refuse(ops, 4, "sse9", FASTRNN_ERROR_ISA, "an unknown instruction set");
    expect(fastrnn_model_create(ops, 4, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the model");
#define REFUSED(INDEX, MEMBER, VALUE)                                                                                  \
    memcpy(ops, c->ops, sizeof ops), ops[INDEX].MEMBER = VALUE;                                                        \
    refuse(ops, 4, NULL, FASTRNN_ERROR_ARGUMENT, "op " #INDEX ": " #MEMBER " " #VALUE)
    REFUSED(0, struct_size, 8);
    REFUSED(1, struct_size, sizeof(fastrnn_op) + 8);
    REFUSED(0, kind, (fastrnn_op_kind)-1);
    REFUSED(3, kind, (fastrnn_op_kind)(FASTRNN_OP_REVERSE + 1));
    REFUSED(2, kind, FASTRNN_OP_EMBEDDING);
    REFUSED(3, kind, FASTRNN_OP_FINAL);
    REFUSED(0, input_size, 0);
    REFUSED(0, input_size, -1);
    REFUSED(0, input_size, INT64_MAX);
    REFUSED(0, output_size, 4);
    REFUSED(0, weight, NULL);
    REFUSED(1, input_size, 3);
    REFUSED(1, config, NULL);
    REFUSED(1, cells, NULL);
    REFUSED(2, input_size, 5);
    REFUSED(2, output_size, 0);
    REFUSED(2, output_size, INT64_MAX);
    REFUSED(2, weight, NULL);
    REFUSED(3, output_size, 5);
    REFUSED(3, input_size, 4);
#undef REFUSED
    memcpy(ops, c->ops, sizeof ops);
    fastrnn_config config = *ops[1].config;
    ops[1].config = &config;
    config.input_size = 2;
    refuse(ops, 4, NULL, FASTRNN_ERROR_ARGUMENT, "a layer with another width");
    config = *c->ops[1].config;
    config.dtype = FASTRNN_FLOAT64;
    refuse(ops, 4, NULL, FASTRNN_ERROR_BLAS, "a layer of doubles");
    memcpy(ops, c->ops, sizeof ops);
    ops[0].input_size = (int64_t)1 << 38;
    ops[0].output_size = 1 << 22;
    refuse(ops, 1, NULL, FASTRNN_ERROR_SIZE, "a weight that does not fit in memory's address range");
    chain_free(c);

    c = chain_make(2);
    add_causal_conv(c, 3, 3, 1, 1);
    add_factors(c, FASTRNN_OP_LAYER_NORM, true, true);
    add_factors(c, FASTRNN_OP_SCALE, true, true);
    add_activation(c, 0);
#define REFUSED(INDEX, MEMBER, VALUE)                                                                                  \
    memcpy(ops, c->ops, sizeof ops), ops[INDEX].MEMBER = VALUE;                                                        \
    refuse(ops, 4, NULL, FASTRNN_ERROR_ARGUMENT, "op " #INDEX ": " #MEMBER " " #VALUE)
    REFUSED(0, kernel_size, 0);
    REFUSED(0, kernel_size, INT64_MAX);
    REFUSED(0, kernel_size, 1 << 22);
    REFUSED(0, stride, -1);
    REFUSED(0, stride, INT64_MAX);
    REFUSED(0, dilation, -1);
    REFUSED(0, dilation, INT64_MAX);
    REFUSED(0, padding_left, -1);
    REFUSED(0, padding_left, INT64_MAX);
    REFUSED(0, padding_right, -1);
    REFUSED(0, padding_right, INT64_MAX);
    REFUSED(0, weight, NULL);
    REFUSED(1, eps, -1);
    REFUSED(1, eps, (double)NAN);
    REFUSED(2, weight, NULL);
    REFUSED(3, activation.name, FASTRNN_DEFAULT);
    REFUSED(3, activation.name, (fastrnn_activation_name)(FASTRNN_NUM_ACTIVATIONS + 1));
#undef REFUSED
    expect(fastrnn_model_create(c->ops, 4, NULL, &model), FASTRNN_OK, "a good model");
    fastrnn_model_info info = {0};
    expect(fastrnn_model_describe(model, &info), FASTRNN_ERROR_ARGUMENT, "describe: struct_size");
    expect(fastrnn_model_describe(model, NULL), FASTRNN_ERROR_ARGUMENT, "describe: nothing");
    expect(fastrnn_model_describe(NULL, &info), FASTRNN_ERROR_ARGUMENT, "describe: no model");
    check(fastrnn_model_output_steps(model, -1) == -1 && fastrnn_model_output_steps(model, INT64_MAX) == -1 &&
              fastrnn_model_output_steps(NULL, 1) == -1, "no number of steps");
    check(!fastrnn_model_isa(NULL) && !fastrnn_model_nbytes(NULL) && !fastrnn_model_fingerprint(NULL), "no model");
    fastrnn_model_destroy(NULL);
    fastrnn_model_destroy(model);
    chain_free(c);
    end_group("refused models");
}

static void test_wrong_calls(void)
{
    enum { T = 4, B = 2 };
    chain *c = small_chain();
    fastrnn_model *model = model_make(c, 4, NULL), *other = model_make(c, 3, NULL);
    int64_t ids[B * T] = {0, 1, 2, 3, 4, 5, 6, 0};
    float y[B * T * 5], h[B * 4] = {0};
    const int64_t twice[] = {1, 1}, far[] = {0, 2};
    size_t bytes, size = 0;
    void *store = model_store_make(model, B, &bytes), *before = memcpy(block(bytes), store, bytes);
    fastrnn_model_plan *plan = NULL;
    const fastrnn_batch good = {.struct_size = sizeof good, .num_rows = B, .num_steps = T, .store = store,
                                .x = {.base = ids, .row_stride = T, .step_stride = 1},
                                .y = {.base = y, .row_stride = T * 5, .step_stride = 5}};
    fastrnn_batch batch = good;
    memset(y, POISON, sizeof y);
#define REFUSED(MEMBER, VALUE, STATUS)                                                                                 \
    batch = good, batch.MEMBER = VALUE;                                                                                \
    expect(plan_and_run(model, &batch), STATUS, #MEMBER " " #VALUE)
    REFUSED(struct_size, 8, FASTRNN_ERROR_ARGUMENT);
    REFUSED(num_rows, -1, FASTRNN_ERROR_ARGUMENT);
    REFUSED(num_rows, 1, FASTRNN_ERROR_ARGUMENT);
    REFUSED(num_steps, -1, FASTRNN_ERROR_ARGUMENT);
    REFUSED(num_steps, INT64_MAX, FASTRNN_ERROR_SIZE);
    REFUSED(lengths, twice, FASTRNN_ERROR_ARGUMENT);
    REFUSED(row_indices, far, FASTRNN_ERROR_ARGUMENT);
    REFUSED(h0, h, FASTRNN_ERROR_ARGUMENT);
    REFUSED(hn, h, FASTRNN_ERROR_ARGUMENT);
    REFUSED(c0, h, FASTRNN_ERROR_ARGUMENT);
    REFUSED(cn, h, FASTRNN_ERROR_ARGUMENT);
    REFUSED(past_end, FASTRNN_PAST_END_CARRY, FASTRNN_ERROR_ARGUMENT);
    REFUSED(past_end, (fastrnn_past_end)-1, FASTRNN_ERROR_ARGUMENT);
    REFUSED(slots, twice, FASTRNN_ERROR_ARGUMENT);
    REFUSED(slots, far, FASTRNN_ERROR_ARGUMENT);
    REFUSED(store, (char *)store + 4, FASTRNN_ERROR_STORE);
    REFUSED(x.base, NULL, FASTRNN_ERROR_ARGUMENT);
    REFUSED(y.base, NULL, FASTRNN_ERROR_ARGUMENT);
#undef REFUSED
    batch = good, batch.store = NULL, batch.slots = twice;
    expect(plan_and_run(model, &batch), FASTRNN_ERROR_ARGUMENT, "slots without a store");
    expect(plan_and_run(other, &good), FASTRNN_ERROR_STORE, "a store of another model");
    expect(plan_and_run(NULL, &good), FASTRNN_ERROR_ARGUMENT, "no model");
    expect(plan_and_run(model, NULL), FASTRNN_ERROR_ARGUMENT, "no batch");
    for (int i = 0; i < B * T; i++)
        for (int wrong = 0; wrong < 3; wrong++) {
            const int64_t kept = ids[i], wrongs[] = {-1, 7, INT64_MIN};
            ids[i] = wrongs[wrong];
            expect(plan_and_run(model, &good), FASTRNN_ERROR_ID, "an id that does not exist");
            ids[i] = kept;
        }
    check(is_poison(y, sizeof y), "a refused call writes nothing");
    check(!memcmp(store, before, bytes), "a refused call leaves the store as it was");
    expect(fastrnn_model_plan_size(model, &good, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the size");
    expect(fastrnn_model_plan_size(model, &good, &size), FASTRNN_OK, "plan size");
    char *memory = block(size);
    expect(fastrnn_model_plan_make(model, &good, NULL, size, &plan), FASTRNN_ERROR_ARGUMENT, "no memory");
    expect(fastrnn_model_plan_make(model, &good, memory, size - 1, &plan), FASTRNN_ERROR_ARGUMENT, "too little memory");
    expect(fastrnn_model_plan_make(model, &good, memory, size, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the plan");
    check(!plan && is_poison(memory, size), "nothing was made");
    expect(fastrnn_model_plan_run(NULL), FASTRNN_ERROR_ARGUMENT, "no plan");
    /* A plan that is made once reads the addresses and contents of x and y at each run. */
    batch = good;
    float first[B * T * 5], second[B * T * 5];
    int64_t others[B * T] = {6, 5, 4, 3, 2, 1, 0, 6};
    batch.store = NULL;
    expect(fastrnn_model_plan_make(model, &batch, memory, size, &plan), FASTRNN_OK, "plan");
    expect(fastrnn_model_plan_run(plan), FASTRNN_OK, "run");
    memcpy(first, y, sizeof y);
    batch.x.base = others;
    batch.y.base = second;
    expect(fastrnn_model_plan_run(plan), FASTRNN_OK, "another x and y");
    check(!memcmp(first, y, sizeof y) && memcmp(first, second, sizeof y), "y is elsewhere now");
    memcpy(others, ids, sizeof ids);
    expect(fastrnn_model_plan_run(plan), FASTRNN_OK, "other contents");
    check(!memcmp(first, second, sizeof y), "the same x, the same y");
    free(memory), free(store), free(before);
    fastrnn_model_destroy(model), fastrnn_model_destroy(other);
    chain_free(c);
    end_group("refused calls of models");
}

static void test_wrong_stores(void)
{
    chain *c = small_chain(), *reversed = chain_make(3), *strided = chain_make(3);
    add_plain(reversed, FASTRNN_OP_REVERSE);
    add_causal_conv(strided, 2, 3, 2, 1);
    add_causal_conv(strided, 2, 2, 3, 1);
    fastrnn_model *model = model_make(c, 4, NULL), *other = model_make(c, 3, NULL), *none = model_make(reversed, 1, NULL),
                  *strides = model_make(strided, 2, NULL);
    size_t bytes, size = 0, snapshot_size = 0;
    char *store = model_store_make(model, 3, &bytes), *strided_store = model_store_make(strides, 1, &size);
    const int64_t twice[] = {1, 1}, far[] = {0, 3}, good[] = {2, 0};
    expect(fastrnn_model_store_size(none, 1, &size), FASTRNN_ERROR_ARGUMENT, "a model that does not stream");
    expect(fastrnn_model_store_size(model, -1, &size), FASTRNN_ERROR_ARGUMENT, "a negative capacity");
    expect(fastrnn_model_store_size(model, INT64_MAX, &size), FASTRNN_ERROR_SIZE, "a huge capacity");
    expect(fastrnn_model_store_size(model, 1, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the size");
    expect(fastrnn_model_store_size(NULL, 1, &size), FASTRNN_ERROR_ARGUMENT, "no model");
    expect(fastrnn_model_store_init(model, 1, store + 4), FASTRNN_ERROR_ARGUMENT, "not aligned");
    expect(fastrnn_model_store_init(model, 1, NULL), FASTRNN_ERROR_ARGUMENT, "no memory");
    expect(fastrnn_model_store_reset(other, store, 3, NULL), FASTRNN_ERROR_STORE, "a store of another model");
    expect(fastrnn_model_store_reset(model, store, 2, NULL), FASTRNN_ERROR_ARGUMENT, "not all");
    expect(fastrnn_model_store_reset(model, store, 2, twice), FASTRNN_ERROR_ARGUMENT, "a slot twice");
    expect(fastrnn_model_store_reset(model, store, 2, far), FASTRNN_ERROR_ARGUMENT, "no such slot");
    expect(fastrnn_model_store_reset(model, store, -1, good), FASTRNN_ERROR_ARGUMENT, "a negative number");
    expect(fastrnn_model_store_reset(model, store, 2, good), FASTRNN_OK, "reset");
    expect(fastrnn_model_snapshot_size(model, store, 2, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the size");
    expect(fastrnn_model_snapshot_size(model, store, -1, &size), FASTRNN_ERROR_ARGUMENT, "a negative number");
    expect(fastrnn_model_snapshot_size(model, store, INT64_MAX, &size), FASTRNN_ERROR_SIZE, "too many");
    expect(fastrnn_model_snapshot_size(other, store, 2, &size), FASTRNN_ERROR_STORE, "a store of another model");
    expect(fastrnn_model_snapshot_size(model, store, 2, &snapshot_size), FASTRNN_OK, "snapshot size");
    unsigned char *snapshot = block(snapshot_size), *copy = block(snapshot_size);
    expect(fastrnn_model_snapshot_save(model, store, 2, good, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the snapshot");
    expect(fastrnn_model_snapshot_save(model, store, 2, twice, snapshot), FASTRNN_ERROR_ARGUMENT, "a slot twice");
    expect(fastrnn_model_snapshot_save(model, store, 2, good, snapshot), FASTRNN_OK, "save");
    fastrnn_snapshot_info info = {.struct_size = sizeof info};
    expect(fastrnn_snapshot_describe(snapshot, snapshot_size, &info), FASTRNN_OK, "describe");
    check(info.fingerprint == fastrnn_model_fingerprint(model) && info.num_rows == 2 && info.real_size == 4 &&
              info.extra_size == info_of(model).state_size, "the header");
    void *before = memcpy(block(bytes), store, bytes);
    for (size_t byte = 0; byte < 40; byte++) {
        memcpy(copy, snapshot, snapshot_size);
        copy[byte] ^= 1;
        expect(fastrnn_model_snapshot_restore(model, store, 2, good, copy, snapshot_size), FASTRNN_ERROR_SNAPSHOT, "another header");
    }
    for (size_t cut = 1; cut < snapshot_size; cut += 7)
        expect(fastrnn_model_snapshot_restore(model, store, 2, good, snapshot, snapshot_size - cut), FASTRNN_ERROR_SNAPSHOT, "cut off");
    expect(fastrnn_model_snapshot_restore(model, store, 1, good, snapshot, snapshot_size), FASTRNN_ERROR_SNAPSHOT, "another number");
    expect(fastrnn_model_snapshot_restore(model, store, 2, good, NULL, snapshot_size), FASTRNN_ERROR_ARGUMENT, "no snapshot");
    check(!memcmp(store, before, bytes), "a refused restore leaves the store as it was");
    /* Lengths in a stream are multiples of the stride. */
    float x[12 * 3] = {0}, y[12 * 2];
    check(info_of(strides).stride == 6, "the product of the strides");
    for (int steps = 0; steps <= 12; steps++) {
        const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = 1, .num_steps = steps, .store = strided_store,
                                     .x = {.base = x, .step_stride = 3}, .y = {.base = y, .step_stride = 2}};
        expect(plan_and_run(strides, &batch), steps % 6 ? FASTRNN_ERROR_ARGUMENT : FASTRNN_OK, "multiples of the stride");
    }
    free(store), free(strided_store), free(before), free(snapshot), free(copy);
    fastrnn_model_destroy(model), fastrnn_model_destroy(other), fastrnn_model_destroy(none), fastrnn_model_destroy(strides);
    chain_free(c), chain_free(reversed), chain_free(strided);
    end_group("refused stores and snapshots of models");
}

/* ---- Facts about models ---------------------------------------------------------------------------------------- */

/* Models of the same ops have the same fingerprint on every instruction set; any other option or weight gives another. */
static void test_fingerprints(void)
{
    chain *c = chain_make(2);
    add_causal_conv(c, 3, 2, 1, 1);
    add_factors(c, FASTRNN_OP_LAYER_NORM, true, true);
    add_activation(c, 5);
    add_layer(c, FASTRNN_LSTM, 3, 0, 1, 1);
    add_linear(c, 4, true);
    add_plain(c, FASTRNN_OP_SOFTMAX);
    const char *isa;
    fastrnn_model *model = model_make(c, 6, NULL);
    const uint64_t fingerprint = fastrnn_model_fingerprint(model);
    fastrnn_model_destroy(model);
    for (size_t i = 0; (isa = fastrnn_isa(i)) != NULL; i++) {
        model = model_make(c, 6, isa);
        check(fastrnn_model_fingerprint(model) == fingerprint, "the same on every instruction set");
        check(!strcmp(fastrnn_model_isa(model), isa) && fastrnn_model_nbytes(model) > 0, "isa and nbytes");
        fastrnn_model_destroy(model);
    }
    uint64_t found[16];
    int count = 0;
#define CHANGED(CHANGE, BACK)                                                                                          \
    CHANGE;                                                                                                            \
    model = model_make(c, 6, NULL);                                                                                    \
    found[count++] = fastrnn_model_fingerprint(model);                                                                 \
    fastrnn_model_destroy(model);                                                                                      \
    BACK
    float *conv = (float *)(uintptr_t)c->ops[0].weight, *cell = (float *)(uintptr_t)c->cells[3][0].weight_hh;
    const void *bias = c->ops[4].bias;
    CHANGED(conv[5] += 1, conv[5] -= 1);
    CHANGED(cell[5] += 1, cell[5] -= 1);
    CHANGED(c->ops[0].dilation = 2, c->ops[0].dilation = 1);
    CHANGED(c->ops[0].stride = 2, c->ops[0].stride = 1);
    CHANGED(c->ops[0].padding_right = 1, c->ops[0].padding_right = 0);
    CHANGED(c->ops[1].eps = 1e-3, c->ops[1].eps = 1e-5);
    CHANGED(c->ops[2].activation.alpha = 0.25, c->ops[2].activation.alpha = 0.01);
    CHANGED(c->ops[4].bias = NULL, c->ops[4].bias = bias);
    CHANGED(c->ops[5].kind = FASTRNN_OP_LOG_SOFTMAX, c->ops[5].kind = FASTRNN_OP_SOFTMAX);
#undef CHANGED
    for (int i = 0; i < count; i++) {
        check(found[i] != fingerprint, "another fingerprint");
        for (int j = 0; j < i; j++)
            check(found[i] != found[j], "another fingerprint");
    }
    chain_free(c);
    end_group("fingerprints of models");
}

static void test_descriptions(void)
{
    chain *c = small_chain();
    fastrnn_model *model = model_make(c, 4, NULL);
    fastrnn_model_info info = info_of(model);
    check(info.num_ids == 7 && info.input_size == 1 && info.output_size == 5 && !info.pools && info.stride == 1 &&
              info.first_not_streamed == -1 && info.state_size == 4, "a model of ids");
    check(fastrnn_model_output_steps(model, 0) == 0 && fastrnn_model_output_steps(model, 9) == 9, "as many steps");
    fastrnn_model_destroy(model);
    add_plain(c, FASTRNN_OP_MEAN);
    model = model_make(c, 5, NULL);
    info = info_of(model);
    check(info.pools && info.first_not_streamed == 4 && info.state_size == 0, "a model that pools");
    check(fastrnn_model_output_steps(model, 0) == 1 && fastrnn_model_output_steps(model, 9) == 1, "one step");
    fastrnn_model_destroy(model);
    chain_free(c);

    c = chain_make(6);
    add_causal_conv(c, 5, 3, 2, 4);
    add_layer(c, FASTRNN_LSTM, 7, 2, 3, 1);
    add_conv(c, 4, 3, true);
    model = model_make(c, 2, NULL);
    info = info_of(model);
    check(info.num_ids == 0 && info.input_size == 6 && info.output_size == 2 && info.stride == 2 &&
              info.state_size == 2 * 4 * 6 + 3 * (2 + 7), "a model with a tail");
    check(fastrnn_model_output_steps(model, 9) == 5, "every other step");
    fastrnn_model_destroy(model);
    model = model_make(c, 3, NULL);
    check(info_of(model).first_not_streamed == 2, "a convolution without padding does not stream");
    check(fastrnn_model_output_steps(model, 3) == 0 && fastrnn_model_output_steps(model, 5) == 1, "rows that are too short");
    fastrnn_model_destroy(model);
    chain_free(c);

    for (int directions = -1; directions <= 2; directions++) {
        if (directions == 0)
            continue;
        c = chain_make(3);
        add_linear(c, 3, false);
        add_layer(c, FASTRNN_GRU, 2, 0, 1, directions);
        model = model_make(c, 2, NULL);
        check(info_of(model).first_not_streamed == (directions == 1 ? -1 : 1), "layers that stream");
        fastrnn_model_destroy(model);
        chain_free(c);
    }
    end_group("descriptions of models");
}

/* ---- Allocations, interruption, the floating-point mode --------------------------------------------------------- */

static void test_failed_allocations(void)
{
    chain *c = chain_make(3);
    add_causal_conv(c, 4, 3, 1, 1);
    add_layer(c, FASTRNN_LSTM, 5, 0, 2, 1);
    add_layer(c, FASTRNN_GRU, 3, 0, 1, 2);
    add_linear(c, 2, true);
    int failures = 0;
    for (int n = 0;; n++) {
        fastrnn_model *model = NULL;
        counts_memory = true;
        allocations_left = n;
        live_blocks = 0;
        const fastrnn_status status = fastrnn_model_create(c->ops, 4, NULL, &model);
        const bool failed_one = allocations_left < 0;
        fastrnn_model_destroy(model);
        counts_memory = false;
        in_context("allocation %d", n);
        expect(status, failed_one ? FASTRNN_ERROR_MEMORY : FASTRNN_OK, "create");
        check(failed_one == !model, "a failed create leaves the pointer alone");
        check(live_blocks == 0, "nothing is left behind");
        if (!failed_one)
            break;
        failures++;
    }
    check(failures >= 5, "it does allocate");
    /* A model that is refused after its first layer was made. */
    c->configs[2].dtype = FASTRNN_FLOAT64;
    counts_memory = true;
    allocations_left = -1;
    live_blocks = 0;
    fastrnn_model *model = NULL;
    const fastrnn_status status = fastrnn_model_create(c->ops, 4, NULL, &model);
    counts_memory = false;
    expect(status, FASTRNN_ERROR_BLAS, "a layer of doubles");
    check(live_blocks == 0, "nothing is left behind");
    chain_free(c);
    end_group("the n-th allocation fails, for every n");
}

typedef struct asker {
    int times, stop_at, fork_at; /* fork_at 0: never */
    pid_t child;
    unsigned long long mode;
    bool mode_is_right;
} asker;

static int ask(void *argument)
{
    asker *a = argument;
    a->mode_is_right &= floating_mode() == a->mode;
    if (a->fork_at && a->times == a->fork_at)
        a->child = fork();
    return a->times++ == a->stop_at;
}

/* Calls long enough that each kind of stage is interrupted. The clock runs fast, so that every reading of it asks. */
static chain *long_chain(int which)
{
    chain *c = chain_make(which == 3 ? 1 : 40);
    switch (which) {
    case 0: /* many small products and a layer */
        add_linear(c, 64, true);
        add_layer(c, FASTRNN_LSTM, 32, 0, 1, 1);
        add_causal_conv(c, 32, 3, 1, 1);
        break;
    case 1: /* a few products of a large weight */
        add_linear(c, 700000, true);
        break;
    case 2: /* softmax and activations */
        add_activation(c, 1);
        add_plain(c, FASTRNN_OP_SOFTMAX);
        break;
    default: /* a row that is embedded, and pooled */
        add_embedding(c, 5, 300);
        add_plain(c, FASTRNN_OP_MEAN);
        break;
    }
    return c;
}

static void test_interruption(bool reduced)
{
    static const int64_t steps[] = {3000, 3, 30000, 40000};
    const unsigned long long usual = floating_mode();
    for (int which = 0; which < LENGTH(steps); which++)
        for (int threads = reduced ? 2 : 1; threads <= 2; threads++) {
            chain *c = long_chain(which);
            fastrnn_model *model = model_make(c, c->count, NULL);
            const int64_t lengths[] = {steps[which], steps[which] / 2};
            table x = table_make(2, c->widths[0], which == 3, lengths);
            table_fill(&x, 5);
            table wanted = result(model, &x, &plainly);
            fastrnn_pool *pool = NULL;
            expect(fastrnn_pool_create(threads, &pool), FASTRNN_OK, "pool");
            const bool streams = info_of(model).first_not_streamed < 0;
            size_t bytes = 0;
            void *store = streams ? model_store_make(model, 2, &bytes) : NULL, *before = NULL;
            if (streams) {
                expect(fastrnn_model_snapshot_size(model, store, 2, &bytes), FASTRNN_OK, "snapshot size");
                before = block(bytes);
                expect(fastrnn_model_snapshot_save(model, store, 2, NULL, before), FASTRNN_OK, "save");
            }
            bool stopped = true;
            int stop_at = 0;
            for (; stopped; stop_at += stop_at < 4 ? 1 : reduced ? 200 : 9) {
                asker a = {.stop_at = stop_at, .mode = usual, .mode_is_right = true};
                calling how = {.interrupted = ask, .context = &a, .pool = pool, .store = store};
                table y;
                in_context("chain %d, %d threads, asked %d times", which, threads, stop_at);
                clock_runs_fast = true;
                const fastrnn_status status = call(model, &x, &how, &y);
                clock_runs_fast = false;
                stopped = status == FASTRNN_ERROR_INTERRUPTED;
                check(stopped || status == FASTRNN_OK, "interrupted or done");
                check(stopped == (a.times > stop_at) && (!stopped || a.times == stop_at + 1), "stopped just when asked");
                check(a.mode_is_right && floating_mode() == usual, "the caller's floating-point mode");
                check(!stopped || !streams || model_store_has(model, store, 2, before), "the states are as they were");
                check(stopped || table_is(&y, &wanted), "an uninterrupted call is right");
                table_free(&y);
            }
            check(stop_at > 3, "asked several times");
            fastrnn_pool_destroy(pool);
            free(store), free(before);
            table_free(&x), table_free(&wanted);
            fastrnn_model_destroy(model);
            chain_free(c);
        }
    end_group("interrupted at every n-th asking");
}

#if !defined(__SANITIZE_THREAD__)

/* In the child, which has no workers, a stage that was shared fails, and the next call works. Both work in the parent. */
static void test_forks(void)
{
    const int64_t lengths[] = {3000, 1500};
    chain *c = long_chain(0);
    fastrnn_model *model = model_make(c, c->count, NULL);
    table x = table_make(2, c->widths[0], false, lengths);
    table_fill(&x, 1);
    table wanted = result(model, &x, &plainly);
    for (int fork_at = 1; fork_at < 12; fork_at += 2) {
        fastrnn_pool *pool = NULL;
        table y;
        expect(fastrnn_pool_create(2, &pool), FASTRNN_OK, "pool");
        fastrnn_pool_set_threshold(pool, 1e-3);
        asker a = {.stop_at = -1, .fork_at = fork_at, .child = -1, .mode = floating_mode(), .mode_is_right = true};
        const calling forking = {.pool = pool, .interrupted = ask, .context = &a}, calm = {.pool = pool};
        in_context("fork when asked %d times", fork_at);
        clock_runs_fast = true;
        const fastrnn_status status = call(model, &x, &forking, &y);
        clock_runs_fast = false;
        if (a.child == 0) {
            alarm(60);
            const bool right = status == FASTRNN_OK ? table_is(&y, &wanted) : status == FASTRNN_ERROR_FORKED;
            const bool next = call(model, &x, &calm, &y) == FASTRNN_OK && table_is(&y, &wanted);
            _exit(!right ? 1 : !next ? 2 : 0);
        }
        expect(status, FASTRNN_OK, "the parent's call");
        check(table_is(&y, &wanted), "the parent's call is right");
        check(a.child <= 0 || exit_code_of(a.child) == 0, "the child's call ends, and the next is right");
        check(fork_at > 1 || a.child > 0, "it forks");
        table_free(&y);
        fastrnn_pool_destroy(pool);
    }
    table_free(&x), table_free(&wanted);
    fastrnn_model_destroy(model);
    chain_free(c);
    end_group("callbacks that fork in a call of a model");
}

#endif

/* Subnormal numbers are flushed on every thread, whatever the caller's mode, which comes back. */
static void test_floating_modes(void)
{
    const unsigned long long usual = floating_mode();
    chain *c = chain_make(3);
    add_factors(c, FASTRNN_OP_SCALE, true, false);
    add_linear(c, 4, false);
    const int64_t lengths[] = {40, 33};
    table x = table_make(2, 3, false, lengths);
    table_fill(&x, 1);
    for (int64_t row = 0; row < 2; row++)
        for (int64_t i = 0; i < 3 * lengths[row]; i++)
            ((float *)x.rows[row])[i] *= 0x1p-127F;
    fastrnn_model *model = model_make(c, 2, NULL);
    for (int rounding = 0; rounding < 2; rounding++) {
        const unsigned long long mode = rounding ? usual | ROUND_UP : usual;
        fastrnn_pool *pool = NULL;
        expect(fastrnn_pool_create(3, &pool), FASTRNN_OK, "pool");
        fastrnn_pool_set_threshold(pool, 0);
        const calling shared = {.pool = pool};
        set_floating_mode(mode);
        table alone = result(model, &x, &plainly), y = result(model, &x, &shared);
        const unsigned long long after = floating_mode();
        set_floating_mode(usual);
        check(after == mode, "the caller's floating-point mode comes back");
        check(table_is(&y, &alone), "the bits of one thread");
        table_free(&alone), table_free(&y);
        fastrnn_pool_destroy(pool);
    }
    table_free(&x);
    fastrnn_model_destroy(model);
    chain_free(c);
    end_group("models, and the floating-point mode");
}

int main(int argc, char **argv)
{
    bool reduced = false, emulated = false;
    for (int i = 1; i < argc; i++) {
        reduced = reduced || !strcmp(argv[i], "reduced");
        emulated = emulated || !strcmp(argv[i], "emulated");
    }
    fastrnn_pool *pools[3] = {NULL};
    const char *isa;
    for (int threads = 2; threads <= 3; threads++) {
        check(fastrnn_pool_create(threads, &pools[threads - 1]) == FASTRNN_OK, "pool");
        fastrnn_pool_set_threshold(pools[threads - 1], 0);
    }
    for (size_t i = 0; (isa = fastrnn_isa(i)) != NULL; i++) {
        test_chains(isa, reduced ? 16 : 160, pools);
        test_not_finite(isa, reduced ? 8 : 40);
        test_softmax(isa);
        test_far_norm(isa);
        test_pooled_nan(isa);
        test_padding(isa);
        test_states(isa);
    }
    for (int i = 1; i < 3; i++)
        fastrnn_pool_destroy(pools[i]);
    test_wrong_models();
    test_wrong_calls();
    test_wrong_stores();
    test_fingerprints();
    test_descriptions();
    test_failed_allocations();
    test_interruption(reduced);
    test_floating_modes();
#if defined(__SANITIZE_THREAD__)
    emulated = true; /* ThreadSanitizer follows no thread into a child, either */
#else
    if (!emulated)
        test_forks();
#endif
    if (emulated)
        printf("NOT RUN: fork in a call of a model, as test_threads.c says\n");
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
