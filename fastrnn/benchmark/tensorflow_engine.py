"""TensorFlow 1's two drivers, which TensorFlow 2 still has: ``static_rnn`` and ``dynamic_rnn``, in a graph session."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .workloads import Workload, draw_weights

GATE_ORDER = {"lstm": [0, 2, 1, 3], "rnn": [0]}  # where TensorFlow's gates stand in PyTorch's weights
MOST_STATIC_STEPS = 256  # a static graph has the cell once a step, and takes seconds to build at this many


def tensorflow_runs(workload: Workload, static: bool) -> bool:
    """Whether the driver can run the workload: its GRU is another, and static graphs end somewhere."""
    return workload.cell in GATE_ORDER and not (static and workload.steps > MOST_STATIC_STEPS)


def tensorflow_call(
    workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int, static: bool
) -> Callable[[], NDArray[np.float32]]:
    """A call as the engines' builders return it; `static` is the driver."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it warns of everything that TensorFlow 1 had
    v1 = tf.compat.v1
    T, B, H = workload.steps, workload.batch, workload.hidden_size
    with tf.Graph().as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = v1.placeholder(tf.float32, (T, B, workload.input_size))
        sizes = v1.placeholder(tf.int32, (B,)) if workload.is_ragged else None
        source: Any = tf.unstack(inputs) if static else inputs
        before: list[Any] = []
        after: list[Any] = []
        cells: list[Any] = []
        for layer in range(workload.num_layers):
            own = [_cell(workload) for _ in range(workload.num_directions)]
            state = _state(workload, lambda: v1.placeholder(tf.float32, (B, H))) if workload.is_stream else None
            with v1.variable_scope(f"layer{layer}"):
                source, last = _run(own, source, sizes, state, static)
            before += tf.nest.flatten(state) if workload.is_stream else []
            after += tf.nest.flatten(last) if workload.is_stream else []
            cells += own
        config = v1.ConfigProto(intra_op_parallelism_threads=num_threads, inter_op_parallelism_threads=num_threads)
        session = v1.Session(config=config)
        for cell, arrays in zip(cells, _weights(workload), strict=True):
            for variable, array in zip(cell.variables, arrays, strict=True):
                variable.load(array, session)
        fed = [inputs, *([sizes] if workload.is_ragged else []), *before]
        run = session.make_callable([tf.stack(source) if static else source, *after], fed)

    arguments = [np.ascontiguousarray(x.swapaxes(0, 1)), *([lengths.astype(np.int32)] if workload.is_ragged else [])]
    states = [np.zeros((B, H), np.float32) for _ in before]

    def call() -> NDArray[np.float32]:
        y, *states[:] = run(*arguments, *states)
        outputs: NDArray[np.float32] = y.swapaxes(0, 1)
        return outputs

    return call


def _cell(workload: Workload) -> Any:
    from tensorflow.python.ops import rnn_cell_impl  # its public name refuses to work beside Keras 3

    if workload.cell == "lstm":
        return rnn_cell_impl.LSTMCell(workload.hidden_size, forget_bias=0.0)
    return rnn_cell_impl.BasicRNNCell(workload.hidden_size)


def _state(workload: Workload, make: Callable[[], Any]) -> Any:
    from tensorflow.python.ops import rnn_cell_impl

    return rnn_cell_impl.LSTMStateTuple(make(), make()) if workload.cell == "lstm" else make()


def _run(cells: list[Any], source: Any, sizes: Any, state: Any, static: bool) -> tuple[Any, Any]:
    """One layer of one or two directions: its outputs, as `source` is laid out, and its last state."""
    import tensorflow as tf

    nn = tf.compat.v1.nn
    options: dict[str, Any] = {"dtype": tf.float32, "sequence_length": sizes}
    if static and len(cells) == 1:
        return tuple(nn.static_rnn(cells[0], source, initial_state=state, **options))
    if static:
        return nn.static_bidirectional_rnn(*cells, source, **options)[0], None
    if len(cells) == 1:
        return tuple(nn.dynamic_rnn(cells[0], source, initial_state=state, time_major=True, **options))
    outputs, _ = nn.bidirectional_dynamic_rnn(*cells, source, time_major=True, **options)
    return tf.concat(outputs, 2), None


def _weights(workload: Workload) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """A pair (kernel (I+H, G*H), bias (G*H,)) a cell."""
    state_dict, order, pairs = draw_weights(workload), GATE_ORDER[workload.cell], []

    def in_order(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array.reshape(len(order), workload.hidden_size, -1)[order].reshape(array.shape)

    for layer in range(workload.num_layers):
        for direction in ("", "_reverse")[: workload.num_directions]:
            w_ih, w_hh, b_ih, b_hh = (
                state_dict[f"{part}_l{layer}{direction}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            pairs.append((in_order(np.hstack([w_ih, w_hh])).T, in_order(b_ih + b_hh)))
    return pairs
