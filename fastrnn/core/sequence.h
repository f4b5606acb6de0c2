/* What the two time loops share: one cell over some rows of a batch, its buffers, and the ways in and out. */
#ifndef FR_SEQUENCE_H
#define FR_SEQUENCE_H

#include "cell.h"
#include "parallel/team_sync.h"

/* Rows first, first + apart, ... of a batch in run order: what one team runs. Dealt like cards where lengths
 * differ, so that every share has its part of the long ones, and is itself in run order. */
typedef struct fr_rows {
    const fastrnn_batch *batch; /* its x and y are not looked at */
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

/* One worker's scratch; capacity counts rows of steps. */
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
    bool reverse;       /* each row from its own last step */
    fr_state state;     /* the team's */
    fr_buffers buffers; /* this worker's */
    fr_poll *poll;
} fr_sequence;

/* Whether W x is worth a pass of its own over a block of steps, or is done inside each step. */
bool fr_projects_ahead(const fr_cell *cell, int64_t rows, int64_t steps);

/* Inputs of steps [first, last) as rows, one after the other: read in place where they already stand
 * so, else copied to buffers.x. Sets *stride, in elements. */
const void *fr_sequence_input(const fr_sequence *sequence, int64_t first, int64_t last, int64_t *stride);

/* W x of so many rows to buffers.pre, the team member's units of it. */
void fr_sequence_project(const fr_sequence *sequence, const fr_team *team, int64_t rows, const void *x, int64_t x_stride);

/* One step of the team: state and, through `out`, the caller's output. pre or x as in fr_step.
 * False if the call shall stop. */
bool fr_sequence_step(const fr_sequence *sequence, const fr_team *team, int64_t step, int64_t rows, const void *x,
                      int64_t x_stride, void *pre);

/* What the batch wants past the rows' ends, in this cell's part of the output; each member of the team sees to some
 * of the rows. */
void fr_sequence_fill(const fr_sequence *sequence, const fr_team *team);

/* The rows' state from the boundary's part `index`, and back to it; each member of the team sees to some of the
 * rows. After a load the team must wait. poll: NULL where nobody is to be asked. */
void fr_state_load(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_rows *rows,
                   const fastrnn_boundary *boundary, int64_t index, fr_state *state, fr_poll *poll);
void fr_state_store(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_rows *rows,
                    const fastrnn_boundary *boundary, int64_t index, const fr_state *state, fr_poll *poll);

#endif
