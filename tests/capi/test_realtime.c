/* What audio and other real-time threads rely on: after set-up a step allocates nothing, takes no lock and makes no system call, and
 * its numbers are never subnormal.
 *
 * The allocator's and the locks' functions are replaced by ones that count, for the whole process, the C library included. Then a
 * child process runs the same steps in Linux's strict mode of secure computing, in which a system call other than read, write,
 * _exit and sigreturn ends it. The layers are made, and the steps prepared, before.
 *
 * Usage: test_realtime [reduced] [emulated]; an emulator has no secure computing.
 */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <float.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "testing.h"

#if defined(__linux__)
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#endif

static int num_steps = 10000; /* "reduced": 1000 */

static atomic_long calls; /* of functions that a step must not call */

/* ---- Functions that count -------------------------------------------------------------------------------------- */

#if defined(__GLIBC__) && !defined(LINKED_STATICALLY) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS 1

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

#define FORWARDING(declaration, call)                                                                                  \
    declaration                                                                                                        \
    {                                                                                                                  \
        atomic_fetch_add(&calls, 1);                                                                                   \
        return call;                                                                                                   \
    }
FORWARDING(void *malloc(size_t size), __libc_malloc(size))
FORWARDING(void *calloc(size_t count, size_t size), __libc_calloc(count, size))
FORWARDING(void *realloc(void *memory, size_t size), __libc_realloc(memory, size))
FORWARDING(void *aligned_alloc(size_t alignment, size_t size), __libc_memalign(alignment, size))
void free(void *memory)
{
    atomic_fetch_add(&calls, 1);
    __libc_free(memory);
}

#define COUNTING(name, parameter)                                                                                      \
    int name(parameter *object)                                                                                        \
    {                                                                                                                  \
        static int (*real)(parameter *);                                                                               \
        if (!real)                                                                                                     \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                                                                 \
        atomic_fetch_add(&calls, 1);                                                                                   \
        return real(object);                                                                                           \
    }
COUNTING(pthread_mutex_lock, pthread_mutex_t)
COUNTING(pthread_mutex_trylock, pthread_mutex_t)
COUNTING(pthread_mutex_unlock, pthread_mutex_t)
COUNTING(pthread_cond_signal, pthread_cond_t)
COUNTING(pthread_cond_broadcast, pthread_cond_t)
COUNTING(pthread_spin_lock, pthread_spinlock_t)
#else
#define COUNTS 0 /* the sanitizers have an allocator of their own, and a program cannot replace that of a static library */
#endif

/* ---- Streams --------------------------------------------------------------------------------------------------- */

#define MOST_WIDTH 64

/* What a real-time thread has: made once, and run at every step. */
typedef struct stream {
    const char *name;
    fastrnn_status (*run)(struct stream *s);
    fastrnn_layer *layer;
    fastrnn_model *model;
    fastrnn_batch batch;
    fastrnn_plan plan;
    fastrnn_step *step;
    fastrnn_model_plan *model_plan;
    void *store, *memory;
    float x[3 * MOST_WIDTH], y[3 * MOST_WIDTH];
} stream;

static fastrnn_status run_step(stream *s) { return fastrnn_step_run(s->step, s->x, s->y); }
static fastrnn_status run_plan(stream *s) { return fastrnn_plan_run(&s->plan, s->memory); }
static fastrnn_status run_model(stream *s) { return fastrnn_model_plan_run(s->model_plan); }

/* A state of a slot is set and read, and a snapshot saved and restored, between the steps. */
static fastrnn_status run_states(stream *s)
{
    static float h[2 * MOST_WIDTH], c[2 * MOST_WIDTH];
    static char snapshot[1 << 16];
    const int64_t slot = 1;
    size_t size = 0;
    fastrnn_status status = fastrnn_plan_run(&s->plan, s->memory);
    status = status ? status : fastrnn_store_get(s->layer, s->store, 1, &slot, h, c);
    status = status ? status : fastrnn_store_set(s->layer, s->store, 1, &slot, h, c);
    status = status ? status : fastrnn_snapshot_size(s->layer, s->store, 3, &size);
    if (!status && size > sizeof snapshot)
        return FASTRNN_ERROR_SIZE;
    status = status ? status : fastrnn_snapshot_save(s->layer, s->store, 3, NULL, snapshot);
    return status ? status : fastrnn_snapshot_restore(s->layer, s->store, 3, NULL, snapshot, size);
}

static void *memory_of(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64 + 64); }

static float weights[4 * MOST_WIDTH * MOST_WIDTH];

static fastrnn_config config_for(fastrnn_kind kind, int64_t hidden_size, int64_t num_layers, fastrnn_weight_dtype dtype)
{
    return (fastrnn_config){.struct_size = sizeof(fastrnn_config), .kind = kind, .input_size = hidden_size,
                            .hidden_size = hidden_size, .num_layers = num_layers, .weight_dtype = dtype};
}

static fastrnn_batch batch_for(stream *s, int64_t width, int64_t num_rows)
{
    return (fastrnn_batch){.struct_size = sizeof(fastrnn_batch), .num_rows = num_rows, .num_steps = 1, .store = s->store,
                           .x = {.base = s->x, .row_stride = width, .step_stride = width},
                           .y = {.base = s->y, .row_stride = width, .step_stride = width}};
}

static void layer_stream(stream *s, fastrnn_kind kind, int64_t width, int64_t num_layers, fastrnn_weight_dtype dtype, bool peephole)
{
    const fastrnn_config config = config_for(kind, width, num_layers, dtype);
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weights, .weight_hh = weights,
                               .peephole = peephole ? weights : NULL};
    const fastrnn_cell cells[] = {cell, cell};
    size_t size;
    expect(fastrnn_layer_create(&config, cells, NULL, NULL, &s->layer), FASTRNN_OK, "layer");
    expect(fastrnn_store_size(s->layer, 3, 0, &size), FASTRNN_OK, "size of a store");
    s->store = memory_of(size);
    expect(fastrnn_store_init(s->layer, 3, 0, s->store), FASTRNN_OK, "store");
    s->batch = batch_for(s, width, 3);
    if (s->run == run_step) {
        expect(fastrnn_step_size(s->layer, &s->batch, &size), FASTRNN_OK, "size of a step");
        s->memory = memory_of(size);
        expect(fastrnn_step_prepare(s->layer, &s->batch, 0, s->memory, size, &s->step), FASTRNN_OK, "step");
        return;
    }
    s->plan.struct_size = sizeof s->plan;
    expect(fastrnn_plan_make(s->layer, &s->batch, &s->plan), FASTRNN_OK, "plan");
    s->memory = memory_of(s->plan.workspace_size);
}

static void model_stream(stream *s, int64_t width)
{
    const fastrnn_config config = config_for(FASTRNN_GRU, width, 1, FASTRNN_WEIGHTS_FLOAT32);
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weights, .weight_hh = weights};
    const size_t each = sizeof(fastrnn_op);
    const fastrnn_op ops[] = {
        {.struct_size = each, .kind = FASTRNN_OP_CONV1D, .input_size = width, .output_size = width, .kernel_size = 3,
         .padding_left = 2, .weight = weights},
        {.struct_size = each, .kind = FASTRNN_OP_ACTIVATION, .input_size = width, .activation = {.name = FASTRNN_RELU}},
        {.struct_size = each, .kind = FASTRNN_OP_LAYER_NORM, .input_size = width, .eps = 1e-5},
        {.struct_size = each, .kind = FASTRNN_OP_LAYER, .config = &config, .cells = &cell},
        {.struct_size = each, .kind = FASTRNN_OP_LINEAR, .input_size = width, .output_size = width, .weight = weights},
        {.struct_size = each, .kind = FASTRNN_OP_SOFTMAX, .input_size = width},
    };
    size_t size;
    expect(fastrnn_model_create(ops, LENGTH(ops), NULL, &s->model), FASTRNN_OK, "model");
    expect(fastrnn_model_store_size(s->model, 3, &size), FASTRNN_OK, "size of a store");
    s->store = memory_of(size);
    expect(fastrnn_model_store_init(s->model, 3, s->store), FASTRNN_OK, "store");
    s->batch = batch_for(s, width, 3);
    expect(fastrnn_model_plan_size(s->model, &s->batch, &size), FASTRNN_OK, "size of a plan");
    s->memory = memory_of(size);
    expect(fastrnn_model_plan_make(s->model, &s->batch, s->memory, size, &s->model_plan), FASTRNN_OK, "plan");
}

/* ---- Tests ----------------------------------------------------------------------------------------------------- */

static void next_input(stream *s, int step)
{
    for (int i = 0; i < LENGTH(s->x); i++)
        s->x[i] = (float)((i * 7 + step * 13) % 23) / 11 - 1;
}

static fastrnn_status run_steps(stream *s)
{
    for (int step = 0; step < num_steps; step++) {
        next_input(s, step);
        const fastrnn_status status = s->run(s);
        if (status != FASTRNN_OK)
            return status;
    }
    return FASTRNN_OK;
}

static void test_calls(stream *s)
{
    const long before = calls;
    const fastrnn_status status = run_steps(s);
    const long made = calls - before;
    in_context("%s", s->name);
    expect(status, FASTRNN_OK, "all steps run");
    check(made == 0, "no step allocates, frees or locks");
}

#if defined(__linux__) && COUNTS

static void test_system_calls(stream *s)
{
    in_context("%s", s->name);
    const pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
            _exit(77);
        const fastrnn_status status = run_steps(s);
        syscall(SYS_exit, status == FASTRNN_OK ? 0 : 1);
    }
    int ended = -1;
    waitpid(child, &ended, 0);
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == 77)
        printf("NOT RUN: system calls of %s, as the system refuses PR_SET_SECCOMP\n", s->name);
    else
        check(WIFEXITED(ended) && WEXITSTATUS(ended) == 0, "no step makes a system call");
}

#endif

/* States that decay, with inputs of zero, go to zero and not to subnormal numbers, each of which takes a processor up to a hundred
 * times as long. */
static void test_decay(stream *s)
{
    in_context("%s", s->name);
    bool normal = true;
    memset(s->x, 0, sizeof s->x);
    for (int step = 0; step < num_steps; step++) {
        s->run(s);
        for (int i = 0; i < LENGTH(s->y); i++)
            normal = normal && (s->y[i] == 0 || fabsf(s->y[i]) >= FLT_MIN);
    }
    check(normal, "no output is subnormal");
}

/* A vanilla RNN of which each step multiplies h by 1/2: after 150 steps h would be subnormal. */
static void test_subnormal(void)
{
    float factor[4] = {0.5f, 0, 0, 0.5f}, zero[4] = {0}, y[2];
    const fastrnn_config config = config_for(FASTRNN_RNN, 2, 1, FASTRNN_WEIGHTS_FLOAT32);
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = zero, .weight_hh = factor,
                               .options = {.activations = {{.name = FASTRNN_RELU}}}};
    stream s = {.run = run_step};
    size_t size;
    expect(fastrnn_layer_create(&config, &cell, NULL, NULL, &s.layer), FASTRNN_OK, "layer");
    expect(fastrnn_store_size(s.layer, 1, 0, &size), FASTRNN_OK, "size of a store");
    s.store = memory_of(size);
    expect(fastrnn_store_init(s.layer, 1, 0, s.store), FASTRNN_OK, "store");
    const float one[2] = {1, 1};
    expect(fastrnn_store_set(s.layer, s.store, 1, NULL, one, NULL), FASTRNN_OK, "state");
    s.batch = batch_for(&s, 2, 1);
    expect(fastrnn_step_size(s.layer, &s.batch, &size), FASTRNN_OK, "size of a step");
    s.memory = memory_of(size);
    expect(fastrnn_step_prepare(s.layer, &s.batch, 0, s.memory, size, &s.step), FASTRNN_OK, "step");
    int last = 0;
    for (int step = 1; step <= 200; step++) {
        fastrnn_step_run(s.step, zero, y);
        check(y[0] == 0 || y[0] >= FLT_MIN, "never subnormal");
        last = y[0] > 0 ? step : last;
    }
    check(last == 126, "the last state is FLT_MIN, 2^-126");
    fastrnn_layer_destroy(s.layer);
    free(s.store), free(s.memory);
    end_group("a state that halves at every step becomes zero after 2^-126");
}

/* Blocks that a caller's allocator gave. */
static long taken, given_back;
static void *take_block(void *state, size_t size)
{
    taken++;
    *(size_t *)state += size;
    return malloc(size);
}
static void give_back(void *state, void *memory)
{
    (void)state;
    given_back++;
    free(memory);
}

static void test_allocator(void)
{
    size_t total = 0;
    const fastrnn_allocator own = {.struct_size = sizeof own, .allocate = take_block, .release = give_back, .context = &total};
    const fastrnn_config config = config_for(FASTRNN_LSTM, 16, 1, FASTRNN_WEIGHTS_FLOAT32);
    const fastrnn_cell cell = {.struct_size = sizeof cell, .weight_ih = weights, .weight_hh = weights};
    fastrnn_layer *before = NULL, *layer = NULL;
    fastrnn_pool *pool = NULL;
    expect(fastrnn_layer_create(&config, &cell, NULL, NULL, &before), FASTRNN_OK, "a layer before");
    expect(fastrnn_set_allocator(&own), FASTRNN_OK, "set");
    fastrnn_layer_destroy(before);
    check(given_back == 0, "an object goes back to the allocator that it is from");
    const long other = calls;
    expect(fastrnn_layer_create(&config, &cell, NULL, NULL, &layer), FASTRNN_OK, "layer");
    const long all = calls - other;
    check(taken == 2 && total > fastrnn_layer_nbytes(layer) && (!COUNTS || all == taken), "all memory is from the caller's allocator");
    expect(fastrnn_pool_create(2, &pool), FASTRNN_OK, "pool");
    expect(fastrnn_set_allocator(NULL), FASTRNN_OK, "set back");
    fastrnn_layer_destroy(layer);
    fastrnn_pool_destroy(pool);
    check(taken == given_back && taken == 4, "all blocks come back");
    const fastrnn_allocator half = {.struct_size = sizeof half, .allocate = take_block};
    expect(fastrnn_set_allocator(&half), FASTRNN_ERROR_ARGUMENT, "without release");
    check(!strcmp(fastrnn_last_error(), "allocator->release is NULL"), "the error names it");
    end_group("a caller's allocator");
}

int main(int argc, char **argv)
{
    bool emulated = false;
    for (int i = 1; i < argc; i++) {
        emulated = emulated || !strcmp(argv[i], "emulated");
        if (!strcmp(argv[i], "reduced"))
            num_steps = 1000;
    }
    for (int i = 0; i < LENGTH(weights); i++)
        weights[i] = (float)(0.2 * random_value());
    static stream streams[] = {
        {.name = "prepared step of an LSTM", .run = run_step},        {.name = "prepared step of a GRU, 2 layers", .run = run_step},
        {.name = "prepared step of an int8 LSTM", .run = run_step},   {.name = "prepared step with peepholes", .run = run_step},
        {.name = "stored step of a float16 LSTM", .run = run_plan},   {.name = "stored step, states and snapshots", .run = run_states},
        {.name = "step of a model with a convolution", .run = run_model},
    };
    layer_stream(&streams[0], FASTRNN_LSTM, 32, 1, FASTRNN_WEIGHTS_FLOAT32, false);
    layer_stream(&streams[1], FASTRNN_GRU, 20, 2, FASTRNN_WEIGHTS_FLOAT32, false);
    layer_stream(&streams[2], FASTRNN_LSTM, 24, 1, FASTRNN_WEIGHTS_INT8, false);
    layer_stream(&streams[3], FASTRNN_LSTM, 17, 2, FASTRNN_WEIGHTS_FLOAT32, true);
    layer_stream(&streams[4], FASTRNN_LSTM, 33, 1, FASTRNN_WEIGHTS_FLOAT16, false);
    layer_stream(&streams[5], FASTRNN_LSTM, 16, 2, FASTRNN_WEIGHTS_FLOAT32, false);
    model_stream(&streams[6], 24);
    end_group("streams are made");
    for (int i = 0; i < LENGTH(streams); i++)
        test_calls(&streams[i]);
#if COUNTS
    check(calls > 0, "set-up was counted, so a step's calls would be");
#else
    printf("NOT RUN: counts of calls, as the allocator of this C library cannot be replaced\n");
#endif
    end_group("%d steps each, no allocation and no lock", num_steps);
#if defined(__linux__) && COUNTS
    for (int i = 0; i < LENGTH(streams) && !emulated; i++)
        test_system_calls(&streams[i]);
    end_group("%d steps each, no system call", num_steps);
#endif
    if (emulated || !COUNTS)
        printf("NOT RUN: system calls, which emulators and sanitizers make of their own\n");
    for (int i = 0; i < LENGTH(streams); i++)
        test_decay(&streams[i]);
    end_group("no output is subnormal");
    test_subnormal();
    test_allocator();
    for (int i = 0; i < LENGTH(streams); i++) {
        fastrnn_layer_destroy(streams[i].layer);
        fastrnn_model_destroy(streams[i].model);
        free(streams[i].store), free(streams[i].memory);
    }
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
