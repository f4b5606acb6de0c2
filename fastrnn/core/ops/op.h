/* The interface of a model's ops, one file for each kind. An op maps each vector alone, as a linear op or an activation does, or
 * it reads: it makes each of its vectors from steps of a row, or from an id. A convolution does both: it reads the inputs of each
 * output, and maps them.
 *
 * The executor passes packed vectors in blocks. A block's rows are aligned to V elements and padded to whole multiples of V; the
 * padding may hold anything.
 */
#ifndef FR_OP_H
#define FR_OP_H

#include "../hash.h"
#include "../layer.h"
#include "../parallel/poll.h"
#include "../segment.h"

/* The last inputs of a convolution in a stream's slots. As with a layer's state, those of a slot are in the buffer of its parity,
 * and a run writes the new ones to the other. */
typedef struct fr_tails {
    const unsigned char *parities; /* (capacity); NULL: zeros instead of tails */
    float *buffers[2];             /* (capacity, tail_steps, I) */
    const int64_t *slots;          /* the batch's */
} fr_tails;

/* The vectors, or ids, of a batch's rows that an op reads. */
typedef struct fr_source {
    const fr_segment *segment;
    fr_view view;
    const int64_t *row_indices; /* the batch's, or NULL */
    fr_tails tails;             /* in a stream: the last inputs before these steps */
} fr_source;

/* Rows of a matrix. */
typedef struct fr_op_block {
    int64_t rows;
    float *values;
    int64_t stride; /* elements */
} fr_op_block;

static inline float *fr_block_row(const fr_op_block *block, int64_t row) { return block->values + row * block->stride; }

typedef struct fr_op fr_op;

/* What one kind of op does. Functions that are NULL: nothing. */
typedef struct fr_op_type {
    bool (*is_valid)(const fastrnn_op *given); /* what fr_op_is_valid does not check */
    int64_t (*input_size)(const fastrnn_op *given), (*output_size)(const fastrnn_op *given); /* NULL: the members of the op */
    /* The prepared weights: their bytes; `scratch`: the bytes that `place` needs meanwhile, if more than *scratch. */
    bool (*add_bytes)(size_t *total, size_t *scratch, const fr_backend *backend, const fastrnn_op *given);
    void (*place)(fr_op *op, fr_arena *arena, const fr_backend *backend, const fastrnn_op *given, void *scratch);
    void (*hash)(const fastrnn_op *given, uint64_t *hash); /* of options and weights */

    /* Writes vectors first, first + 1, ... of `output` to the rows of a block, op->read_size elements each. */
    void (*read)(const fr_op *op, const fr_source *source, const fr_segment *output, int64_t first, const fr_op_block *to,
                 fr_poll *poll);
    /* to = op(from), row by row. */
    void (*map)(const fr_op *op, const fr_backend *backend, const fr_op_block *from, const fr_op_block *to, fr_poll *poll);
    bool in_place; /* `from` may be `to` */

    bool pools;       /* every row has one step from here on */
    bool reads_all;   /* each vector is made from all steps of a row */
    int element_work; /* besides matrix products, for each element read or mapped: in scalar multiply-adds, about 1 ns each */
} fr_op_type;

#define FR_VECTOR_WORK 100 /* the address of a vector */
#define FR_COPY_WORK 2     /* an element that is copied, added or scaled */
#define FR_EXP_WORK 32     /* one of an exponential function */

struct fr_op {
    const fr_op_type *type;
    fastrnn_op options; /* as given, defaults filled in; without its pointers */
    int64_t input_size, output_size, read_size;
    fr_matrix matrix;
    const float *weight, *bias; /* an embedding's (I, O); else of one vector, padded with zeros */
    fastrnn_layer *layer;       /* of FASTRNN_OP_LAYER, or that before FASTRNN_OP_FINAL; else NULL */
    int64_t tail_steps;         /* of a causal convolution: the inputs before a step that it reads */
};

extern const fr_op_type fr_op_recurrent, fr_op_embedding, fr_op_linear, fr_op_conv1d, fr_op_layer_norm, fr_op_scale,
    fr_op_activation, fr_op_softmax, fr_op_last, fr_op_first, fr_op_mean, fr_op_max, fr_op_final, fr_op_reverse;

/* The index-th of an array of ops, as this version's struct. False if the struct is unknown. */
bool fr_op_read(fastrnn_op *op, const fastrnn_op *given, int64_t index);

bool fr_op_is_valid(const fastrnn_op *op, int64_t index);
/* Whether an op can follow `before`, or be the first if that is NULL. Both are valid. */
bool fr_op_follows(const fastrnn_op *op, const fastrnn_op *before, int64_t index);

/* Prepares an op; its layer is made by the caller. */
bool fr_op_add_bytes(size_t *total, size_t *scratch, const fr_backend *backend, const fastrnn_op *given);
fr_op fr_op_place(fr_arena *arena, const fr_backend *backend, const fastrnn_op *given, void *scratch);
void fr_op_hash(const fastrnn_op *given, uint64_t *hash);

/* The number of steps after the op. */
int64_t fr_op_steps(const fr_op *op, int64_t steps);

/* Scalar multiply-adds of one vector, and of all. */
double fr_op_vector_work(const fr_op *op);
double fr_op_work(const fr_op *op, const fr_segment *input, const fr_segment *output);

/* Helpers of the kinds. */

/* A vector with padding; `fill` in every element if none is given. */
bool fr_add_vector_bytes(size_t *total, const fr_backend *backend, int64_t size);
float *fr_place_vector(fr_arena *arena, const fr_backend *backend, const float *given, int64_t size, float fill);
void fr_hash_vector(const void *given, int64_t size, uint64_t *hash);

void fr_copy_vector(float *to, const float *from, int64_t size);
static inline const float *fr_source_vector(const fr_source *source, int64_t row, int64_t step)
{
    return (const float *)(const void *)fr_vector_at(&source->view, source->row_indices, row, step, sizeof(float));
}
/* Reads every row's steps as they are, or in reverse order. */
void fr_read_steps(const fr_source *source, const fr_segment *output, int64_t first, const fr_op_block *to, int64_t size,
                   bool reverse, fr_poll *poll);

/* Matrix products: of a linear op, and of a convolution, whose weight has op->read_size columns. */
bool fr_product_add_bytes(size_t *total, const fr_backend *backend, int64_t columns, int64_t outputs);
void fr_product_place(fr_op *op, fr_arena *arena, const fr_backend *backend, const void *weight, const void *bias);
void fr_product_map(const fr_op *op, const fr_backend *backend, const fr_op_block *from, const fr_op_block *to, fr_poll *poll);

/* A factor and a summand for each element: weight and bias (I), or NULL for 1 and 0. */
bool fr_factors_add_bytes(size_t *total, size_t *scratch, const fr_backend *backend, const fastrnn_op *given);
void fr_factors_place(fr_op *op, fr_arena *arena, const fr_backend *backend, const fastrnn_op *given, void *scratch);
void fr_factors_hash(const fastrnn_op *given, uint64_t *hash);
fr_op_args fr_op_args_of(const fr_op *op, const fr_op_block *from, const fr_op_block *to);

int64_t fr_conv1d_steps(const fastrnn_op *options, int64_t steps);
/* Whether a stream can run a convolution: each `stride` inputs give one output, which depends on no later input. */
bool fr_conv1d_is_causal(const fastrnn_op *options);
/* After all outputs were computed: writes the last inputs of each row, for the next steps of the stream. */
void fr_conv1d_keep_tails(const fr_op *op, const fr_source *source);

#endif
