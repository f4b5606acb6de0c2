/* Convolution over steps: output t of a row is bias + the sum over k of weight[:, :, k] x[t stride + k dilation - padding_left],
 * with zeros for x before the first and after the last step. Each output's inputs are copied to one vector, its window (K, I), so
 * that an output element is one chain of multiply-adds in the order of the window, padding included. In a stream a causal
 * convolution reads the last inputs of the call before, its tail, in place of the zeros before the first step. */
#include <string.h>

#include "op.h"

static int64_t span(const fastrnn_op *options) { return (options->kernel_size - 1) * options->dilation; }

static bool is_valid(const fastrnn_op *given)
{
    return given->weight && fr_in_range(given->kernel_size, 1, FR_MOST_UNITS) && fr_in_range(given->stride, 1, FR_MOST_UNITS) &&
           fr_in_range(given->dilation, 1, FR_MOST_UNITS) && fr_in_range(given->padding_left, 0, FR_MOST_ROWS) &&
           fr_in_range(given->padding_right, 0, FR_MOST_ROWS) && given->kernel_size * given->input_size <= FR_MOST_UNITS &&
           span(given) <= FR_MOST_ROWS / given->input_size;
}

int64_t fr_conv1d_steps(const fastrnn_op *options, int64_t steps)
{
    const int64_t left_over = steps + options->padding_left + options->padding_right - span(options) - 1;
    return steps <= 0 || left_over < 0 ? 0 : left_over / options->stride + 1;
}

bool fr_conv1d_is_causal(const fastrnn_op *options)
{
    return options->padding_left == span(options) && options->padding_right == 0;
}

static bool add_bytes(size_t *total, size_t *scratch, const fr_backend *backend, const fastrnn_op *given)
{
    const int64_t columns = given->kernel_size * given->input_size;
    size_t relaid = 0;
    if (!fr_add_bytes(&relaid, (size_t)columns, (size_t)given->output_size * sizeof(float)))
        return false;
    *scratch = relaid > *scratch ? relaid : *scratch;
    return fr_product_add_bytes(total, backend, columns, given->output_size);
}

static void place(fr_op *op, fr_arena *arena, const fr_backend *backend, const fastrnn_op *given, void *scratch)
{
    const int64_t I = given->input_size, K = given->kernel_size;
    const float *weight = given->weight; /* (O, I, K) */
    float *relaid = scratch;             /* (O, K, I) */
    for (int64_t o = 0; o < given->output_size; o++)
        for (int64_t k = 0; k < K; k++)
            for (int64_t i = 0; i < I; i++)
                *relaid++ = weight[(o * I + i) * K + k];
    op->read_size = K * I;
    op->tail_steps = fr_conv1d_is_causal(given) ? span(given) : 0;
    fr_product_place(op, arena, backend, scratch, given->bias);
}

static void hash(const fastrnn_op *given, uint64_t *hash)
{
    const int64_t options[] = {given->kernel_size, given->stride, given->dilation, given->padding_left, given->padding_right};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        fr_hash_add(hash, (uint64_t)options[i]);
    fr_hash_vector(given->weight, given->output_size * given->input_size * given->kernel_size, hash);
    fr_hash_vector(given->bias, given->output_size, hash);
}

/* A row's tail, or where that after these steps is written. */
static float *tail_of(const fr_op *op, const fr_source *source, int64_t row, bool written)
{
    const fr_tails *tails = &source->tails;
    if (!tails->parities)
        return NULL;
    row = source->row_indices ? source->row_indices[row] : row;
    const int64_t slot = tails->slots ? tails->slots[row] : row;
    return tails->buffers[tails->parities[slot] ^ written] + slot * op->tail_steps * op->input_size;
}

/* The input of a row at a step, which may be before the first or after the last; NULL for zeros. */
static const float *input_at(const fr_op *op, const fr_source *source, int64_t row, int64_t step, int64_t length)
{
    if (step >= length)
        return NULL;
    if (step >= 0)
        return fr_source_vector(source, row, step);
    const float *tail = tail_of(op, source, row, false);
    return tail ? tail + (op->tail_steps + step) * op->input_size : NULL;
}

static void read_window(const fr_op *op, const fr_source *source, fr_position at, float *to)
{
    const fastrnn_op *options = &op->options;
    const int64_t I = op->input_size, K = options->kernel_size, length = fr_segment_length(source->segment, at.row);
    const int64_t first = at.step * options->stride - options->padding_left;
    if (options->dilation == 1 && source->view.step_stride == I && !source->view.step_offsets && first >= 0 && first + K <= length) {
        fr_copy_vector(to, fr_source_vector(source, at.row, first), K * I);
        return;
    }
    for (int64_t k = 0; k < K; k++, to += I) {
        const float *from = input_at(op, source, at.row, first + k * options->dilation, length);
        if (from)
            fr_copy_vector(to, from, I);
        else
            memset(to, 0, (size_t)I * sizeof(float));
    }
}

static void read(const fr_op *op, const fr_source *source, const fr_segment *output, int64_t first, const fr_op_block *to,
                 fr_poll *poll)
{
    const double work = (double)(op->options.kernel_size * FR_VECTOR_WORK + op->read_size * FR_COPY_WORK);
    fr_position at = fr_segment_position(output, first);
    for (int64_t row = 0; row < to->rows && !fr_poll_stops(poll, work); row++, at = fr_segment_next(output, at))
        read_window(op, source, at, fr_block_row(to, row));
}

void fr_conv1d_keep_tails(const fr_op *op, const fr_source *source)
{
    const int64_t I = op->input_size, tail_steps = op->tail_steps;
    for (int64_t row = 0; row < source->segment->num_rows; row++) {
        const int64_t length = fr_segment_length(source->segment, row), kept = fr_max(0, tail_steps - length);
        const float *before = tail_of(op, source, row, false);
        float *tail = tail_of(op, source, row, true);
        fr_copy_vector(tail, before + (tail_steps - kept) * I, kept * I);
        for (int64_t i = kept; i < tail_steps; i++)
            fr_copy_vector(tail + i * I, fr_source_vector(source, row, length - tail_steps + i), I);
    }
}

const fr_op_type fr_op_conv1d = {.is_valid = is_valid, .add_bytes = add_bytes, .place = place, .hash = hash, .read = read,
                                 .map = fr_product_map, .element_work = FR_COPY_WORK};
