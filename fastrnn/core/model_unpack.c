/* The weights of a model's ops in the layout in which they were given. */
#include <string.h>

#include "error.h"
#include "model.h"

static const fr_op *op_at(const fastrnn_model *model, int64_t index)
{
    return model && fr_in_range(index, 0, model->num_ops - 1) ? &model->ops[index] : NULL;
}

/* A matrix (O, K, I) as (O, I, K); K is 1 of a linear op. */
static void unpack_product(const fastrnn_model *model, const fr_op *op, float *weight)
{
    const int64_t I = op->input_size, K = op->read_size / I;
    for (int64_t o = 0; weight && o < op->output_size; o++)
        for (int64_t i = 0; i < I; i++)
            for (int64_t k = 0; k < K; k++)
                fr_matrix_get(&model->backend, &op->matrix, 0, o, k * I + i, weight++);
}

static void unpack_vector(const float *vector, int64_t size, float *to)
{
    if (vector && to)
        memcpy(to, vector, (size_t)size * sizeof *to);
}

fastrnn_status fastrnn_model_unpack(const fastrnn_model *model, int64_t index, void *weight, void *bias)
{
    const fr_op *op = op_at(model, index);
    if (!op)
        return model ? fr_fail_index("index", index, model->num_ops) : fr_fail_null("model");
    if (op->matrix.k)
        unpack_product(model, op, weight);
    else
        unpack_vector(op->weight, op->input_size * (op->options.kind == FASTRNN_OP_EMBEDDING ? op->output_size : 1), weight);
    unpack_vector(op->bias, op->output_size, bias);
    return FASTRNN_OK;
}

const fastrnn_layer *fastrnn_model_layer(const fastrnn_model *model, int64_t index)
{
    const fr_op *op = op_at(model, index);
    return op && op->options.kind == FASTRNN_OP_LAYER ? op->layer : NULL;
}
