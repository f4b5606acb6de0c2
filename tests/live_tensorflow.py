"""TensorFlow's own cells and drivers, called by the cases of tensorflow_cases.py.

The drivers are in ``tf.compat.v1.nn``; the cells are no longer there, but under an internal path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from tensorflow.python.keras.layers.legacy_rnn import rnn_cell_impl
from tensorflow_cases import Cell, Framework, leaves

tf.compat.v1.logging.set_verbosity("ERROR")
v1 = tf.compat.v1.nn


class OwnCell(rnn_cell_impl.RNNCell):
    """tensorflow_cases.OwnCell in TensorFlow."""

    def __init__(self, num_units: int, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._num_units, self._kernel = num_units, tf.constant(weights["kernel"])

    @property
    def state_size(self) -> Any:
        return (self._num_units, {"count": 1})

    @property
    def output_size(self) -> int:
        return self._num_units

    def call(self, inputs: Any, state: Any) -> Any:
        total, counter = state
        total = tf.tanh(inputs @ self._kernel + 0.5 * total)
        count = counter["count"] + 1
        return total / count, (total, {"count": count})


def build(cell: Cell, weights: list[dict[str, np.ndarray]], input_size: int) -> Any:
    """TensorFlow's cell with these weights."""
    widths = iter([width for _, width in leaves(cell, input_size)])
    return _build(cell, iter(weights), widths)


def _build(cell: Cell, weights: Iterator[dict[str, np.ndarray]], widths: Iterator[int]) -> Any:
    if cell.cells:
        inner = [_build(part, weights, widths) for part in cell.cells]
        return getattr(rnn_cell_impl, cell.name)(inner if cell.name == "MultiRNNCell" else inner[0], **cell.options)
    if cell.name == "OwnCell":
        next(widths)
        return OwnCell(cell.num_units, next(weights))
    built = getattr(rnn_cell_impl, cell.name)(cell.num_units, dtype=tf.float32, **cell.options)
    built.build(tf.TensorShape([None, next(widths)]))
    values = next(weights)
    assert len(values) == len(built.variables)
    for variable in built.variables:
        names = [name for name in values if f"/{variable.name}".endswith(f"/{name}:0")]
        variable.assign(values[max(names, key=len)])  # "projection/kernel" ends in "kernel", too
    return built


def stack_bidirectional_dynamic_rnn(
    cells_fw: Any, cells_bw: Any, inputs: Any, states_fw: Any = None, states_bw: Any = None, **options: Any
) -> Any:
    """``tf.contrib.rnn``'s driver, made of the driver that remains."""
    found: list[tuple[Any, Any]] = []
    for layer, cells in enumerate(zip(cells_fw, cells_bw, strict=True)):
        outputs, states = v1.bidirectional_dynamic_rnn(
            *cells,
            inputs,
            initial_state_fw=None if states_fw is None else states_fw[layer],
            initial_state_bw=None if states_bw is None else states_bw[layer],
            **options,
        )
        inputs = tf.concat(outputs, 2)
        found.append(states)
    return (inputs, *zip(*found, strict=True))


TENSORFLOW = Framework(
    SimpleNamespace(
        dynamic_rnn=v1.dynamic_rnn,
        static_rnn=v1.static_rnn,
        bidirectional_dynamic_rnn=v1.bidirectional_dynamic_rnn,
        static_bidirectional_rnn=v1.static_bidirectional_rnn,
        stack_bidirectional_dynamic_rnn=stack_bidirectional_dynamic_rnn,
    ),
    build,
    tf.constant,
)
