/* Compares the C core with a naive double implementation, and checks equality of bits and the refusal of wrong arguments.
 *
 * Usage: test_core [reduced]. Every array that the core sees is a heap block of exactly its size, and those that it
 * writes are filled with a poison pattern before: a sanitizer reports any access outside, and a comparison any stray write.
 *
 * Tolerance. A pre-activation is a chain of n = inputs + outputs + 2 multiply-adds whose partial sums stay around 1,
 * as weights are at most 1/sqrt(n); its roundings, each at most u = 2^-24 (float) or 2^-53 (double) and of either
 * sign, add up to about sqrt(n) u. The activations and the gate arithmetic add at most 8 u. With such weights an error about
 * halves from step to step, so the errors of all steps add up to twice that of one; the other factor of 2 is a margin:
 *     4 (sqrt(n) + 8) u * layers * max(1, |expected|)
 * Each line of the output has the worst error as a fraction of it.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS and MAP_NORESERVE, which -std=c11 hides */

#include <math.h>
#include <sys/mman.h>

#include "../../fastrnn/core/dispatch.h"
#include "../../fastrnn/core/int8_weights.h"
#include "../../fastrnn/core/layer.h"
#include "../../fastrnn/core/probe.h"
#include "testing.h"

#define MOST_CELLS 4
#define MOST_ROWS 13
#define MOST_STEPS 300

static size_t size_of(fastrnn_dtype dtype) { return dtype == FASTRNN_FLOAT64 ? sizeof(double) : sizeof(float); }

static double real_at(const void *memory, fastrnn_dtype dtype, int64_t i)
{
    return dtype == FASTRNN_FLOAT64 ? ((const double *)memory)[i] : (double)((const float *)memory)[i];
}

/* The values as the config's type, in a block of exactly their size. */
static void *reals(const double *values, int64_t count, fastrnn_dtype dtype)
{
    void *memory = block((size_t)count * size_of(dtype));
    for (int64_t i = 0; i < count; i++)
        if (dtype == FASTRNN_FLOAT64)
            ((double *)memory)[i] = values[i];
        else
            ((float *)memory)[i] = (float)values[i];
    return memory;
}

static double *random_values(int64_t count, double bound)
{
    double *values = block((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++)
        values[i] = (double)(float)(bound * random_value());
    return values;
}

/* ---- The naive implementation ---------------------------------------------------------------------------------- */

static const char *const kind_names[] = {"lstm", "gru", "rnn"};

enum { W_IH, W_HH, B_IH, B_HH, W_HR, PEEPHOLE, NUM_TENSORS };

typedef struct net {
    fastrnn_config config;
    int64_t G, P, D, num_cells;
    double *exact[MOST_CELLS][NUM_TENSORS]; /* NULL if the net has no such tensor */
    void *given[MOST_CELLS][NUM_TENSORS];
    fastrnn_cell cells[MOST_CELLS];
} net;

static bool streams(const net *n) { return n->D == 1 && !n->config.reverse; }

static int64_t input_width(const net *n, int64_t cell) { return cell < n->D ? n->config.input_size : n->D * n->P; }

static fastrnn_weight_dtype weight_dtype; /* of the nets */

/* Rounds rows of weights, so that a layer of int8 weights unpacks to them. */
static void round_to_int8(double *weight, int64_t rows, int64_t k)
{
    float *row = block((size_t)k * sizeof *row);
    for (int64_t i = 0; i < rows; i++, weight += k) {
        for (int64_t j = 0; j < k; j++)
            row[j] = (float)weight[j];
        const float scale = fr_int8_scale(row, k);
        for (int64_t j = 0; j < k; j++)
            weight[j] = (double)(scale * (float)fr_int8_of(row[j], scale));
    }
    free(row);
}

static net net_make(fastrnn_config config, fastrnn_cell options, bool bias, bool peephole)
{
    config.weight_dtype = weight_dtype;
    net n = {.config = config, .G = config.kind == FASTRNN_LSTM ? 4 : config.kind == FASTRNN_GRU ? 3 : 1};
    n.P = config.proj_size ? config.proj_size : config.hidden_size;
    n.D = config.bidirectional ? 2 : 1;
    n.num_cells = config.num_layers * n.D;
    const int64_t H = config.hidden_size;
    for (int64_t i = 0; i < n.num_cells; i++) {
        const int64_t I = input_width(&n, i);
        const int64_t counts[NUM_TENSORS] = {n.G * H * I, n.G * H * n.P, bias ? n.G * H : 0, bias ? n.G * H : 0,
                                             config.proj_size ? n.P * H : 0, peephole ? 3 * H : 0};
        for (int j = 0; j < NUM_TENSORS; j++)
            if (counts[j] || j == W_IH) {
                n.exact[i][j] = random_values(counts[j], 1 / sqrt(j == W_HR ? (double)H : (double)(I + n.P + 2)));
                const int64_t k = j == W_IH ? I : j == W_HH ? n.P : j == W_HR ? H : 0;
                if (weight_dtype == FASTRNN_WEIGHTS_INT8 && k)
                    round_to_int8(n.exact[i][j], counts[j] / k, k);
                n.given[i][j] = reals(n.exact[i][j], counts[j], config.dtype);
            }
        n.cells[i] = options;
        n.cells[i].weight_ih = n.given[i][W_IH];
        n.cells[i].weight_hh = n.given[i][W_HH];
        n.cells[i].bias_ih = n.given[i][B_IH];
        n.cells[i].bias_hh = n.given[i][B_HH];
        n.cells[i].weight_hr = n.given[i][W_HR];
        n.cells[i].peephole = n.given[i][PEEPHOLE];
    }
    return n;
}

static void net_free_given(net *n)
{
    for (int64_t i = 0; i < n->num_cells; i++)
        for (int j = 0; j < NUM_TENSORS; j++) {
            free(n->given[i][j]);
            n->given[i][j] = NULL;
        }
}

static void net_free(net *n)
{
    net_free_given(n);
    for (int64_t i = 0; i < n->num_cells; i++)
        for (int j = 0; j < NUM_TENSORS; j++)
            free(n->exact[i][j]);
}

static double clipped(double x, double bound) { return bound > 0 ? fmin(fmax(x, -bound), bound) : x; }

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

static double at_or_zero(const double *values, int64_t i) { return values ? values[i] : 0; }

static double peep(const double *weights, int64_t i, double c) { return weights ? weights[i] * c : 0; }

/* One step of one row; h (P) and c (H) are updated. */
static void naive_step(const net *n, int64_t cell_index, const double *x, double *h, double *c)
{
    const int64_t H = n->config.hidden_size, P = n->P, I = input_width(n, cell_index);
    double *const *w = n->exact[cell_index];
    const fastrnn_cell_options *o = &n->cells[cell_index].options;
    double *in = block((size_t)(n->G * H) * sizeof(double)), *rec = block((size_t)(n->G * H) * sizeof(double));
    double *new_h = block((size_t)H * sizeof(double));
    for (int64_t g = 0; g < n->G * H; g++) {
        in[g] = dot(w[W_IH] + g * I, x, I) + at_or_zero(w[B_IH], g);
        rec[g] = dot(w[W_HH] + g * P, h, P) + at_or_zero(w[B_HH], g);
    }
#define GATE(index, value) naive_activation(o->activations[index], clipped(value, o->gate_clip))
    if (n->config.kind == FASTRNN_RNN)
        for (int64_t u = 0; u < H; u++)
            new_h[u] = GATE(0, in[u] + rec[u]);
    if (n->config.kind == FASTRNN_LSTM)
        for (int64_t u = 0; u < H; u++) {
            const double i = GATE(0, in[u] + rec[u] + peep(w[PEEPHOLE], u, c[u]));
            const double forget = GATE(1, in[H + u] + rec[H + u] + peep(w[PEEPHOLE], H + u, c[u]));
            const double f = o->coupled ? 1 - i : forget;
            const double g = GATE(2, in[2 * H + u] + rec[2 * H + u]);
            c[u] = clipped(f * c[u] + i * g, o->cell_clip);
            const double out = GATE(3, in[3 * H + u] + rec[3 * H + u] + peep(w[PEEPHOLE], 2 * H + u, c[u]));
            new_h[u] = out * naive_activation(o->activations[4], c[u]);
        }
    if (n->config.kind == FASTRNN_GRU) {
        double *reset_h = block((size_t)H * sizeof(double));
        for (int64_t u = 0; u < H; u++)
            reset_h[u] = GATE(0, in[u] + rec[u]) * h[u];
        for (int64_t u = 0; u < H; u++) {
            const double r = GATE(0, in[u] + rec[u]), z = GATE(1, in[H + u] + rec[H + u]);
            const double before = dot(w[W_HH] + (2 * H + u) * H, reset_h, H) + at_or_zero(w[B_HH], 2 * H + u);
            const double candidate = GATE(2, in[2 * H + u] + (o->reset_before ? before : r * rec[2 * H + u]));
            new_h[u] = (1 - z) * candidate + z * h[u];
        }
        free(reset_h);
    }
#undef GATE
    for (int64_t p = 0; p < P; p++)
        h[p] = n->config.proj_size ? clipped(dot(w[W_HR] + p * H, new_h, H), o->proj_clip) : new_h[p];
    free(in);
    free(rec);
    free(new_h);
}

/* ---- Problems: a net, a batch in run order, and the results of the naive implementation -------------------------- */

typedef struct problem {
    const net *net;
    int64_t B, T;
    bool ragged;
    int64_t lengths[MOST_ROWS], batch_sizes[MOST_STEPS];
    double *x;        /* (B, T, I) */
    double *h0, *c0;  /* (cells, B, P), (cells, B, H) */
    double *y;        /* (B, T, D*P), zero past a row's end */
    double *hn, *cn;
} problem;

static void naive_run(problem *p)
{
    const net *n = p->net;
    const int64_t H = n->config.hidden_size, P = n->P, width = n->D * P;
    memcpy(p->hn, p->h0, (size_t)(n->num_cells * p->B * P) * sizeof(double));
    memcpy(p->cn, p->c0, (size_t)(n->num_cells * p->B * H) * sizeof(double));
    for (int64_t row = 0; row < p->B; row++) {
        double *in = block((size_t)(p->T * input_width(n, 0)) * sizeof(double));
        memcpy(in, p->x + row * p->T * input_width(n, 0), (size_t)(p->T * input_width(n, 0)) * sizeof(double));
        for (int64_t cell = 0; cell < n->num_cells; cell += n->D) {
            double *out = block((size_t)(p->T * width) * sizeof(double));
            for (int64_t d = 0; d < n->D; d++)
                for (int64_t step = 0; step < p->lengths[row]; step++) {
                    const int64_t time = d || n->config.reverse ? p->lengths[row] - 1 - step : step, index = (cell + d) * p->B + row;
                    naive_step(n, cell + d, in + time * input_width(n, cell), p->hn + index * P, p->cn + index * H);
                    memcpy(out + time * width + d * P, p->hn + index * P, (size_t)P * sizeof(double));
                }
            free(in);
            in = out;
        }
        memcpy(p->y + row * p->T * width, in, (size_t)(p->T * width) * sizeof(double));
        free(in);
    }
}

/* Ragged lengths include T, ties, a one and, with more than four rows, a zero. */
static problem problem_make(const net *n, int64_t B, int64_t T, bool ragged)
{
    problem p = {.net = n, .B = B, .T = T, .ragged = ragged};
    for (int64_t row = 0; row < B; row++)
        p.lengths[row] = !ragged || row == 0 ? T : row + 1 == B && B > 4 ? 0 : row + 2 >= B ? 1 : T - row / 2 * T / B;
    for (int64_t step = 0; step < T; step++) {
        p.batch_sizes[step] = 0;
        for (int64_t row = 0; row < B; row++)
            p.batch_sizes[step] += p.lengths[row] > step;
    }
    p.x = random_values(B * T * n->config.input_size, 1);
    p.h0 = random_values(n->num_cells * B * n->P, 1);
    p.c0 = random_values(n->num_cells * B * n->config.hidden_size, 1);
    p.y = block((size_t)(B * T * n->D * n->P) * sizeof(double));
    p.hn = block((size_t)(n->num_cells * B * n->P) * sizeof(double));
    p.cn = block((size_t)(n->num_cells * B * n->config.hidden_size) * sizeof(double));
    naive_run(&p);
    return p;
}

static void problem_free(problem *p)
{
    free(p->x);
    free(p->h0);
    free(p->c0);
    free(p->y);
    free(p->hn);
    free(p->cn);
}

/* ---- Running the core ------------------------------------------------------------------------------------------ */

typedef enum layout {
    BATCH_MAJOR,  /* (B, T, width) */
    TIME_MAJOR,   /* (T, B, width) */
    ROW_POINTERS, /* a block for each row, as long as the row */
    PACKED,       /* in run order, each step holding just the rows that run at it */
    NUM_LAYOUTS
} layout;
static const char *const layout_names[] = {"batch-major", "time-major", "row pointers", "packed"};

/* The vectors of some rows in memory, and a view of them. */
typedef struct vectors {
    fastrnn_view view;
    int64_t *offsets; /* where each step begins in packed vectors, else NULL */
    const int64_t *indices;
    int64_t num_rows, width;
    size_t bytes, e;
} vectors;

/* Row r of the run is row indices[r]; lengths in run order. */
static vectors vectors_make(layout at, int64_t B, int64_t T, const int64_t *lengths, const int64_t *indices, int64_t width,
                            fastrnn_dtype dtype)
{
    vectors v = {.indices = indices, .num_rows = B, .width = width, .e = size_of(dtype)};
    v.bytes = (size_t)(B * T * width) * v.e;
    v.view.row_stride = at == BATCH_MAJOR ? T * width : width;
    v.view.step_stride = at == TIME_MAJOR ? B * width : width;
    if (at == PACKED)
        v.offsets = block((size_t)T * sizeof *v.offsets);
    int64_t total = 0;
    for (int64_t step = 0; step < T; step++) {
        if (v.offsets)
            v.offsets[step] = total;
        for (int64_t row = 0; row < B; row++)
            total += lengths[row] > step;
    }
    if (at == PACKED)
        v.bytes = (size_t)(total * width) * v.e;
    if (at == ROW_POINTERS) {
        void **rows = block((size_t)B * sizeof *rows);
        for (int64_t row = 0; row < B; row++)
            rows[indices[row]] = block((size_t)(lengths[row] * width) * v.e);
        v.view.rows = rows;
    } else {
        v.view.base = block(v.bytes);
    }
    return v;
}

static void vectors_free(vectors *v)
{
    for (int64_t row = 0; v->view.rows && row < v->num_rows; row++)
        free(v->view.rows[row]);
    free((void *)(uintptr_t)v->view.rows);
    free(v->offsets);
    free(v->view.base);
}

/* Those of row `row` of the run. */
static void *vector_at(const vectors *v, int64_t row, int64_t time)
{
    if (v->offsets)
        return (char *)v->view.base + (size_t)((v->offsets[time] + row) * v->width) * v->e;
    row = v->indices[row];
    char *start = v->view.rows ? v->view.rows[row] : (char *)v->view.base + (size_t)(row * v->view.row_stride) * v->e;
    return start + (size_t)(time * v->view.step_stride) * v->e;
}

typedef enum way { RUN, UNROLLED, STREAM } way;

/* Results, in the problem's layouts and the config's type. */
typedef struct outcome {
    void *y, *hn, *cn;
} outcome;

static void outcome_free(outcome *o)
{
    free(o->y);
    free(o->hn);
    free(o->cn);
}

static fastrnn_pool *pool; /* that batches run on */

static fastrnn_status stream_chunks(const fastrnn_layer *layer, const fastrnn_batch *batch, const vectors *x, const vectors *y)
{
    const int64_t B = batch->num_rows;
    size_t size = 0;
    void *store = store_make(layer, B, 0);
    fastrnn_status status = fastrnn_store_size(layer, B, 0, &size);
    void *copy = aligned_alloc(64, size);
    if (!copy)
        exit(2);
    if (!status)
        status = fastrnn_store_set(layer, store, B, NULL, batch->h0, batch->c0);
    int64_t chunk = 1;
    for (int64_t step = 0; step < batch->num_steps && !status; step += chunk, chunk = chunk % 4 + 1) {
        fastrnn_batch part = *batch;
        part.num_steps = chunk = step + chunk > batch->num_steps ? batch->num_steps - step : chunk;
        part.h0 = part.c0 = part.hn = part.cn = NULL;
        part.store = store;
        void **rows[2] = {block((size_t)B * sizeof **rows), block((size_t)B * sizeof **rows)};
        const vectors *sides[] = {x, y};
        fastrnn_view *views[] = {&part.x, &part.y};
        for (int side = 0; side < 2; side++) { /* a packed step holds every row: a chunk begins at run row 0 */
            const int64_t bytes = step * views[side]->step_stride * (int64_t)sides[side]->e;
            for (int64_t row = 0; row < B && views[side]->rows; row++)
                rows[side][row] = (char *)sides[side]->view.rows[row] + bytes;
            if (views[side]->rows)
                views[side]->rows = rows[side];
            else
                views[side]->base = sides[side]->offsets ? vector_at(sides[side], 0, step) : (char *)views[side]->base + bytes;
        }
        status = run(layer, &part);
        free(rows[0]), free(rows[1]);
        memcpy(copy, store, size); /* continue with a copy of the bytes */
        memset(store, POISON, size);
        void *other = store;
        store = copy;
        copy = other;
    }
    if (!status)
        status = fastrnn_store_get(layer, store, B, NULL, batch->hn, batch->cn);
    free(store);
    free(copy);
    return status;
}

/* Rows [first, first + count) of the problem as a batch of their own. The longest comes first. */
static outcome execute(const fastrnn_layer *layer, const problem *p, int64_t first, int64_t count, way how, layout at)
{
    const net *n = p->net;
    const fastrnn_dtype dtype = n->config.dtype;
    const size_t e = size_of(dtype);
    const int64_t T = p->lengths[first], I = n->config.input_size, H = n->config.hidden_size, width = n->D * n->P;
    const int64_t *lengths = p->lengths + first;
    int64_t *batch_sizes = block((size_t)T * sizeof *batch_sizes), *indices = block((size_t)count * sizeof *indices);
    for (int64_t row = 0; row < count; row++)
        indices[row] = how == STREAM && at == BATCH_MAJOR ? row : (row + 1) % count; /* so that the order of the arrays differs */
    /* One flag says that both x and y are packed. */
    const layout y_at = how == STREAM || at == PACKED ? at : (at + 1) % PACKED;
    vectors x = vectors_make(at, count, T, lengths, indices, I, dtype);
    vectors y = vectors_make(y_at, count, T, lengths, indices, width, dtype);
    for (int64_t step = 0; step < T; step++) {
        batch_sizes[step] = 0;
        for (int64_t row = 0; row < count; row++)
            if (step < lengths[row]) {
                batch_sizes[step]++;
                void *values = reals(p->x + ((first + row) * p->T + step) * I, I, dtype);
                memcpy(vector_at(&x, row, step), values, (size_t)I * e);
                free(values);
            }
    }
    void *h0 = block((size_t)(n->num_cells * count * n->P) * e), *c0 = block((size_t)(n->num_cells * count * H) * e);
    outcome o = {.y = block((size_t)(count * T * width) * e), .hn = block((size_t)(n->num_cells * count * n->P) * e),
                 .cn = block((size_t)(n->num_cells * count * H) * e)};
    void *hn = block((size_t)(n->num_cells * count * n->P) * e), *cn = block((size_t)(n->num_cells * count * H) * e);
    for (int64_t cell = 0; cell < n->num_cells; cell++)
        for (int64_t row = 0; row < count; row++) {
            void *h = reals(p->h0 + (cell * p->B + first + row) * n->P, n->P, dtype);
            void *c = reals(p->c0 + (cell * p->B + first + row) * H, H, dtype);
            memcpy((char *)h0 + (size_t)((cell * count + indices[row]) * n->P) * e, h, (size_t)n->P * e);
            memcpy((char *)c0 + (size_t)((cell * count + indices[row]) * H) * e, c, (size_t)H * e);
            free(h);
            free(c);
        }
    const bool lstm = n->config.kind == FASTRNN_LSTM;
    fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = count, .num_steps = T, .row_indices = indices,
                           .x = x.view, .y = y.view, .packed = at == PACKED, .pool = pool,
                           .h0 = h0, .c0 = lstm ? c0 : NULL, .hn = hn, .cn = lstm ? cn : NULL};
    if (p->ragged && how == RUN) {
        batch.lengths = lengths;
        batch.batch_sizes = batch_sizes;
    }
    const fastrnn_status status = how == RUN      ? run(layer, &batch)
                                  : how == STREAM ? stream_chunks(layer, &batch, &x, &y)
                                                  : run_unrolled(layer, &batch);
    check(status == FASTRNN_OK, fastrnn_status_message(status));
    bool untouched = true;
    for (int64_t row = 0; row < count; row++)
        for (int64_t step = 0; step < T; step++) {
            if (step < lengths[row])
                memcpy((char *)o.y + (size_t)((row * T + step) * width) * e, vector_at(&y, row, step),
                       (size_t)width * e);
            else if (!y.view.rows && !y.offsets && y.bytes == (size_t)(count * T * width) * e)
                untouched &= is_poison(vector_at(&y, row, step), (size_t)width * e);
        }
    check(untouched, "nothing is written past a row's end");
    for (int64_t cell = 0; cell < n->num_cells; cell++)
        for (int64_t row = 0; row < count; row++) {
            const int64_t from = cell * count + indices[row], to = cell * count + row;
            memcpy((char *)o.hn + (size_t)(to * n->P) * e, (char *)hn + (size_t)(from * n->P) * e, (size_t)n->P * e);
            memcpy((char *)o.cn + (size_t)(to * H) * e, (char *)cn + (size_t)(from * H) * e, (size_t)H * e);
        }
    void *const blocks[] = {batch_sizes, indices, h0, c0, hn, cn};
    for (int i = 0; i < LENGTH(blocks); i++)
        free(blocks[i]);
    vectors_free(&x);
    vectors_free(&y);
    return o;
}

/* ---- Comparisons ----------------------------------------------------------------------------------------------- */

static double tolerance_of(const problem *p)
{
    const net *n = p->net;
    const double unit = n->config.dtype == FASTRNN_FLOAT64 ? 0x1p-53 : 0x1p-24;
    const int64_t I = input_width(n, 0), inner = n->config.num_layers > 1 ? n->D * n->P : 0;
    const double terms = (double)((I > inner ? I : inner) + n->P + 2);
    return 4 * (sqrt(terms) + 8) * unit * (double)n->config.num_layers;
}

static bool near(const void *found, fastrnn_dtype dtype, int64_t at, const double *expected, int64_t count,
                 double tolerance)
{
    bool ok = true;
    for (int64_t i = 0; i < count; i++) {
        const double error = fabs(real_at(found, dtype, at + i) - expected[i]);
        const double ratio = error / (tolerance * fmax(1, fabs(expected[i])));
        ok &= ratio <= 1;
        worst_ratio = fmax(worst_ratio, ratio);
    }
    return ok;
}

static void check_near(const problem *p, const outcome *o)
{
    const net *n = p->net;
    if (n->config.weight_dtype == FASTRNN_WEIGHTS_INT8) /* test_int8.c compares its numbers */
        return;
    const int64_t width = n->D * n->P, H = n->config.hidden_size;
    const double tolerance = tolerance_of(p);
    bool y = true;
    for (int64_t row = 0; row < p->B; row++)
        y &= near(o->y, n->config.dtype, row * p->T * width, p->y + row * p->T * width, p->lengths[row] * width,
                  tolerance);
    check(y, "y is that of naive arithmetic");
    check(near(o->hn, n->config.dtype, 0, p->hn, n->num_cells * p->B * n->P, tolerance),
          "hn is that of naive arithmetic");
    if (n->config.kind == FASTRNN_LSTM)
        check(near(o->cn, n->config.dtype, 0, p->cn, n->num_cells * p->B * H, tolerance),
              "cn is that of naive arithmetic");
}

/* Rows [first, first + count) of `all` are `part`, bit by bit. */
static bool same_bits(const problem *p, const outcome *all, const outcome *part, int64_t first, int64_t count)
{
    const net *n = p->net;
    const size_t e = size_of(n->config.dtype);
    const int64_t width = n->D * n->P, H = n->config.hidden_size, T = p->lengths[first];
    bool same = true;
    for (int64_t row = 0; row < count; row++)
        same &= !memcmp((char *)all->y + (size_t)((first + row) * p->T * width) * e,
                        (char *)part->y + (size_t)(row * T * width) * e, (size_t)(p->lengths[first + row] * width) * e);
    for (int64_t cell = 0; cell < n->num_cells; cell++) {
        const size_t from = (size_t)(cell * p->B + first), to = (size_t)(cell * count);
        const size_t h = (size_t)n->P * e, c = (size_t)H * e; /* bytes a row */
        same &= !memcmp((char *)all->hn + from * h, (char *)part->hn + to * h, (size_t)count * h);
        if (n->config.kind == FASTRNN_LSTM)
            same &= !memcmp((char *)all->cn + from * c, (char *)part->cn + to * c, (size_t)count * c);
    }
    return same;
}

/* All checks of one problem on one layer. */
static void check_problem(const fastrnn_layer *layer, const problem *p, layout at)
{
    const layout one_row = at == PACKED || at == ROW_POINTERS ? BATCH_MAJOR : TIME_MAJOR;
    outcome all = execute(layer, p, 0, p->B, RUN, at);
    check_near(p, &all);
    for (int64_t row = 0; row < p->B; row++) {
        outcome alone = execute(layer, p, row, 1, RUN, (layout)((at + row) % NUM_LAYOUTS));
        check(same_bits(p, &all, &alone, row, 1), "a row alone has the bits it has in the batch");
        outcome_free(&alone);
        if (!streams(p->net))
            continue;
        outcome streamed = execute(layer, p, row, 1, STREAM, one_row);
        check(same_bits(p, &all, &streamed, row, 1), "a stream of chunks has the bits of a run");
        outcome_free(&streamed);
    }
    int64_t ties = 1; /* number of rows that are as long as the first */
    while (ties < p->B && p->lengths[ties] == p->T)
        ties++;
    outcome unrolled = execute(layer, p, 0, ties, UNROLLED, at);
    check(same_bits(p, &all, &unrolled, 0, ties), "unrolled has the bits of packed");
    outcome_free(&unrolled);
    if (streams(p->net)) {
        outcome streamed = execute(layer, p, 0, ties, STREAM, one_row);
        check(same_bits(p, &all, &streamed, 0, ties), "a stream of rows has the bits of a run");
        outcome_free(&streamed);
    }
    outcome_free(&all);
}

/* Builds the net's layer; the weights are freed at once, as a layer must not need them any more. */
static fastrnn_layer *layer_make(net *n, const char *isa, const fastrnn_blas *blas)
{
    for (int64_t i = 0; i < n->num_cells; i++) {
        const int64_t I = input_width(n, i), H = n->config.hidden_size;
        const int64_t counts[NUM_TENSORS] = {n->G * H * I, n->G * H * n->P, n->G * H, n->G * H, n->P * H, 3 * H};
        const void **slots[NUM_TENSORS] = {&n->cells[i].weight_ih, &n->cells[i].weight_hh, &n->cells[i].bias_ih,
                                           &n->cells[i].bias_hh, &n->cells[i].weight_hr, &n->cells[i].peephole};
        for (int j = 0; j < NUM_TENSORS; j++)
            if (n->exact[i][j] && !n->given[i][j])
                *slots[j] = n->given[i][j] = reals(n->exact[i][j], counts[j], n->config.dtype);
    }
    fastrnn_layer *layer = NULL;
    const fastrnn_status status = fastrnn_layer_create(&n->config, n->cells, isa, blas, &layer);
    check(status == FASTRNN_OK, fastrnn_status_message(status));
    net_free_given(n);
    if (!layer)
        exit(2);
    return layer;
}

/* A layer unpacks to the given weights, with biases added, and these make the same layer on every instruction set. */
static void check_unpacked(const fastrnn_layer *layer, const problem *p, const char *isa, const fastrnn_blas *blas)
{
    net *n = (net *)(uintptr_t)p->net;
    const fastrnn_dtype dtype = n->config.dtype;
    const size_t e = size_of(dtype);
    const int64_t H = n->config.hidden_size;
    fastrnn_cell unpacked[MOST_CELLS];
    void *memory[MOST_CELLS][NUM_TENSORS];
    bool same = true;
    for (int64_t i = 0; i < n->num_cells; i++) {
        const int64_t counts[NUM_TENSORS] = {n->G * H * input_width(n, i), n->G * H * n->P, n->G * H, n->G * H, n->P * H, 3 * H};
        for (int j = 0; j < NUM_TENSORS; j++)
            memory[i][j] = block((size_t)counts[j] * e);
        unpacked[i].struct_size = sizeof unpacked[i];
        const fastrnn_cell_arrays arrays = {sizeof arrays, memory[i][W_IH], memory[i][W_HH], memory[i][B_IH],
                                            memory[i][B_HH], memory[i][W_HR], memory[i][PEEPHOLE]};
        expect(fastrnn_layer_unpack(layer, i, &arrays, &unpacked[i]), FASTRNN_OK, "unpack");
        for (int j = 0; j < NUM_TENSORS; j++) {
            if (j == B_IH || j == B_HH)
                continue;
            const bool present = n->exact[i][j] != NULL;
            void *wanted = present ? reals(n->exact[i][j], counts[j], dtype) : NULL;
            same &= present ? !memcmp(memory[i][j], wanted, (size_t)counts[j] * e) : is_poison(memory[i][j], (size_t)counts[j] * e);
            free(wanted);
        }
        for (int64_t at = 0; at < n->G * H; at++) {
            const double a = n->exact[i][B_IH] ? n->exact[i][B_IH][at] : 0, b = n->exact[i][B_HH] ? n->exact[i][B_HH][at] : 0;
            const bool row_step = n->config.kind == FASTRNN_GRU && at >= 2 * H;
            const double sum = dtype == FASTRNN_FLOAT64 ? a + b : (double)((float)a + (float)b);
            same &= real_at(memory[i][B_IH], dtype, at) == (row_step ? a : sum);
            same &= real_at(memory[i][B_HH], dtype, at) == (row_step ? b : 0);
        }
        check((unpacked[i].peephole != NULL) == (n->exact[i][PEEPHOLE] != NULL) &&
                  (unpacked[i].weight_hr != NULL) == (n->exact[i][W_HR] != NULL),
              "unpacked: the arrays that there are");
        const fastrnn_cell_options *found = &unpacked[i].options, *given = &n->cells[i].options;
        check(!memcmp(found->activations, given->activations, sizeof found->activations) &&
                  found->cell_clip == given->cell_clip && found->gate_clip == given->gate_clip &&
                  found->proj_clip == given->proj_clip && found->coupled == given->coupled &&
                  found->reset_before == given->reset_before,
              "unpacked: the options");
    }
    check(same, "unpacked: the weights");
    const char *other;
    for (size_t i = 0; (other = fastrnn_isa(i)) != NULL; i++) {
        fastrnn_layer *again = NULL;
        expect(fastrnn_layer_create(&n->config, unpacked, other, blas, &again), FASTRNN_OK, "a model of what was unpacked");
        check(fastrnn_layer_fingerprint(again) == fastrnn_layer_fingerprint(layer), "the same fingerprint");
        if (!strcmp(other, isa)) {
            outcome wanted = execute(layer, p, 0, p->B, RUN, BATCH_MAJOR), found = execute(again, p, 0, p->B, RUN, BATCH_MAJOR);
            check(same_bits(p, &wanted, &found, 0, p->B), "the same bits");
            outcome_free(&wanted);
            outcome_free(&found);
        }
        fastrnn_layer_destroy(again);
    }
    for (int64_t i = 0; i < n->num_cells; i++)
        for (int j = 0; j < NUM_TENSORS; j++)
            free(memory[i][j]);
}

static void swap(int64_t *a, int64_t *b)
{
    const int64_t kept = *a;
    *a = *b;
    *b = kept;
}

/* The initial states of the problem's first B rows: h0 (L, B, P), c0 (L, B, H). */
static void initial_states(const problem *p, int64_t B, void *h0, void *c0)
{
    const net *n = p->net;
    const size_t e = size_of(n->config.dtype);
    const int64_t P = n->P, H = n->config.hidden_size;
    for (int64_t layer = 0; layer < n->num_cells; layer++) {
        void *h = reals(p->h0 + layer * p->B * P, B * P, n->config.dtype);
        void *c = reals(p->c0 + layer * p->B * H, B * H, n->config.dtype);
        memcpy((char *)h0 + (size_t)(layer * B * P) * e, h, (size_t)(B * P) * e);
        memcpy((char *)c0 + (size_t)(layer * B * H) * e, c, (size_t)(B * H) * e);
        free(h), free(c);
    }
}

/* If the slots of a store run in several calls, each with some of the slots in any order and with its own lengths, the results
 * have the bits of one run; also if the store is restored from a snapshot in between. */
static void check_slots(const fastrnn_layer *layer, const problem *p)
{
    const net *n = p->net;
    const size_t e = size_of(n->config.dtype);
    const int64_t I = n->config.input_size, P = n->P, H = n->config.hidden_size, L = n->num_cells, T = p->T;
    int64_t B = 1;
    while (B < p->B && p->lengths[B] == T)
        B++;
    outcome all = execute(layer, p, 0, B, RUN, BATCH_MAJOR);
    enum { EXTRA = 3 };
    size_t snapshot_bytes = 0;
    void *store = store_make(layer, B, EXTRA);
    expect(fastrnn_snapshot_size(layer, store, B, &snapshot_bytes), FASTRNN_OK, "snapshot size");
    void *snapshot = block(snapshot_bytes);
    void *h0 = block((size_t)(L * B * P) * e), *c0 = block((size_t)(L * B * H) * e);
    outcome found = {.y = block((size_t)(B * T * P) * e), .hn = block((size_t)(L * B * P) * e), .cn = block((size_t)(L * B * H) * e)};
    int64_t *order = block((size_t)B * sizeof *order), *taken = block((size_t)B * sizeof *taken);
    int64_t *indices = block((size_t)B * sizeof *indices), *lengths = block((size_t)B * sizeof *lengths);
    for (int64_t row = 0; row < B; row++) {
        order[row] = row;
        taken[row] = 0;
    }
    initial_states(p, B, h0, c0);
    const bool lstm = n->config.kind == FASTRNN_LSTM;
    expect(fastrnn_store_set(layer, store, B, order, h0, lstm ? c0 : NULL), FASTRNN_OK, "store set");
    for (int64_t row = 0; row < B; row++)
        memset(fastrnn_store_extra(layer, store, row), 1 + (int)row % 100, EXTRA * e);
    bool halfway = false;
    for (int64_t left = B * T; left > 0;) {
        for (int64_t i = B - 1; i > 0; i--)
            swap(&order[i], &order[random_bits() % (uint64_t)(i + 1)]);
        const int64_t count = 1 + (int64_t)(random_bits() % (uint64_t)B); /* the slots order[0], order[1], ... run */
        int64_t batch_sizes[3] = {0}, most = 0;
        for (int64_t i = 0; i < count; i++) { /* sorted by length into run order */
            const int64_t rest = T - taken[order[i]], length = (int64_t)(random_bits() % 4);
            int64_t at = i;
            lengths[i] = rest < length ? rest : length;
            indices[i] = i;
            for (; at > 0 && lengths[at - 1] < lengths[at]; at--) {
                swap(&lengths[at - 1], &lengths[at]);
                swap(&indices[at - 1], &indices[at]);
            }
            for (int64_t step = 0; step < rest && step < length; step++)
                batch_sizes[step]++;
        }
        most = lengths[0];
        char *x = block((size_t)(count * most * I) * e), *y = block((size_t)(count * most * P) * e);
        for (int64_t row = 0; row < count; row++) {
            const int64_t slot = order[indices[row]];
            void *values = reals(p->x + (slot * T + taken[slot]) * I, lengths[row] * I, n->config.dtype);
            memcpy(x + (size_t)(indices[row] * most * I) * e, values, (size_t)(lengths[row] * I) * e);
            free(values);
        }
        const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = count, .num_steps = most, .pool = pool,
                                     .lengths = lengths, .batch_sizes = batch_sizes, .row_indices = indices,
                                     .store = store, .slots = order,
                                     .x = {.base = x, .row_stride = most * I, .step_stride = I},
                                     .y = {.base = y, .row_stride = most * P, .step_stride = P}};
        expect(run(layer, &batch), FASTRNN_OK, "run of slots");
        for (int64_t row = 0; row < count; row++) {
            const int64_t slot = order[indices[row]];
            memcpy((char *)found.y + (size_t)((slot * T + taken[slot]) * P) * e, y + (size_t)(indices[row] * most * P) * e,
                   (size_t)(lengths[row] * P) * e);
            taken[slot] += lengths[row];
            left -= lengths[row];
        }
        free(x), free(y);
        if (!halfway && left <= B * T / 2) {
            halfway = true;
            expect(fastrnn_snapshot_save(layer, store, B, order, snapshot), FASTRNN_OK, "snapshot");
            expect(fastrnn_store_set(layer, store, B, NULL, NULL, NULL), FASTRNN_OK, "store set");
            check(*(const char *)fastrnn_store_extra(layer, store, 0) == 0, "the extra numbers become zero");
            expect(fastrnn_snapshot_restore(layer, store, B, order, snapshot, snapshot_bytes), FASTRNN_OK, "restore");
        }
    }
    expect(fastrnn_store_get(layer, store, B, NULL, found.hn, lstm ? found.cn : NULL), FASTRNN_OK, "store get");
    check(!memcmp(found.y, all.y, (size_t)(B * T * P) * e) && !memcmp(found.hn, all.hn, (size_t)(L * B * P) * e) &&
              (!lstm || !memcmp(found.cn, all.cn, (size_t)(L * B * H) * e)),
          "rows that run apart have the bits of a run");
    bool kept = true;
    for (int64_t row = 0; row < B; row++)
        for (size_t byte = 0; byte < EXTRA * e; byte++)
            kept &= ((const char *)fastrnn_store_extra(layer, store, row))[byte] == 1 + row % 100;
    check(kept, "runs and snapshots keep the extra numbers");
    outcome_free(&all);
    outcome_free(&found);
    void *const blocks[] = {store, snapshot, h0, c0, order, taken, indices, lengths};
    for (int i = 0; i < LENGTH(blocks); i++)
        free(blocks[i]);
}

/* A prepared step of some slots, in memory of just its size and of no alignment. Its rows are `gap` elements apart. */
typedef struct stepper {
    int64_t count, slots[MOST_ROWS], gap;
    fastrnn_batch batch;
    unsigned flags;
    void *memory;
    fastrnn_step *step;
} stepper;

static void stepper_prepare(stepper *s, const fastrnn_layer *layer, const net *n, void *store, bool named)
{
    size_t size = 0;
    fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = s->count, .num_steps = 1, .store = store, .pool = pool,
                           .slots = named ? s->slots : NULL, .x.row_stride = n->config.input_size + s->gap,
                           .y.row_stride = n->P + s->gap};
    s->batch = batch;
    expect(fastrnn_step_size(layer, &batch, &size), FASTRNN_OK, "step size");
    s->memory = block(size + 1);
    expect(fastrnn_step_prepare(layer, &batch, s->flags, (char *)s->memory + 1, size, &s->step), FASTRNN_OK, "prepare a step");
    memset(&batch, POISON, sizeof batch); /* it is not used any more */
}

/* Prepared steps and runs of slots in turns, with the states read and set again in between, have the bits of one run. */
static void check_steps(const fastrnn_layer *layer, const problem *p)
{
    const net *n = p->net;
    const size_t e = size_of(n->config.dtype);
    const int64_t I = n->config.input_size, P = n->P, H = n->config.hidden_size, L = n->num_cells, T = p->T;
    const bool lstm = n->config.kind == FASTRNN_LSTM;
    int64_t B = 1, taken[MOST_ROWS] = {0};
    while (B < p->B && p->lengths[B] == T)
        B++;
    outcome all = execute(layer, p, 0, B, RUN, BATCH_MAJOR);
    outcome found = {.y = block((size_t)(B * T * P) * e), .hn = block((size_t)(L * B * P) * e), .cn = block((size_t)(L * B * H) * e)};
    void *store = store_make(layer, B, 0);
    initial_states(p, B, found.hn, found.cn);
    expect(fastrnn_store_set(layer, store, B, NULL, found.hn, lstm ? found.cn : NULL), FASTRNN_OK, "store set");
    /* Single slots, then the last half, two slots in descending order, and all slots. */
    stepper steppers[MOST_ROWS + 3] = {0};
    const int64_t num_steppers = B + 3;
    for (int64_t i = 0; i < num_steppers; i++) {
        stepper *s = &steppers[i];
        s->count = i < B ? 1 : i == B ? B - B / 2 : i == B + 1 ? (B > 1 ? 2 : 1) : B;
        for (int64_t row = 0; row < s->count; row++)
            s->slots[row] = i < B ? i : i == B ? B / 2 + row : i == B + 1 ? (row ? 0 : B - 1) : row;
        s->gap = i % 2 ? 0 : 5;
        s->flags = i % 3 ? FASTRNN_STEP_CALLER_MODE : 0;
        stepper_prepare(s, layer, n, store, i < B + 2);
    }
    bool modes_stay = true, gaps_stay = true;
    for (int64_t left = B * T; left > 0;) {
        stepper *s = &steppers[B + (int64_t)(random_bits() % 3)];
        for (int64_t row = 0; row < s->count; row++)
            if (taken[s->slots[row]] == T) { /* then a single slot that is not done */
                int64_t slot = (int64_t)(random_bits() % (uint64_t)B);
                while (taken[slot] == T)
                    slot = (slot + 1) % B;
                s = &steppers[slot];
                break;
            }
        const bool runs = random_bits() % 4 == 0;
        int64_t steps = runs ? 3 : 1;
        for (int64_t row = 0; row < s->count; row++)
            if (T - taken[s->slots[row]] < steps)
                steps = T - taken[s->slots[row]];
        const int64_t x_row = steps * I + s->gap, y_row = steps * P + s->gap;
        char *x = block((size_t)((s->count - 1) * x_row + steps * I) * e);
        char *y = block((size_t)((s->count - 1) * y_row + steps * P) * e);
        for (int64_t row = 0; row < s->count; row++) {
            const int64_t slot = s->slots[row];
            void *values = reals(p->x + (slot * T + taken[slot]) * I, steps * I, n->config.dtype);
            memcpy(x + (size_t)(row * x_row) * e, values, (size_t)(steps * I) * e);
            free(values);
        }
        if (runs) {
            fastrnn_batch batch = s->batch;
            batch.num_steps = steps;
            batch.x = (fastrnn_view){.base = x, .row_stride = x_row, .step_stride = I};
            batch.y = (fastrnn_view){.base = y, .row_stride = y_row, .step_stride = P};
            expect(run(layer, &batch), FASTRNN_OK, "run of slots");
        } else {
            const uint64_t kept = s->flags ? fastrnn_fp_flush() : 0;
            const unsigned long long before = floating_mode();
            expect(fastrnn_step_run(s->step, x, y), FASTRNN_OK, "a prepared step");
            modes_stay &= floating_mode() == before;
            if (s->flags)
                fastrnn_fp_restore(kept);
        }
        for (int64_t row = 0; row < s->count; row++) {
            const int64_t slot = s->slots[row];
            const char *from = y + (size_t)(row * y_row) * e;
            memcpy((char *)found.y + (size_t)((slot * T + taken[slot]) * P) * e, from, (size_t)(steps * P) * e);
            gaps_stay &= row + 1 == s->count || is_poison(from + (size_t)(steps * P) * e, (size_t)s->gap * e);
            taken[slot] += steps;
            left -= steps;
        }
        free(x), free(y);
        if (random_bits() % 8 == 0) {
            expect(fastrnn_store_get(layer, store, B, NULL, found.hn, lstm ? found.cn : NULL), FASTRNN_OK, "store get");
            expect(fastrnn_store_set(layer, store, B, NULL, NULL, NULL), FASTRNN_OK, "store reset");
            expect(fastrnn_store_set(layer, store, B, NULL, found.hn, lstm ? found.cn : NULL), FASTRNN_OK, "store set");
        }
    }
    expect(fastrnn_store_get(layer, store, B, NULL, found.hn, lstm ? found.cn : NULL), FASTRNN_OK, "store get");
    check(!memcmp(found.y, all.y, (size_t)(B * T * P) * e) && !memcmp(found.hn, all.hn, (size_t)(L * B * P) * e) &&
              (!lstm || !memcmp(found.cn, all.cn, (size_t)(L * B * H) * e)),
          "prepared steps have the bits of a run");
    check(modes_stay, "the floating-point mode is the caller's after a prepared step");
    check(gaps_stay, "a prepared step writes nothing between the rows");
    for (int64_t i = 0; i < num_steppers; i++)
        free(steppers[i].memory);
    outcome_free(&all);
    outcome_free(&found);
    free(store);
}

/* ---- Groups of checks ------------------------------------------------------------------------------------------ */

typedef struct sweep {
    const int *sizes, *batches;
    int num_sizes, num_batches;
} sweep;

static void test_sizes(const char *isa, fastrnn_kind kind, sweep s)
{
    int turn = 0;
    for (int i = 0; i < s.num_sizes; i++)
        for (int j = 0; j < s.num_batches; j++) {
            const int64_t H = s.sizes[i], I = s.sizes[(i + j + 3) % s.num_sizes], B = s.batches[j];
            const int64_t P = kind == FASTRNN_LSTM && turn % 3 == 2 ? s.sizes[(i + 2 * j + 1) % s.num_sizes] : 0;
            const int64_t L = 1 + turn / 2 % 2;
            const int directions = turn % 2 ? 2 : turn / 4 % 2 ? -1 : 1;
            net n = net_make(config_of(kind, I, H, P, L, directions), standard_cell(kind), turn % 5 != 4, false);
            if (kind == FASTRNN_RNN && turn % 2)
                for (int64_t cell = 0; cell < n.num_cells; cell++)
                    n.cells[cell].options.activations[0].name = FASTRNN_RELU;
            problem p = problem_make(&n, B, 5 + turn % 2, turn % 4 != 1);
            const layout at = (layout)(turn % NUM_LAYOUTS);
            in_context("%s %s I %d H %d P %d L %d D %d B %d %s", isa, kind_names[kind], (int)I, (int)H, (int)P, (int)L,
                       directions, (int)B, layout_names[at]);
            fastrnn_layer *layer = layer_make(&n, isa, NULL);
            check_problem(layer, &p, at);
            check_unpacked(layer, &p, isa, NULL);
            if (directions == 1) {
                check_slots(layer, &p);
                check_steps(layer, &p);
            }
            fastrnn_layer_destroy(layer);
            problem_free(&p);
            net_free(&n);
            turn++;
        }
    end_group("%s %s: sizes, rows, layers, directions", isa, kind_names[kind]);
}

/* Long enough for many blocks of projected steps, and for the last block to be another size. */
static void test_long(const char *isa)
{
    const int64_t cases[][4] = {{1, 300, 33, 2}, {13, 61, 33, 2}, {9, 41, 65, 1}, {1, 300, 1, 1}}; /* B T H L */
    for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
        for (int i = 0; i < LENGTH(cases); i++)
            for (int ragged = 0; ragged < 2; ragged++) {
                net n = net_make(config_of((fastrnn_kind)kind, 7, cases[i][2], 0, cases[i][3], 1 + i % 2),
                                 standard_cell((fastrnn_kind)kind), true, false);
                problem p = problem_make(&n, cases[i][0], cases[i][1], ragged);
                for (int at = 0; at < NUM_LAYOUTS; at++) {
                    in_context("%s %s long case %d ragged %d %s", isa, kind_names[kind], i, ragged, layout_names[at]);
                    fastrnn_layer *layer = layer_make(&n, isa, NULL);
                    outcome all = execute(layer, &p, 0, p.B, RUN, (layout)at);
                    check_near(&p, &all);
                    const way how = streams(&n) && at < ROW_POINTERS ? STREAM : RUN;
                    outcome alone = execute(layer, &p, p.B / 2, 1, how, (layout)at);
                    check(same_bits(&p, &all, &alone, p.B / 2, 1), "a row alone has the bits it has in the batch");
                    outcome unrolled = execute(layer, &p, 0, 1, UNROLLED, (layout)at);
                    check(same_bits(&p, &all, &unrolled, 0, 1), "unrolled has the bits of packed");
                    outcome_free(&all);
                    outcome_free(&alone);
                    outcome_free(&unrolled);
                    fastrnn_layer_destroy(layer);
                }
                problem_free(&p);
                net_free(&n);
            }
    end_group("%s: long runs in blocks", isa);
}

/* All are continuous with slopes of at most 1, which the tolerance assumes. */
static const fastrnn_activation smooth[] = {
    {FASTRNN_SIGMOID, 0, 0},       {FASTRNN_TANH, 0, 0},
    {FASTRNN_RELU, 0, 0},          {FASTRNN_LINEAR, 0, 0},
    {FASTRNN_HARD_SIGMOID, 0.2, 0.5}, {FASTRNN_LEAKY_RELU, 0.1, 0},
    {FASTRNN_ELU, 0.9, 0},         {FASTRNN_SOFTSIGN, 0, 0},
    {FASTRNN_SOFTPLUS, 0, 0},      {FASTRNN_AFFINE, 0.7, 0.1},
    {FASTRNN_SCALED_TANH, 0.9, 0.8}, {FASTRNN_THRESHOLDED_RELU, 0, 0},
};

_Static_assert(LENGTH(smooth) == FASTRNN_NUM_ACTIVATIONS, "every activation is in the list");

static void check_options(const char *isa, const fastrnn_blas *blas, fastrnn_config config, fastrnn_cell options,
                          bool peephole, int64_t B, int turn)
{
    net n = net_make(config, options, true, peephole);
    problem p = problem_make(&n, B, 6, turn % 3 != 0);
    fastrnn_layer *layer = layer_make(&n, isa, blas);
    check_problem(layer, &p, (layout)(turn % NUM_LAYOUTS));
    check_unpacked(layer, &p, isa, blas);
    if (n.D == 1) {
        check_slots(layer, &p);
        check_steps(layer, &p);
    }
    fastrnn_layer_destroy(layer);
    problem_free(&p);
    net_free(&n);
}

static void option_cases(const char *isa, const fastrnn_blas *blas, fastrnn_dtype dtype, sweep s)
{
    int turn = 0;
    for (int i = 0; i < s.num_sizes; i++)
        for (int j = 0; j < s.num_batches; j++)
            for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
                for (int option = 0; option < 8; option++, turn++) {
                    const bool lstm = kind == FASTRNN_LSTM, all = option == 7;
                    fastrnn_config config = config_of((fastrnn_kind)kind, 3, s.sizes[i], lstm && turn % 2 ? 2 : 0,
                                                      1 + turn % 2, 1 + turn / 3 % 2);
                    config.dtype = dtype;
                    fastrnn_cell cell = standard_cell((fastrnn_kind)kind);
                    if (option == 2 || all)
                        cell.options.gate_clip = 0.2;
                    if (option == 3 || all)
                        cell.options.cell_clip = 0.3;
                    if (option == 4 || all)
                        cell.options.proj_clip = 0.05;
                    if (option == 5 || all)
                        cell.options.coupled = 1;
                    if (option == 6 || all)
                        cell.options.reset_before = 1;
                    in_context("%s %s options %d H %d B %d", isa, kind_names[kind], option, s.sizes[i], s.batches[j]);
                    check_options(isa, blas, config, cell, lstm && (option == 1 || all), s.batches[j], turn);
                }
}

static void test_options(const char *isa, sweep s)
{
    option_cases(isa, NULL, FASTRNN_FLOAT32, s);
    end_group("%s: peephole, clips, coupled gates, reset before the product", isa);
    for (int name = 0; name < LENGTH(smooth); name++)
        for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
            for (int place = 0; place < (kind == FASTRNN_LSTM ? 5 : kind == FASTRNN_GRU ? 3 : 1); place++) {
                fastrnn_cell cell = standard_cell((fastrnn_kind)kind);
                cell.options.activations[place] = smooth[name];
                in_context("%s %s activation %d at %d", isa, kind_names[kind], name, place);
                check_options(isa, NULL, config_of((fastrnn_kind)kind, 4, 17, 0, 1, 1), cell, false, 5, name + place);
            }
    end_group("%s: every activation in every place", isa);
}

/* A cell whose options are all zero is a standard cell. */
static void test_zero_options(const char *isa)
{
    for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
        for (int option = 0; option < 2; option++) {
            net n = net_make(config_of((fastrnn_kind)kind, 3, 17, 0, 2, 2), standard_cell((fastrnn_kind)kind), true, false);
            problem p = problem_make(&n, 5, 6, true);
            in_context("%s %s gate clip %d", isa, kind_names[kind], option);
            for (int64_t i = 0; i < n.num_cells; i++)
                n.cells[i].options.gate_clip = 0.2 * option; /* with a clip, the general kernels run */
            fastrnn_layer *written_out = layer_make(&n, isa, NULL);
            outcome wanted = execute(written_out, &p, 0, p.B, RUN, BATCH_MAJOR);
            for (int64_t i = 0; i < n.num_cells; i++)
                n.cells[i].options = (fastrnn_cell_options){.gate_clip = 0.2 * option};
            fastrnn_layer *zero = layer_make(&n, isa, NULL);
            outcome found = execute(zero, &p, 0, p.B, RUN, BATCH_MAJOR);
            check(same_bits(&p, &wanted, &found, 0, p.B), "the same bits");
            check(fastrnn_layer_fingerprint(zero) == fastrnn_layer_fingerprint(written_out), "the same fingerprint");
            const fastrnn_cell_arrays nowhere = {.struct_size = sizeof nowhere};
            fastrnn_cell a = {.struct_size = sizeof a}, b = a;
            expect(fastrnn_layer_unpack(zero, 0, &nowhere, &a), FASTRNN_OK, "unpack");
            expect(fastrnn_layer_unpack(written_out, 0, &nowhere, &b), FASTRNN_OK, "unpack");
            for (int i = 0; i < (kind == FASTRNN_LSTM ? 5 : kind == FASTRNN_GRU ? 3 : 1); i++)
                check(a.options.activations[i].name == b.options.activations[i].name, "unpacked: the standard functions");
            outcome_free(&wanted);
            outcome_free(&found);
            fastrnn_layer_destroy(written_out);
            fastrnn_layer_destroy(zero);
            problem_free(&p);
            net_free(&n);
        }
    end_group("%s: options that are zero", isa);
}

/* The sizes that a prepared matrix states are those of its memory. */
static void test_matrices(const char *isa, const fastrnn_blas *blas)
{
    for (int turn = 0; turn < 4; turn++) {
        const bool through_blas = turn & 1;
        fastrnn_config config = config_of(FASTRNN_GRU, 3, 17, 0, 1, 1);
        config.dtype = turn == 3 ? FASTRNN_FLOAT64 : FASTRNN_FLOAT32;
        fastrnn_cell options = standard_cell(FASTRNN_GRU);
        options.options.reset_before = turn / 2; /* the candidate gate's recurrent weights are a matrix of their own */
        net n = net_make(config, options, false, false);
        fastrnn_layer *layer = layer_make(&n, isa, through_blas ? blas : NULL);
        const fr_cell *cell = layer->cells;
        const int64_t V = layer->backend.kernels->vector_length, padded = (17 + V - 1) / V * V;
        const int64_t e = (int64_t)size_of(config.dtype);
        in_context("%s matrices %d", isa, turn);
        check((int64_t)layer->backend.kernels->real_size == e, "the size of a real");
        check(cell->input.weights.type == (turn == 3 ? FR_WEIGHT_FLOAT64 : FR_WEIGHT_FLOAT32), "the element type");
        check(cell->input.macs == 3 * padded * 3 && layer->macs == (double)(3 * padded * (3 + 17)), "multiply-adds");
        const fr_weights last = fr_matrix_weights(&layer->backend, &cell->input, cell->input.blocks - 1);
        check(through_blas || last.panel_stride == 3 * 3 * V * e, "bytes of a panel");
        check((const char *)last.panels - (const char *)cell->input.weights.panels ==
                  (cell->input.blocks - 1) * last.panel_stride && !last.scales,
              "the last block");
        fastrnn_layer_destroy(layer);
        net_free(&n);
    }
    end_group("%s: prepared matrices", isa);
}

/* Each struct as a later version of fastrnn.h could have it. */
typedef struct later_config { fastrnn_config now; int64_t later; } later_config;
typedef struct later_cell { fastrnn_cell now; int64_t later; } later_cell;
typedef struct later_blas { fastrnn_blas now; int64_t later; } later_blas;
typedef struct later_arrays { fastrnn_cell_arrays now; int64_t later; } later_arrays;
typedef struct later_info { fastrnn_snapshot_info now; int64_t later; } later_info;

/* CALL reads STRUCT.now, whose first version has FIRST bytes: the sizes that it must refuse and accept. */
#define CHECK_STRUCT_SIZE(STRUCT, FIRST, CALL)                                                                                \
    do {                                                                                                               \
        STRUCT.now.struct_size = 0;                                                                                    \
        expect(CALL, FASTRNN_ERROR_ARGUMENT, #STRUCT ": struct_size is not set");                                      \
        STRUCT.now.struct_size = FIRST - 1;                                                                            \
        expect(CALL, FASTRNN_ERROR_ARGUMENT, #STRUCT ": struct_size below the first version's");                       \
        STRUCT.now.struct_size = SIZE_MAX;                                                                             \
        expect(CALL, FASTRNN_ERROR_ARGUMENT, #STRUCT ": struct_size beyond any struct's");                             \
        STRUCT.now.struct_size = sizeof STRUCT;                                                                        \
        expect(CALL, FASTRNN_OK, #STRUCT ": a later version, its members zero");                                       \
    } while (0)
#define CHECK_UNKNOWN_MEMBER(STRUCT, CALL)                                                                             \
    do {                                                                                                               \
        STRUCT.now.struct_size = sizeof STRUCT;                                                                        \
        STRUCT.later = (int64_t)1 << 56;                                                                               \
        expect(CALL, FASTRNN_ERROR_ARGUMENT, #STRUCT ": a member that is not known is set");                           \
        STRUCT.later = 0;                                                                                              \
    } while (0)

static fastrnn_status created(const void *config, const void *cells, const void *blas)
{
    fastrnn_layer *layer = NULL;
    const fastrnn_status status = fastrnn_layer_create(config, cells, NULL, blas, &layer);
    fastrnn_layer_destroy(layer);
    return status;
}

static void test_struct_sizes(const fastrnn_blas *gemm)
{
    net n = net_make(config_of(FASTRNN_LSTM, 3, 5, 0, 3, 1), standard_cell(FASTRNN_LSTM), true, true);
    fastrnn_layer *layer = NULL;
    expect(fastrnn_layer_create(&n.config, n.cells, NULL, NULL, &layer), FASTRNN_OK, "a layer");
    later_config config = {.now = n.config};
    later_blas blas = {.now = *gemm};
    later_cell cells[3] = {0};
    for (int i = 0; i < 3; i++) {
        cells[i].now = n.cells[i];
        cells[i].now.struct_size = sizeof cells[i];
    }
    const size_t first_config = offsetof(fastrnn_config, weight_dtype);
    CHECK_STRUCT_SIZE(config, first_config, created(&config, n.cells, NULL));
    CHECK_UNKNOWN_MEMBER(config, created(&config, n.cells, NULL));
    config.now.struct_size = first_config;
    config.now.weight_dtype = (fastrnn_weight_dtype)-1;
    expect(created(&config, n.cells, NULL), FASTRNN_OK, "members that the first version does not have are not read");
    config.now = n.config;
    CHECK_STRUCT_SIZE(blas, sizeof blas.now, created(&config, n.cells, &blas));
    CHECK_UNKNOWN_MEMBER(blas, created(&config, n.cells, &blas));
    for (int i = 0; i < 3; i++) {
        in_context("cell %d", i);
        CHECK_STRUCT_SIZE(cells[i], sizeof cells[i].now, created(&config, cells, NULL));
        CHECK_UNKNOWN_MEMBER(cells[i], created(&config, cells, NULL));
    }
    cells[2].now.struct_size = sizeof cells[2].now;
    expect(created(&config, cells, NULL), FASTRNN_ERROR_ARGUMENT, "cells of two sizes");
    cells[2].now.struct_size = sizeof cells[2];
    fastrnn_layer *later = NULL;
    expect(fastrnn_layer_create(&config.now, &cells[0].now, NULL, NULL, &later), FASTRNN_OK, "cells of a later version");
    check(fastrnn_layer_fingerprint(layer) == fastrnn_layer_fingerprint(later), "struct_size is the stride of the cells");

    float room[4 * 5 * 5];
    later_arrays arrays = {.now = {.weight_hh = room}};
    later_cell cell = {.now.struct_size = sizeof cell};
    CHECK_STRUCT_SIZE(arrays, sizeof arrays.now, fastrnn_layer_unpack(layer, 1, &arrays.now, &cell.now));
    CHECK_UNKNOWN_MEMBER(arrays, fastrnn_layer_unpack(layer, 1, &arrays.now, &cell.now));
    CHECK_STRUCT_SIZE(cell, sizeof cell.now, fastrnn_layer_unpack(layer, 1, &arrays.now, &cell.now));
    cell.later = -1;
    expect(fastrnn_layer_unpack(layer, 1, &arrays.now, &cell.now), FASTRNN_OK, "unpack: a cell that held something");
    check(cell.later == 0 && cell.now.struct_size == sizeof cell && cell.now.weight_hh == room, "every member is written");
    cell.later = -1;
    cell.now.struct_size = sizeof cell.now;
    expect(fastrnn_layer_unpack(layer, 1, &arrays.now, &cell.now), FASTRNN_OK, "unpack");
    check(cell.later == -1, "nothing past struct_size is written");

    size_t size = 0;
    void *store = store_make(layer, 2, 0);
    expect(fastrnn_snapshot_size(layer, store, 2, &size), FASTRNN_OK, "snapshot size");
    void *snapshot = block(size);
    expect(fastrnn_snapshot_save(layer, store, 2, NULL, snapshot), FASTRNN_OK, "snapshot");
    later_info info = {.later = -1};
    CHECK_STRUCT_SIZE(info, sizeof info.now, fastrnn_snapshot_describe(snapshot, size, &info.now));
    check(info.later == 0 && info.now.num_rows == 2, "every member is written");
    free(store);
    free(snapshot);
    fastrnn_layer_destroy(layer);
    fastrnn_layer_destroy(later);
    net_free(&n);
    end_group("sizes of structs");
}

static void test_activation_list(void)
{
    const char *name;
    size_t count = 0;
    for (; (name = fastrnn_activation_info(count, NULL, NULL)) != NULL; count++) {
        fastrnn_activation found = {(fastrnn_activation_name)-1, NAN, NAN};
        int has_defaults = -1;
        in_context("%s", name);
        check(fastrnn_activation_info(count, &found, &has_defaults) == name, "the same name");
        check(found.name == smooth[count].name, "in the order of the enum");
        check(has_defaults == (found.name != FASTRNN_SCALED_TANH), "all but one have defaults");
        check(has_defaults || (found.alpha == 0 && found.beta == 0), "zero without defaults");
        check(found.name != FASTRNN_HARD_SIGMOID || (found.alpha == 0.2 && found.beta == 0.5), "ONNX's defaults");
    }
    check(count == FASTRNN_NUM_ACTIVATIONS, "as many as the enum has");
    end_group("the list of activations");
}

static void test_activate(const char *isa)
{
    const float points[] = {0.0f, -0.0f, 1e-30f, -1e-30f, 1e-4f, -1e-4f, 0.5f, -0.5f, 1.0f, -1.0f, 3.0f, -3.0f,
                            9.0f, -9.0f, 20.0f, -20.0f, 88.0f, -88.0f, 1000.0f, -1000.0f, INFINITY, -INFINITY};
    for (int count = 0; count <= LENGTH(points); count++)
        for (int name = 0; name < FASTRNN_NUM_ACTIVATIONS; name++) {
            fastrnn_activation f = smooth[name];
            if (f.name == FASTRNN_THRESHOLDED_RELU)
                f.alpha = 0.5; /* x = alpha is not above the threshold */
            in_context("%s activation %d, %d values", isa, name, count);
            float *x = block((size_t)count * sizeof *x), *y = block((size_t)count * sizeof *y);
            for (int i = 0; i < count; i++)
                x[i] = points[i];
            check(fr_activate(isa, f, count, x, y) == FASTRNN_OK, "activate");
            bool ok = true;
            for (int i = 0; i < count; i++) {
                const double expected = naive_activation(f, points[i]);
                if (isnan(expected)) /* softsign of an infinity */
                    ok &= isnan(y[i]);
                else
                    ok &= y[i] == expected || fabs((double)y[i] - expected) <= 8 * 0x1p-24 * fmax(1, fabs(expected));
            }
            check(ok, "within 8 units of the last place of 1");
            if (count) {
                x[count - 1] = NAN;
                fr_activate(isa, f, count, x, y);
                check(isnan(y[count - 1]), "NaN comes through");
            }
            free(x);
            free(y);
        }
    end_group("%s: activations of numbers, infinities and NaN", isa);
}

/* A BLAS with the Fortran interface and integers of one width. As in real ones, the order of summation depends on the numbers of
 * rows and columns in the call, so a row has the same bits only in calls of the same shape. */
#define DEFINE_GEMM(NAME, REAL, INTEGER)                                                                               \
    static void NAME(const char *transa, const char *transb, const int64_t *m_, const int64_t *n_, const int64_t *k_,  \
                     const REAL *alpha, const REAL *a, const int64_t *lda_, const REAL *b, const int64_t *ldb_,        \
                     const REAL *beta, REAL *c, const int64_t *ldc_)                                                   \
    {                                                                                                                  \
        INTEGER m, n, k, lda, ldb, ldc;                                                                                \
        memcpy(&m, m_, sizeof m), memcpy(&n, n_, sizeof n), memcpy(&k, k_, sizeof k);                                  \
        memcpy(&lda, lda_, sizeof lda), memcpy(&ldb, ldb_, sizeof ldb), memcpy(&ldc, ldc_, sizeof ldc);                \
        if (*transa != 'T' || *transb != 'N' || m < 1 || n < 1 || k < 1 || lda < k || ldb < k || ldc < m) {            \
            check(false, "arguments of gemm");                                                                         \
            return;                                                                                                    \
        }                                                                                                              \
        for (INTEGER i = 0; i < m; i++)                                                                                \
            for (INTEGER j = 0; j < n; j++) {                                                                          \
                REAL sum = 0;                                                                                          \
                for (INTEGER l = 0; l < k; l++)                                                                        \
                    sum += a[i * lda + (l + m + n) % k] * b[j * ldb + (l + m + n) % k];                                \
                c[j * ldc + i] = *alpha * sum + *beta * c[j * ldc + i];                                                \
            }                                                                                                          \
    }
DEFINE_GEMM(sgemm_lp64, float, int32_t)
DEFINE_GEMM(dgemm_lp64, double, int32_t)
DEFINE_GEMM(sgemm_ilp64, float, int64_t)
DEFINE_GEMM(dgemm_ilp64, double, int64_t)

static void test_blas(const char *isa, const char *name, const fastrnn_blas *blas, sweep s)
{
    for (int dtype = FASTRNN_FLOAT32; dtype <= FASTRNN_FLOAT64; dtype++) {
        option_cases(isa, blas, (fastrnn_dtype)dtype, s);
        end_group("%s: %s through BLAS with %s integers", isa, dtype == FASTRNN_FLOAT64 ? "float64" : "float32", name);
    }
}

/* The stride between steps does not fit in 32 bits, and its low half is a valid stride, so a BLAS would not report an error. */
static void test_blas_far_steps(const fastrnn_blas *blas)
{
    enum { T = 19, I = 3, H = 5 };
    const int64_t row_step = ((int64_t)1 << 32) + I;
    const size_t bytes = ((size_t)row_step * (T - 1) + I) * sizeof(float);
    float *far = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (far == MAP_FAILED) {
        printf("NOT RUN: steps far apart, as there is no address range of %zu bytes\n", bytes);
        return;
    }
    for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++) {
        in_context("%s", kind_names[kind]);
        net n = net_make(config_of((fastrnn_kind)kind, I, H, 0, 1, 1), standard_cell((fastrnn_kind)kind), true, false);
        fastrnn_layer *layer = layer_make(&n, NULL, blas);
        float near[T * I], y[2][T * H];
        for (int i = 0; i < T * I; i++)
            far[i / I * row_step + i % I] = near[i] = (float)random_value();
        for (int is_far = 0; is_far < 2; is_far++) {
            const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = 1, .num_steps = T,
                                         .x = {.base = is_far ? far : near, .step_stride = is_far ? row_step : I},
                                         .y = {.base = y[is_far], .step_stride = H}};
            expect(run(layer, &batch), FASTRNN_OK, "run");
        }
        check(!memcmp(y[0], y[1], sizeof y[0]), "the bits of steps that adjoin");
        fastrnn_layer_destroy(layer);
        net_free(&n);
    }
    munmap(far, bytes);
    end_group("steps far apart through BLAS with 32-bit integers");
}

/* A layer for checks of behaviour. Every step reads the same input and writes the same output: T may be large. */
typedef struct small {
    net n;
    fastrnn_layer *layer;
    float *x, *y;
    fastrnn_batch batch;
} small;

static small small_make(int64_t T, int64_t H, int directions)
{
    const fastrnn_config config = config_of(FASTRNN_LSTM, 3, H, 0, 1, directions);
    small s = {.n = net_make(config, standard_cell(FASTRNN_LSTM), true, false)};
    s.layer = layer_make(&s.n, NULL, NULL);
    s.x = block(2 * 3 * sizeof(float));
    s.y = block((size_t)(2 * directions * H) * sizeof(float));
    for (int i = 0; i < 2 * 3; i++)
        s.x[i] = (float)random_value();
    s.batch = (fastrnn_batch){.struct_size = sizeof s.batch, .num_rows = 2, .num_steps = T, .x = {.base = s.x, .row_stride = 3},
                              .y = {.base = s.y, .row_stride = directions * H}};
    return s;
}

static void small_free(small *s)
{
    fastrnn_layer_destroy(s->layer);
    net_free(&s->n);
    free(s->x);
    free(s->y);
}

static fastrnn_status create(fastrnn_config config, fastrnn_cell cell, const char *isa)
{
    fastrnn_layer *layer = NULL;
    const fastrnn_cell cells[2] = {cell, cell};
    const fastrnn_status status = fastrnn_layer_create(&config, cells, isa, NULL, &layer);
    if (status != FASTRNN_OK)
        check(layer == NULL, "a failed create leaves the pointer alone");
    fastrnn_layer_destroy(layer);
    return status;
}

static void test_wrong_layers(void)
{
    const float weights[64] = {0};
    const fastrnn_config good = config_of(FASTRNN_LSTM, 2, 2, 0, 1, 1);
    fastrnn_cell cell = standard_cell(FASTRNN_LSTM);
    cell.weight_ih = cell.weight_hh = cell.weight_hr = weights;
    fastrnn_layer *layer = NULL;
    expect(create(good, cell, NULL), FASTRNN_OK, "a good model");
    expect(fastrnn_layer_create(NULL, &cell, NULL, NULL, &layer), FASTRNN_ERROR_ARGUMENT, "no config");
    expect(fastrnn_layer_create(&good, NULL, NULL, NULL, &layer), FASTRNN_ERROR_ARGUMENT, "no cells");
    expect(fastrnn_layer_create(&good, &cell, NULL, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "nowhere to put the model");
    expect(create(good, cell, "sse9"), FASTRNN_ERROR_ISA, "an unknown instruction set");

#define WRONG_CONFIG(FIELD, VALUE)                                                                                     \
    do {                                                                                                               \
        fastrnn_config wrong = good;                                                                                   \
        wrong.FIELD = VALUE;                                                                                           \
        expect(create(wrong, cell, NULL), FASTRNN_ERROR_ARGUMENT, #FIELD " = " #VALUE);                                \
    } while (0)
    WRONG_CONFIG(kind, (fastrnn_kind)3);
    WRONG_CONFIG(dtype, (fastrnn_dtype)2);
    WRONG_CONFIG(input_size, -1);
    WRONG_CONFIG(hidden_size, 0);
    WRONG_CONFIG(hidden_size, INT64_MAX);
    WRONG_CONFIG(proj_size, -1);
    WRONG_CONFIG(num_layers, 0);
    WRONG_CONFIG(num_layers, INT64_MAX);
    fastrnn_config gru = good;
    gru.kind = FASTRNN_GRU;
    gru.proj_size = 1;
    expect(create(gru, cell, NULL), FASTRNN_ERROR_ARGUMENT, "a projected GRU");
    fastrnn_config reverse = config_of(FASTRNN_LSTM, 2, 2, 0, 1, -1);
    expect(fastrnn_layer_create(&reverse, &cell, NULL, NULL, &layer), FASTRNN_OK, "a reverse model");
    size_t size = 0;
    expect(fastrnn_store_size(layer, 1, 0, &size), FASTRNN_ERROR_ARGUMENT, "store size: the reverse direction");
    fastrnn_layer_destroy(layer);
    layer = NULL;
    reverse.bidirectional = 1;
    expect(create(reverse, cell, NULL), FASTRNN_ERROR_ARGUMENT, "bidirectional and reverse");
    fastrnn_config float64 = good;
    float64.dtype = FASTRNN_FLOAT64;
    expect(create(float64, cell, NULL), FASTRNN_ERROR_BLAS, "float64 without BLAS");

#define WRONG_CELL(FIELD, VALUE)                                                                                       \
    do {                                                                                                               \
        fastrnn_cell wrong = cell;                                                                                     \
        wrong.FIELD = VALUE;                                                                                           \
        expect(create(good, wrong, NULL), FASTRNN_ERROR_ARGUMENT, #FIELD " = " #VALUE);                                \
    } while (0)
    WRONG_CELL(weight_ih, NULL);
    WRONG_CELL(weight_hh, NULL);
    WRONG_CELL(options.cell_clip, -1);
    WRONG_CELL(options.gate_clip, NAN);
    WRONG_CELL(options.proj_clip, -1);
    WRONG_CELL(options.activations[4].name, (fastrnn_activation_name)(FASTRNN_NUM_ACTIVATIONS + 1));
    WRONG_CELL(options.activations[0].name, (fastrnn_activation_name)-1);
    fastrnn_config projected = good;
    projected.proj_size = 1;
    cell.weight_hr = NULL;
    expect(create(projected, cell, NULL), FASTRNN_ERROR_ARGUMENT, "no projection weights");
    gru.proj_size = 0;
    cell.peephole = weights;
    expect(create(gru, cell, NULL), FASTRNN_ERROR_ARGUMENT, "a GRU with peepholes");
    cell.peephole = NULL;

    /* Sizes whose product leaves the address range; nothing reads the weights before that is known. */
    const int64_t most = (int64_t)1 << 22, layers = (int64_t)1 << 16;
    fastrnn_cell *many = block((size_t)layers * sizeof *many);
    for (int64_t i = 0; i < layers; i++)
        many[i] = cell;
    const fastrnn_config huge = config_of(FASTRNN_LSTM, most, most, 0, layers, 1);
    expect(fastrnn_layer_create(&huge, many, NULL, NULL, &layer), FASTRNN_ERROR_SIZE, "a huge model");
    free(many);

    fastrnn_layer_destroy(NULL);
    fastrnn_unrolled_destroy(NULL);
    for (int status = FASTRNN_OK; status <= FASTRNN_ERROR_SNAPSHOT + 1; status++)
        check(fastrnn_status_message((fastrnn_status)status) != NULL, "a message for every status");
    check(!strcmp(fastrnn_version(), FASTRNN_VERSION), "version");
    check(fastrnn_layer_isa(NULL) == NULL && fastrnn_layer_nbytes(NULL) == 0, "no model has neither");
    fastrnn_layer_destroy(NULL);
    const fastrnn_activation f = {FASTRNN_TANH, 0, 0};
    float value = 0;
    expect(fr_activate("sse9", f, 1, &value, &value), FASTRNN_ERROR_ISA, "activate: unknown instruction set");
    expect(fr_activate(NULL, (fastrnn_activation){FASTRNN_DEFAULT, 0, 0}, 1, &value, &value), FASTRNN_ERROR_ARGUMENT,
           "activate: a default without a cell");
    expect(fr_activate(NULL, f, -1, &value, &value), FASTRNN_ERROR_ARGUMENT, "activate: count");
    expect(fr_activate(NULL, f, 1, NULL, &value), FASTRNN_ERROR_ARGUMENT, "activate: no x");
    expect(fr_activate(NULL, f, 1, &value, NULL), FASTRNN_ERROR_ARGUMENT, "activate: no y");
    end_group("wrong models");
}

/* What planning a changed batch gives. */
static fastrnn_status plan_of(const fastrnn_layer *layer, const fastrnn_batch *batch)
{
    fastrnn_plan plan = {.struct_size = sizeof plan};
    return fastrnn_plan_make(layer, batch, &plan);
}

static void test_wrong_runs(void)
{
    small s = small_make(3, 4, 1), both = small_make(3, 4, 2);
    fastrnn_plan plan = {.struct_size = sizeof plan};
    expect(fastrnn_plan_make(NULL, &s.batch, &plan), FASTRNN_ERROR_ARGUMENT, "plan: no layer");
    expect(fastrnn_plan_make(s.layer, NULL, &plan), FASTRNN_ERROR_ARGUMENT, "plan: no batch");
    expect(fastrnn_plan_make(s.layer, &s.batch, NULL), FASTRNN_ERROR_ARGUMENT, "plan: nowhere to put it");
    expect(fastrnn_plan_run(&plan, &s), FASTRNN_ERROR_ARGUMENT, "run: a plan that was not made");
    const struct {
        int64_t rows, steps;
        fastrnn_status status;
    } sizes[] = {{-1, 1, FASTRNN_ERROR_ARGUMENT},      {1, -1, FASTRNN_ERROR_ARGUMENT},
                 {INT64_MAX, 1, FASTRNN_ERROR_SIZE},   {1, INT64_MAX, FASTRNN_ERROR_SIZE},
                 {1 << 30, 1 << 30, FASTRNN_ERROR_SIZE}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = sizes[i].rows, .num_steps = sizes[i].steps};
        in_context("plan of %lld rows, %lld steps", (long long)batch.num_rows, (long long)batch.num_steps);
        expect(plan_of(s.layer, &batch), sizes[i].status, "plan");
    }
    expect(run(s.layer, &s.batch), FASTRNN_OK, "a good run");
    expect(fastrnn_plan_make(s.layer, &s.batch, &plan), FASTRNN_OK, "a good plan");
    expect(fastrnn_plan_run(NULL, &s), FASTRNN_ERROR_ARGUMENT, "run: no plan");
    expect(fastrnn_plan_run(&plan, NULL), FASTRNN_ERROR_ARGUMENT, "run: no workspace");
    struct {
        fastrnn_batch batch;
        int64_t later;
    } larger = {s.batch, 0};
    larger.batch.struct_size = sizeof larger;
    expect(plan_of(s.layer, &larger.batch), FASTRNN_OK, "a later batch whose new members are zero");
    larger.later = 1;
    expect(plan_of(s.layer, &larger.batch), FASTRNN_ERROR_ARGUMENT, "a later batch with a new option");
    larger.batch.struct_size = sizeof larger.batch - 1;
    expect(plan_of(s.layer, &larger.batch), FASTRNN_ERROR_ARGUMENT, "a batch that is too small");
    plan.struct_size = sizeof plan - 1;
    expect(fastrnn_plan_make(s.layer, &s.batch, &plan), FASTRNN_ERROR_ARGUMENT, "a plan that is too small");

    static const struct {
        const char *what;
        int64_t rows, steps, lengths[2], batch_sizes[3];
    } wrong[] = {
        {"lengths that increase", 2, 3, {2, 3}, {2, 2, 1}},
        {"a longest length that is not the number of steps", 2, 3, {2, 2}, {2, 2, 0}},
        {"a length past the last step", 2, 3, {3, 4}, {2, 2, 2}},
        {"a negative length", 2, 3, {3, -1}, {1, 1, 1}},
        {"batch_sizes with a row too many", 2, 3, {3, 1}, {2, 2, 1}},
        {"batch_sizes with a row too few", 2, 3, {3, 2}, {2, 1, 1}},
        {"batch_sizes past the rows", 2, 3, {3, 3}, {3, 3, 3}},
        {"a batch size of zero", 2, 3, {3, 1}, {2, 1, 0}},
        {"steps without rows", 0, 3, {3, 3}, {0, 0, 0}},
        {"a negative number of rows", -1, 3, {3, 3}, {2, 2, 2}},
        {"a negative number of steps", 2, -1, {-1, -1}, {2, 2, 2}},
    };
    for (int i = 0; i < LENGTH(wrong); i++) {
        fastrnn_batch batch = s.batch;
        batch.num_rows = wrong[i].rows;
        batch.num_steps = wrong[i].steps;
        batch.lengths = wrong[i].lengths;
        batch.batch_sizes = wrong[i].batch_sizes;
        expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, wrong[i].what);
    }
    const int64_t lengths[2] = {3, 1}, batch_sizes[3] = {2, 1, 1};
    fastrnn_batch batch = s.batch;
    batch.lengths = lengths;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "lengths without batch_sizes");
    batch.lengths = NULL;
    batch.batch_sizes = batch_sizes;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "batch_sizes without lengths");
    batch.lengths = lengths;
    expect(run(s.layer, &batch), FASTRNN_OK, "a good ragged run");
    const int64_t wrong_indices[][2] = {{0, 2}, {-1, 0}, {INT64_MIN, INT64_MAX}}, indices[2] = {1, 0};
    for (int i = 0; i < LENGTH(wrong_indices); i++) {
        batch.row_indices = wrong_indices[i];
        expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "row_indices out of range");
    }
    batch.row_indices = indices;
    expect(run(s.layer, &batch), FASTRNN_OK, "good row_indices");
    batch = s.batch;
    batch.num_rows = batch.num_steps = (int64_t)1 << 40;
    expect(run(s.layer, &batch), FASTRNN_ERROR_SIZE, "huge rows times huge steps");
    batch = s.batch;
    batch.x.base = NULL;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "run: no x");
    batch = s.batch;
    batch.y.base = NULL;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "run: no y");
    batch.num_steps = 0;
    expect(run(s.layer, &batch), FASTRNN_OK, "run: no y and no steps");
    batch.past_end = FASTRNN_PAST_END_ZERO;
    batch.padded_steps = 1;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "run: no y to fill");

    size_t size = 0;
    expect(fastrnn_store_size(NULL, 1, 0, &size), FASTRNN_ERROR_ARGUMENT, "store size: no layer");
    expect(fastrnn_store_size(s.layer, 1, 0, NULL), FASTRNN_ERROR_ARGUMENT, "store size: no size");
    expect(fastrnn_store_size(s.layer, -1, 0, &size), FASTRNN_ERROR_ARGUMENT, "store size: capacity");
    expect(fastrnn_store_size(s.layer, 1, -1, &size), FASTRNN_ERROR_ARGUMENT, "store size: extra numbers");
    expect(fastrnn_store_size(s.layer, INT64_MAX, 0, &size), FASTRNN_ERROR_SIZE, "store size: huge capacity");
    expect(fastrnn_store_size(s.layer, 1, INT64_MAX, &size), FASTRNN_ERROR_SIZE, "store size: huge extra numbers");
    expect(fastrnn_store_size(s.layer, (int64_t)1 << 38, (int64_t)1 << 38, &size), FASTRNN_ERROR_SIZE, "store size: huge product");
    expect(fastrnn_store_size(both.layer, 1, 0, &size), FASTRNN_ERROR_ARGUMENT, "store size: two directions");
    expect(fastrnn_store_init(s.layer, 2, 0, NULL), FASTRNN_ERROR_ARGUMENT, "store init: no memory");
    void *store = store_make(s.layer, 2, 0);
    expect(fastrnn_store_init(s.layer, 2, 0, (char *)store + 8), FASTRNN_ERROR_ARGUMENT, "store init: alignment");
    expect(fastrnn_store_set(s.layer, NULL, 2, NULL, NULL, NULL), FASTRNN_ERROR_STORE, "store set: no store");
    expect(fastrnn_store_get(s.layer, NULL, 2, NULL, NULL, NULL), FASTRNN_ERROR_STORE, "store get: no store");
    check(!fastrnn_store_extra(s.layer, store, 0), "no extra numbers");
    batch = s.batch;
    batch.store = store;
    expect(run(s.layer, &batch), FASTRNN_OK, "a good stream");
    expect(run(both.layer, &batch), FASTRNN_ERROR_STORE, "stream: two directions");
    batch.hn = s.y;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "a store and arrays of state");
    batch = s.batch;
    batch.slots = indices;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "slots without a store");

    fastrnn_unrolled *unrolled = NULL;
    expect(fastrnn_unrolled_create(NULL, 3, &unrolled), FASTRNN_ERROR_ARGUMENT, "unrolled: no layer");
    expect(fastrnn_unrolled_create(s.layer, 3, NULL), FASTRNN_ERROR_ARGUMENT, "unrolled: nowhere to put it");
    expect(fastrnn_unrolled_create(s.layer, -1, &unrolled), FASTRNN_ERROR_ARGUMENT, "unrolled: steps");
    expect(fastrnn_unrolled_create(s.layer, 3, &unrolled), FASTRNN_OK, "unrolled");
    batch = s.batch;
    batch.unrolled = unrolled;
    expect(run(s.layer, &batch), FASTRNN_OK, "a good fixed length");
    expect(run(both.layer, &batch), FASTRNN_ERROR_ARGUMENT, "unrolled: of another layer");
    batch.lengths = lengths;
    batch.batch_sizes = batch_sizes;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "unrolled: lengths");
    batch = s.batch;
    batch.unrolled = unrolled;
    batch.num_steps = 2;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "unrolled: other steps");
    fastrnn_unrolled_destroy(unrolled);
    free(store);
    small_free(&s);
    small_free(&both);
    end_group("wrong runs");
}

/* Wrong arguments for slots, snapshots and unpacking are refused, and leave the store unchanged. */
static void test_wrong_stores(void)
{
    small s = small_make(3, 4, 1), other = small_make(3, 4, 1), both = small_make(3, 4, 2);
    enum { EXTRA = 5 };
    size_t bytes = 0, size = 0;
    expect(fastrnn_store_size(s.layer, 3, EXTRA, &bytes), FASTRNN_OK, "store size");
    unsigned char *store = store_make(s.layer, 3, EXTRA), *before = block(bytes);
    fastrnn_batch batch = s.batch; /* of two rows */
    const int64_t slots[2] = {2, 0};
    batch.store = store;
    batch.slots = slots;
    expect(run(both.layer, &batch), FASTRNN_ERROR_STORE, "slots of two directions");
    expect(run(other.layer, &batch), FASTRNN_ERROR_STORE, "a store of another layer");
    expect(run(s.layer, &batch), FASTRNN_OK, "good slots");
    memset(fastrnn_store_extra(s.layer, store, 1), 7, EXTRA * sizeof(float));
    memcpy(before, store, bytes);
    const int64_t wrong[][2] = {{0, 3}, {-1, 0}, {1, 1}, {INT64_MIN, INT64_MAX}};
    for (int i = 0; i < LENGTH(wrong); i++) {
        batch.slots = wrong[i];
        in_context("slots %lld %lld", (long long)wrong[i][0], (long long)wrong[i][1]);
        expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "run of slots");
        expect(fastrnn_store_set(s.layer, store, 2, wrong[i], NULL, NULL), FASTRNN_ERROR_ARGUMENT, "set slots");
        expect(fastrnn_store_get(s.layer, store, 2, wrong[i], NULL, NULL), FASTRNN_ERROR_ARGUMENT, "get slots");
    }
    batch.slots = NULL;
    expect(run(s.layer, &batch), FASTRNN_ERROR_ARGUMENT, "two rows of three, not named");
    expect(fastrnn_store_get(s.layer, store, 2, NULL, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "get of two rows of three");
    expect(fastrnn_store_set(s.layer, store, -1, slots, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "set slots: count");
    check(!fastrnn_store_extra(s.layer, store, 3) && !fastrnn_store_extra(s.layer, store, -1), "extra numbers: slot");
    for (int byte = 0; byte < 32; byte++) { /* magic number, version, sizes, fingerprint */
        store[byte] ^= 1;
        in_context("byte %d", byte);
        expect(run(s.layer, &batch), FASTRNN_ERROR_STORE, "a forged store");
        store[byte] ^= 1;
    }

    expect(fastrnn_snapshot_size(s.layer, store, -1, &size), FASTRNN_ERROR_ARGUMENT, "snapshot size: rows");
    expect(fastrnn_snapshot_size(s.layer, store, INT64_MAX, &size), FASTRNN_ERROR_SIZE, "snapshot size: huge rows");
    expect(fastrnn_snapshot_size(s.layer, store, 3, NULL), FASTRNN_ERROR_ARGUMENT, "snapshot size: no size");
    expect(fastrnn_snapshot_size(both.layer, store, 3, &size), FASTRNN_ERROR_STORE, "snapshot size: two directions");
    expect(fastrnn_snapshot_size(s.layer, store, 3, &size), FASTRNN_OK, "snapshot size");
    unsigned char *snapshot = block(size);
    expect(fastrnn_snapshot_save(s.layer, store, 2, NULL, snapshot), FASTRNN_ERROR_ARGUMENT, "snapshot: rows");
    expect(fastrnn_snapshot_save(s.layer, store, 3, NULL, NULL), FASTRNN_ERROR_ARGUMENT, "snapshot: nowhere to put it");
    expect(fastrnn_snapshot_save(s.layer, store, 3, NULL, snapshot), FASTRNN_OK, "snapshot");
    for (size_t cut = 0; cut < size; cut++) { /* from blocks of just that size: a sanitizer sees any reading past them */
        unsigned char *part = memcpy(block(cut), snapshot, cut);
        in_context("%d of %d bytes", (int)cut, (int)size);
        expect(fastrnn_snapshot_restore(s.layer, store, 3, NULL, part, cut), FASTRNN_ERROR_SNAPSHOT, "a cut snapshot");
        free(part);
    }
    for (int bit = 0; bit < 40 * 8; bit++) {
        snapshot[bit / 8] ^= (unsigned char)(1 << bit % 8);
        in_context("bit %d", bit);
        expect(fastrnn_snapshot_restore(s.layer, store, 3, NULL, snapshot, size), FASTRNN_ERROR_SNAPSHOT, "a forged header");
        snapshot[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    expect(fastrnn_snapshot_restore(s.layer, store, 2, NULL, snapshot, size), FASTRNN_ERROR_ARGUMENT, "restore: rows");
    expect(fastrnn_snapshot_restore(s.layer, store, 2, slots, snapshot, size), FASTRNN_ERROR_SNAPSHOT, "restore: slots");
    expect(fastrnn_snapshot_restore(s.layer, store, 3, NULL, NULL, size), FASTRNN_ERROR_ARGUMENT, "restore: no snapshot");
    expect(fastrnn_snapshot_restore(s.layer, store, 3, NULL, snapshot, size + 1), FASTRNN_ERROR_SNAPSHOT, "a byte too many");
    check(fastrnn_layer_fingerprint(s.layer) != fastrnn_layer_fingerprint(both.layer), "fingerprints of two layers");
    check(!memcmp(before, store, bytes), "refused calls leave the store as it was");
    fastrnn_snapshot_info info = {.struct_size = sizeof info};
    expect(fastrnn_snapshot_describe(snapshot, size, &info), FASTRNN_OK, "describe");
    check(info.version == 1 && info.real_size == 4 && info.num_rows == 3 && info.extra_size == EXTRA &&
              info.fingerprint == fastrnn_layer_fingerprint(s.layer), "what a snapshot says of itself");
    expect(fastrnn_snapshot_describe(snapshot, 39, &info), FASTRNN_ERROR_SNAPSHOT, "describe: cut");
    expect(fastrnn_snapshot_describe(NULL, 39, &info), FASTRNN_ERROR_ARGUMENT, "describe: nothing");
    info.struct_size = 8;
    expect(fastrnn_snapshot_describe(snapshot, size, &info), FASTRNN_ERROR_ARGUMENT, "describe: too small an answer");
    expect(fastrnn_snapshot_restore(s.layer, store, 3, NULL, snapshot, size), FASTRNN_OK, "a good snapshot");
    check(!memcmp(before, store, bytes), "the snapshot holds the store's state");

    fastrnn_cell cell = {.struct_size = sizeof cell};
    const fastrnn_cell_arrays none = {.struct_size = sizeof none};
    expect(fastrnn_layer_unpack(s.layer, 0, &none, &cell), FASTRNN_OK, "unpack the options alone");
    expect(fastrnn_layer_unpack(s.layer, 1, &none, &cell), FASTRNN_ERROR_ARGUMENT, "unpack: index");
    expect(fastrnn_layer_unpack(s.layer, -1, &none, &cell), FASTRNN_ERROR_ARGUMENT, "unpack: index");
    expect(fastrnn_layer_unpack(NULL, 0, &none, &cell), FASTRNN_ERROR_ARGUMENT, "unpack: no model");
    expect(fastrnn_layer_unpack(s.layer, 0, NULL, &cell), FASTRNN_ERROR_ARGUMENT, "unpack: no arrays");
    expect(fastrnn_layer_unpack(s.layer, 0, &none, NULL), FASTRNN_ERROR_ARGUMENT, "unpack: no cell");
    free(store), free(before), free(snapshot);
    small_free(&s);
    small_free(&other);
    small_free(&both);
    end_group("wrong slots, snapshots and unpacking");
}

/* Numbers of rows, steps or inputs may be zero. */
static void test_empty(const char *isa)
{
    const int64_t cases[][3] = {{0, 3, 2}, {2, 0, 2}, {0, 0, 2}, {1, 1, 0}, {5, 1, 0}, {3, 4, 0}}; /* B T I */
    for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
        for (int i = 0; i < LENGTH(cases); i++)
            for (int how = RUN; how <= STREAM; how++) {
                const int64_t B = cases[i][0], T = cases[i][1], H = 5;
                const int64_t I = cases[i][2];
                in_context("%s %s B %d T %d I %d way %d", isa, kind_names[kind], (int)B, (int)T, (int)I, how);
                net n = net_make(config_of((fastrnn_kind)kind, I, H, 0, 1, 1), standard_cell((fastrnn_kind)kind), true,
                                 false);
                problem p = problem_make(&n, B, T, false);
                fastrnn_layer *layer = layer_make(&n, isa, NULL);
                const bool lstm = kind == FASTRNN_LSTM;
                void *h0 = reals(p.h0, B * H, FASTRNN_FLOAT32), *c0 = reals(p.c0, B * H, FASTRNN_FLOAT32);
                outcome o = {.y = block((size_t)(B * T * H) * sizeof(float)),
                             .hn = block((size_t)(B * H) * sizeof(float)),
                             .cn = block((size_t)(B * H) * sizeof(float))};
                void *x = B && T && I ? reals(p.x, B * T * I, FASTRNN_FLOAT32) : NULL;
                const fastrnn_batch batch = {.struct_size = sizeof batch, .num_rows = B, .num_steps = T, .pool = pool,
                                             .x = {.base = x, .row_stride = T * I, .step_stride = I},
                                             .y = {.base = o.y, .row_stride = T * H, .step_stride = H},
                                             .h0 = h0, .c0 = lstm ? c0 : NULL, .hn = o.hn, .cn = lstm ? o.cn : NULL};
                const fastrnn_status status = how == RUN        ? run(layer, &batch)
                                              : how == UNROLLED ? run_unrolled(layer, &batch)
                                                                : run_stored(layer, &batch);
                expect(status, FASTRNN_OK, "an empty side");
                check_near(&p, &o);
                void *const blocks[] = {h0, c0, x};
                for (int j = 0; j < LENGTH(blocks); j++)
                    free(blocks[j]);
                outcome_free(&o);
                fastrnn_layer_destroy(layer);
                problem_free(&p);
                net_free(&n);
            }
    end_group("%s: no rows, no steps, no inputs", isa);
}

static fastrnn_status prepared(const fastrnn_layer *layer, const void *batch, unsigned flags)
{
    size_t size = 0;
    fastrnn_step *step = NULL;
    const fastrnn_status status = fastrnn_step_size(layer, batch, &size);
    void *memory = block(size + 1), *before = memcpy(block(size + 1), memory, size + 1);
    const fastrnn_status again = fastrnn_step_prepare(layer, batch, flags, memory, size, &step);
    check(status == again || flags, "step size and prepare refuse the same");
    check((again == FASTRNN_OK) == (step != NULL), "a step, or an error");
    check(step || !memcmp(before, memory, size + 1), "a refused step leaves the memory as it was");
    free(memory), free(before);
    return again;
}

typedef struct later_batch { fastrnn_batch now; int64_t later; } later_batch;

static void test_wrong_steps(void)
{
    small s = small_make(1, 4, 1), other = small_make(1, 4, 1), both = small_make(1, 4, 2);
    size_t size = 0;
    void *store = store_make(s.layer, 2, 0);
    fastrnn_unrolled *unrolled = NULL;
    expect(fastrnn_unrolled_create(s.layer, 1, &unrolled), FASTRNN_OK, "unrolled");
    later_batch later = {.now = s.batch};
    later.now.store = store;
    CHECK_STRUCT_SIZE(later, sizeof later.now, prepared(s.layer, &later, 0));
    CHECK_UNKNOWN_MEMBER(later, prepared(s.layer, &later, 0));
    const fastrnn_batch good = later.now;
    fastrnn_batch batch = good;
#define REFUSED(MEMBER, VALUE, STATUS)                                                                                 \
    batch = good, batch.struct_size = sizeof batch, batch.MEMBER = VALUE;                                              \
    expect(prepared(s.layer, &batch, 0), STATUS, "a step with " #MEMBER " " #VALUE)
    const int64_t twice[] = {1, 1};
    REFUSED(num_steps, 0, FASTRNN_ERROR_ARGUMENT);
    REFUSED(num_steps, 2, FASTRNN_ERROR_ARGUMENT);
    REFUSED(num_rows, 1, FASTRNN_ERROR_ARGUMENT);
    REFUSED(num_rows, -1, FASTRNN_ERROR_ARGUMENT);
    REFUSED(store, NULL, FASTRNN_ERROR_ARGUMENT);
    REFUSED(store, (char *)store + 4, FASTRNN_ERROR_STORE);
    REFUSED(slots, twice, FASTRNN_ERROR_ARGUMENT);

    REFUSED(h0, s.x, FASTRNN_ERROR_ARGUMENT);
    REFUSED(hn, s.x, FASTRNN_ERROR_ARGUMENT);
    REFUSED(unrolled, unrolled, FASTRNN_ERROR_ARGUMENT);
#undef REFUSED
    batch = good, batch.struct_size = sizeof batch;
    expect(prepared(other.layer, &batch, 0), FASTRNN_ERROR_STORE, "a store of another layer");
    expect(prepared(both.layer, &batch, 0), FASTRNN_ERROR_STORE, "two directions");
    expect(prepared(NULL, &batch, 0), FASTRNN_ERROR_ARGUMENT, "no layer");
    expect(prepared(s.layer, NULL, 0), FASTRNN_ERROR_ARGUMENT, "no batch");
    expect(prepared(s.layer, &batch, FASTRNN_STEP_CALLER_MODE << 1), FASTRNN_ERROR_ARGUMENT, "an unknown flag");
    expect(fastrnn_step_size(s.layer, &batch, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the size");
    expect(fastrnn_step_size(s.layer, &batch, &size), FASTRNN_OK, "step size");
    void *memory = block(size);
    fastrnn_step *step = NULL;
    expect(fastrnn_step_prepare(s.layer, &batch, 0, NULL, size, &step), FASTRNN_ERROR_ARGUMENT, "no memory");
    expect(fastrnn_step_prepare(s.layer, &batch, 0, memory, size, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the step");
    expect(fastrnn_step_prepare(s.layer, &batch, 0, memory, size - 1, &step), FASTRNN_ERROR_ARGUMENT, "too little memory");
    expect(fastrnn_step_prepare(s.layer, &batch, 0, memory, size, &step), FASTRNN_OK, "prepare");

    float h[2 * 4], zero[2 * 4] = {0};
    expect(fastrnn_step_run(NULL, s.x, s.y), FASTRNN_ERROR_ARGUMENT, "no step");
    expect(fastrnn_step_run(step, NULL, s.y), FASTRNN_ERROR_ARGUMENT, "no x");
    expect(fastrnn_step_run(step, s.x, NULL), FASTRNN_ERROR_ARGUMENT, "no y");
    expect(fastrnn_store_get(s.layer, store, 2, NULL, h, NULL), FASTRNN_OK, "store get");
    check(!memcmp(h, zero, sizeof h), "a refused run leaves the states as they were");
    expect(fastrnn_step_run(step, s.x, s.y), FASTRNN_OK, "a good step");
    expect(fastrnn_store_get(s.layer, store, 2, NULL, h, NULL), FASTRNN_OK, "store get");
    check(!memcmp(h, s.y, sizeof h), "the new states");
    free(memory);

    /* The addresses of rows are read at each step. */
    void *x_rows[] = {s.x, s.x + 3};
    float a[4], b[4];
    void *y_rows[] = {a, b};
    batch.x = (fastrnn_view){.rows = x_rows};
    batch.y = (fastrnn_view){.rows = y_rows};
    expect(fastrnn_step_size(s.layer, &batch, &size), FASTRNN_OK, "step size");
    memory = block(size);
    expect(fastrnn_step_prepare(s.layer, &batch, 0, memory, size, &step), FASTRNN_OK, "prepare");
    expect(fastrnn_store_set(s.layer, store, 2, NULL, NULL, NULL), FASTRNN_OK, "store set");
    y_rows[0] = b, y_rows[1] = a;
    expect(fastrnn_step_run(step, NULL, NULL), FASTRNN_OK, "rows at addresses");
    check(!memcmp(b, s.y, sizeof b) && !memcmp(a, s.y + 4, sizeof a), "the rows' outputs");
    free(memory);
    free(store);
    fastrnn_unrolled_destroy(unrolled);
    small_free(&s);
    small_free(&other);
    small_free(&both);
    end_group("refused steps");
}

/* h = relu(x) keeps a subnormal number only if the floating-point mode does. */
static void test_step_modes(unsigned long long usual)
{
    const float tiny = 1e-40F, one = 1;
    const fastrnn_config config = config_of(FASTRNN_RNN, 1, 1, 0, 1, 1);
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = &one, .weight_hh = &one,
                               .options.activations[0].name = FASTRNN_RELU};
    const char *isa;
    for (size_t i = 0; (isa = fastrnn_isa(i)) != NULL; i++)
        for (int turn = 0; turn < 8; turn++) {
            const bool callers = turn & 1, flushes = turn & 2;
            const unsigned long long mode = turn & 4 ? usual | ROUND_UP : usual;
            fastrnn_layer *layer = NULL;
            expect(fastrnn_layer_create(&config, &cell, isa, NULL, &layer), FASTRNN_OK, "a layer");
            stepper s = {.count = 1, .flags = callers ? FASTRNN_STEP_CALLER_MODE : 0};
            const net n = {.config = config, .P = 1};
            void *store = store_make(layer, 1, 0);
            stepper_prepare(&s, layer, &n, store, false);
            float y = -1;
            in_context("%s turn %d", isa, turn);
            set_floating_mode(mode);
            const uint64_t kept = flushes ? fastrnn_fp_flush() : 0;
            const unsigned long long before = floating_mode();
            const fastrnn_status status = fastrnn_step_run(s.step, &tiny, &y);
            const unsigned long long after = floating_mode();
            if (flushes)
                fastrnn_fp_restore(kept);
            const unsigned long long last = floating_mode();
            set_floating_mode(usual);
            expect(status, FASTRNN_OK, "a step");
            check((before != mode) == flushes && last == mode, "flush and restore set the mode");
            check(after == before, "a step does not change the mode");
            uint32_t found, wanted;
            memcpy(&found, &y, sizeof y);
            memcpy(&wanted, callers && !flushes ? &tiny : &(float){0}, sizeof wanted);
            check(found == wanted, "the mode in which a step computes");
            free(s.memory), free(store);
            fastrnn_layer_destroy(layer);
        }
    end_group("prepared steps, and the floating-point mode");
}

static int stop_at_zero(void *calls_left) { return (*(int *)calls_left)-- == 0; }

/* A run that is long enough to be polled ends when the callback says so, and always restores the caller's floating-point mode. */
static void test_interruption(unsigned long long usual)
{
    for (int stops = 0; stops < 2; stops++) {
        small s = small_make(stops ? 1 << 20 : 500, 64, 1);
        size_t bytes = 0;
        void *store = store_make(s.layer, 2, 0), *before = snapshot_of(s.layer, store, 2, NULL, &bytes);
        fastrnn_unrolled *unrolled = NULL;
        expect(fastrnn_unrolled_create(s.layer, s.batch.num_steps, &unrolled), FASTRNN_OK, "unrolled");
        for (int rounding = 0; rounding < 2; rounding++)
            for (int how = RUN; how <= STREAM; how++) {
                int calls_left = stops ? 0 : -1;
                fastrnn_batch batch = s.batch;
                batch.interrupted = stop_at_zero;
                batch.interrupted_context = &calls_left;
                batch.unrolled = how == UNROLLED ? unrolled : NULL;
                batch.store = how == STREAM ? store : NULL;
                const unsigned long long mode = rounding ? usual | ROUND_UP : usual;
                set_floating_mode(mode);
                const fastrnn_status status = run(s.layer, &batch);
                const unsigned long long after = floating_mode();
                set_floating_mode(usual);
                in_context("way %d, stops %d, rounding %d", how, stops, rounding);
                expect(status, stops ? FASTRNN_ERROR_INTERRUPTED : FASTRNN_OK, "a run ends early just when asked");
                check(after == mode, "the caller's floating-point mode comes back");
                check(!stops || store_has(s.layer, store, 2, NULL, before), "an interrupted run leaves the states as they were");
            }
        fastrnn_unrolled_destroy(unrolled);
        free(store), free(before);
        small_free(&s);
    }
    end_group("interruption, and the floating-point mode");
}

static void test_probe(const char *isa)
{
    int64_t multiply_adds = -1;
    double sum = -1;
    expect(fr_probe_fma(isa, 0, &multiply_adds, &sum), FASTRNN_OK, "no round");
    check(multiply_adds == 0, "no round, no work");
    expect(fr_probe_fma(isa, 1, &multiply_adds, &sum), FASTRNN_OK, "one round");
    const int64_t lanes = multiply_adds;
    check(lanes > 0, "a round works on every lane");
    expect(fr_probe_fma(isa, 1000, &multiply_adds, &sum), FASTRNN_OK, "many rounds");
    check(multiply_adds == 1000 * lanes, "as many multiply-adds as rounds and lanes");
    check(fabs(sum - 2 * (double)lanes) < 1e-5 * (double)lanes, "every lane ends at 2");
    expect(fr_probe_fma("none", 1, &multiply_adds, &sum), FASTRNN_ERROR_ISA, "an unknown instruction set");
    expect(fr_probe_fma(isa, -1, &multiply_adds, &sum), FASTRNN_ERROR_ARGUMENT, "negative rounds");
    expect(fr_probe_fma(isa, 1, NULL, &sum), FASTRNN_ERROR_ARGUMENT, "no place for the count");
    expect(fr_probe_fma(isa, 1, &multiply_adds, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the sum");

    const int64_t count = 3 * FR_PROBE_BLOCK;
    float *values = aligned_alloc(64, (size_t)count * sizeof *values);
    double expected = 0;
    for (int64_t i = 0; i < count; i++)
        expected += values[i] = (float)i;
    for (int times = 0; times < 3; times++) {
        expect(fr_probe_read(isa, times, count, values, &sum), FASTRNN_OK, "read");
        check(sum == times * expected, "every value counts once a time");
    }
    expect(fr_probe_read(isa, 1, 0, values, &sum), FASTRNN_OK, "nothing to read");
    check(sum == 0, "the sum of nothing");
    expect(fr_probe_read("none", 1, count, values, &sum), FASTRNN_ERROR_ISA, "an unknown instruction set");
    expect(fr_probe_read(isa, -1, count, values, &sum), FASTRNN_ERROR_ARGUMENT, "negative times");
    expect(fr_probe_read(isa, 1, count - 1, values, &sum), FASTRNN_ERROR_ARGUMENT, "no whole blocks");
    expect(fr_probe_read(isa, 1, -count, values, &sum), FASTRNN_ERROR_ARGUMENT, "a negative count");
    expect(fr_probe_read(isa, 1, FR_PROBE_BLOCK, values + 1, &sum), FASTRNN_ERROR_ARGUMENT, "not aligned");
    expect(fr_probe_read(isa, 1, count, NULL, &sum), FASTRNN_ERROR_ARGUMENT, "no values");
    expect(fr_probe_read(isa, 1, count, values, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the sum");

    for (int which = 0; which < FR_NUM_GATES; which++) {
        expected = 0;
        for (int64_t i = 0; i < count; i++) {
            const double x = values[i] = (float)i / 100 - 3, sigmoid = 1 / (1 + exp(-x));
            expected += which == FR_GATE_SIGMOID ? sigmoid : which == FR_GATE_TANH ? tanh(x) : sigmoid * tanh(x);
        }
        for (int times = 0; times < 3; times++) {
            expect(fr_probe_gate(isa, which, times, count, values, &sum), FASTRNN_OK, "a gate");
            check(fabs(sum - times * expected) <= 1e-4 * fabs(times * expected), "every value's gate counts once a time");
        }
    }
    expect(fr_probe_gate("none", FR_GATE_TANH, 1, count, values, &sum), FASTRNN_ERROR_ISA, "an unknown instruction set");
    expect(fr_probe_gate(isa, FR_NUM_GATES, 1, count, values, &sum), FASTRNN_ERROR_ARGUMENT, "an unknown gate");
    expect(fr_probe_gate(isa, FR_GATE_TANH, -1, count, values, &sum), FASTRNN_ERROR_ARGUMENT, "negative times");
    expect(fr_probe_gate(isa, FR_GATE_TANH, 1, count - 1, values, &sum), FASTRNN_ERROR_ARGUMENT, "no whole blocks");
    expect(fr_probe_gate(isa, FR_GATE_TANH, 1, count, values, NULL), FASTRNN_ERROR_ARGUMENT, "no place for the sum");
    free(values);
    end_group("%s: the probe of the machine's limits", isa);
}

int main(int argc, char **argv)
{
    static const int all_sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65}, few_sizes[] = {1, 3, 4, 5, 9, 17};
    static const int all_batches[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, few_batches[] = {1, 2, 5, 7, 13};
    static const int option_sizes[] = {1, 5, 17}, option_batches[] = {1, 9, 5};
    static const fastrnn_blas lp64 = {sizeof lp64, sgemm_lp64, dgemm_lp64},
                              ilp64 = {sizeof ilp64, sgemm_ilp64, dgemm_ilp64};
    const unsigned long long usual = floating_mode(); /* before the core can have changed it */
    const bool reduced = argc > 1 && !strcmp(argv[1], "reduced"), emulated = argc > 2 && !strcmp(argv[2], "emulated");
    const sweep all = {all_sizes, all_batches, LENGTH(all_sizes), LENGTH(all_batches)};
    const sweep few = {few_sizes, few_batches, LENGTH(few_sizes), LENGTH(few_batches)};
    const sweep options = {option_sizes, option_batches, LENGTH(option_sizes), LENGTH(option_batches)};
    const sweep few_options = {option_sizes + 1, option_batches, 1, 2};
    const char *isa;
    for (size_t i = 0; (isa = fastrnn_isa(i)) != NULL; i++) {
        if (emulated && !strcmp(isa, "scalar")) /* minutes; it runs elsewhere without an emulator */
            continue;
        for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
            test_sizes(isa, (fastrnn_kind)kind, reduced ? few : all);
        test_options(isa, reduced ? few_options : options);
        test_zero_options(isa);
        test_matrices(isa, &lp64);
        test_activate(isa);
        test_probe(isa);
        test_empty(isa);
        if (!reduced)
            test_long(isa);
        test_blas(isa, "32-bit", &lp64, few_options);
        test_blas(isa, "64-bit", &ilp64, few_options);
        for (int threads = 2; threads <= (reduced ? 2 : 3); threads++) {
            check(fastrnn_pool_create(threads, &pool) == FASTRNN_OK, "pool");
            fastrnn_pool_set_threshold(pool, 0);
            for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
                test_sizes(isa, (fastrnn_kind)kind, few);
            test_options(isa, few_options);
            test_empty(isa);
            fastrnn_pool_destroy(pool);
            pool = NULL;
        }
    }
    const fr_kernels *kernels;
    weight_dtype = FASTRNN_WEIGHTS_INT8;
    for (size_t i = 0; (kernels = fr_kernels_at(i, FR_WEIGHT_INT8)) != NULL; i++)
        for (int threads = 1; threads <= (reduced ? 2 : 3); threads++) {
            if (threads > 1) {
                check(fastrnn_pool_create(threads, &pool) == FASTRNN_OK, "pool");
                fastrnn_pool_set_threshold(pool, 0);
            }
            for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
                test_sizes(kernels->isa, (fastrnn_kind)kind, few);
            test_options(kernels->isa, few_options);
            test_empty(kernels->isa);
            if (!reduced && threads == 1)
                test_long(kernels->isa);
            fastrnn_pool_destroy(pool);
            pool = NULL;
        }
    weight_dtype = FASTRNN_WEIGHTS_FLOAT32;
    test_activation_list();
    test_struct_sizes(&lp64);
    test_blas_far_steps(&lp64);
    test_wrong_layers();
    test_wrong_runs();
    test_wrong_stores();
    test_wrong_steps();
    test_step_modes(usual);
    test_interruption(usual);
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
