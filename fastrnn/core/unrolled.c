#include "unrolled.h"

#include "allocator.h"
#include "error.h"

fastrnn_status fastrnn_unrolled_create(const fastrnn_layer *layer, int64_t num_steps, fastrnn_unrolled **unrolled)
{
    if (!layer || !unrolled)
        return fr_fail_null(layer ? "unrolled" : "layer");
    if (!fr_in_range(num_steps, 0, FR_MOST_ROWS))
        return fr_fail_index("num_steps", num_steps, FR_MOST_ROWS + 1);
    size_t bytes = sizeof(fastrnn_unrolled);
    if (!fr_add_bytes(&bytes, (size_t)num_steps, (size_t)layer->num_cells * sizeof(fr_node)))
        return fr_fail_size("the list of steps");
    fastrnn_unrolled *made = fr_allocate(bytes);
    if (!made)
        return fr_fail_memory();
    made->layer = layer;
    made->num_steps = num_steps;
    fr_node *node = made->nodes;
    for (int64_t cell = 0; cell < layer->num_cells; cell++)
        for (int64_t step = 0; step < num_steps; step++)
            *node++ = (fr_node){.cell = cell, .step = step, .opens = step == 0, .closes = step == num_steps - 1};
    *unrolled = made;
    return FASTRNN_OK;
}

void fastrnn_unrolled_destroy(fastrnn_unrolled *unrolled) { fr_free(unrolled); }

bool fr_unrolled_step(const fr_node *node, const fr_sequence *sequence, const fr_team *team, fr_block *block)
{
    const int64_t rows = sequence->rows.count, num_steps = fr_num_steps(&sequence->rows);
    const int64_t block_steps = rows ? fr_max(1, sequence->buffers.capacity / rows) : 1;
    if (node->step % block_steps == 0) {
        const int64_t last = fr_min(node->step + block_steps, num_steps);
        *block = fr_block_open(sequence, team, node->step, last, rows * (last - node->step));
    }
    return fr_block_step(sequence, team, node->step, rows, block);
}
