/* Where the vectors of a batch's rows are in memory. */
#ifndef FR_VIEW_H
#define FR_VIEW_H

#include "common.h"

/* Strides in elements. */
typedef struct fr_view {
    void *base;
    void *const *rows;           /* (B) or NULL, as in fastrnn_view */
    const int64_t *step_offsets; /* (T) for packed vectors, which are in run order; NULL: the offset of step t is t */
    int64_t row_stride, step_stride;
    bool in_run_order; /* row r of the run has index r, not row_indices[r] */
} fr_view;

/* Fills step_offsets (num_steps) of packed vectors. */
static inline void fr_count_offsets(const int64_t *batch_sizes, int64_t num_steps, int64_t *step_offsets)
{
    for (int64_t step = 0, offset = 0; step < num_steps; offset += batch_sizes[step++])
        step_offsets[step] = offset;
}

/* A view of packed vectors: those of step 0 in run order, then those of step 1, and so on. step_offsets: the number of vectors
 * before those of step t, or NULL if every step has all num_rows rows. */
static inline fr_view fr_packed_view(void *base, int64_t row_stride, const int64_t *step_offsets, int64_t num_rows)
{
    return (fr_view){.base = base, .step_offsets = step_offsets, .row_stride = row_stride, .in_run_order = true,
                     .step_stride = step_offsets ? row_stride : row_stride * num_rows};
}

/* A view as the caller described it, of vectors that are not packed. */
static inline fr_view fr_callers_view(const fastrnn_view *view)
{
    return (fr_view){.base = view->base, .rows = view->rows, .row_stride = view->row_stride, .step_stride = view->step_stride};
}

/* The vector of row `row` of the run at a step. row_indices: the batch's, or NULL. */
static inline char *fr_vector_at(const fr_view *view, const int64_t *row_indices, int64_t row, int64_t step, size_t element_size)
{
    if (row_indices && !view->in_run_order)
        row = row_indices[row];
    char *start = view->rows ? view->rows[row] : fr_at(view->base, row * view->row_stride, element_size);
    return fr_at(start, (view->step_offsets ? view->step_offsets[step] : step) * view->step_stride, element_size);
}

#endif
