"""TensorFlow 1's ``static_rnn`` and ``dynamic_rnn``, which TensorFlow 2 still has, in a graph session."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.importers.pytorch import spec_from_state_dict
from fastrnn.importers.tensorflow import variables_from_cell
from fastrnn.layers import LAYERS
from fastrnn.tensorflow_graph import import_tensorflow, open_session

from .workloads import Workload, draw_weights

MOST_STATIC_STEPS = 256  # a static graph has a cell for each step; with so many, building takes seconds


def tensorflow_runs(workload: Workload, static: bool) -> bool:
    """Whether the driver can run the workload: its GRU has other equations, and static graphs must be short."""
    return workload.cell != "gru" and not (static and workload.steps > MOST_STATIC_STEPS)


def tensorflow_call(
    workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int, static: bool
) -> Callable[[], NDArray[np.float32]]:
    """A call as in ``engines.py``; `static` chooses the driver."""
    v1, _ = import_tensorflow()
    T, B, H = workload.steps, workload.batch, workload.hidden_size
    with v1.Graph().as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = v1.placeholder(v1.float32, (T, B, workload.input_size))
        sizes = v1.placeholder(v1.int32, (B,)) if workload.is_ragged else None
        source: Any = v1.unstack(inputs) if static else inputs
        before: list[Any] = []
        after: list[Any] = []
        cells: list[Any] = []
        for layer in range(workload.num_layers):
            own = [_cell(workload) for _ in range(workload.num_directions)]
            state = _state(workload, lambda: v1.placeholder(v1.float32, (B, H))) if workload.is_stream else None
            with v1.variable_scope(f"layer{layer}"):
                source, last = _run(own, source, sizes, state, static)
            before += v1.nest.flatten(state) if workload.is_stream else []
            after += v1.nest.flatten(last) if workload.is_stream else []
            cells += own
        weights, kind = draw_weights(workload), LAYERS[workload.cell].kind
        spec = spec_from_state_dict(kind, weights, nonlinearity=workload.nonlinearity)
        variables = [variables_from_cell(spec.kind, cell) for cell in spec.cells]
        session = open_session(v1, cells, variables, num_threads)
        fed = [inputs, *([sizes] if workload.is_ragged else []), *before]
        run = session.make_callable([v1.stack(source) if static else source, *after], fed)

    arguments = [np.ascontiguousarray(x.swapaxes(0, 1)), *([lengths.astype(np.int32)] if workload.is_ragged else [])]
    states = [np.zeros((B, H), np.float32) for _ in before]

    def call() -> NDArray[np.float32]:
        y, *states[:] = run(*arguments, *states)
        outputs: NDArray[np.float32] = y.swapaxes(0, 1)
        return outputs

    return call


def _cell(workload: Workload) -> Any:
    _, cells = import_tensorflow()
    if workload.cell == "lstm":
        return cells.LSTMCell(workload.hidden_size, forget_bias=0.0)
    return cells.BasicRNNCell(workload.hidden_size)


def _state(workload: Workload, make: Callable[[], Any]) -> Any:
    _, cells = import_tensorflow()
    return cells.LSTMStateTuple(make(), make()) if workload.cell == "lstm" else make()


def _run(cells: list[Any], source: Any, sizes: Any, state: Any, static: bool) -> tuple[Any, Any]:
    """Run one layer of one or two directions; return its outputs in the layout of `source`, and its last state."""
    v1, _ = import_tensorflow()
    nn = v1.nn
    options: dict[str, Any] = {"dtype": v1.float32, "sequence_length": sizes}
    if static and len(cells) == 1:
        return tuple(nn.static_rnn(cells[0], source, initial_state=state, **options))
    if static:
        return nn.static_bidirectional_rnn(*cells, source, **options)[0], None
    if len(cells) == 1:
        return tuple(nn.dynamic_rnn(cells[0], source, initial_state=state, time_major=True, **options))
    outputs, _ = nn.bidirectional_dynamic_rnn(*cells, source, time_major=True, **options)
    return v1.concat(outputs, 2), None
