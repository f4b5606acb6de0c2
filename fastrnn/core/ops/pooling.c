/* Pooling: one vector from the steps of a row; zeros if it has none. */
#include <math.h>
#include <string.h>

#include "op.h"

/* Copies elements [begin, end) of the row's vector at a step. */
static void copy_part(const fr_source *source, int64_t row, int64_t step, int64_t begin, int64_t end, float *to)
{
    fr_copy_vector(to + begin, fr_source_vector(source, row, step) + begin, end - begin);
}

static void last_of(const fr_op *op, const fr_source *source, int64_t row, int64_t length, float *to, fr_poll *poll)
{
    (void)poll;
    copy_part(source, row, length - 1, 0, op->input_size, to);
}

static void first_of(const fr_op *op, const fr_source *source, int64_t row, int64_t length, float *to, fr_poll *poll)
{
    (void)length, (void)poll;
    copy_part(source, row, 0, 0, op->input_size, to);
}

/* A direction's final output is at the last step that it computes: the reverse direction's at step 0. */
static void final_of(const fr_op *op, const fr_source *source, int64_t row, int64_t length, float *to, fr_poll *poll)
{
    (void)poll;
    const fastrnn_layer *layer = op->layer;
    const int64_t P = layer->h_size;
    copy_part(source, row, layer->reverse ? 0 : length - 1, 0, P, to);
    if (layer->num_directions == 2)
        copy_part(source, row, 0, P, 2 * P, to);
}

#define MEAN_COLUMNS 128 /* elements whose sums are computed at once */

/* The sums are double, in the order of the steps. */
static void mean_of(const fr_op *op, const fr_source *source, int64_t row, int64_t length, float *to, fr_poll *poll)
{
    double sums[MEAN_COLUMNS];
    for (int64_t begin = 0; begin < op->input_size; begin += MEAN_COLUMNS) {
        const int64_t count = fr_min(MEAN_COLUMNS, op->input_size - begin);
        memset(sums, 0, sizeof sums);
        for (int64_t step = 0; step < length; step++) {
            const float *x = fr_source_vector(source, row, step) + begin;
            for (int64_t i = 0; i < count; i++)
                sums[i] += (double)x[i];
            if (fr_poll_stops(poll, (double)(FR_VECTOR_WORK + count * FR_COPY_WORK)))
                return;
        }
        for (int64_t i = 0; i < count; i++) {
            const float mean = (float)(sums[i] / (double)length);
            to[begin + i] = isnan(mean) ? NAN : mean; /* every NaN with the same bits */
        }
    }
}

static void max_of(const fr_op *op, const fr_source *source, int64_t row, int64_t length, float *to, fr_poll *poll)
{
    copy_part(source, row, 0, 0, op->input_size, to);
    for (int64_t step = 1; step < length; step++) {
        const float *x = fr_source_vector(source, row, step);
        for (int64_t i = 0; i < op->input_size; i++)
            to[i] = x[i] > to[i] || x[i] != x[i] ? x[i] : to[i]; /* a NaN stays, as nothing is larger */
        if (fr_poll_stops(poll, (double)(FR_VECTOR_WORK + op->input_size * FR_COPY_WORK)))
            return;
    }
}

typedef void pool_row(const fr_op *op, const fr_source *source, int64_t row, int64_t length, float *to, fr_poll *poll);

static void read_rows(pool_row *pool, const fr_op *op, const fr_source *source, int64_t first, const fr_op_block *to, fr_poll *poll)
{
    for (int64_t i = 0; i < to->rows && !fr_poll_stops(poll, FR_VECTOR_WORK); i++) {
        const int64_t row = first + i, length = fr_segment_length(source->segment, row);
        if (length > 0)
            pool(op, source, row, length, fr_block_row(to, i), poll);
        else
            memset(fr_block_row(to, i), 0, (size_t)op->output_size * sizeof(float));
    }
}

#define POOLING(KIND, READS_ALL)                                                                                       \
    static void read_##KIND(const fr_op *op, const fr_source *source, const fr_segment *output, int64_t first,          \
                            const fr_op_block *to, fr_poll *poll)                                                       \
    {                                                                                                                  \
        (void)output;                                                                                                  \
        read_rows(KIND##_of, op, source, first, to, poll);                                                             \
    }                                                                                                                  \
    const fr_op_type fr_op_##KIND = {.read = read_##KIND, .pools = true, .reads_all = READS_ALL, .element_work = FR_COPY_WORK};

POOLING(last, false)
POOLING(first, false)
POOLING(final, false)
POOLING(mean, true)
POOLING(max, true)
