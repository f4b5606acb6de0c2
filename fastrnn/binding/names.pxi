# The names of kinds, activations and fills, and their numbers in fastrnn.h.

PAST_ENDS = {"zero": FASTRNN_PAST_END_ZERO, "carry": FASTRNN_PAST_END_CARRY}
KINDS = {"lstm": FASTRNN_LSTM, "gru": FASTRNN_GRU, "rnn": FASTRNN_RNN}
NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
ACTIVATIONS = {
    "sigmoid": FASTRNN_SIGMOID, "tanh": FASTRNN_TANH, "relu": FASTRNN_RELU, "linear": FASTRNN_LINEAR,
    "hard_sigmoid": FASTRNN_HARD_SIGMOID, "leaky_relu": FASTRNN_LEAKY_RELU, "elu": FASTRNN_ELU,
    "softsign": FASTRNN_SOFTSIGN, "softplus": FASTRNN_SOFTPLUS, "affine": FASTRNN_AFFINE,
    "scaled_tanh": FASTRNN_SCALED_TANH, "thresholded_relu": FASTRNN_THRESHOLDED_RELU,
}

ACTIVATION_NAMES = {number: name for name, number in ACTIVATIONS.items()}
