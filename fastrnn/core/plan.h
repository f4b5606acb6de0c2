/* How a call is cut: slices of rows, which need nothing of each other, and teams that share a slice. */
#ifndef FR_PLAN_H
#define FR_PLAN_H

#include "model.h"
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
fr_plan fr_plan_of(const fastrnn_model *model, const fastrnn_batch *batch, int64_t total_steps, int workers, double threshold,
                   bool together);

/* The same plan with fewer workers, at least two: its workspace is at most as large. */
fr_plan fr_plan_with(fr_plan plan, int workers);

fr_rows fr_plan_slice(const fr_plan *plan, const fastrnn_batch *batch, int64_t slice);

/* The most rows and steps of rows that a slice has. */
void fr_plan_slice_bounds(const fr_plan *plan, const fastrnn_batch *batch, int64_t total_steps, int64_t *num_rows,
                          int64_t *num_steps);

fr_team fr_plan_team(const fr_plan *plan, int worker, int *index);

/* Multiply-adds of the whole call. */
double fr_plan_macs(const fastrnn_model *model, int64_t total_steps);

#endif
