/* fastrnn: trained recurrent networks (LSTM, GRU, RNN), and small models around them, on CPUs. Inference, in float32.
 *
 * Example: a model that the Python package saved, as a live stream. Each vector of x gives one of y.
 *
 *   #include <fastrnn.h>
 *   #include <stdio.h>
 *   #include <stdlib.h>
 *   int main(void) {
 *       fastrnn_model *model; fastrnn_model_plan *plan; size_t state_bytes, plan_bytes;
 *       float x[8] = {0}, y[8];
 *       if (fastrnn_model_load("model.safetensors", NULL, &model)) { puts(fastrnn_last_error()); return 1; }
 *       fastrnn_model_store_size(model, 1, &state_bytes);
 *       fastrnn_batch step = {.struct_size = sizeof step, .num_rows = 1, .num_steps = 1, .x.base = x, .y.base = y,
 *                             .store = aligned_alloc(64, state_bytes)};
 *       fastrnn_model_store_init(model, 1, step.store);
 *       fastrnn_model_plan_size(model, &step, &plan_bytes);
 *       fastrnn_model_plan_make(model, &step, malloc(plan_bytes), plan_bytes, &plan);
 *       while (fread(x, sizeof x, 1, stdin) == 1 && !fastrnn_model_plan_run(plan)) printf("%g\n", y[0]);
 *       fastrnn_model_destroy(model);
 *   }
 *
 * Life cycle. A layer is a recurrent stack, and a model a chain of ops such as an embedding, layers and a linear op. Both are made
 * once, from arrays of weights (fastrnn_layer_create, fastrnn_model_create) or from a file (fastrnn_model_load), which copies and
 * arranges the weights; then they never change. Calls run in memory that the caller owns: ask for the size, give a buffer, run.
 *   whole sequences      fastrnn_plan_make, fastrnn_plan_run; of models fastrnn_model_plan_size, _make, _run
 *   live streams         a state store (fastrnn_store_size, _init), which the runs above update if the batch has one; a slot for
 *                        each stream, of which a call may choose some
 *   a layer's one step   fastrnn_step_size, _prepare, _run: as a plan of one step, with less fixed cost
 *   states               fastrnn_store_set and _get; fastrnn_snapshot_save and _restore, portable bytes
 *
 * Threads. Layers and models may be shared by threads. A plan, a step, a workspace, a store and the arrays of a call belong to one
 * run at a time. A run uses the caller's thread alone, unless its batch has a pool.
 *
 * Real-time threads. fastrnn_plan_run, fastrnn_step_run and fastrnn_model_plan_run, without a pool and without `interrupted`,
 * allocate nothing, take no lock, and make no system call. So do fastrnn_store_set, _get, fastrnn_snapshot_save, _restore and their
 * counterparts of models, and fastrnn_plan_make, fastrnn_model_plan_make and fastrnn_step_prepare, if they succeed. Subnormal
 * numbers are flushed to zero during a run, so they do not slow it down.
 *
 * Errors. Functions return a status, and the reason for a failure is in fastrnn_last_error. Nothing prints, aborts or exits; no
 * argument but a wrong pointer ends the process. Memory is allocated only by functions that create or load objects, of malloc or
 * of fastrnn_set_allocator; the threads of a pool are started by the first call that shares them.
 *
 * Results. Each element is computed in one order, whoever shares the batch, in whole or in pieces, on any number of threads: the
 * same bits. They are those of the Python package on the same instruction set; other instruction sets round differently.
 *
 * Units. Sizes are counts of elements, strides too, unless a name or a comment says bytes. Arrays hold the config's real type,
 * `real`: float, or double (which runs through BLAS). T steps, B rows, I inputs, H hidden units, P outputs (H without projection),
 * G gates, L layers, D directions. Gates are in PyTorch's order: LSTM i f g o, GRU r z n.
 *
 * Structs. One that begins with `struct_size` can grow in later versions. The caller sets struct_size to sizeof(the struct), and
 * every member that it does not use to zero, which is that member's default. FASTRNN_ERROR_ARGUMENT if struct_size is smaller
 * than the first version of the struct, or if bytes past the struct that this version knows are not zero.
 *
 * C11 or C++11. tests/capi/embed.c makes a layer of arrays; examples/c has whole programs; docs/embedding.md is the guide.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#if defined(_MSC_VER) && !defined(__clang__)
#error "fastrnn needs gcc or clang (on Windows clang-cl): its C sources use their builtins, which MSVC does not have"
#elif defined(__SIZEOF_POINTER__) && __SIZEOF_POINTER__ < 8
#error "fastrnn needs a 64-bit target: the limits of its sizes are computed in size_t and kept in int64_t"
#endif

#include <stddef.h>
#include <stdint.h>

#define FASTRNN_VERSION "0.1.0"
#define FASTRNN_ABI_VERSION 0 /* changes when a program has to be compiled again; the number of the shared library */

#if defined(_WIN32)
#define FASTRNN_API
#else
#define FASTRNN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fastrnn_status {
    FASTRNN_OK = 0,
    FASTRNN_ERROR_ARGUMENT,    /* a size, pointer or option is out of range */
    FASTRNN_ERROR_MEMORY,      /* an allocation failed */
    FASTRNN_ERROR_SIZE,        /* a product of sizes does not fit in memory's address range */
    FASTRNN_ERROR_ISA,         /* the named instruction set is unknown or not runnable here */
    FASTRNN_ERROR_BLAS,        /* this configuration needs BLAS and none was given */
    FASTRNN_ERROR_INTERRUPTED, /* the caller's callback asked to stop; outputs are unspecified */
    FASTRNN_ERROR_FORKED,      /* this process is a child forked by the callback in a shared call; outputs are unspecified */
    FASTRNN_ERROR_SNAPSHOT,    /* the bytes are not a snapshot of this layer or model and number of rows */
    FASTRNN_ERROR_STORE,       /* the memory is not a state store of this layer on this instruction set, or of this model */
    FASTRNN_ERROR_ID,          /* an id is not the index of a row of the embedding's weight */
    FASTRNN_ERROR_FILE         /* the file cannot be read, or is not of this library's format */
} fastrnn_status;

typedef enum fastrnn_kind { FASTRNN_LSTM, FASTRNN_GRU, FASTRNN_RNN } fastrnn_kind;

typedef enum fastrnn_dtype { FASTRNN_FLOAT32, FASTRNN_FLOAT64 } fastrnn_dtype;

/* The type in which a layer keeps weight_ih, weight_hh and weight_hr. Those that a caller gives are always reals. Smaller
 * types than the real type are for float without BLAS.
 *   FLOAT32: as given; of a layer of doubles, double.
 *   FLOAT16: IEEE half precision, rounded once to nearest even; the layer computes what a FLOAT32 layer of the rounded weights
 *            computes, with the same bits. FASTRNN_ERROR_ARGUMENT if a finite weight is rounded to infinity. */
typedef enum fastrnn_weight_dtype {
    FASTRNN_WEIGHTS_FLOAT32 = 0,
    FASTRNN_WEIGHTS_FLOAT16,
    FASTRNN_WEIGHTS_INT8
} fastrnn_weight_dtype;

/* Every activation function: X(NAME, "name", default alpha, default beta, whether it has these defaults). They are ONNX's.
 * The enum, fastrnn_activation_info and the Python package are made from this list. */
#define FASTRNN_FOR_EACH_ACTIVATION(X)                                                                                 \
    X(SIGMOID, "sigmoid", 0, 0, 1)                                                                                     \
    X(TANH, "tanh", 0, 0, 1)                                                                                           \
    X(RELU, "relu", 0, 0, 1)                                                                                           \
    X(LINEAR, "linear", 0, 0, 1)                                                                                       \
    X(HARD_SIGMOID, "hard_sigmoid", 0.2, 0.5, 1)          /* min(max(alpha x + beta, 0), 1) */                         \
    X(LEAKY_RELU, "leaky_relu", 0.01, 0, 1)               /* x >= 0 ? x : alpha x */                                   \
    X(ELU, "elu", 1, 0, 1)                                /* x >= 0 ? x : alpha (exp(x) - 1) */                        \
    X(SOFTSIGN, "softsign", 0, 0, 1)                      /* x / (1 + |x|) */                                          \
    X(SOFTPLUS, "softplus", 0, 0, 1)                      /* log(1 + exp(x)) */                                        \
    X(AFFINE, "affine", 1, 0, 1)                          /* alpha x + beta */                                         \
    X(SCALED_TANH, "scaled_tanh", 0, 0, 0)                /* alpha tanh(beta x) */                                     \
    X(THRESHOLDED_RELU, "thresholded_relu", 1, 0, 1)      /* x > alpha ? x : 0 */

typedef enum fastrnn_activation_name {
    FASTRNN_DEFAULT = 0, /* in fastrnn_cell_options only: the activation that a standard cell has at this index */
#define FASTRNN_ENUMERATOR(NAME, name, alpha, beta, has_defaults) FASTRNN_##NAME,
    FASTRNN_FOR_EACH_ACTIVATION(FASTRNN_ENUMERATOR)
#undef FASTRNN_ENUMERATOR
} fastrnn_activation_name;

enum { /* how many there are, and the largest value of the enum above */
#define FASTRNN_ADD_ONE(NAME, name, alpha, beta, has_defaults) +1
    FASTRNN_NUM_ACTIVATIONS = 0 FASTRNN_FOR_EACH_ACTIVATION(FASTRNN_ADD_ONE)
#undef FASTRNN_ADD_ONE
};

typedef struct fastrnn_activation {
    fastrnn_activation_name name;
    double alpha, beta; /* not read with FASTRNN_DEFAULT */
} fastrnn_activation;

#define FASTRNN_MAX_ACTIVATIONS 5 /* LSTM: i f g o and the one on the cell state at the output */

typedef struct fastrnn_config {
    size_t struct_size;
    fastrnn_kind kind;
    fastrnn_dtype dtype;
    int64_t input_size;  /* I >= 0 */
    int64_t hidden_size; /* H >= 1 */
    int64_t proj_size;   /* 0: none; else P, LSTM only */
    int64_t num_layers;  /* L >= 1 */
    int bidirectional;   /* D = 2 if set, else 1 */
    int reverse;         /* each row runs from its own last step, in every layer; not with bidirectional */
    fastrnn_weight_dtype weight_dtype;
} fastrnn_config;

/* What a cell computes. With all members zero it is a standard cell, as PyTorch's: LSTM with sigmoid, sigmoid, tanh, sigmoid
 * for i f g o and tanh on the cell state; GRU with sigmoid, sigmoid, tanh for r z n; RNN with tanh. */
typedef struct fastrnn_cell_options {
    fastrnn_activation activations[FASTRNN_MAX_ACTIVATIONS];
    double cell_clip; /* 0: none. LSTM: bound of the new cell state */
    double gate_clip; /* 0: none. Bound of the gates' inputs, before their activations */
    double proj_clip; /* 0: none. Bound of the projected output */
    int coupled;      /* LSTM: the forget gate is 1 - i */
    int reset_before; /* GRU: reset h before the matmul (TensorFlow 1), not the product after it (PyTorch) */
} fastrnn_cell_options;

/* One layer in one direction. In an array of cells all have the same struct_size, which is the distance from one to the next in
 * bytes. The pointers are not used after fastrnn_layer_create. */
typedef struct fastrnn_cell {
    size_t struct_size;
    const void *weight_ih; /* (G*H, width of the layer's input) */
    const void *weight_hh; /* (G*H, P) */
    const void *bias_ih;   /* (G*H) or NULL */
    const void *bias_hh;   /* (G*H) or NULL */
    const void *weight_hr; /* (P, H), with proj_size only */
    const void *peephole;  /* (3, H), rows i f o, or NULL; LSTM */
    fastrnn_cell_options options; /* last, as new options are appended to it */
} fastrnn_cell;

/* BLAS functions with the Fortran interface. Every integer is passed as a pointer to a 64-bit integer. A BLAS with 32-bit
 * integers reads the low half of it on a little-endian machine, so libraries of both widths work. */
typedef struct fastrnn_blas {
    size_t struct_size;
    void (*sgemm)(const char *transa, const char *transb, const int64_t *m, const int64_t *n, const int64_t *k,
                  const float *alpha, const float *a, const int64_t *lda, const float *b, const int64_t *ldb,
                  const float *beta, float *c, const int64_t *ldc);
    void (*dgemm)(const char *transa, const char *transb, const int64_t *m, const int64_t *n, const int64_t *k,
                  const double *alpha, const double *a, const int64_t *lda, const double *b, const int64_t *ldb,
                  const double *beta, double *c, const int64_t *ldc);
} fastrnn_blas;

typedef struct fastrnn_layer fastrnn_layer;

/* The message for a status; never NULL. */
FASTRNN_API const char *fastrnn_status_message(fastrnn_status status);

/* Why a function last failed on this thread, such as "lengths[3] is 12, but the row before it has 9: wanted the longest rows
 * first"; "" if none has. Valid until the next failure on this thread. fastrnn_plan_run, fastrnn_step_run and
 * fastrnn_model_plan_run leave it as it is: their status says all. */
FASTRNN_API const char *fastrnn_last_error(void);

/* Of the library that the program runs with; FASTRNN_VERSION and FASTRNN_ABI_VERSION are those of the header that it was compiled
 * with. Different ABI versions do not work together. */
FASTRNN_API const char *fastrnn_version(void);
FASTRNN_API int fastrnn_abi_version(void);

/* Where the memory of objects comes from that are created from now on: a function that returns memory aligned as malloc's is, or
 * NULL, and one that takes it back. `context` is passed to both. NULL in place of the struct: malloc and free. Each object is
 * released to the allocator that it is from. Not while another thread creates an object. What a system takes for a thread that
 * it starts, and the C library for a file that it opens, is not allocated by these functions. */
typedef struct fastrnn_allocator {
    size_t struct_size;
    void *(*allocate)(void *context, size_t size);
    void (*release)(void *context, void *memory);
    void *context;
} fastrnn_allocator;
FASTRNN_API fastrnn_status fastrnn_set_allocator(const fastrnn_allocator *allocator);

/* The index-th instruction set that can run here, best first, or NULL past the last. */
FASTRNN_API const char *fastrnn_isa(size_t index);

/* The name of the index-th activation function, or NULL past the last. *activation is set to the function with its default
 * alpha and beta. If ONNX has no defaults, *has_defaults is set to 0, and alpha and beta are 0. Either pointer may be NULL. */
FASTRNN_API const char *fastrnn_activation_info(size_t index, fastrnn_activation *activation, int *has_defaults);

/* Creates a layer. isa: the name of an instruction set; NULL takes the one that the environment variable FASTRNN_ISA names, or
 * the best one if it is not set. blas: NULL uses the fused kernels (float only); otherwise it computes every matrix product. */
FASTRNN_API fastrnn_status fastrnn_layer_create(const fastrnn_config *config, const fastrnn_cell *cells, const char *isa,
                                                const fastrnn_blas *blas, fastrnn_layer **layer);
FASTRNN_API void fastrnn_layer_destroy(fastrnn_layer *layer);
FASTRNN_API const char *fastrnn_layer_isa(const fastrnn_layer *layer); /* NULL for NULL */
FASTRNN_API size_t fastrnn_layer_nbytes(const fastrnn_layer *layer);   /* of the prepacked weights; 0 for NULL */

/* A hash of the config, the options and the weights; it does not depend on the instruction set or on BLAS. Layers created from
 * the same values have the same fingerprint. So has a layer created from the result of fastrnn_layer_unpack, because biases are
 * hashed in the form in which that function returns them. */
FASTRNN_API uint64_t fastrnn_layer_fingerprint(const fastrnn_layer *layer);

/* The arrays that fastrnn_layer_unpack writes, with the shapes of those in fastrnn_cell. It skips pointers that are NULL and
 * arrays that the cell does not have. */
typedef struct fastrnn_cell_arrays {
    size_t struct_size;
    void *weight_ih, *weight_hh, *bias_ih, *bias_hh, *weight_hr, *peephole;
} fastrnn_cell_arrays;

/* Converts the prepared weights of the index-th cell (l0, l0 reverse, l1, ...) back to arguments of fastrnn_layer_create, which
 * makes the same layer of them on any instruction set. bias_ih is the sum of the two biases and bias_hh zero, except in the
 * GRU's candidate gate, whose biases are not added. The caller sets cell->struct_size; *cell is filled with the options, in
 * which FASTRNN_DEFAULT is replaced, and with the pointers of `arrays`, or NULL for an array that the cell does not have. */
FASTRNN_API fastrnn_status fastrnn_layer_unpack(const fastrnn_layer *layer, int64_t index, const fastrnn_cell_arrays *arrays,
                                                fastrnn_cell *cell);

/* A pool of threads that share the work of one call at a time with the caller's thread. The threads start when a call first
 * needs them and sleep between calls. A forked process has none of them: its first call starts new ones, on the processors
 * that the caller may use. If the callback `interrupted` forks during a shared call, that call fails in the child; later
 * calls work. A call runs on the caller's thread alone, with the same bits, if the pool is in use, if the processors are
 * busy, if the call is too short to gain, or if the system once refused to create a thread. */
typedef struct fastrnn_pool fastrnn_pool;
FASTRNN_API fastrnn_status fastrnn_pool_create(int num_threads, fastrnn_pool **pool); /* the caller's thread counts */
FASTRNN_API void fastrnn_pool_destroy(fastrnn_pool *pool); /* when no call uses it any more */

/* Scales the amounts of work from which on a call is shared among threads. 1, the initial value, means the amounts that were
 * measured; with 0 every call that can be divided is shared. For tests and measurements. */
FASTRNN_API void fastrnn_pool_set_threshold(fastrnn_pool *pool, double threshold);

/* The addresses of the vectors of x or y: that of row r at step t is
 *   (rows ? rows[r] : base + r*row_stride) + t*step_stride,
 * with strides in elements; the elements of one vector are contiguous. The struct has no struct_size: later versions do not
 * add members to it. */
typedef struct fastrnn_view {
    void *base;
    void *const *rows; /* (B) or NULL */
    int64_t row_stride, step_stride;
} fastrnn_view;

/* The values that are written to y at the steps past a row's end. */
typedef enum fastrnn_past_end {
    FASTRNN_PAST_END_NOTHING,
    FASTRNN_PAST_END_ZERO,
    FASTRNN_PAST_END_CARRY /* each direction's final h */
} fastrnn_past_end;

typedef struct fastrnn_unrolled fastrnn_unrolled;

/* One call: ragged rows in run order, longest row first, so that the rows still running at a step are a prefix.
 * Row r of the run is row row_indices[r] of x, y, h0, c0, hn, cn and slots; with NULL, row r. */
typedef struct fastrnn_batch {
    size_t struct_size;
    int64_t num_rows;           /* B, rows of length zero included */
    int64_t num_steps;          /* T, the longest length */
    const int64_t *lengths;     /* (B), never increasing; NULL: every row has T steps */
    const int64_t *batch_sizes; /* (T), rows still running at each step; NULL: all B */
    const int64_t *row_indices; /* (B), each from 0 to B-1 once; NULL: 0, 1, ... */
    fastrnn_view x;             /* vectors of I */
    fastrnn_view y;             /* vectors of D*P */
    int packed;                 /* x and y are packed: at `base`, the rows that run at step 0 in run order, then those at step 1,
                                   and so on, each vector row_stride after the one before it */
    fastrnn_past_end past_end;
    int64_t padded_steps; /* number of steps that y has for every row, for past_end; not with packed y */
    /* The recurrent state: h (L*D, B, P), c (L*D, B, H; NULL unless LSTM). Initial: NULL is zero. Final: NULL is not wanted. */
    const void *h0, *c0;
    void *hn, *cn;
    /* Instead of these arrays: a state store, and the slots whose states the rows read and update. */
    void *store;
    const int64_t *slots; /* (B), distinct; NULL: row r of x and y has slot r, and the store has B slots */
    const fastrnn_unrolled *unrolled; /* NULL, or run its fixed number of steps on the fixed-length path */
    int (*interrupted)(void *);       /* NULL, or called about every 20 ms on the caller's thread; non-zero stops the run */
    void *interrupted_context;
    fastrnn_pool *pool; /* NULL: the caller's thread alone */
} fastrnn_batch;

/* A checked batch and the decisions on how to compute it, in the caller's memory. It refers to the layer and to the batch, which
 * must outlive it. Between runs the caller may change the addresses and the contents of x, y and the states, but no other
 * member of the batch, and not the contents of lengths, batch_sizes, row_indices, slots and rows. */
typedef struct fastrnn_plan {
    size_t struct_size;
    size_t workspace_size; /* set by fastrnn_plan_make: bytes, of any alignment, that a run needs */
    uint64_t opaque[60];
} fastrnn_plan;

/* Returns FASTRNN_ERROR_SIZE if a size does not fit in size_t. */
FASTRNN_API fastrnn_status fastrnn_plan_make(const fastrnn_layer *layer, const fastrnn_batch *batch, fastrnn_plan *plan);

/* The layer and the plan may be shared by threads; y, states, store and workspace belong to one run at a time. If a run is
 * interrupted, y, hn and cn are unspecified, and the states in a store are unchanged. Slots are used where they are, in any order;
 * only of cells with options that are not a standard cell's, with a projection or with BLAS are the states copied. */
FASTRNN_API fastrnn_status fastrnn_plan_run(const fastrnn_plan *plan, void *workspace);

/* A prepared step of a stream: everything that does not change from step to step is checked and laid out once, in the caller's
 * memory, so that a run costs little more than its arithmetic. */
typedef struct fastrnn_step fastrnn_step;

/* A flag: runs leave the thread's floating-point mode as it is, which saves some nanoseconds. The caller sets it with
 * fastrnn_fp_flush, once for many steps: in another mode steps whose numbers become subnormal are tens of times slower, and
 * results may differ in the last bits. Only the fastest steps, described at fastrnn_step_run, heed it: others set the mode. */
#define FASTRNN_STEP_CALLER_MODE 1u

/* The batch has num_steps 1 and a store; x.base and y.base are not read. fastrnn_step_size sets *size to the bytes of memory, of
 * any alignment, that fastrnn_step_prepare needs for this batch; it returns FASTRNN_ERROR_ARGUMENT if `size` is less. The memory
 * is the step's until its last run, and *step points into it. The layer, the pool, the store and the arrays that the batch
 * points to must outlive the step; the batch itself need not. */
FASTRNN_API fastrnn_status fastrnn_step_size(const fastrnn_layer *layer, const fastrnn_batch *batch, size_t *size);
FASTRNN_API fastrnn_status fastrnn_step_prepare(const fastrnn_layer *layer, const fastrnn_batch *batch, unsigned flags,
                                                void *memory, size_t size, fastrnn_step **step);

/* One step, with the bits of fastrnn_plan_run; x and y take the place of x.base and y.base. Prepared steps and other calls may
 * take turns on one store. A step and a store belong to one run at a time.
 * Steps are fastest for standard cells without projection and without BLAS, on one thread, with consecutive slots, without
 * `interrupted`, past_end, lengths, row_indices and addresses of rows, if the slots have had even numbers of runs, or all odd
 * ones. Any other step costs as much as fastrnn_plan_run. */
FASTRNN_API fastrnn_status fastrnn_step_run(fastrnn_step *step, const void *x, void *y);

/* Sets this thread's floating-point mode to that of the library's calls, in which subnormal numbers are flushed to zero, and
 * returns what fastrnn_fp_restore needs to set it back. Only steps with FASTRNN_STEP_CALLER_MODE need it. */
FASTRNN_API uint64_t fastrnn_fp_flush(void);
FASTRNN_API void fastrnn_fp_restore(uint64_t mode);

/* The state of `capacity` independent rows ("slots") between calls, in the caller's memory, aligned to 64 bytes; for layers of
 * the forward direction. In a live stream every call runs all slots of its store. A store may be copied as bytes, for use with
 * the same layer on the same instruction set.
 *
 * extra_size: how many more numbers, of the config's real type, each slot has, for other state of a network (such as the last
 * inputs of a convolution). The library stores them, and does not read them. */
FASTRNN_API fastrnn_status fastrnn_store_size(const fastrnn_layer *layer, int64_t capacity, int64_t extra_size, size_t *size);
FASTRNN_API fastrnn_status fastrnn_store_init(const fastrnn_layer *layer, int64_t capacity, int64_t extra_size, void *store);

/* Set or get the states of `count` distinct slots. If slots is NULL, count must be the capacity, and all slots are meant, in
 * order. Both return FASTRNN_ERROR_STORE if the memory is not a store of this layer on this instruction set.
 * fastrnn_store_set: h0 is (L, count, P) and c0 (L, count, H); NULL is zero. It sets the extra numbers to zero. */
FASTRNN_API fastrnn_status fastrnn_store_set(const fastrnn_layer *layer, void *store, int64_t count, const int64_t *slots,
                                             const void *h0, const void *c0);
FASTRNN_API fastrnn_status fastrnn_store_get(const fastrnn_layer *layer, const void *store, int64_t count, const int64_t *slots,
                                             void *hn, void *cn);
/* The extra numbers of one slot; NULL if there are none. */
FASTRNN_API void *fastrnn_store_extra(const fastrnn_layer *layer, void *store, int64_t slot);

/* A snapshot holds the states of some slots as bytes that any machine and instruction set restores, in little-endian order:
 *   0  "FASTRNNS"   8  uint32 format version, 1   12  uint32 bytes of a real, 4 or 8
 *   16 uint64 fastrnn_layer_fingerprint           24  int64 number of rows B     32 int64 extra_size E
 *   40 h (L, B, P), then for an LSTM c (L, B, H), then extra numbers (B, E), reals. */
FASTRNN_API fastrnn_status fastrnn_snapshot_size(const fastrnn_layer *layer, const void *store, int64_t count, size_t *size);
FASTRNN_API fastrnn_status fastrnn_snapshot_save(const fastrnn_layer *layer, const void *store, int64_t count,
                                                 const int64_t *slots, void *snapshot);
/* The bytes may come from an untrusted source. Returns FASTRNN_ERROR_SNAPSHOT, and leaves the store unchanged, if they are not a
 * snapshot of `count` rows of a layer with the same fingerprint, with extra_size as in the store. */
FASTRNN_API fastrnn_status fastrnn_snapshot_restore(const fastrnn_layer *layer, void *store, int64_t count,
                                                    const int64_t *slots, const void *snapshot, size_t size);

/* Reads the header of a snapshot. Returns FASTRNN_ERROR_SNAPSHOT if the bytes are not a snapshot. */
typedef struct fastrnn_snapshot_info {
    size_t struct_size; /* set by the caller */
    uint32_t version, real_size;
    uint64_t fingerprint;
    int64_t num_rows, extra_size;
} fastrnn_snapshot_info;
FASTRNN_API fastrnn_status fastrnn_snapshot_describe(const void *snapshot, size_t size, fastrnn_snapshot_info *info);

/* The fixed-length path, kept for comparison: a list of every step of every layer, made for exactly num_steps steps. */
FASTRNN_API fastrnn_status fastrnn_unrolled_create(const fastrnn_layer *layer, int64_t num_steps, fastrnn_unrolled **unrolled);
FASTRNN_API void fastrnn_unrolled_destroy(fastrnn_unrolled *unrolled);

/* Models: chains of ops, such as an embedding, recurrent layers and a linear op, of float. Every vector of the result is
 * computed from the steps of its own row alone, with the same bits whoever shares the batch. */
typedef enum fastrnn_op_kind {
    FASTRNN_OP_LAYER,       /* recurrent layers, as fastrnn_layer_create makes them: config, cells */
    FASTRNN_OP_EMBEDDING,   /* the first op only: an id, from 0 to input_size - 1, to that row of weight */
    FASTRNN_OP_LINEAR,      /* weight x + bias */
    FASTRNN_OP_CONV1D,      /* over steps: kernel_size, stride, dilation, padding_left, padding_right */
    FASTRNN_OP_LAYER_NORM,  /* (x - mean) / sqrt(variance + eps) * weight + bias; mean and variance of a vector's elements */
    FASTRNN_OP_SCALE,       /* weight * x + bias, element by element */
    FASTRNN_OP_ACTIVATION,  /* activation, element by element */
    FASTRNN_OP_SOFTMAX,     /* over a vector's elements */
    FASTRNN_OP_LOG_SOFTMAX, /* its logarithm */
    FASTRNN_OP_LAST,        /* pooling: each row's last step; the row has one step from here on, and zeros if it had none */
    FASTRNN_OP_FIRST,       /* pooling: its first step */
    FASTRNN_OP_MEAN,        /* pooling: the mean over its steps */
    FASTRNN_OP_MAX,         /* pooling: the largest of each element; NaN if there is one */
    FASTRNN_OP_FINAL,       /* pooling, directly after FASTRNN_OP_LAYER: each direction's final output */
    FASTRNN_OP_REVERSE      /* each row's steps in reverse order */
} fastrnn_op_kind;

/* One op; the members that its kind does not use are zero. In an array of ops all have the same struct_size, which is the
 * distance from one to the next in bytes. The pointers are not used after fastrnn_model_create. */
typedef struct fastrnn_op {
    size_t struct_size;
    fastrnn_op_kind kind;
    int64_t input_size;  /* I: width of the input vectors, or the embedding's number of ids; 0 in a layer, whose config has it */
    int64_t output_size; /* O: width of the output vectors; embedding, linear and conv1d only, others keep the width */
    const void *weight;  /* embedding, (I, O); linear (O, I); conv1d (O, I, kernel_size); scale (I); layer norm (I) or NULL: 1 */
    const void *bias;    /* linear, conv1d (O), scale, layer norm (I), or NULL: 0 */
    int64_t kernel_size; /* K >= 1 */
    int64_t stride, dilation;             /* 0 means 1 */
    int64_t padding_left, padding_right;  /* zeros before the first and after the last step of each row */
    double eps;                           /* >= 0 */
    fastrnn_activation activation;
    const fastrnn_config *config; /* of FASTRNN_FLOAT32 */
    const fastrnn_cell *cells;
} fastrnn_op;

typedef struct fastrnn_model fastrnn_model;

/* Creates a model of `count` ops; isa as in fastrnn_layer_create. */
FASTRNN_API fastrnn_status fastrnn_model_create(const fastrnn_op *ops, int64_t count, const char *isa, fastrnn_model **model);
FASTRNN_API void fastrnn_model_destroy(fastrnn_model *model);
FASTRNN_API const char *fastrnn_model_isa(const fastrnn_model *model); /* NULL for NULL */
FASTRNN_API size_t fastrnn_model_nbytes(const fastrnn_model *model);   /* of the prepared weights; 0 for NULL */
/* A hash of the ops, their options and weights; it does not depend on the instruction set. */
FASTRNN_API uint64_t fastrnn_model_fingerprint(const fastrnn_model *model);

/* Converts the prepared weights of the index-th op back to those of fastrnn_op: weight and bias are filled in the shapes there, with
 * 1 and 0 where none was given. Pointers that are NULL are skipped. Of FASTRNN_OP_LAYER fastrnn_model_layer gives the layer, which is
 * the model's, for fastrnn_layer_unpack; of other ops it is NULL. */
FASTRNN_API fastrnn_status fastrnn_model_unpack(const fastrnn_model *model, int64_t index, void *weight, void *bias);
FASTRNN_API const fastrnn_layer *fastrnn_model_layer(const fastrnn_model *model, int64_t index);

/* Loads a model from a file that layer.save or model.save of the Python package wrote, or from the bytes of one: with the bits of the
 * outputs in Python. A file of a layer gives a model of the one op FASTRNN_OP_LAYER. The bytes may come from an untrusted source:
 * they are checked before memory is taken. Arrays of aligned floats are read where they are; the data is not used after the
 * call. Returns FASTRNN_ERROR_FILE if the file cannot be read, or is damaged, or of another format; or if it holds what needs
 * Python: float64 layers, embeddings with mask_zero, and BatchNorm. */
FASTRNN_API fastrnn_status fastrnn_model_load(const char *path, const char *isa, fastrnn_model **model);
FASTRNN_API fastrnn_status fastrnn_model_load_memory(const void *data, size_t size, const char *isa, fastrnn_model **model);

typedef struct fastrnn_model_info {
    size_t struct_size;  /* set by the caller */
    int64_t num_ids;     /* 0: x has vectors of input_size floats. Else x has one int64 for each step, from 0 to num_ids - 1 */
    int64_t input_size;  /* 1 for ids */
    int64_t output_size;
    int pools;           /* y has one vector for each row, whatever its length */
    int64_t stride;      /* product of the strides of the convolutions; in a stream every length is a multiple of it */
    int64_t first_not_streamed; /* index of the first op that cannot run in a stream; -1: the model streams. These ops cannot:
                                   layers that are reversed or bidirectional, reverse, pooling, and convolutions other than
                                   causal ones, whose padding_left is (K - 1) dilation and padding_right 0 */
    int64_t state_size;  /* numbers of state that a stream has for each row; 0 if the model does not stream */
} fastrnn_model_info;
FASTRNN_API fastrnn_status fastrnn_model_describe(const fastrnn_model *model, fastrnn_model_info *info);

/* The number of steps of y for a row of `steps` steps of x; 1 in a model that pools, also for 0 steps. A convolution gives a row
 * of n > 0 steps floor((n + padding_left + padding_right - (K - 1) dilation - 1) / stride) + 1 steps, but at least none, and a
 * row without steps none. Returns -1 for a negative number. */
FASTRNN_API int64_t fastrnn_model_output_steps(const fastrnn_model *model, int64_t steps);

/* A prepared call of a model: a checked batch, the decisions on how to compute it, and the memory for that. It is made in the
 * caller's memory, and refers to the model and to the batch, which must outlive it.
 *
 * The batch is that of a layer with these differences. num_steps, lengths and batch_sizes are those of x. A model that pools
 * writes each row's vector to y at step 0, never packed; of other models y is packed if x is. Steps past a row's end are those
 * from its number of steps of y on, and are not filled with FASTRNN_PAST_END_CARRY. h0, c0, hn, cn and unrolled are NULL; the
 * state is in a store of the model. With a store every length must be a multiple of the stride. */
typedef struct fastrnn_model_plan fastrnn_model_plan;

/* fastrnn_model_plan_size sets *size to the bytes of memory, of any alignment, that fastrnn_model_plan_make needs for this batch;
 * that returns FASTRNN_ERROR_ARGUMENT if `size` is less. The memory is the plan's until its last run, and *plan points into it.
 * Both return FASTRNN_ERROR_SIZE if a size does not fit in size_t. */
FASTRNN_API fastrnn_status fastrnn_model_plan_size(const fastrnn_model *model, const fastrnn_batch *batch, size_t *size);
FASTRNN_API fastrnn_status fastrnn_model_plan_make(const fastrnn_model *model, const fastrnn_batch *batch, void *memory,
                                                   size_t size, fastrnn_model_plan **plan);

/* Between runs the caller may change the same as between those of a fastrnn_plan. The plan, y and the store belong to one run at
 * a time. Ids are checked before anything is written: FASTRNN_ERROR_ID. If a run fails, the states in a store are unchanged; if it
 * is interrupted, y is unspecified. */
FASTRNN_API fastrnn_status fastrnn_model_plan_run(fastrnn_model_plan *plan);

/* The state of `capacity` rows ("slots") of a model that streams, between calls, in the caller's memory, aligned to 64 bytes: the
 * states of the recurrent layers and the last inputs of the convolutions. fastrnn_model_store_init sets them to zero, and so does
 * fastrnn_model_store_reset for `count` distinct slots, or all if slots is NULL and count the capacity. A store may be copied as
 * bytes, for use with the same model on a machine of the same byte order. */
FASTRNN_API fastrnn_status fastrnn_model_store_size(const fastrnn_model *model, int64_t capacity, size_t *size);
FASTRNN_API fastrnn_status fastrnn_model_store_init(const fastrnn_model *model, int64_t capacity, void *store);
FASTRNN_API fastrnn_status fastrnn_model_store_reset(const fastrnn_model *model, void *store, int64_t count, const int64_t *slots);

/* Set or get the states of the op-th op, which is FASTRNN_OP_LAYER, as fastrnn_store_set and fastrnn_store_get do. */
FASTRNN_API fastrnn_status fastrnn_model_store_set(const fastrnn_model *model, void *store, int64_t op, int64_t count,
                                                   const int64_t *slots, const void *h0, const void *c0);
FASTRNN_API fastrnn_status fastrnn_model_store_get(const fastrnn_model *model, const void *store, int64_t op, int64_t count,
                                                   const int64_t *slots, void *hn, void *cn);

/* Snapshots of slots, in the format of those of a layer: the fingerprint is the model's, extra_size E its state_size, and at 40
 * the states follow as (B, E). For each op of a row they have h (L, P), then for an LSTM c (L, H), or the last (K - 1) dilation
 * inputs of a convolution, oldest first. fastrnn_snapshot_describe reads their headers, too. */
FASTRNN_API fastrnn_status fastrnn_model_snapshot_size(const fastrnn_model *model, const void *store, int64_t count, size_t *size);
FASTRNN_API fastrnn_status fastrnn_model_snapshot_save(const fastrnn_model *model, const void *store, int64_t count,
                                                       const int64_t *slots, void *snapshot);
FASTRNN_API fastrnn_status fastrnn_model_snapshot_restore(const fastrnn_model *model, void *store, int64_t count,
                                                          const int64_t *slots, const void *snapshot, size_t size);

#ifdef __cplusplus
}
#endif

#endif
