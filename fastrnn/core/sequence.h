/* What the two time loops share: one cell over a batch, its buffers, and the ways in and out. */
#ifndef FR_SEQUENCE_H
#define FR_SEQUENCE_H

#include "cell.h"

/* h of step s is h[(first + s + 1) & 1]: each step reads one buffer and writes the other. */
typedef struct fr_state {
    void *h[2]; /* (B, cell->h_stride) */
    void *c;    /* (B, cell->c_stride) */
    int first;
} fr_state;

/* Scratch of one cell's run; capacity counts rows of steps. */
typedef struct fr_buffers {
    void *x;   /* (capacity, I) */
    void *pre; /* (capacity, gates) */
    void *scratch;
    int64_t capacity;
} fr_buffers;

typedef struct fr_sequence {
    const fr_cell *cell;
    const fr_backend *backend;
    const fastrnn_batch *batch; /* its x and y are not looked at: in and out are this cell's */
    fastrnn_view in, out;
    int64_t out_offset; /* elements into each output vector: the reverse direction writes the right half */
    bool reverse; /* each row from its own last step */
    fr_state state;
    fr_buffers buffers;
} fr_sequence;

/* Asks the caller now and then whether to stop. */
typedef struct fr_poll {
    const fastrnn_batch *batch;
    double work; /* multiply-adds since the clock was read */
    double due;  /* seconds */
    unsigned long long mode; /* the caller's floating-point mode, in which the callback runs */
} fr_poll;
fr_poll fr_poll_start(const fastrnn_batch *batch, unsigned long long mode);
bool fr_poll_stops(fr_poll *poll, const fr_cell *cell, int64_t rows);

static inline int64_t fr_batch_size(const fastrnn_batch *batch, int64_t step)
{
    return batch->batch_sizes ? batch->batch_sizes[step] : batch->num_rows;
}
static inline int64_t fr_length(const fastrnn_batch *batch, int64_t row)
{
    return batch->lengths ? batch->lengths[row] : batch->num_steps;
}

/* Rows of steps that are projected, or gathered, ahead of the recurrence. */
int64_t fr_block_capacity(const fr_cell *cell, const fr_backend *backend, int64_t num_rows, int64_t total_steps);

/* Whether W x is worth a pass of its own over a block of steps, or is done inside each step. */
bool fr_projects_ahead(const fr_cell *cell, int64_t rows, int64_t steps);

/* Inputs of steps [first, last) as rows, one after the other: read in place where they already stand
 * so, else copied to buffers.x. Sets *stride, in elements. */
const void *fr_sequence_input(const fr_sequence *sequence, int64_t first, int64_t last, int64_t *stride);

/* One step: state and, through `out`, the caller's output. pre or x as in fr_step. */
void fr_sequence_step(const fr_sequence *sequence, int64_t step, int64_t rows, const void *x, int64_t x_stride, void *pre);

void fr_state_load(const fr_cell *cell, const fr_backend *backend, fr_state *state, int64_t num_rows, int64_t index,
                   const fastrnn_boundary *boundary);
void fr_state_store(const fr_cell *cell, const fr_backend *backend, const fr_state *state, const fastrnn_batch *batch,
                    int64_t index, const fastrnn_boundary *boundary);

#endif
