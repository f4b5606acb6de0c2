"""Graphs of checkpoint_cases.py in TensorFlow, as TensorFlow 1 built, ran and saved them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf
from checkpoint_cases import Graph, run
from live_tensorflow import rnn_cell_impl
from tensorflow_cases import Cell

v1 = tf.compat.v1


class CudnnCompatibleLSTMCell(rnn_cell_impl.LSTMCell):
    """``tf.contrib.cudnn_rnn``'s: no forget bias, and its name."""

    def __init__(self, num_units: int, **options: Any) -> None:
        super().__init__(num_units, forget_bias=0.0, name="cudnn_compatible_lstm_cell", **options)


class CudnnCompatibleGRUCell(rnn_cell_impl.GRUCell):
    """``tf.contrib.cudnn_rnn``'s variables and equations: the reset is after the matmul."""

    def __init__(self, num_units: int, **options: Any) -> None:
        super().__init__(num_units, name="cudnn_compatible_gru_cell", **options)

    def build(self, shape: Any) -> None:
        inputs, units = int(shape[-1]), self._num_units
        shapes = {
            "gates/kernel": [inputs + units, 2 * units],
            "gates/bias": [2 * units],
            "candidate/input_projection/kernel": [inputs, units],
            "candidate/input_projection/bias": [units],
            "candidate/hidden_projection/kernel": [units, units],
            "candidate/hidden_projection/bias": [units],
        }
        self.parts = {name: self.add_weight(name, shape) for name, shape in shapes.items()}
        self.built = True

    def call(self, inputs: Any, state: Any) -> Any:
        part = self.parts
        gates = tf.sigmoid(tf.concat([inputs, state], 1) @ part["gates/kernel"] + part["gates/bias"])
        reset, update = tf.split(gates, 2, axis=1)
        side = {
            name: value @ part[f"candidate/{name}_projection/kernel"] + part[f"candidate/{name}_projection/bias"]
            for name, value in (("input", inputs), ("hidden", state))
        }
        state = update * state + (1 - update) * tf.tanh(side["input"] + reset * side["hidden"])
        return state, state


OWN = {"CudnnCompatibleLSTMCell": CudnnCompatibleLSTMCell, "CudnnCompatibleGRUCell": CudnnCompatibleGRUCell}


def build(made: Cell, dtype: str) -> Any:
    """TensorFlow's cell, whose variables its driver will make."""
    kind = OWN.get(made.name) or getattr(rnn_cell_impl, made.name)
    if not made.cells:
        return kind(made.num_units, dtype=dtype, **made.options)
    inner = [build(part, dtype) for part in made.cells]
    return kind(inner if made.name == "MultiRNNCell" else inner[0], **made.options)


def stack_bidirectional_dynamic_rnn(
    cells_fw: Any, cells_bw: Any, inputs: Any, starts_fw: Any, starts_bw: Any, sequence_length: Any
) -> Any:
    """What ``tf.contrib.rnn`` had, with its scopes."""
    states = []
    with v1.variable_scope("stack_bidirectional_rnn"):
        for k, cells in enumerate(zip(cells_fw, cells_bw, strict=True)):
            with v1.variable_scope(f"cell_{k}"):
                outputs, last = v1.nn.bidirectional_dynamic_rnn(
                    *cells, inputs, sequence_length, starts_fw[k], starts_bw[k]
                )
            inputs = tf.concat(outputs, 2)
            states.append(last)
    return (inputs, *zip(*states, strict=True))


def build_graph(graph: Graph, session: Any) -> tuple[Any, list[Any]]:
    """Build a graph under its scope, load its weights, and return what gives its outputs and states."""
    cells = [build(made, graph.dtype) for made in graph.cells]
    x, starts = graph.draw([made.state_size for made in cells])
    starts = [
        tf.nest.map_structure(tf.constant, start) if not isinstance(start, np.ndarray) else tf.constant(start)
        for start in starts
    ]
    drivers = SimpleNamespace(dynamic_rnn=v1.nn.dynamic_rnn, bidirectional_dynamic_rnn=v1.nn.bidirectional_dynamic_rnn)
    with v1.variable_scope(graph.name):
        outputs, states = run(graph, cells, tf.constant(x), starts, drivers, stack_bidirectional_dynamic_rnn)
    variables = {
        variable.op.name: variable
        for variable in v1.global_variables()
        if variable.op.name.startswith(f"{graph.name}/")
    }
    values = graph.weights({name: tuple(variable.shape) for name, variable in variables.items()})
    for name, variable in variables.items():
        variable.load(values[name], session)
    return tf.concat(outputs, 2) if isinstance(outputs, tuple) else outputs, states
