"""The trained classifier (an LSTM of 32 units and a dense layer) on each path of fastrnn and of TensorFlow.

A builder takes the weights and whether images are ragged, and returns a function from x (B, 28, 28) float32 and the
number of rows that count (B,) int64 to logits (B, 10). With ragged images the dense layer reads each image's last row
that counts; otherwise all rows count and the numbers are ignored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..importers.pytorch import spec_from_state_dict
from ..importers.tensorflow import variables_from_cell
from ..layers import LSTM
from ..runtime import get_num_threads
from ..spec import WeightDtype
from ..tensorflow_graph import import_tensorflow, open_session
from .images import COLUMNS, ROWS

Floats = NDArray[np.float32]
Engine = Callable[[Floats, NDArray[np.int64]], Floats]


class Weights(NamedTuple):
    """The weights from ``bench/train_mnist.py``, and their accuracy on the test images after training.

    ``lstm`` has PyTorch's names and shapes (H = 32 units, I = 28); dense_weight is (10, H), dense_bias (10,).
    """

    lstm: dict[str, Floats]
    dense_weight: Floats
    dense_bias: Floats
    accuracy_full: float
    accuracy_ragged: float


Builder = Callable[[Weights, bool], Engine]


def read_weights() -> Weights:
    """Read the weights in the package."""
    with (resources.files(__package__) / "weights.npz").open("rb") as file, np.load(file) as archive:
        arrays = dict(archive)
    return Weights(
        {name: array for name, array in arrays.items() if name.endswith("_l0")},
        arrays["dense_weight"],
        arrays["dense_bias"],
        float(arrays["accuracy_full"]),
        float(arrays["accuracy_ragged"]),
    )


def fastrnn_static(weights: Weights, ragged: bool) -> Engine:
    """The fixed-length path: every image runs all rows."""
    unrolled = LSTM.from_state_dict(weights.lstm).unroll(ROWS)

    def classify(x: Floats, lengths: NDArray[np.int64]) -> Floats:
        y, state = unrolled(x)
        return _dense(weights, _last_outputs(y, lengths) if ragged else state.h[0])

    return classify


def fastrnn_dynamic(weights: Weights, ragged: bool, weight_dtype: WeightDtype = "float32") -> Engine:
    """The packed path: images are sorted by length, and each runs only its own rows."""
    lstm = LSTM.from_state_dict(weights.lstm, weight_dtype=weight_dtype)

    def classify(x: Floats, lengths: NDArray[np.int64]) -> Floats:
        _, state = lstm(x, lengths=lengths if ragged else None)
        return _dense(weights, state.h[0])

    return classify


def tensorflow_static(weights: Weights, ragged: bool) -> Engine:
    """``static_rnn``: a graph of 28 cells."""

    def outputs(v1: Any, cell: Any, x: Any, lengths: Any) -> Any:
        steps = v1.unstack(x, axis=1)
        return v1.nn.static_rnn(cell, steps, dtype=v1.float32, sequence_length=lengths)

    return _tensorflow_engine(weights, ragged, outputs)


def tensorflow_dynamic(weights: Weights, ragged: bool) -> Engine:
    """``dynamic_rnn``: a while loop around one cell."""

    def outputs(v1: Any, cell: Any, x: Any, lengths: Any) -> Any:
        return v1.nn.dynamic_rnn(cell, x, dtype=v1.float32, sequence_length=lengths)

    return _tensorflow_engine(weights, ragged, outputs)


def installed_engines() -> dict[tuple[str, str], Builder]:
    """Return the builders of the installed libraries by (library, path); TensorFlow must already be imported."""
    engines: dict[tuple[str, str], Builder] = {
        ("fastrnn", "static"): fastrnn_static,
        ("fastrnn", "dynamic"): fastrnn_dynamic,
    }
    if tensorflow_version() is not None:
        engines["TensorFlow", "static"] = tensorflow_static
        engines["TensorFlow", "dynamic"] = tensorflow_dynamic
    return engines


def tensorflow_version() -> str | None:
    """Import TensorFlow and return its version, or None if it is not installed."""
    return None if find_spec("tensorflow") is None else str(import_tensorflow()[0].version.VERSION)


def _dense(weights: Weights, h: Floats) -> Floats:
    # BLAS is not used: its rounding depends on the batch
    logits: Floats = np.einsum("bh,oh->bo", h, weights.dense_weight) + weights.dense_bias
    return logits


def _last_outputs(y: Floats, lengths: NDArray[np.int64]) -> Floats:
    """y (B, T, H) at each row's last step, zeros for a row without steps."""
    last = y[np.arange(len(y)), np.maximum(lengths, 1) - 1]
    return np.where(lengths[:, None] > 0, last, np.float32(0))


def _tensorflow_engine(weights: Weights, ragged: bool, outputs: Callable[..., Any]) -> Engine:
    """A graph and a session as in TensorFlow 1: a call runs no Python code but the session's own."""
    v1, cells = import_tensorflow()
    spec = spec_from_state_dict("lstm", weights.lstm)
    with v1.Graph().as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow 2 warns that all of this is deprecated
        x = v1.placeholder(v1.float32, (None, ROWS, COLUMNS))
        lengths = v1.placeholder(v1.int64, (None,))
        cell = cells.BasicLSTMCell(spec.hidden_size, forget_bias=0.0)
        _, state = outputs(v1, cell, x, lengths if ragged else None)
        logits = v1.matmul(state.h, weights.dense_weight, transpose_b=True) + weights.dense_bias
        session = open_session(v1, [cell], [variables_from_cell("lstm", spec.cells[0])], get_num_threads())
        classify: Engine = session.make_callable(logits, feed_list=[x, lengths])
    return classify
