/* One step of a live stream through the C interface: microseconds a step, the fastest and the median of many rounds.
 *   step [isa]   (by default FASTRNN_ISA, else the best) */
#define _POSIX_C_SOURCE 199309L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fastrnn.h"

enum { ROUNDS = 401 };
static const double ROUND_SECONDS = 5e-4;

static const struct {
    fastrnn_kind kind;
    int64_t input_size, hidden_size;
} SHAPES[] = {
    {FASTRNN_LSTM, 1, 8}, {FASTRNN_LSTM, 1, 16}, {FASTRNN_LSTM, 1, 24}, {FASTRNN_LSTM, 1, 32},
    {FASTRNN_LSTM, 64, 64}, {FASTRNN_LSTM, 128, 128},
    {FASTRNN_GRU, 1, 8}, {FASTRNN_GRU, 1, 16}, {FASTRNN_GRU, 1, 24}, {FASTRNN_GRU, 1, 32},
    {FASTRNN_GRU, 64, 64}, {FASTRNN_GRU, 128, 128},
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *draw(int64_t count, float bound)
{
    float *values = malloc((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++)
        values[i] = bound * (2 * (float)rand() / (float)RAND_MAX - 1);
    return values;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct {
    fastrnn_layer *layer;
    fastrnn_batch step;
    fastrnn_plan plan;
    void *workspace;
} stream_of_one;

static double time_steps(const stream_of_one *s, int64_t count)
{
    const double start = now();
    for (int64_t i = 0; i < count; i++)
        fastrnn_plan_run(&s->plan, s->workspace);
    return now() - start;
}

static void print_times(const stream_of_one *s)
{
    double rounds[ROUNDS];
    int64_t count = 1;
    while (time_steps(s, count) < ROUND_SECONDS)
        count *= 2;
    for (int i = 0; i < ROUNDS; i++)
        rounds[i] = time_steps(s, count) / (double)count;
    qsort(rounds, ROUNDS, sizeof *rounds, ascending);
    printf("%9.3f %9.3f\n", 1e6 * rounds[0], 1e6 * rounds[ROUNDS / 2]);
}

static fastrnn_status measure(fastrnn_kind kind, int64_t I, int64_t H, const char *isa)
{
    const int64_t G = kind == FASTRNN_LSTM ? 4 : 3;
    const float bound = 1 / sqrtf((float)H);
    float *weight_ih = draw(G * H * I, bound), *weight_hh = draw(G * H * H, bound), *bias = draw(G * H, bound);
    float *x = draw(I, 1), *y = draw(H, 0);
    const fastrnn_config config = {.struct_size = sizeof config, .kind = kind, .input_size = I, .hidden_size = H,
                                   .num_layers = 1};
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weight_ih, .weight_hh = weight_hh, .bias_ih = bias};
    stream_of_one s = {.step = {.struct_size = sizeof s.step, .num_rows = 1, .num_steps = 1, .x = {.base = x}, .y = {.base = y}},
                       .plan = {.struct_size = sizeof s.plan}};
    size_t store_size = 0;
    fastrnn_status status = fastrnn_layer_create(&config, &cell, isa, NULL, &s.layer);
    if (!status) status = fastrnn_store_size(s.layer, 1, 0, &store_size);
    s.step.store = aligned_alloc(64, store_size); /* a multiple of 64 */
    if (!status) status = fastrnn_store_init(s.layer, 1, 0, s.step.store);
    if (!status) status = fastrnn_plan_make(s.layer, &s.step, &s.plan);
    s.workspace = malloc(s.plan.workspace_size);
    if (!status) status = fastrnn_plan_run(&s.plan, s.workspace);
    if (!status) {
        printf("%-4s I=%-4d H=%-4d ", kind == FASTRNN_LSTM ? "LSTM" : "GRU", (int)I, (int)H);
        print_times(&s);
    }
    fastrnn_layer_destroy(s.layer);
    free(weight_ih), free(weight_hh), free(bias), free(x), free(y), free(s.workspace), free(s.step.store);
    return status;
}

int main(int argc, char **argv)
{
    const char *isa = argc > 1 ? argv[1] : NULL;
    fastrnn_status status = FASTRNN_OK;
    puts("microseconds a step  fastest    median");
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES && !status; i++)
        status = measure(SHAPES[i].kind, SHAPES[i].input_size, SHAPES[i].hidden_size, isa);
    if (status)
        fprintf(stderr, "%s\n", fastrnn_status_message(status));
    return status != FASTRNN_OK;
}
