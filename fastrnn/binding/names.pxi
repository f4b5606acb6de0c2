# The names of kinds, weight dtypes, activations and values of past_end, and their numbers in fastrnn.h.

PAST_ENDS = {"zero": FASTRNN_PAST_END_ZERO, "carry": FASTRNN_PAST_END_CARRY}
KINDS = {"lstm": FASTRNN_LSTM, "gru": FASTRNN_GRU, "rnn": FASTRNN_RNN}
WEIGHT_DTYPES = {"float32": FASTRNN_WEIGHTS_FLOAT32, "float16": FASTRNN_WEIGHTS_FLOAT16, "int8": FASTRNN_WEIGHTS_INT8}
NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}

def _activations():
    """name -> (number, default alpha, default beta), None for defaults that do not exist."""
    cdef fastrnn_activation activation
    cdef int has_defaults
    cdef const char *name = fastrnn_activation_info(0, &activation, &has_defaults)
    found = {}
    while name != NULL:
        defaults = (activation.alpha, activation.beta) if has_defaults else (None, None)
        found[name.decode()] = (<int>activation.name, *defaults)
        name = fastrnn_activation_info(len(found), &activation, &has_defaults)
    return found


ACTIVATIONS = {name: number for name, (number, _, _) in _activations().items()}
ACTIVATION_NAMES = {number: name for name, number in ACTIVATIONS.items()}
ACTIVATION_DEFAULTS = {name: (alpha, beta) for name, (_, alpha, beta) in _activations().items()}
