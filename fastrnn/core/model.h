/* A prepared model: a chain of ops, divided into stages. */
#ifndef FR_MODEL_H
#define FR_MODEL_H

#include "ops/op.h"

/* Ops that are computed together, a block of vectors after the other: the first may read, the others map. Or one layer. */
typedef struct fr_stage {
    int64_t first, count; /* ops */
    int64_t row_size;     /* elements of the longest row of a block, with padding */
} fr_stage;

struct fastrnn_model {
    fr_backend backend;
    int64_t num_ops, num_stages;
    bool pools;
    int64_t stride, first_not_streamed, state_size; /* as in fastrnn_model_info */
    size_t nbytes;
    uint64_t fingerprint;
    void *weights;
    fr_stage *stages; /* after the ops, in the same memory */
    fr_op ops[];
};

/* The ops of a stage. */
static inline const fr_op *fr_stage_ops(const fastrnn_model *model, const fr_stage *stage) { return &model->ops[stage->first]; }

static inline bool fr_takes_ids(const fastrnn_model *model) { return model->ops[0].options.kind == FASTRNN_OP_EMBEDDING; }

/* The steps of a row after the first `num_ops` ops, if it had `steps` before. */
int64_t fr_model_steps(const fastrnn_model *model, int64_t num_ops, int64_t steps);

/* The state of one op of a row in a stream: h (L, P) and c (L, H) of a layer, or the tail of a convolution, as one vector. */
typedef struct fr_op_state {
    int64_t num_kinds, counts[2], widths[2];
} fr_op_state;
fr_op_state fr_op_state_of(const fr_op *op);

#endif
