/* The time loop of fixed length, kept for comparison. A list of nodes, made before the run, has one for every step of every
 * cell. Every row runs every step. */
#ifndef FR_UNROLLED_H
#define FR_UNROLLED_H

#include "layer.h"
#include "sequence.h"

typedef struct fr_node {
    int64_t cell; /* index among layers x directions */
    int64_t step;
    bool opens;  /* the cell's first step: its initial state is loaded */
    bool closes; /* its last: the final state is stored */
} fr_node;

struct fastrnn_unrolled {
    const fastrnn_layer *layer;
    int64_t num_steps;
    fr_node nodes[]; /* num_cells * num_steps */
};

/* Runs one node; `sequence` is its cell's, and `block` that of the node before. False if the call must stop. */
bool fr_unrolled_step(const fr_node *node, const fr_sequence *sequence, const fr_team *team, fr_block *block);

#endif
