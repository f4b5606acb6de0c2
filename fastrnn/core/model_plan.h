/* A prepared call of a model: its stages, each with the lengths of the rows before and after it, and their memory. */
#ifndef FR_MODEL_PLAN_H
#define FR_MODEL_PLAN_H

#include "model.h"
#include "plan.h"

typedef struct fr_stage_plan {
    fr_segment input, output;
    /* A stage that is a layer: */
    fastrnn_batch batch;
    fr_plan plan; /* of `batch` */
    /* Others: blocks of vectors, which the workers take one after the other. */
    int workers;
    int64_t block_rows, num_blocks;
    double macs;
} fr_stage_plan;

struct fastrnn_model_plan {
    const fastrnn_model *model;
    const fastrnn_batch *batch;
    const int64_t *row_indices; /* the batch's; NULL if row r of the run is row r of the arrays */
    fr_stage_plan *stages;
    float *between[2]; /* packed vectors: what stage i writes is in between[i & 1] */
    void *scratch;     /* of the stage that runs: a layer's workspace, or fr_stage_plan_buffers */
};

/* The distance between vectors of `size` elements in `between`, and in a block. */
static inline int64_t fr_packed_stride(const fastrnn_model *model, int64_t size)
{
    return fr_round_up(size, model->backend.kernels->vector_length);
}

/* Each worker has two blocks, of block_rows rows of stage->row_size elements. */
static inline float *fr_stage_plan_buffer(const fr_stage_plan *stage_plan, const fr_stage *stage, void *scratch, int worker,
                                          int index)
{
    return (float *)scratch + (2 * worker + index) * stage_plan->block_rows * stage->row_size;
}

#endif
