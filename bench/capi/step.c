/* One step of a live stream through the C interface: nanoseconds a step, the fastest and the median of many rounds, in turns
 * as a run of a plan, as a prepared step, and as a prepared step that leaves the floating-point mode to the caller.
 *   step [isa]   (by default FASTRNN_ISA, else the best) */
#define _POSIX_C_SOURCE 199309L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fastrnn.h"

enum { ROUNDS = 401 };
static const double ROUND_SECONDS = 2e-4;

static const struct {
    fastrnn_kind kind;
    int64_t input_size, hidden_size;
} SHAPES[] = {
    {FASTRNN_LSTM, 1, 8}, {FASTRNN_LSTM, 1, 16}, {FASTRNN_LSTM, 1, 24}, {FASTRNN_LSTM, 1, 32}, {FASTRNN_LSTM, 1, 40},
    {FASTRNN_LSTM, 64, 64}, {FASTRNN_LSTM, 128, 128},
    {FASTRNN_GRU, 1, 8}, {FASTRNN_GRU, 1, 16}, {FASTRNN_GRU, 1, 24}, {FASTRNN_GRU, 1, 32}, {FASTRNN_GRU, 1, 40},
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

enum { INPUTS = 16 }; /* the input differs from call to call */

typedef struct {
    fastrnn_layer *layer;
    fastrnn_batch batch;
    fastrnn_plan plan;
    void *workspace;
    fastrnn_step *steps[2]; /* that set the floating-point mode, and that leave it to the caller */
    float *x, *y;
    int64_t input_size;
} stream_of_one;

/* Ways of running a step. */
enum { PLAN, PREPARED, CALLER_MODE, NUM_WAYS };

static double time_steps(stream_of_one *s, int way, int64_t count)
{
    const uint64_t mode = way == CALLER_MODE ? fastrnn_fp_flush() : 0;
    const double start = now();
    if (way == PLAN)
        for (int64_t i = 0; i < count; i++) {
            s->batch.x.base = s->x + i % INPUTS * s->input_size;
            fastrnn_plan_run(&s->plan, s->workspace);
        }
    else
        for (int64_t i = 0; i < count; i++)
            fastrnn_step_run(s->steps[way == CALLER_MODE], s->x + i % INPUTS * s->input_size, s->y);
    const double seconds = now() - start;
    if (way == CALLER_MODE)
        fastrnn_fp_restore(mode);
    return seconds;
}

static void print_times(stream_of_one *s)
{
    double rounds[NUM_WAYS][ROUNDS];
    int64_t count = 1;
    while (time_steps(s, PLAN, count) < ROUND_SECONDS)
        count *= 2;
    for (int i = 0; i < ROUNDS; i++)
        for (int way = 0; way < NUM_WAYS; way++)
            rounds[way][i] = 1e9 * time_steps(s, way, count) / (double)count;
    for (int way = 0; way < NUM_WAYS; way++)
        qsort(rounds[way], ROUNDS, sizeof *rounds[way], ascending);
    for (int way = 0; way < NUM_WAYS; way++)
        printf("%9.1f %7.1f", rounds[way][0], rounds[way][ROUNDS / 2]);
    for (int way = 1; way < NUM_WAYS; way++)
        printf("%8.2f", rounds[way][0] / rounds[PLAN][0]);
    puts("");
}

static fastrnn_status measure(fastrnn_kind kind, int64_t I, int64_t H, const char *isa)
{
    const int64_t G = kind == FASTRNN_LSTM ? 4 : 3;
    const float bound = 1 / sqrtf((float)H);
    float *weight_ih = draw(G * H * I, bound), *weight_hh = draw(G * H * H, bound), *bias = draw(G * H, bound);
    const fastrnn_config config = {.struct_size = sizeof config, .kind = kind, .input_size = I, .hidden_size = H,
                                   .num_layers = 1};
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weight_ih, .weight_hh = weight_hh, .bias_ih = bias};
    stream_of_one s = {.x = draw(INPUTS * I, 1), .y = draw(H, 0), .input_size = I, .plan = {.struct_size = sizeof s.plan}};
    s.batch = (fastrnn_batch){.struct_size = sizeof s.batch, .num_rows = 1, .num_steps = 1, .x.base = s.x, .y.base = s.y};
    void *memory[2] = {NULL, NULL};
    size_t size = 0;
    fastrnn_status status = fastrnn_layer_create(&config, &cell, isa, NULL, &s.layer);
    if (!status) status = fastrnn_store_size(s.layer, 1, 0, &size);
    s.batch.store = aligned_alloc(64, size); /* a multiple of 64 */
    if (!status) status = fastrnn_store_init(s.layer, 1, 0, s.batch.store);
    if (!status) status = fastrnn_plan_make(s.layer, &s.batch, &s.plan);
    s.workspace = malloc(s.plan.workspace_size);
    if (!status) status = fastrnn_step_size(s.layer, &s.batch, &size);
    for (int i = 0; i < 2 && !status; i++)
        status = fastrnn_step_prepare(s.layer, &s.batch, i ? FASTRNN_STEP_CALLER_MODE : 0, memory[i] = malloc(size), size,
                                      &s.steps[i]);
    if (!status) status = fastrnn_plan_run(&s.plan, s.workspace);
    if (!status) {
        printf("%-4s I=%-4d H=%-4d ", kind == FASTRNN_LSTM ? "LSTM" : "GRU", (int)I, (int)H);
        print_times(&s);
    }
    fastrnn_layer_destroy(s.layer);
    free(weight_ih), free(weight_hh), free(bias), free(s.x), free(s.y), free(s.workspace), free(s.batch.store);
    free(memory[0]), free(memory[1]);
    return status;
}

int main(int argc, char **argv)
{
    const char *isa = argc > 1 ? argv[1] : NULL;
    fastrnn_status status = FASTRNN_OK;
    printf("%-18s%17s%17s%17s%15s\n", "ns: fastest median", "plan", "prepared", "caller's mode", "of the plan's");
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES && !status; i++)
        status = measure(SHAPES[i].kind, SHAPES[i].input_size, SHAPES[i].hidden_size, isa);
    if (status)
        fprintf(stderr, "%s\n", fastrnn_status_message(status));
    return status != FASTRNN_OK;
}
