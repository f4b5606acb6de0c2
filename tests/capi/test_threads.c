/* The thread pool: many callers, refused threads, failed allocations, forks, interrupts, floating-point modes.
 *
 * Usage: test_threads [reduced] [emulated]. run.sh makes the linker wrap the allocator, pthread_create and the core's clock, so
 * that a test can make the n-th allocation or thread creation fail, and advance the clock. The results of a shared call are
 * compared bit by bit with those of the same call without a pool.
 */
#define _POSIX_C_SOURCE 200809L /* fork, kill, alarm, nanosleep, which -std=c11 hides */

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../fastrnn/core/cpu.h"
#include "../../fastrnn/core/plan.h"
#include "testing.h"
#include "wrapped.h"

#define HANG_SECONDS 300 /* after which the test is stopped and fails */

/* ---- Layers, and calls of them --------------------------------------------------------------------------------- */

static float *random_floats(int64_t count, double bound)
{
    float *values = block((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(bound * random_value());
    return values;
}

static int64_t outputs_of(const fastrnn_config *config)
{
    return config->proj_size ? config->proj_size : config->hidden_size;
}

#define MOST_CELLS 4

/* The arguments of fastrnn_layer_create. */
typedef struct source {
    fastrnn_config config;
    fastrnn_cell cells[MOST_CELLS];
    int num_cells;
} source;

static source source_make(fastrnn_config config)
{
    const int64_t D = config.bidirectional ? 2 : 1, H = config.hidden_size, P = outputs_of(&config);
    const int64_t rows = (config.kind == FASTRNN_LSTM ? 4 : config.kind == FASTRNN_GRU ? 3 : 1) * H;
    source s = {.config = config, .num_cells = (int)(config.num_layers * D)};
    for (int i = 0; i < s.num_cells; i++) {
        fastrnn_cell *cell = &s.cells[i];
        const int64_t I = i < D ? config.input_size : D * P;
        const double bound = 1 / sqrt((double)(I + P + 1));
        *cell = standard_cell(config.kind);
        cell->weight_ih = random_floats(rows * I, bound);
        cell->weight_hh = random_floats(rows * P, bound);
        cell->bias_ih = random_floats(rows, 1);
        cell->bias_hh = random_floats(rows, 1);
        cell->weight_hr = config.proj_size ? random_floats(P * H, bound) : NULL;
    }
    return s;
}

static void source_free(source *s)
{
    for (int i = 0; i < s->num_cells; i++) {
        const fastrnn_cell *cell = &s->cells[i];
        const void *const tensors[] = {cell->weight_ih, cell->weight_hh, cell->bias_ih, cell->bias_hh, cell->weight_hr};
        for (int j = 0; j < LENGTH(tensors); j++)
            free((void *)(uintptr_t)tensors[j]);
    }
}

static fastrnn_layer *layer_make(fastrnn_config config)
{
    source s = source_make(config);
    fastrnn_layer *layer = NULL;
    expect(fastrnn_layer_create(&s.config, s.cells, NULL, NULL, &layer), FASTRNN_OK, "model");
    source_free(&s);
    if (!layer)
        exit(2);
    return layer;
}

typedef enum way { RUN, UNROLLED, STREAM } way;

/* A call of a layer. Its results are in one block: y, hn, cn. */
typedef struct job {
    const fastrnn_layer *layer;
    fastrnn_batch batch;
    float *x, *h0, *c0;
    int64_t *lengths, *batch_sizes;
    char *results;
    size_t results_bytes;
} job;

/* Ragged lengths decrease from T, with ties, to a one and a zero. `still`: every step reads the same input and writes the same
 * output, so that T may be large. */
static job job_make(const fastrnn_layer *layer, int64_t B, int64_t T, bool ragged, bool still)
{
    const int64_t I = layer->input_size, P = layer->h_size, H = layer->cells[0].hidden_size;
    const int64_t width = layer->num_directions * P, steps = still ? 1 : T, cells = layer->num_cells;
    const bool lstm = layer->cells[0].kind == FASTRNN_LSTM;
    job j = {.layer = layer};
    j.x = random_floats(B * steps * I, 1);
    j.h0 = random_floats(cells * B * P, 1);
    j.c0 = random_floats(cells * B * H, 2);
    const size_t y = (size_t)(B * steps * width) * sizeof(float), h = (size_t)(cells * B * P) * sizeof(float);
    const size_t c = lstm ? (size_t)(cells * B * H) * sizeof(float) : 0;
    j.results_bytes = y + h + c;
    j.results = block(j.results_bytes);
    j.batch = (fastrnn_batch){.struct_size = sizeof j.batch, .num_rows = B, .num_steps = T,
                              .x = {.base = j.x, .row_stride = steps * I, .step_stride = still ? 0 : I},
                              .h0 = j.h0, .c0 = lstm ? j.c0 : NULL, .hn = j.results + y, .cn = lstm ? j.results + y + h : NULL,
                              .y = {.base = j.results, .row_stride = steps * width, .step_stride = still ? 0 : width}};
    if (ragged) {
        j.batch.lengths = j.lengths = block((size_t)B * sizeof *j.lengths);
        j.batch.batch_sizes = j.batch_sizes = block((size_t)T * sizeof *j.batch_sizes);
        for (int64_t row = 0; row < B; row++)
            j.lengths[row] = row == 0 ? T : row + 1 == B ? 0 : row + 2 == B ? 1 : T - row / 2 * T / B;
        for (int64_t step = 0; step < T; step++) {
            j.batch_sizes[step] = 0;
            for (int64_t row = 0; row < B; row++)
                j.batch_sizes[step] += j.lengths[row] > step;
        }
    }
    return j;
}

static void job_free(job *j)
{
    void *const blocks[] = {j->x, j->h0, j->c0, j->lengths, j->batch_sizes, j->results};
    for (int i = 0; i < LENGTH(blocks); i++)
        free(blocks[i]);
}

static fastrnn_status job_run(job *j, way how, fastrnn_pool *pool)
{
    memset(j->results, POISON, j->results_bytes);
    j->batch.pool = pool;
    return how == RUN ? run(j->layer, &j->batch) : how == UNROLLED ? run_unrolled(j->layer, &j->batch) : run_stored(j->layer, &j->batch);
}

/* The results of the call without a pool. */
static char *job_expected(job *j, way how)
{
    expect(job_run(j, how, NULL), FASTRNN_OK, "a call on one thread");
    return memcpy(block(j->results_bytes), j->results, j->results_bytes);
}

static bool job_is_right(const job *j, const char *expected) { return !memcmp(j->results, expected, j->results_bytes); }

static fastrnn_pool *pool_make(int num_threads, double threshold)
{
    fastrnn_pool *pool = NULL;
    expect(fastrnn_pool_create(num_threads, &pool), FASTRNN_OK, "pool");
    if (!pool)
        exit(2);
    fastrnn_pool_set_threshold(pool, threshold);
    return pool;
}

#define SHARES_ALL 0
#define SHARES_ALMOST_ALL 1e-9 /* unlike SHARES_ALL, it stops sharing while the pool is oversubscribed */

/* ---- The ways to divide a call --------------------------------------------------------------------------------- */

typedef struct cut {
    const char *name;
    int64_t I, H, P, L, D, B, T;
    bool ragged;
    way how;
    bool rows, row_step; /* the partition that the case tests: by rows; directions apart; neither: by units */
} cut;

static const cut cuts[] = {
    {"rows", 5, 20, 0, 2, 1, 13, 9, true, RUN, true, false},
    {"rows of one step", 5, 20, 0, 1, 1, 8, 1, false, RUN, true, false},
    {"rows in both directions", 3, 17, 0, 1, 2, 9, 7, true, RUN, true, false},
    {"rows of a stream", 5, 33, 0, 2, 1, 8, 5, false, STREAM, true, false},
    {"rows unrolled", 4, 9, 0, 2, 2, 8, 5, false, UNROLLED, true, false},
    {"units", 7, 70, 0, 2, 1, 1, 40, false, RUN, false, false},
    {"units of a stream", 3, 65, 0, 2, 1, 1, 12, false, STREAM, false, false},
    {"units unrolled in both directions", 3, 66, 0, 2, 2, 1, 12, false, UNROLLED, false, false},
    {"directions apart", 6, 70, 0, 2, 2, 1, 40, false, RUN, false, true},
};

/* In slots of a store: of cells whose vectors may be anywhere, and of those that are copied. */
static const cut slot_cuts[] = {
    {"rows", 5, 33, 0, 3, 1, 13, 9, true, STREAM, true, false},
    {"a step", 40, 65, 0, 2, 1, 21, 1, false, STREAM, true, false},
    {"units", 7, 70, 0, 2, 1, 2, 40, true, STREAM, false, false},
    {"a projection", 5, 33, 7, 2, 1, 13, 9, true, STREAM, true, false},
    {"units of a projection", 7, 70, 17, 2, 1, 2, 40, true, STREAM, false, false},
};
static const cut long_slot_cuts[] = {
    {"rows", 8, 32, 0, 2, 1, 8, 5000, true, STREAM, true, false},
    {"units", 8, 96, 0, 2, 1, 2, 700, true, STREAM, false, false},
    {"a projection", 8, 96, 24, 1, 1, 4, 700, true, STREAM, true, false},
};
#define MOST_CALLED 100 /* rows of slot_cuts and long_slot_cuts, each with twice as many slots */

static fastrnn_config cut_config(const cut *c, fastrnn_kind kind)
{
    return config_of(kind, c->I, c->H, kind == FASTRNN_LSTM ? c->P : 0, c->L, (int)c->D);
}

/* Checks that the plan divides the call as the case says. */
static void check_cut(const cut *c, const job *j, int num_threads)
{
    fastrnn_pool *pool = pool_make(num_threads, SHARES_ALL);
    fastrnn_batch batch = j->batch;
    fastrnn_plan plan = {.struct_size = sizeof plan};
    fastrnn_unrolled *unrolled = NULL;
    if (c->how == UNROLLED)
        expect(fastrnn_unrolled_create(j->layer, batch.num_steps, &unrolled), FASTRNN_OK, "unrolled");
    batch.unrolled = unrolled;
    batch.pool = pool;
    expect(fastrnn_plan_make(j->layer, &batch, &plan), FASTRNN_OK, "a good batch");
    const fr_partition shared = ((const fr_plan *)(const void *)plan.opaque)->shared;
    fastrnn_unrolled_destroy(unrolled);
    fastrnn_pool_destroy(pool);
    check(shared.workers > 1 && shared.directions_apart == c->row_step && (shared.num_slices > 1) == c->rows, "cut as meant");
}

/* ---- Groups of checks ------------------------------------------------------------------------------------------ */

#define CALLERS 4

typedef struct caller {
    job job;
    way how;
    char *expected;
    fastrnn_pool *pool;
    int rounds, wrong;
} caller;

static void *call_often(void *argument)
{
    caller *c = argument;
    for (int i = 0; i < c->rounds; i++)
        c->wrong += job_run(&c->job, c->how, c->pool) != FASTRNN_OK || !job_is_right(&c->job, c->expected);
    return NULL;
}

/* A caller that finds the pool in use runs alone, and every caller gets the right results. */
static void test_callers(int rounds)
{
    for (int i = 0; i < LENGTH(cuts); i++)
        for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
            for (int threads = 2; threads <= 4; threads++) {
                const cut *c = &cuts[i];
                in_context("%s, kind %d, %d threads", c->name, kind, threads);
                fastrnn_layer *layer = layer_make(cut_config(c, (fastrnn_kind)kind));
                fastrnn_pool *pool = pool_make(threads, threads == 3 ? SHARES_ALMOST_ALL : SHARES_ALL);
                caller callers[CALLERS];
                pthread_t ids[CALLERS];
                for (int k = 0; k < CALLERS; k++) {
                    callers[k] = (caller){.job = job_make(layer, c->B, c->T, c->ragged, false), .how = c->how, .pool = pool,
                                          .rounds = rounds};
                    callers[k].expected = job_expected(&callers[k].job, c->how);
                }
                check_cut(c, &callers[0].job, threads);
                for (int k = 0; k < CALLERS; k++)
                    check(pthread_create(&ids[k], NULL, call_often, &callers[k]) == 0, "a caller's thread");
                int wrong = 0;
                for (int k = 0; k < CALLERS; k++) {
                    pthread_join(ids[k], NULL);
                    wrong += callers[k].wrong;
                    free(callers[k].expected);
                    job_free(&callers[k].job);
                }
                check(wrong == 0, "every call gives what it gives alone");
                fastrnn_pool_destroy(pool);
                fastrnn_layer_destroy(layer);
            }
    end_group("many callers of one layer and one pool");
}

/* A call that is long enough to detect late workers, and to continue without them. */
static void test_crowd(int rounds)
{
    for (int directions = 1; directions <= 2; directions++) {
        in_context("%d directions", directions);
        fastrnn_layer *layer = layer_make(config_of(FASTRNN_GRU, 8, 160, 0, 2, directions));
        fastrnn_pool *pool = pool_make(4, 1);
        job j = job_make(layer, 1, 300, false, false);
        char *expected = job_expected(&j, RUN);
        for (int i = 0; i < rounds; i++) {
            expect(job_run(&j, RUN, pool), FASTRNN_OK, "a shared call");
            check(job_is_right(&j, expected), "the bits of one thread");
        }
        free(expected);
        job_free(&j);
        fastrnn_pool_destroy(pool);
        fastrnn_layer_destroy(layer);
    }
    end_group("more threads than processors");
}

/* A call is planned for four threads, but the system refuses some, in this call and in later ones. */
static void test_refused_threads(void)
{
    for (int i = 0; i < LENGTH(cuts); i++)
        for (int given = 0; given < 3; given++) {
            const cut *c = &cuts[i];
            in_context("%s, %d threads of 3", c->name, given);
            fastrnn_layer *layer = layer_make(cut_config(c, FASTRNN_LSTM));
            job j = job_make(layer, c->B, c->T, c->ragged, false);
            char *expected = job_expected(&j, c->how);
            fastrnn_pool *pool = pool_make(4, SHARES_ALL);
            j.batch.pool = pool;
            fastrnn_plan plan = {.struct_size = sizeof plan};
            expect(fastrnn_plan_make(j.layer, &j.batch, &plan), FASTRNN_OK, "a plan for four threads");
            void *workspace = block(plan.workspace_size);
            threads_left = given;
            threads_refused = 0;
            for (int round = 0; round < 3; round++) {
                memset(j.results, POISON, j.results_bytes);
                expect(c->how == RUN ? fastrnn_plan_run(&plan, workspace) : job_run(&j, c->how, pool), FASTRNN_OK,
                       "a call with fewer threads");
                check(job_is_right(&j, expected), "the bits of one thread");
                check(threads_refused == 1, "nobody asks again for what was refused");
                expect(job_run(&j, c->how, pool), FASTRNN_OK, "a call that knows of it");
                check(job_is_right(&j, expected), "the bits of one thread");
            }
            threads_left = -1;
            fastrnn_pool_destroy(pool);
            free(workspace);
            free(expected);
            job_free(&j);
            fastrnn_layer_destroy(layer);
        }
    end_group("threads that the system refuses");
}

static void test_pools(int rounds)
{
    fastrnn_layer *layer = layer_make(config_of(FASTRNN_LSTM, 3, 20, 0, 1, 1));
    job j = job_make(layer, 8, 5, true, false);
    char *expected = job_expected(&j, RUN);
    for (int i = 0; i < rounds; i++) {
        fastrnn_pool *pools[] = {pool_make(1 + i % 4, SHARES_ALL), pool_make(2, SHARES_ALL), pool_make(3, SHARES_ALL)};
        for (int k = 0; k < LENGTH(pools); k++)
            if ((i + k) % 3) { /* a pool may end without a call */
                expect(job_run(&j, RUN, pools[k]), FASTRNN_OK, "a call");
                check(job_is_right(&j, expected), "the bits of one thread");
            }
        for (int k = 0; k < LENGTH(pools); k++)
            fastrnn_pool_destroy(pools[(i + k) % LENGTH(pools)]);
    }
    fastrnn_pool *none = NULL;
    expect(fastrnn_pool_create(0, &none), FASTRNN_ERROR_ARGUMENT, "a pool without the caller");
    expect(fastrnn_pool_create(2, NULL), FASTRNN_ERROR_ARGUMENT, "nowhere to put the pool");
    check(none == NULL, "a failed create leaves the pointer alone");
    fastrnn_pool_destroy(NULL);
    fastrnn_pool_set_threshold(NULL, 1);
    free(expected);
    job_free(&j);
    fastrnn_layer_destroy(layer);
    end_group("pools that come and go");
}

/* Up to 2^38 rows, which need no memory if there are no steps, are divided into slices without gaps or overlaps. */
static void test_slices(void)
{
    static const int64_t counts[] = {1, 17, 255, 257, 1000003, ((int64_t)1 << 37) + 5, (int64_t)1 << 38};
    fastrnn_layer *layers[] = {layer_make(config_of(FASTRNN_RNN, 1, 1, 0, 1, 1)), layer_make(config_of(FASTRNN_LSTM, 1, 2000, 0, 1, 1))};
    for (int m = 0; m < LENGTH(layers); m++)
        for (int i = 0; i < LENGTH(counts); i++) {
            const int64_t B = counts[i];
            in_context("layer %d, %lld rows", m, (long long)B);
            const fastrnn_batch batch = {.num_rows = B};
            const fr_plan plan = {.layer = layers[m], .batch = &batch};
            const fr_partition partition = fr_partition_make(&plan, 4, SHARES_ALL);
            int64_t most = 0, steps = 0;
            fr_partition_bounds(&partition, &plan, &most, &steps);
            const int64_t S = partition.num_slices, looked_at[] = {0, S / 3, S / 2, S - 1};
            for (int k = 0; k < LENGTH(looked_at); k++) {
                fr_rows rows, next = {.first = B};
                fr_partition_slice(&partition, &plan, looked_at[k], &rows);
                if (looked_at[k] + 1 < S)
                    fr_partition_slice(&partition, &plan, looked_at[k] + 1, &next);
                check(rows.count >= 1 && rows.count <= most && rows.first + rows.count == next.first, "a slice ends where the next begins");
                check(looked_at[k] > 0 || rows.first == 0, "the first slice has the first row");
            }
        }
    for (int m = 0; m < LENGTH(layers); m++)
        fastrnn_layer_destroy(layers[m]);
    end_group("slices of many rows");
}

typedef enum maker { LAYER, FIXED_LENGTH, POOL, NUM_MAKERS } maker;
static const char *const maker_names[] = {"layer", "unrolled", "pool"};

/* Make one of them and, if that works, use it and destroy it. */
static fastrnn_status make(maker what, const source *s, const fastrnn_layer *layer, job *j, const char *expected)
{
    fastrnn_layer *made = NULL;
    fastrnn_unrolled *unrolled = NULL;
    fastrnn_pool *pool = NULL;
    const fastrnn_status status = what == LAYER  ? fastrnn_layer_create(&s->config, s->cells, NULL, NULL, &made)
                                  : what == FIXED_LENGTH ? fastrnn_unrolled_create(layer, j->batch.num_steps, &unrolled)
                                                 : fastrnn_pool_create(3, &pool);
    check((status == FASTRNN_OK) == (made || unrolled || pool), "a failed create leaves the pointer alone");
    counts_memory = false;
    job use = *j;
    if (made)
        use.layer = made;
    if (pool)
        fastrnn_pool_set_threshold(pool, SHARES_ALL);
    expect(job_run(&use, RUN, pool), FASTRNN_OK, "a call afterwards");
    check(job_is_right(&use, expected), "a call afterwards is right");
    if (unrolled) {
        use.batch.unrolled = unrolled;
        expect(job_run(&use, RUN, pool), FASTRNN_OK, "the fixed length runs");
        check(job_is_right(&use, expected), "the fixed length is right");
    }
    counts_memory = true;
    fastrnn_layer_destroy(made);
    fastrnn_unrolled_destroy(unrolled);
    fastrnn_pool_destroy(pool);
    return status;
}

static void test_failed_allocations(void)
{
    source s = source_make(config_of(FASTRNN_LSTM, 3, 20, 7, 2, 2));
    fastrnn_layer *layer = NULL;
    expect(fastrnn_layer_create(&s.config, s.cells, NULL, NULL, &layer), FASTRNN_OK, "model");
    job j = job_make(layer, 8, 5, false, false);
    char *expected = job_expected(&j, RUN);
    for (int what = LAYER; what < NUM_MAKERS; what++)
        for (int n = 0;; n++) {
            counts_memory = true;
            allocations_left = n;
            live_blocks = 0;
            const fastrnn_status status = make((maker)what, &s, layer, &j, expected);
            counts_memory = false;
            const bool failed_one = allocations_left < 0;
            in_context("%s, allocation %d", maker_names[what], n);
            expect(status, failed_one ? FASTRNN_ERROR_MEMORY : FASTRNN_OK, "create");
            check(live_blocks == 0, "nothing is left behind");
            if (!failed_one) {
                check(n > 0, "it does allocate");
                break;
            }
        }
    free(expected);
    job_free(&j);
    fastrnn_layer_destroy(layer);
    source_free(&s);
    end_group("the n-th allocation fails, for every n");
}

/* ---- Forks ----------------------------------------------------------------------------------------------------- */

#if !defined(__SANITIZE_THREAD__)

static atomic_bool busy_ends;

static void *call_until_told(void *argument)
{
    caller *c = argument;
    while (!busy_ends)
        call_often(c);
    return NULL;
}

#if defined(__SANITIZE_ADDRESS__)
#define BUSY_MOST 0 /* the sanitizer's allocator would deadlock in a child that is forked while another thread holds its locks */
#else
#define BUSY_MOST 1
#endif

/* Forks of a process whose pool has threads, some of them while another thread is in a call. */
static void test_fork(int children)
{
    for (int i = 0; i < LENGTH(cuts); i++)
        for (int busy = 0; busy <= BUSY_MOST; busy++) {
            const cut *c = &cuts[i];
            in_context("%s, busy %d", c->name, busy);
            fastrnn_layer *layer = layer_make(cut_config(c, FASTRNN_GRU));
            fastrnn_pool *pool = pool_make(3, SHARES_ALL);
            job j = job_make(layer, c->B, c->T, c->ragged, false);
            caller other = {.job = job_make(layer, c->B, c->T, c->ragged, false), .how = c->how, .pool = pool, .rounds = 1};
            other.expected = job_expected(&other.job, c->how);
            char *expected = job_expected(&j, c->how);
            expect(job_run(&j, c->how, pool), FASTRNN_OK, "a call that warms the pool");
            pthread_t id;
            busy_ends = false;
            if (busy)
                check(pthread_create(&id, NULL, call_until_told, &other) == 0, "a caller's thread");
            int wrong = 0;
            for (int child = 0; child < children; child++) {
                const pid_t pid = fork();
                if (pid == 0) {
                    alarm(HANG_SECONDS);
                    const bool right = job_run(&j, c->how, pool) == FASTRNN_OK && job_is_right(&j, expected);
                    fastrnn_pool_destroy(pool);
                    _exit(right ? 0 : 1);
                }
                wrong += exit_code_of(pid) != 0;
                wrong += job_run(&j, c->how, pool) != FASTRNN_OK || !job_is_right(&j, expected);
            }
            busy_ends = true;
            if (busy)
                pthread_join(id, NULL);
            check(wrong == 0 && other.wrong == 0, "child and parent are right");
            free(expected);
            free(other.expected);
            job_free(&j);
            job_free(&other.job);
            fastrnn_pool_destroy(pool);
            fastrnn_layer_destroy(layer);
        }
    end_group("fork with a warm pool");
}

#endif

/* ---- Interrupts ------------------------------------------------------------------------------------------------ */

typedef struct asker {
    fastrnn_pool *pool;
    int stop_at, crowd_at; /* number of the call that stops, or that sets the pool oversubscribed; -1: none */
    int fork_at;           /* 1, 2, ...; 0: never */
    pid_t child;           /* of that fork; 0 in the child */
    int times;
    unsigned long long mode; /* that the callback must find */
    bool mode_is_right;
} asker;

static int ask(void *argument)
{
    asker *a = argument;
    a->mode_is_right &= floating_mode() == a->mode;
    if (a->times == a->crowd_at)
        fr_pool_set_oversubscribed(a->pool, 1e9);
    if (a->fork_at && a->times == a->fork_at)
        a->child = fork();
    return a->times++ == a->stop_at;
}

/* Long runs: the callback is called after every 1e7 multiply-adds. The runs are so long that this happens in the first, in a
 * middle and in the last block of steps, and, with crowd_at, in a block that the first member of a team runs alone. */
static const cut long_cuts[] = {
    {"rows", 8, 32, 0, 1, 1, 8, 5000, false, RUN, true, false},
    {"rows of a stream", 8, 32, 0, 1, 1, 8, 5000, false, STREAM, true, false},
    {"units", 8, 96, 0, 1, 1, 1, 1020, false, RUN, false, false},
    {"units in two layers", 8, 96, 0, 2, 1, 1, 600, false, RUN, false, false},
    {"units of a stream", 8, 96, 0, 1, 1, 1, 1020, false, STREAM, false, false},
    {"units unrolled", 8, 96, 0, 1, 1, 1, 1020, false, UNROLLED, false, false},
    {"directions apart", 8, 96, 0, 1, 2, 1, 1020, false, RUN, false, true},
    {"directions apart in two layers", 8, 96, 0, 2, 2, 1, 400, false, RUN, false, true},
};

/* The number of calls of the callback is not fixed, since it depends on how long the caller waits for the other workers. After so
 * many interrupted runs comes one that is not interrupted. */
#define MOST_STOPS 60

static void test_interrupts(bool reduced)
{
    const unsigned long long usual = floating_mode();
    for (int i = 0; i < LENGTH(long_cuts); i++)
        for (int threads = reduced ? 2 : 1; threads <= (reduced ? 2 : 4); threads *= 2)
            for (int crowd = 0; crowd < (threads > 1 ? 2 : 1); crowd++) {
                const cut *c = &long_cuts[i];
                const fastrnn_kind kind = FASTRNN_LSTM;
                fastrnn_layer *layer = layer_make(cut_config(c, kind));
                job j = job_make(layer, c->B, c->T, c->ragged, true);
                char *expected = job_expected(&j, c->how);
                if (threads > 1)
                    check_cut(c, &j, threads);
                fastrnn_status status = FASTRNN_ERROR_INTERRUPTED;
                int stop_at = 0;
                for (; status != FASTRNN_OK; stop_at = stop_at < MOST_STOPS ? stop_at + (reduced ? 13 : 1) : INT_MAX) {
                    in_context("%s, %d threads, crowd %d, asked %d times", c->name, threads, crowd, stop_at);
                    fastrnn_pool *pool = pool_make(threads, SHARES_ALMOST_ALL);
                    asker a = {.pool = pool, .stop_at = stop_at, .crowd_at = crowd ? 0 : -1, .mode = usual, .mode_is_right = true};
                    j.batch.interrupted = ask;
                    j.batch.interrupted_context = &a;
                    clock_runs_fast = true;
                    status = job_run(&j, c->how, pool);
                    clock_runs_fast = false;
                    check(status == (a.times > stop_at ? FASTRNN_ERROR_INTERRUPTED : FASTRNN_OK), "stopped just when asked");
                    check(status == FASTRNN_OK ? job_is_right(&j, expected) : a.times == stop_at + 1, "and nobody is asked again");
                    check(a.mode_is_right && floating_mode() == usual, "the caller's floating-point mode");
                    j.batch.interrupted = NULL;
                    expect(job_run(&j, c->how, pool), FASTRNN_OK, "the next call");
                    check(job_is_right(&j, expected), "the next call is right");
                    fastrnn_pool_destroy(pool);
                }
                check(stop_at > 2, "asked several times, then no more");
                free(expected);
                job_free(&j);
                fastrnn_layer_destroy(layer);
            }
    end_group("interrupted at every n-th asking");
}

/* Slots in descending order, with others between them. Some had a run before, so that their states are in the other buffers. */
typedef struct slot_test {
    job job; /* its batch runs in the slots */
    int64_t capacity, *slots, num_others, *others;
    void *store;
} slot_test;

static slot_test slot_test_make(const fastrnn_layer *layer, int64_t B, int64_t T, bool ragged, bool still)
{
    slot_test t = {.job = job_make(layer, B, T, ragged, still), .capacity = 2 * B + 3};
    job before = job_make(layer, t.capacity, 1, false, false);
    t.slots = block((size_t)B * sizeof *t.slots);
    t.others = block((size_t)t.capacity * sizeof *t.others);
    for (int64_t row = 0; row < B; row++)
        t.slots[row] = t.capacity - 2 - 2 * row;
    for (int64_t slot = 0; slot < t.capacity; slot++)
        if (slot % 2 == 0 || slot == 1)
            t.others[t.num_others++] = slot;
    t.store = store_make(layer, t.capacity, 0);
    expect(fastrnn_store_set(layer, t.store, t.capacity, NULL, before.h0, before.batch.c0), FASTRNN_OK, "store set");
    int64_t first[MOST_CALLED], count = 0;
    for (int64_t slot = 0; slot < t.capacity; slot += 3)
        first[count++] = slot;
    before.batch.num_rows = count;
    before.batch.store = t.store;
    before.batch.slots = first;
    before.batch.h0 = before.batch.c0 = before.batch.hn = before.batch.cn = NULL;
    expect(run(layer, &before.batch), FASTRNN_OK, "a run before");
    expect(fastrnn_store_set(layer, t.store, B, t.slots, t.job.h0, t.job.batch.c0), FASTRNN_OK, "store set");
    job_free(&before);
    return t;
}

static void slot_test_free(slot_test *t)
{
    job_free(&t->job);
    free(t->slots), free(t->others), free(t->store);
}

static fastrnn_status slot_test_run(slot_test *t, fastrnn_pool *pool)
{
    job *j = &t->job;
    fastrnn_batch batch = j->batch;
    batch.pool = pool;
    batch.store = t->store;
    batch.slots = t->slots;
    batch.h0 = batch.c0 = batch.hn = batch.cn = NULL;
    memset(j->results, POISON, j->results_bytes);
    fastrnn_status status = run(j->layer, &batch);
    if (status == FASTRNN_OK)
        status = fastrnn_store_get(j->layer, t->store, batch.num_rows, t->slots, j->batch.hn, j->batch.cn);
    return status;
}

static void test_slots(void)
{
    for (int kind = FASTRNN_LSTM; kind <= FASTRNN_RNN; kind++)
        for (int i = 0; i < LENGTH(slot_cuts); i++)
            for (int threads = 1; threads <= 4; threads *= 2) {
                const cut *c = &slot_cuts[i];
                in_context("%s, kind %d, %d threads", c->name, kind, threads);
                fastrnn_layer *layer = layer_make(cut_config(c, (fastrnn_kind)kind));
                slot_test t = slot_test_make(layer, c->B, c->T, c->ragged, false);
                char *expected = job_expected(&t.job, RUN);
                size_t size = 0;
                void *others = snapshot_of(layer, t.store, t.num_others, t.others, &size);
                fastrnn_pool *pool = pool_make(threads, SHARES_ALL);
                expect(slot_test_run(&t, pool), FASTRNN_OK, "a run in slots");
                check(job_is_right(&t.job, expected), "the bits of rows that have no store");
                check(store_has(layer, t.store, t.num_others, t.others, others), "other slots stay as they were");
                fastrnn_pool_destroy(pool);
                free(expected), free(others);
                slot_test_free(&t);
                fastrnn_layer_destroy(layer);
            }
    end_group("slots anywhere in a store");
}

/* A run in slots that is interrupted at any time leaves their states as they were. */
static void test_interrupted_slots(bool reduced)
{
    for (int i = 0; i < LENGTH(long_slot_cuts); i++)
        for (int threads = reduced ? 2 : 1; threads <= 2; threads++) {
            const cut *c = &long_slot_cuts[i];
            fastrnn_layer *layer = layer_make(cut_config(c, FASTRNN_LSTM));
            slot_test t = slot_test_make(layer, c->B, c->T, c->ragged, true);
            char *expected = job_expected(&t.job, RUN);
            size_t size = 0;
            void *before = snapshot_of(layer, t.store, t.capacity, NULL, &size);
            fastrnn_pool *pool = pool_make(threads, SHARES_ALMOST_ALL);
            fastrnn_status status = FASTRNN_ERROR_INTERRUPTED;
            int stop_at = 0;
            for (; status != FASTRNN_OK && stop_at < MOST_STOPS; stop_at += reduced ? 4 : 1) {
                in_context("%s, %d threads, asked %d times", c->name, threads, stop_at);
                asker a = {.pool = pool, .stop_at = stop_at, .crowd_at = -1, .mode = floating_mode()};
                t.job.batch.interrupted = ask;
                t.job.batch.interrupted_context = &a;
                clock_runs_fast = true;
                status = slot_test_run(&t, pool);
                clock_runs_fast = false;
                check(status == (a.times > stop_at ? FASTRNN_ERROR_INTERRUPTED : FASTRNN_OK), "stopped just when asked");
                check(status == FASTRNN_OK ? job_is_right(&t.job, expected) : store_has(layer, t.store, t.capacity, NULL, before),
                      "all states change, or none");
            }
            t.job.batch.interrupted = NULL;
            if (status != FASTRNN_OK)
                check(slot_test_run(&t, pool) == FASTRNN_OK && job_is_right(&t.job, expected), "the next call is right");
            check(stop_at > 2, "asked several times");
            fastrnn_pool_destroy(pool);
            free(expected), free(before);
            slot_test_free(&t);
            fastrnn_layer_destroy(layer);
        }
    end_group("slots, interrupted at every n-th asking");
}

#if !defined(__SANITIZE_THREAD__)

/* In the child, which has no workers, the call returns, and the next call works. Both work in the parent. */
static void test_forking_callbacks(void)
{
    for (int i = 0; i < LENGTH(long_cuts); i++)
        for (int threads = 1; threads <= 4; threads *= 2)
            for (int crowd = 0; crowd < (threads > 1 ? 2 : 1); crowd++)
                for (int stops = 0; stops < 2; stops++) {
                    const cut *c = &long_cuts[i];
                    in_context("%s, %d threads, crowd %d, stops %d", c->name, threads, crowd, stops);
                    fastrnn_layer *layer = layer_make(cut_config(c, FASTRNN_LSTM));
                    fastrnn_pool *pool = pool_make(threads, SHARES_ALMOST_ALL);
                    job j = job_make(layer, c->B, c->T, c->ragged, true);
                    char *expected = job_expected(&j, c->how);
                    asker a = {.pool = pool, .stop_at = stops ? 2 : -1, .crowd_at = crowd ? 0 : -1, .fork_at = 2, .child = -1,
                               .mode = floating_mode(), .mode_is_right = true};
                    j.batch.interrupted = ask;
                    j.batch.interrupted_context = &a;
                    clock_runs_fast = true;
                    const fastrnn_status status = job_run(&j, c->how, pool);
                    clock_runs_fast = false;
                    j.batch.interrupted = NULL;
                    const bool right = job_is_right(&j, expected);
                    if (a.child == 0) {
                        alarm(HANG_SECONDS);
                        const fastrnn_status wanted = stops         ? FASTRNN_ERROR_INTERRUPTED
                                                      : threads > 1 ? FASTRNN_ERROR_FORKED
                                                                    : FASTRNN_OK;
                        const bool next = job_run(&j, c->how, pool) == FASTRNN_OK && job_is_right(&j, expected);
                        fastrnn_pool_destroy(pool);
                        _exit(status != wanted ? 1 : wanted == FASTRNN_OK && !right ? 2 : !next ? 3 : 0);
                    }
                    check(exit_code_of(a.child) == 0, "the child's call ends, and the next is right");
                    expect(status, stops ? FASTRNN_ERROR_INTERRUPTED : FASTRNN_OK, "the parent's call");
                    check(stops || right, "the parent's call is right");
                    expect(job_run(&j, c->how, pool), FASTRNN_OK, "the parent's next call");
                    check(job_is_right(&j, expected), "the parent's next call is right");
                    free(expected);
                    job_free(&j);
                    fastrnn_pool_destroy(pool);
                    fastrnn_layer_destroy(layer);
                }
    end_group("callbacks that fork");
}

#endif

/* Calls with few or no multiply-adds, whose time is spent on copies and fills; with and without a pool. */
typedef struct slow_work {
    const char *name;
    int64_t I, B, T, padded_steps;
    fastrnn_past_end past_end;
    bool gathers; /* x as pointers, so that it must be copied */
    int times;    /* that the callback is asked at least */
} slow_work;

static const slow_work slow_works[] = {
    {"small steps", 1, 1, 100000, 0, FASTRNN_PAST_END_NOTHING, false, 10},
    {"small rows", 1, 200000, 1, 0, FASTRNN_PAST_END_NOTHING, false, 5},
    {"loading and storing states", 1, 300000, 0, 0, FASTRNN_PAST_END_NOTHING, false, 6},
    {"zeros past the ends", 1, 1, 1, 16000000, FASTRNN_PAST_END_ZERO, false, 4},
    {"final states past the ends", 1, 1, 1, 500000, FASTRNN_PAST_END_CARRY, false, 3},
    {"gathering inputs", 100000, 200, 1, 0, FASTRNN_PAST_END_NOTHING, true, 5},
};

static void test_askings(void)
{
    for (int i = 0; i < LENGTH(slow_works); i++)
        for (int threads = 1; threads <= 2; threads++) {
            const slow_work *w = &slow_works[i];
            in_context("%s, %d threads", w->name, threads);
            fastrnn_layer *layer = layer_make(config_of(FASTRNN_RNN, w->I, 1, 0, 1, 1));
            job j = job_make(layer, w->gathers ? 1 : w->B, w->T, false, true);
            float *y = block((size_t)fr_max(w->B, w->padded_steps) * sizeof *y);
            float *states = block((size_t)w->B * 2 * sizeof *states);
            void **rows = block((size_t)w->B * sizeof *rows);
            memset(states, 0, (size_t)w->B * 2 * sizeof *states);
            for (int64_t row = 0; row < w->B; row++)
                rows[row] = j.x;
            j.batch.num_rows = w->B;
            j.batch.past_end = w->past_end;
            j.batch.padded_steps = w->padded_steps;
            j.batch.y = (fastrnn_view){.base = y, .row_stride = 1, .step_stride = w->padded_steps > 0};
            if (w->gathers)
                j.batch.x = (fastrnn_view){.rows = rows};
            j.batch.h0 = states;
            j.batch.hn = states + w->B;
            j.batch.c0 = j.batch.cn = NULL;
            fastrnn_pool *pool = threads > 1 ? pool_make(threads, SHARES_ALL) : NULL;
            asker a = {.pool = pool, .stop_at = -1, .crowd_at = -1, .mode = floating_mode(), .mode_is_right = true};
            j.batch.interrupted = ask;
            j.batch.interrupted_context = &a;
            clock_runs_fast = true;
            expect(job_run(&j, RUN, pool), FASTRNN_OK, "a call that is not stopped");
            /* The first reading of the clock sets the time of the first call, so each thread's part has one call less than readings. */
            check((a.times + 1) * threads > w->times, "asked often enough");
            a.times = a.stop_at = 0;
            expect(job_run(&j, RUN, pool), FASTRNN_ERROR_INTERRUPTED, "a call that is stopped");
            check(a.times == 1, "and nobody is asked again");
            clock_runs_fast = false;
            fastrnn_pool_destroy(pool);
            free(rows);
            free(states);
            free(y);
            job_free(&j);
            fastrnn_layer_destroy(layer);
        }
    end_group("asked while little is multiplied");
}

/* If computing W x of a block takes long, the run is interrupted before the block's second step. */
static void test_interrupted_projection(void)
{
    enum { I = 100000, T = 250 };
    fastrnn_layer *layer = layer_make(config_of(FASTRNN_RNN, I, 1, 0, 1, 1));
    for (int how = RUN; how <= STREAM; how++) {
        in_context("way %d", how);
        job j = job_make(layer, 1, T, false, true);
        float y[T];
        memset(y, POISON, sizeof y);
        const float untouched = y[1];
        asker a = {.stop_at = 0, .crowd_at = -1, .mode = floating_mode(), .mode_is_right = true};
        j.batch.y = (fastrnn_view){.base = y, .step_stride = 1};
        j.batch.interrupted = ask;
        j.batch.interrupted_context = &a;
        clock_runs_fast = true;
        expect(job_run(&j, (way)how, NULL), FASTRNN_ERROR_INTERRUPTED, "stopped");
        clock_runs_fast = false;
        check(!memcmp(&y[1], &untouched, sizeof untouched), "before the second step");
        job_free(&j);
    }
    fastrnn_layer_destroy(layer);
    end_group("interrupted while inputs are projected");
}

/* ---- Floating-point modes -------------------------------------------------------------------------------------- */

/* States are subnormal, so results show whether a thread flushes subnormal numbers: the workers must do as the caller does. The
 * same holds for a rounding mode that the caller sets after the workers were started. */
static void test_floating_modes(void)
{
    const unsigned long long usual = floating_mode();
    for (int i = 0; i < LENGTH(cuts); i++)
        for (int threads = 2; threads <= 4; threads++) {
            const cut *c = &cuts[i];
            fastrnn_layer *layer = layer_make(cut_config(c, FASTRNN_RNN));
            job j = job_make(layer, c->B, c->T, c->ragged, false);
            for (int64_t k = 0; k < layer->num_cells * c->B * layer->h_size; k++)
                j.h0[k] *= 0x1p-130f;
            fastrnn_pool *pool = pool_make(threads, SHARES_ALL);
            for (int rounding = 0; rounding < 2; rounding++) {
                in_context("%s, %d threads, rounding %d", c->name, threads, rounding);
                const unsigned long long mode = rounding ? usual | ROUND_UP : usual;
                set_floating_mode(mode);
                char *expected = job_expected(&j, c->how);
                const fastrnn_status status = job_run(&j, c->how, pool);
                const unsigned long long after = floating_mode();
                set_floating_mode(usual);
                expect(status, FASTRNN_OK, "a shared call");
                check(after == mode, "the caller's floating-point mode comes back");
                check(job_is_right(&j, expected), "the bits of one thread");
                free(expected);
            }
            fastrnn_pool_destroy(pool);
            job_free(&j);
            fastrnn_layer_destroy(layer);
        }
    end_group("floating-point modes");
}

static void on_hang(int signal)
{
    (void)signal;
    static const char message[] = "FAILED: this hangs: ";
    (void)!write(STDOUT_FILENO, message, sizeof message - 1);
    (void)!write(STDOUT_FILENO, context, strlen(context));
    (void)!write(STDOUT_FILENO, "\n", 1);
    _exit(1);
}

int main(int argc, char **argv)
{
    bool reduced = false, emulated = false;
    for (int i = 1; i < argc; i++) {
        reduced = reduced || !strcmp(argv[i], "reduced");
        emulated = emulated || !strcmp(argv[i], "emulated");
    }
    signal(SIGALRM, on_hang);
    alarm(HANG_SECONDS);
    test_callers(reduced ? 3 : 20);
    test_crowd(reduced ? 2 : 10);
    test_refused_threads();
    test_pools(reduced ? 20 : 200);
    test_slices();
    test_failed_allocations();
    test_floating_modes();
    test_interrupts(reduced);
    test_slots();
    test_interrupted_slots(reduced);
    test_askings();
    test_interrupted_projection();
#if defined(__SANITIZE_THREAD__)
    printf("NOT RUN: fork with a warm pool, as ThreadSanitizer follows no thread into a child\n");
#else
    if (emulated) {
        printf("NOT RUN: fork with a warm pool, as qemu-user can start no threads in such a child\n");
    } else {
        test_fork(reduced ? 2 : 20);
        test_forking_callbacks();
    }
#endif
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
