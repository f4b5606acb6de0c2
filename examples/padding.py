"""Four treatments of padding: the outputs of a GRU for a padded batch, and why frameworks differ.

    python examples/padding.py

Two sentences of word numbers: 1 2 1 padded at the end, and 1 2 1 padded at both ends. Word 0 is padding. Every word is
a vector of two equal numbers, for padding 0.37. The GRU has one unit, linear activations, a kernel and a bias of ones,
and a recurrent kernel of zeros, so each step can be computed by hand, where s is the sum of the vector:

    z = s + 1                       n = s + 1
    h = z h_before + (1 - z) n      word 1: 3 h - 6, word 2: 5 h - 20, padding: 1.74 h - 1.2876
"""

import numpy as np

import fastrnn
from fastrnn import nn

EMBEDDING = np.array([[0.37, 0.37], [1, 1], [2, 2]], np.float32)
IDS = np.array([[1, 2, 1, 0, 0], [0, 1, 2, 1, 0]])
LENGTHS = [3, 4]
#: Kernel, recurrent kernel and bias as Keras has them: gates z, r, h.
WEIGHTS = [np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32), np.ones(3, np.float32)]


class LinearGRUCell(nn.rnn_cell.RNNCell):
    """The same GRU as a custom cell, because the gates of TensorFlow 1's GRUCell are always sigmoids."""

    state_size = output_size = 1

    def call(self, inputs, state):
        kernel, recurrent_kernel, bias = WEIGHTS
        z, r, n = np.split(inputs @ kernel + bias, 3, axis=1)
        to_z, to_r, to_n = np.split(recurrent_kernel, 3, axis=1)
        z, r = z + state @ to_z, r + state @ to_r
        n = n + (r * state) @ to_n
        h = z * state + (1 - z) * n
        return h, h


def gru(**options):
    """The layer with Keras's arguments; with reset_after, the default of Keras 3, it would have a second bias."""
    return fastrnn.keras.GRU(
        1,
        activation=None,
        recurrent_activation=None,
        reset_after=False,
        return_sequences=True,
        weights=WEIGHTS,
        **options,
    )


def results():
    """(title, explanation, y (2, 5)) of the four treatments."""
    x = EMBEDDING[IDS]
    masking = fastrnn.keras.Masking(mask_value=0.37)
    mask = masking.compute_mask(x)
    ways = [
        (
            "without a mask",
            "padding is a word like any other: it changes the state, before the sentence and after it",
            gru()(x),
        ),
        (
            "with the mask, carried (Keras)",
            "a masked step leaves the state unchanged and repeats the output before it, or zero if there is none",
            gru()(x, mask=mask),
        ),
        (
            "with the mask, zero_output_for_mask=True (Keras)",
            "the same state, but the output of a masked step is zero",
            gru(zero_output_for_mask=True)(x, mask=mask),
        ),
        (
            f"with lengths {LENGTHS} on masked input (TensorFlow 1's dynamic_rnn)",
            "zero past a row's end; lengths cannot say that row 2 starts with padding, whose output is zero only\n"
            "  because Masking made its input zero: 1 h + 0",
            nn.dynamic_rnn(LinearGRUCell(), masking(x), sequence_length=LENGTHS, dtype=np.float32)[0],
        ),
    ]
    return [(what, why, y[..., 0]) for what, why, y in ways]


def main():
    for what, why, rows in results():
        print(f"{what}\n  {why}")
        for ids, row in zip(IDS, rows, strict=True):
            print(f"  {' '.join(map(str, ids))}  ->  {'  '.join(f'{value:.8g}' for value in row)}")
        print()


if __name__ == "__main__":
    main()
