/* Helpers of the C tests: counting, memory, random numbers, configurations, the floating-point mode. */
#ifndef FASTRNN_TESTING_H
#define FASTRNN_TESTING_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "fastrnn.h"

#if defined(__has_feature) /* clang's counterpart of gcc's __SANITIZE_... macros */
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#elif __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#define POISON 0xA5
#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static long passed, failed, group_passed, group_failed;
static double worst_ratio;
static char context[256];

static inline bool check(bool ok, const char *what)
{
    ok ? passed++ : failed++;
    ok ? group_passed++ : group_failed++;
    if (!ok && group_failed <= 10)
        printf("  FAILED: %s (%s)\n", what, context);
    return ok;
}

static inline void in_context(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);
}

static inline void end_group(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("%s ", group_failed ? "FAILED" : "ok    ");
    vprintf(format, arguments);
    va_end(arguments);
    printf(": %ld checks", group_passed + group_failed);
    if (worst_ratio > 0)
        printf(", worst error %.3f of the tolerance", worst_ratio);
    printf("\n");
    fflush(stdout);
    group_passed = group_failed = 0;
    worst_ratio = 0;
    context[0] = '\0';
}

static inline void *block(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) {
        printf("the test is out of memory\n");
        exit(2);
    }
    return memset(memory, POISON, bytes ? bytes : 1);
}

static inline bool is_poison(const void *memory, size_t bytes)
{
    const unsigned char *byte = memory;
    for (size_t i = 0; i < bytes; i++)
        if (byte[i] != POISON)
            return false;
    return true;
}

static uint64_t random_state = 0x9E3779B97F4A7C15u;

static inline uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> 11;
}

/* In [-1, 1), and exact in float, so that float and double have the same value. */
static inline double random_value(void) { return (double)((float)(random_bits() % (1 << 23)) / (1 << 22) - 1.0f); }

/* In double. */
static inline double naive_activation(fastrnn_activation f, double x)
{
    switch (f.name) {
    case FASTRNN_SIGMOID: return 1 / (1 + exp(-x));
    case FASTRNN_TANH: return tanh(x);
    case FASTRNN_RELU: return x > 0 ? x : 0;
    case FASTRNN_LINEAR: return x;
    case FASTRNN_DEFAULT: break;
    case FASTRNN_HARD_SIGMOID: return fmin(fmax(f.alpha * x + f.beta, 0), 1);
    case FASTRNN_LEAKY_RELU: return x >= 0 ? x : f.alpha * x;
    case FASTRNN_ELU: return x >= 0 ? x : f.alpha * expm1(x);
    case FASTRNN_SOFTSIGN: return x / (1 + fabs(x));
    case FASTRNN_SOFTPLUS: return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
    case FASTRNN_AFFINE: return f.alpha * x + f.beta;
    case FASTRNN_SCALED_TANH: return f.alpha * tanh(f.beta * x);
    case FASTRNN_THRESHOLDED_RELU: return x > f.alpha ? x : 0;
    }
    return NAN;
}

/* A cell with the activations of a standard cell in place of FASTRNN_DEFAULT. */
static inline fastrnn_cell standard_cell(fastrnn_kind kind)
{
    fastrnn_cell cell = {.struct_size = sizeof cell};
    const fastrnn_activation_name standard[][FASTRNN_MAX_ACTIVATIONS] = {
        {FASTRNN_SIGMOID, FASTRNN_SIGMOID, FASTRNN_TANH, FASTRNN_SIGMOID, FASTRNN_TANH},
        {FASTRNN_SIGMOID, FASTRNN_SIGMOID, FASTRNN_TANH},
        {FASTRNN_TANH},
    };
    for (int i = 0; i < FASTRNN_MAX_ACTIVATIONS; i++)
        cell.options.activations[i].name = standard[kind][i];
    return cell;
}

/* directions: 1, 2, or -1 for the reverse one alone */
static inline fastrnn_config config_of(fastrnn_kind kind, int64_t I, int64_t H, int64_t P, int64_t L, int directions)
{
    return (fastrnn_config){.struct_size = sizeof(fastrnn_config), .kind = kind, .input_size = I, .hidden_size = H, .proj_size = P, .num_layers = L,
                            .bidirectional = directions == 2, .reverse = directions == -1};
}

static inline void expect(fastrnn_status found, fastrnn_status wanted, const char *what)
{
    if (found != wanted)
        in_context("found \"%s\", wanted \"%s\"", fastrnn_status_message(found), fastrnn_status_message(wanted));
    check(found == wanted, what);
}

/* Plans a call and runs it, in a workspace of exactly the size that the plan asks for. */
static inline fastrnn_status run(const fastrnn_layer *layer, const fastrnn_batch *batch)
{
    fastrnn_plan plan = {.struct_size = sizeof plan};
    fastrnn_status status = fastrnn_plan_make(layer, batch, &plan);
    if (status != FASTRNN_OK)
        return status;
    void *workspace = block(plan.workspace_size);
    status = fastrnn_plan_run(&plan, workspace);
    free(workspace);
    return status;
}

/* The same on the fixed-length path. */
static inline fastrnn_status run_unrolled(const fastrnn_layer *layer, const fastrnn_batch *batch)
{
    fastrnn_batch fixed = *batch;
    fastrnn_unrolled *unrolled = NULL;
    fastrnn_status status = fastrnn_unrolled_create(layer, batch->num_steps, &unrolled);
    fixed.unrolled = unrolled;
    if (status == FASTRNN_OK)
        status = run(layer, &fixed);
    fastrnn_unrolled_destroy(unrolled);
    return status;
}

/* A new store of zeros, or NULL if the layer cannot have one. */
static inline void *store_make(const fastrnn_layer *layer, int64_t capacity, int64_t extra_size)
{
    size_t size = 0;
    if (fastrnn_store_size(layer, capacity, extra_size, &size) != FASTRNN_OK)
        return NULL;
    void *store = aligned_alloc(64, size);
    if (!store)
        exit(2);
    memset(store, POISON, size);
    return fastrnn_store_init(layer, capacity, extra_size, store) == FASTRNN_OK ? store : NULL;
}

/* The same with a store: copies h0 and c0 to it before the run, and its states to hn and cn afterwards. */
static inline fastrnn_status run_stored(const fastrnn_layer *layer, const fastrnn_batch *batch)
{
    fastrnn_batch stored = *batch;
    void *store = stored.store = store_make(layer, batch->num_rows, 0);
    stored.h0 = stored.c0 = stored.hn = stored.cn = NULL;
    fastrnn_status status = fastrnn_store_set(layer, store, batch->num_rows, NULL, batch->h0, batch->c0);
    if (status == FASTRNN_OK)
        status = run(layer, &stored);
    if (status == FASTRNN_OK)
        status = fastrnn_store_get(layer, store, batch->num_rows, NULL, batch->hn, batch->cn);
    free(store);
    return status;
}

/* The states in the slots of a store. */
static inline void *snapshot_of(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots, size_t *size)
{
    expect(fastrnn_snapshot_size(layer, store, count, size), FASTRNN_OK, "snapshot size");
    void *snapshot = block(*size);
    expect(fastrnn_snapshot_save(layer, store, count, slots, snapshot), FASTRNN_OK, "snapshot");
    return snapshot;
}

/* Whether the states in the slots are those of a snapshot. */
static inline bool store_has(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots, const void *snapshot)
{
    size_t size = 0;
    void *now = snapshot_of(layer, store, count, slots, &size);
    const bool same = !memcmp(now, snapshot, size);
    free(now);
    return same;
}

/* The control bits: rounding, traps, flushing. Exception flags are left out, because any operation may set them. */
static inline unsigned long long floating_mode(void)
{
#if defined(__x86_64__)
    return _mm_getcsr() & ~0x3Fu;
#elif defined(__aarch64__)
    unsigned long long mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
#else
    return 0;
#endif
}

static inline void set_floating_mode(unsigned long long mode)
{
#if defined(__x86_64__)
    _mm_setcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

#if defined(__aarch64__)
#define ROUND_UP (1u << 22)
#else
#define ROUND_UP (1u << 14)
#endif

#endif
