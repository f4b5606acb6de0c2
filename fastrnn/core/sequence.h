/* The data of one cell's run over some rows of a batch: inputs, outputs and states. Both time loops use it. */
#ifndef FR_SEQUENCE_H
#define FR_SEQUENCE_H

#include "cell.h"
#include "parallel/team_sync.h"

/* The rows that one team runs: first, first + stride, ... of a batch whose rows are sorted by length. With a stride every
 * team gets some of the long rows, and its own rows are sorted, too. */
typedef struct fr_rows {
    const fastrnn_batch *batch; /* its x and y are not used */
    int64_t first, stride, count;
} fr_rows;

static inline int64_t fr_row_of_batch(const fr_rows *rows, int64_t row) { return rows->first + row * rows->stride; }
static inline int64_t fr_length(const fr_rows *rows, int64_t row)
{
    return rows->batch->lengths ? rows->batch->lengths[fr_row_of_batch(rows, row)] : rows->batch->num_steps;
}
static inline int64_t fr_num_steps(const fr_rows *rows) { return rows->count ? fr_length(rows, 0) : 0; }
static inline int64_t fr_batch_size(const fr_rows *rows, int64_t step)
{
    if (!rows->batch->batch_sizes)
        return rows->count;
    const int64_t alive = rows->batch->batch_sizes[step] - rows->first;
    return rows->stride == 1 ? alive : fr_ceil_div(fr_max(alive, 0), rows->stride);
}

/* h of step s is h[(first + s + 1) & 1]: each step reads one buffer and writes the other. */
typedef struct fr_state {
    void *h[2];   /* (rows, cell->h_stride) */
    void *c;      /* (rows, cell->c_stride) */
    void *hidden; /* (rows, cell->c_stride), scratch, if fr_cell_needs_hidden */
    int parity;
} fr_state;

/* One worker's scratch memory. A row of x or pre belongs to one row of the batch at one step. */
typedef struct fr_buffers {
    void *x;   /* (capacity, I) */
    void *pre; /* (capacity, gates) */
    void *scratch;
    int64_t capacity;
} fr_buffers;

typedef struct fr_sequence {
    const fr_cell *cell;
    const fr_backend *backend;
    fr_rows rows;
    fastrnn_view in, out;
    int64_t out_offset; /* elements into each output vector: the reverse direction writes the right half */
    bool reverse;       /* each row starts at its own last step */
    fr_state state;     /* the team's */
    fr_buffers buffers; /* this worker's */
    fr_poll *poll;
} fr_sequence;

/* True if W x is computed for a block of steps at once, false if it is computed inside each step. */
bool fr_projects_ahead(const fr_cell *cell, int64_t rows, int64_t steps);

/* The inputs of steps [first, last) as rows that are *stride elements apart: in place if they are stored like that, else copied
 * to buffers.x. */
const void *fr_sequence_input(const fr_sequence *sequence, int64_t first, int64_t last, int64_t *stride);

/* Computes this member's units of W x for `rows` rows, to buffers.pre. */
void fr_sequence_project(const fr_sequence *sequence, const fr_team *team, int64_t rows, const void *x, int64_t x_stride);

/* Runs one step with the team: updates the state and writes the output. pre and x: as in fr_step. False if the call must
 * stop. */
bool fr_sequence_step(const fr_sequence *sequence, const fr_team *team, int64_t step, int64_t rows, const void *x,
                      int64_t x_stride, void *pre);

/* Fills this cell's part of the output after the ends of the rows as the batch's past_end says. Each member of the team fills
 * some of the rows. */
void fr_sequence_fill(const fr_sequence *sequence, const fr_team *team);

/* Copy the rows' state from or to cell `index` of the boundary's arrays. Each member of the team copies some of the rows, so the
 * team must wait after a load. poll: NULL if the copy cannot be interrupted. */
void fr_state_load(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_rows *rows,
                   const fastrnn_boundary *boundary, int64_t index, fr_state *state, fr_poll *poll);
void fr_state_store(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_rows *rows,
                    const fastrnn_boundary *boundary, int64_t index, const fr_state *state, fr_poll *poll);

#endif
