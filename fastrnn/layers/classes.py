"""The public layers, one class for each kind of cell."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..states import State
from .layer import Layer


class LSTM(Layer[State]):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), shapes and meaning as ``torch.nn.LSTM``.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> weights = {"weight_ih_l0": np.eye(4, 2, dtype="f4"), "weight_hh_l0": np.eye(4, 1, dtype="f4")}
    >>> y, (h, c) = fastrnn.LSTM.from_state_dict(weights)(np.ones((3, 7, 2), np.float32))
    >>> y.shape
    (3, 7, 1)
    """

    kind = "lstm"


class GRU(Layer[NDArray[Any]]):
    """Gated recurrent unit (Cho et al. 2014), shapes and meaning as ``torch.nn.GRU``: reset after the matmul."""

    kind = "gru"


class RNN(Layer[NDArray[Any]]):
    """Elman's network (1990), shapes and meaning as ``torch.nn.RNN``.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> weights = {"weight_ih_l0": -np.eye(2, dtype="f4"), "weight_hh_l0": np.eye(2, dtype="f4")}
    >>> y, h = fastrnn.RNN.from_state_dict(weights, nonlinearity="relu")(np.ones((1, 3, 2), np.float32))
    >>> float(y.max())
    0.0
    """

    kind = "rnn"


#: The layers by the kind of their cells.
LAYERS: dict[str, type[Layer]] = {layer.kind: layer for layer in (LSTM, GRU, RNN)}
