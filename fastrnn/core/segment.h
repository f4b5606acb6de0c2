/* The lengths of a batch's rows at one point of a model, and the order of their vectors when packed: those of step 0 in run
 * order, then those of step 1, and so on. Convolutions and pooling change lengths, but no length becomes larger than that of a
 * row before. */
#ifndef FR_SEGMENT_H
#define FR_SEGMENT_H

#include "view.h"

typedef struct fr_segment {
    int64_t num_rows, num_steps; /* B; T, the longest length */
    int64_t total_steps;         /* the sum of lengths */
    const int64_t *lengths;      /* (B), or NULL: every row has num_steps */
    const int64_t *batch_sizes;  /* (T): the rows that run at each step; NULL with lengths NULL */
    const int64_t *step_offsets; /* (T): the vectors before those of each step; NULL with lengths NULL */
} fr_segment;

static inline int64_t fr_segment_length(const fr_segment *segment, int64_t row)
{
    return segment->lengths ? segment->lengths[row] : segment->num_steps;
}

/* One of the vectors. */
typedef struct fr_position {
    int64_t row, step; /* row of the run */
} fr_position;

/* The index-th of the packed vectors, and the one after a vector. */
fr_position fr_segment_position(const fr_segment *segment, int64_t index);
static inline fr_position fr_segment_next(const fr_segment *segment, fr_position at)
{
    const int64_t rows = segment->batch_sizes ? segment->batch_sizes[at.step] : segment->num_rows;
    return at.row + 1 < rows ? (fr_position){at.row + 1, at.step} : (fr_position){0, at.step + 1};
}

/* The view of packed vectors at `base`; row_stride in elements. */
static inline fr_view fr_segment_view(const fr_segment *segment, void *base, int64_t row_stride)
{
    return fr_packed_view(base, row_stride, segment->step_offsets, segment->num_rows);
}

/* Fills batch_sizes (num_steps) from lengths (num_rows) that never increase. */
void fr_count_rows(const int64_t *lengths, int64_t num_rows, int64_t num_steps, int64_t *batch_sizes);

#endif
