#include "unrolled.h"

void fr_unrolled_lay_out(fr_node *nodes, int64_t num_cells, int64_t num_steps)
{
    for (int64_t cell = 0; cell < num_cells; cell++)
        for (int64_t step = 0; step < num_steps; step++)
            *nodes++ = (fr_node){.cell = cell, .step = step, .opens = step == 0, .closes = step == num_steps - 1};
}

bool fr_unrolled_step(const fr_node *node, const fr_sequence *sequence, const fr_team *team, fr_unrolled_block *block)
{
    const int64_t rows = sequence->rows.count, num_steps = fr_num_steps(&sequence->rows);
    const int64_t ahead = rows ? fr_max(1, sequence->buffers.capacity / rows) : 1; /* steps a block */
    const size_t e = sequence->backend->kernels->real_size;
    const fr_cell *cell = sequence->cell;
    if (node->step % ahead == 0) {
        const int64_t last = fr_min(node->step + ahead, num_steps), steps = last - node->step;
        block->first = node->step;
        block->x = fr_sequence_input(sequence, node->step, last, &block->stride);
        block->pre = NULL;
        if (fr_projects_ahead(cell, rows * steps, steps)) {
            block->pre = sequence->buffers.pre;
            fr_sequence_project(sequence, team, rows * steps, block->x, block->stride);
        }
    }
    const int64_t done = (node->step - block->first) * rows;
    return fr_sequence_step(sequence, team, node->step, rows, fr_at(block->x, done * block->stride, e), block->stride,
                            block->pre ? fr_at(block->pre, done * cell->gates.row, e) : NULL);
}
