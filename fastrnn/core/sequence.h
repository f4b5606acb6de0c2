/* What the two time loops share: one cell over some rows of a batch, its buffers, and the ways in and out. */
#ifndef FR_SEQUENCE_H
#define FR_SEQUENCE_H

#include "cell.h"

/* Rows first, first + stride, ... of a batch in run order: what one team runs. Where lengths differ, the stride is the number
 * of slices, so that every slice has its part of the long rows and is itself in run order. */
typedef struct fr_rows {
    const fastrnn_batch *batch;
    const int64_t *indices; /* the batch's row_indices; NULL if row r of the run is row r of the arrays */
    int64_t first, stride, count;
} fr_rows;

/* Where vectors of a sequence stand, strides in elements. */
typedef struct fr_view {
    void *base;
    void *const *rows;           /* (B) or NULL, as in fastrnn_view */
    const int64_t *step_offsets; /* (T) for packed vectors, which stand in run order; NULL: step t is at t */
    int64_t row_stride, step_stride;
    bool in_run_order; /* row r of the run is at r, not at row_indices[r] */
} fr_view;

static inline int64_t fr_row_of_batch(const fr_rows *rows, int64_t row) { return rows->first + row * rows->stride; }
static inline int64_t fr_row_of_arrays(const fr_rows *rows, int64_t row)
{
    row = fr_row_of_batch(rows, row);
    return rows->indices ? rows->indices[row] : row;
}
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

/* Step s reads h[(parity + s) & 1] and writes the other buffer. */
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

/* State that the members of a team share. The first member writes a decision before a barrier; it is valid after it. */
typedef struct fr_team_sync {
    fr_barrier barrier;
    atomic_llong last_step; /* the team stops after this number of steps */
    atomic_llong block;     /* the block of steps that may begin, times 2, plus 1 if the first member runs it alone */
} fr_team_sync;

/* Contention monitor: what sharing a call costs one thread, in seconds. */
typedef struct fr_monitor {
    double begin, begin_on_processor; /* the latter is 0 for a short call */
    double waited;                    /* for the other members */
    double checked;
} fr_monitor;
fr_monitor fr_monitor_start(double macs);

/* Seconds during which the thread was not scheduled since the start; 0 for a short call. */
double fr_monitor_unscheduled(const fr_monitor *monitor);

/* Call this from time to time: it tells the pool if other processes use the processors. `others`: seconds during which another
 * worker was not scheduled. */
void fr_monitor_check(fr_monitor *monitor, fastrnn_pool *pool, double others);

/* Whether the call continues, decided after every step. The caller's thread calls `interrupted` from time to time. */
typedef struct fr_poll {
    const fastrnn_batch *batch;
    bool asks;               /* this worker is the caller's thread */
    unsigned long long mode; /* the caller's floating-point mode, in which the callback runs */
    double work;             /* since the clock was read: multiply-adds, or what takes as long */
    double due;              /* seconds; 0: not yet set */
    fr_monitor *monitor;     /* of the caller's thread in a shared call, else NULL */
    int64_t steps, blocks;   /* that this worker's team has done */
    fr_team_sync *sync;      /* the team's; NULL if it has but one member */
    atomic_int *status;      /* the call's: FASTRNN_OK, or why it shall stop */
} fr_poll;

/* Call this after `work` (unit: as in fr_poll). Calls `interrupted` if it is due; true if the call must stop. The other members
 * of a team learn this in fr_poll_settle only: before that, a member may skip its own work, but not a barrier. */
bool fr_poll_stops(fr_poll *poll, double work);

/* A barrier at which the first member of a team decides for all members; false if the call must stop. */
bool fr_poll_settle(fr_poll *poll, const fr_team *team, double work);

/* After a barrier of a team of several members: whether its first member decided to continue. */
bool fr_poll_goes_on(const fr_poll *poll);

typedef struct fr_sequence {
    const fr_cell *cell;
    const fr_backend *backend;
    fr_rows rows;
    fr_view in, out;
    int64_t out_offset; /* elements into each output vector: the reverse direction writes the right half */
    bool reverse;       /* each row from its own last step */
    fr_state state;     /* the team's */
    fr_buffers buffers; /* this worker's */
    fr_poll *poll;
} fr_sequence;

/* Before a block of steps: true if this worker runs it, with *team. While others keep the processors busy, the
 * first member of a team runs the block alone; the rest skip it, and its steps count as done. */
bool fr_block_begins(fr_poll *poll, fr_team *team);
/* After a block that it skipped: false if the call is known to stop. */
bool fr_block_skipped(fr_poll *poll, int64_t num_steps);

/* Consecutive steps whose inputs stand one after the other, or are projected ahead of the steps. */
typedef struct fr_block {
    char *x;          /* of the next step, which fr_block_step moves on */
    int64_t x_stride; /* elements */
    char *pre;        /* W x of the next step; NULL: the step itself multiplies with W */
} fr_block;

/* Steps [first, last) with `rows` rows in all. The inputs are read in place where they stand so, else copied. */
fr_block fr_block_open(const fr_sequence *sequence, const fr_team *team, int64_t first, int64_t last, int64_t rows);

/* The team's next step of a block: computes state and writes the caller's output. False if the call must stop. */
bool fr_block_step(const fr_sequence *sequence, const fr_team *team, int64_t step, int64_t rows, fr_block *block);

/* What the batch wants past the rows' ends, in this cell's part of the output; each member of the team sees to some
 * of the rows. */
void fr_sequence_fill(const fr_sequence *sequence, const fr_team *team);

/* The rows' state from part `index` (one layer in one direction) of the batch's h0 and c0, and back to that of hn and cn; each
 * member of the team does some of the rows. After a load the team must wait. */
void fr_state_load(fr_sequence *sequence, const fr_team *team, int64_t index);
void fr_state_store(const fr_sequence *sequence, const fr_team *team, int64_t index);

/* One vector of `width` elements from `from`, or of zeros for NULL, into a row of `stride` elements. The units that pad the row
 * are computed along with the others and never read; they begin as zero. */
void fr_load_row(void *to, const void *from, int64_t width, int64_t stride, size_t element_size);

#endif
