/* The decisions that are made once for a batch: whether it is valid, how it is divided among threads, and the layout of its
 * workspace. A run follows the plan. */
#ifndef FR_PLAN_H
#define FR_PLAN_H

#include "layer.h"
#include "sequence.h"

/* How a call is divided: slices of rows, which are independent of each other, and teams that share a slice. */
typedef struct fr_partition {
    int workers;
    int num_teams;         /* that run at the same time; worker w is in team w % num_teams */
    int64_t num_slices;    /* each slice is run by one team, from its first step to its last */
    bool directions_apart; /* two teams share one slice: each runs one direction */
} fr_partition;

/* Offsets of the pieces of a workspace, in bytes from its aligned start. */
typedef struct fr_layout {
    bool has_step_offsets; /* else packed data has the same number of rows at every step */
    size_t step_offsets;   /* (T) int64: the number of vectors before those of step t in packed data */
    size_t between[2];   /* (total_steps, D*P): what one layer passes to the next */
    size_t states;       /* of team 0; the other teams' states follow */
    size_t buffers;      /* of worker 0; the other workers' buffers follow */
    size_t state_bytes, buffers_bytes;
    size_t size;
    int64_t state_rows, capacity;
} fr_layout;

/* May alias: it is kept in the integers of a fastrnn_plan. */
typedef struct __attribute__((may_alias)) fr_plan {
    const fastrnn_layer *layer;
    const fastrnn_batch *batch;
    bool packed_x;              /* x is packed; y is if batch->packed */
    const int64_t *row_indices; /* the batch's; NULL if row r of the run is row r of the arrays */
    int64_t total_steps;        /* the sum of lengths */
    double macs;                /* multiply-adds of the call */
    fr_partition alone, shared; /* on the caller's thread; with the batch's thread pool */
    fr_layout alone_layout, shared_layout;
} fr_plan;

/* Checks a batch's sizes, lengths and order of rows. Sets *total_steps, and *row_indices to those of fr_plan. */
fastrnn_status fr_batch_check(const fastrnn_batch *batch, int64_t *total_steps, const int64_t **row_indices);

/* Makes a plan of a batch that was checked. FASTRNN_ERROR_SIZE if it is too large. */
fastrnn_status fr_plan_make(const fastrnn_layer *layer, const fastrnn_batch *batch, int64_t total_steps,
                            const int64_t *row_indices, bool packed_x, fr_plan *plan);

/* The bytes of a workspace, of any alignment, for a run. */
size_t fr_plan_workspace_size(const fr_plan *plan);

/* The number of workers, at most those of the pool, among which it pays to divide a call of so many multiply-adds. */
int fr_plan_workers(const fastrnn_pool *pool, double macs);

/* Divides the call among at most `workers` workers. `threshold` scales the amount of work that each must get. */
fr_partition fr_partition_make(const fr_plan *plan, int workers, double threshold);

/* Keep `workers` of the partition's workers, at least two. The layout stays valid: fewer workers need no more memory. */
void fr_partition_keep(fr_partition *partition, int workers);

void fr_partition_slice(const fr_partition *partition, const fr_plan *plan, int64_t slice, fr_rows *rows);

/* Upper bounds of any slice: its number of rows, and the sum of its rows' lengths. */
void fr_partition_bounds(const fr_partition *partition, const fr_plan *plan, int64_t *num_rows, int64_t *num_steps);

/* The index of a worker's team, and the team as this worker sees it. */
void fr_partition_team(const fr_partition *partition, int worker, int *index, fr_team *team);

/* The pieces of a layout that start at `memory`, which is aligned to FR_ALIGNMENT. */
void fr_layout_state(const fr_layout *layout, const fastrnn_layer *layer, char *memory, int team, fr_state *state);
void fr_layout_buffers(const fr_layout *layout, const fastrnn_layer *layer, char *memory, int worker, fr_buffers *buffers);

#endif
