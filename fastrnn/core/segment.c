#include "segment.h"

fr_position fr_segment_position(const fr_segment *segment, int64_t index)
{
    if (!segment->step_offsets)
        return (fr_position){index % segment->num_rows, index / segment->num_rows};
    int64_t step = 0, end = segment->num_steps; /* the step is in [step, end) */
    while (end - step > 1) {
        const int64_t middle = step + (end - step) / 2;
        if (segment->step_offsets[middle] <= index)
            step = middle;
        else
            end = middle;
    }
    return (fr_position){index - segment->step_offsets[step], step};
}

void fr_count_rows(const int64_t *lengths, int64_t num_rows, int64_t num_steps, int64_t *batch_sizes)
{
    int64_t row = num_rows;
    for (int64_t step = 0; step < num_steps; step++) {
        while (row > 0 && lengths[row - 1] <= step)
            row--;
        batch_sizes[step] = row;
    }
}
