/* The data of one cell's run over some rows of a batch: inputs, outputs and states. Both time loops use it. */
#ifndef FR_SEQUENCE_H
#define FR_SEQUENCE_H

#include "cell.h"
#include "parallel/team_sync.h"
#include "view.h"

/* The rows that one team runs: first, first + stride, ... of a batch in run order. A stride above 1 gives every team some of
 * the long rows, and keeps its rows in run order. */
typedef struct fr_rows {
    const fastrnn_batch *batch;
    const int64_t *indices; /* the batch's row_indices; NULL if row r of the run is row r of the arrays */
    int64_t first, stride, count;
} fr_rows;

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

/* The slot of one of a batch's rows. */
static inline int64_t fr_slot(const fr_rows *rows, int64_t row)
{
    row = fr_row_of_arrays(rows, row);
    return rows->batch->slots ? rows->batch->slots[row] : row;
}

/* The states of one cell in a store. A slot's state is in the buffers of its parity; a run writes the new one to the others, and
 * the parity changes when the call has succeeded, so that one that is interrupted changes no state. */
typedef struct fr_slots {
    const unsigned char *parities; /* (capacity); NULL: no store */
    void *h[2], *c[2];             /* (capacity, cell->h_stride); (capacity, cell->c_stride), of an LSTM */
} fr_slots;

/* Where the vectors of the rows are. Step s writes h[s & 1] and c, which step s + 1 reads; step 0 reads first_h and first_c. With
 * a store, if fr_cell_takes_addresses, step 0 reads the slot, and the last step of each row writes it; other cells' states are
 * copied. */
typedef struct fr_state {
    void **first_h, **first_c, **h[2], **c; /* (rows) addresses */
    void **hidden;                          /* (rows) addresses of scratch memory, if fr_cell_needs_hidden */
    void *own_h[2], *own_c, *own_hidden;    /* (rows, cell->h_stride), and (rows, cell->c_stride), in the workspace */
} fr_state;

/* One worker's scratch memory. Each row of x or pre is for one step of one row of the batch. */
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
    fr_view in, out;
    int64_t out_offset; /* elements into each output vector: the reverse direction writes the right half */
    bool reverse;       /* each row starts at its own last step */
    fr_state state;     /* the team's */
    fr_slots slots;     /* of the batch's store */
    fr_buffers buffers; /* this worker's */
    fr_poll *poll;
} fr_sequence;

/* The inputs of consecutive steps, as rows one after the other. */
typedef struct fr_block {
    char *x;          /* of the next step; fr_block_step advances it */
    int64_t x_stride; /* elements */
    char *pre;        /* bias + W x of the next step; NULL: the step multiplies with W itself */
} fr_block;

/* Steps [first, last) with `rows` rows in all. The inputs are read in place if they are stored as rows one after the other, else
 * copied. */
fr_block fr_block_open(const fr_sequence *sequence, const fr_team *team, int64_t first, int64_t last, int64_t rows);

/* Runs the next step of a block: computes the state and writes the outputs. Returns false if the call must stop. */
bool fr_block_step(const fr_sequence *sequence, const fr_team *team, int64_t step, int64_t rows, fr_block *block);

/* Fills this cell's part of the output after the ends of the rows as the batch's past_end says. Each member of the team fills
 * some of the rows. */
void fr_sequence_fill(const fr_sequence *sequence, const fr_team *team);

/* Set the addresses of the rows' vectors, and copy their state from part `index` (one layer in one direction) of the batch's h0
 * and c0, or to that of hn and cn, or from and to the slots. Each member of the team does so for some of the rows, so the team must
 * wait after a load. */
void fr_state_load(fr_sequence *sequence, const fr_team *team, int64_t index);
void fr_state_save(const fr_sequence *sequence, const fr_team *team, int64_t index);

/* Copies a vector of `width` elements, or zeros for NULL, and pads it with zeros to `stride` elements: kernels compute the units
 * of the padding, too, and their state must not start as uninitialized memory. */
void fr_load_row(void *to, const void *from, int64_t width, int64_t stride, size_t element_size);

#endif
