/* The time loop of fixed length, kept for comparison: every step of every layer is a node that was
 * laid out when the plan was made. Every row runs every step. */
#ifndef FR_UNROLLED_H
#define FR_UNROLLED_H

#include "sequence.h"

typedef struct fr_node {
    int64_t cell; /* index in the layer's layers x directions */
    int64_t step;
    bool opens;  /* the cell's first step: its initial state is loaded */
    bool closes; /* its last: the final state is stored */
} fr_node;

void fr_unrolled_lay_out(fr_node *nodes, int64_t num_cells, int64_t num_steps);

/* Run one node; `sequence` is its cell's. x and pre of a block carry over from the node that opened it.
 * False if the call shall stop. */
typedef struct fr_unrolled_block {
    const void *x;
    int64_t stride, first;
    char *pre;
} fr_unrolled_block;
bool fr_unrolled_step(const fr_node *node, const fr_sequence *sequence, const fr_team *team, fr_unrolled_block *block);

#endif
