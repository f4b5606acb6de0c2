/* How a call is cut: slices of rows, which need nothing of each other, and teams that share a slice. */
#ifndef FR_PLAN_H
#define FR_PLAN_H

#include "layer.h"
#include "sequence.h"

typedef struct fr_plan {
    int workers;
    int num_teams;         /* that run at once; worker w is in team w % num_teams */
    int64_t num_slices;    /* each is run whole by one team */
    bool directions_apart; /* two teams on one slice: each runs a direction */
} fr_plan;

/* Sets the sum of lengths, and refuses what is no batch: lengths must describe what batch_sizes says, or a run
 * would leave its buffers. */
fastrnn_status fr_batch_check(const fastrnn_batch *batch, int64_t *total_steps);

/* The plan for as many of `workers` as pay, or with a lower threshold, for more. `together`: all work on one
 * direction at a time. */
void fr_plan_make(const fastrnn_layer *layer, const fastrnn_batch *batch, int64_t total_steps, int workers, double threshold,
                  bool together, fr_plan *plan);

/* Go on with so many of the plan's workers, at least two: the workspace is at most as large. */
void fr_plan_keep(fr_plan *plan, int workers);

void fr_plan_slice(const fr_plan *plan, const fastrnn_batch *batch, int64_t slice, fr_rows *rows);

/* The most rows and steps of rows that a slice has. */
void fr_plan_slice_bounds(const fr_plan *plan, const fastrnn_batch *batch, int64_t total_steps, int64_t *num_rows,
                          int64_t *num_steps);

/* The team that a worker is in, and its place there. */
void fr_plan_team(const fr_plan *plan, int worker, int *index, fr_team *team);

/* Multiply-adds of the whole call. */
double fr_plan_macs(const fastrnn_layer *layer, int64_t total_steps);

#endif
