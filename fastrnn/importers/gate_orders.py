"""The order in which each framework's weights have the gates of a cell, and the change from one order to another.

Gates are named as in PyTorch: i, f, g, o of an LSTM and r, z, n of a GRU. Other frameworks have other names for some of
them: c and j are g, u is z, and the candidate n of a GRU is also h or c.

``tensorflow`` is TensorFlow 1's ``rnn_cell``; ``flax`` is linen and nnx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: framework -> kind of cell -> its gates in the framework's order.
GATE_ORDERS: dict[str, dict[str, str]] = {
    "pytorch": {"lstm": "ifgo", "gru": "rzn", "rnn": "n"},
    "keras": {"lstm": "ifgo", "gru": "zrn", "rnn": "n"},  # i f c o; z r h
    "tensorflow": {"lstm": "igfo", "gru": "rzn", "rnn": "n"},  # i j f o; r u, and c in its own variables
    "onnx": {"lstm": "iofg", "gru": "zrn", "rnn": "n"},  # i o f c; z r h
    "flax": {"lstm": "ifgo", "gru": "rzn", "rnn": "n"},  # linen has an array for each gate, such as "ii" and "hi"
    "ncnn": {"lstm": "ifog", "gru": "rzn", "rnn": "n"},  # I F O G; R U N
}


def reorder_gates(
    array: NDArray[Any], kind: str, *, source: str = "pytorch", target: str = "pytorch", axis: int = 0
) -> NDArray[Any]:
    """Copy an array with its gates in another framework's order.

    Parameters
    ----------
    array : ndarray
        Its `axis` has length G*H: H rows or columns for each of the cell's G gates.
    kind : "lstm", "gru" or "rnn"
    source, target : str
        The frameworks whose orders the array and the result have, keys of ``GATE_ORDERS``.
    axis : int

    Examples
    --------
    >>> kernel = np.array([[1, 1, 2, 2, 3, 3, 4, 4]])  # i j f o, two units
    >>> reorder_gates(kernel, "lstm", source="tensorflow", axis=1)
    array([[1, 1, 3, 3, 2, 2, 4, 4]])
    """
    before, after = GATE_ORDERS[source][kind], GATE_ORDERS[target][kind]
    blocks = np.split(array, len(before), axis)
    return np.concatenate([blocks[before.index(gate)] for gate in after], axis)
