/* Each row's steps in reverse order. */
#include "op.h"

static void read(const fr_op *op, const fr_source *source, const fr_segment *output, int64_t first, const fr_op_block *to,
                 fr_poll *poll)
{
    fr_read_steps(source, output, first, to, op->output_size, true, poll);
}

const fr_op_type fr_op_reverse = {.read = read, .element_work = FR_COPY_WORK};
