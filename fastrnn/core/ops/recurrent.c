/* Recurrent layers, which the executor runs as the plan of a layer. */
#include "op.h"

static bool is_valid(const fastrnn_op *given) { return given->config && given->cells; }

const fr_op_type fr_op_recurrent = {.is_valid = is_valid};
