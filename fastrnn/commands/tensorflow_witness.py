"""TensorFlow 1's cells and functions on the variables of a checkpoint, which TensorFlow reads itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..files.tensorflow_file import variables_of
from ..importers.tensorflow_checkpoint import FoundCell, choose
from ..layers.layer import Layer
from ..tensorflow_graph import import_tensorflow
from . import torch_witness
from .torch_witness import PlainRun


def from_checkpoint(
    path: str, scope: str | None, nonlinearity: str | None, forget_bias: float | None, layer: Layer[Any]
) -> tuple[str, PlainRun]:
    """The cells under a scope, run by ``dynamic_rnn`` or ``bidirectional_dynamic_rnn``, layer by layer.

    cuDNN's GRU cells are no longer part of TensorFlow: they are compared with PyTorch's GRU.
    """
    group = choose(path, variables_of(path), scope)
    if any(cell.resets_after for cell in group.cells):
        return torch_witness.from_layer(layer)
    extras.require(["tensorflow"], "verify", "tensorflow")
    v1, cells = import_tensorflow()
    projection = layer.proj_size or None

    def make(found: FoundCell) -> Any:
        dtype = v1.dtypes.as_dtype(layer.dtype)
        if layer.kind == "rnn":
            return cells.BasicRNNCell(layer.hidden_size, getattr(v1.nn, nonlinearity or "tanh"), dtype=dtype)
        if layer.kind == "gru":
            return cells.GRUCell(layer.hidden_size, dtype=dtype)
        return cells.LSTMCell(
            layer.hidden_size,
            use_peepholes="w_i_diag" in found.names,
            num_proj=projection,
            forget_bias=forget_bias or 0.0,
            dtype=dtype,
        )

    def load(made: Any, found: FoundCell, reader: Any, session: Any) -> None:
        for known, name in found.names.items():
            ends = [variable for variable in made.variables if variable.op.name.endswith(f"/{known}")]
            variable = min(ends, key=lambda variable: len(variable.op.name))  # not projection/kernel for kernel
            variable.load(np.asarray(reader.get_tensor(name)).astype(layer.dtype), session)

    def run(x: NDArray[Any], lengths: NDArray[np.int64], state: Any) -> tuple[Any, Any, Any]:
        D = layer.num_directions

        def start(index: int) -> Any:
            h, c = (part if part is None else v1.constant(part[index]) for part in state)
            return h if c is None else cells.LSTMStateTuple(c, h)

        with v1.Graph().as_default(), v1.Session() as session:
            y: Any = v1.constant(x)
            last, made = [], []
            for k in range(layer.num_layers):
                own = [make(found) for found in group.cells[k * D : (k + 1) * D]]
                with v1.variable_scope(f"layer_{k}"):
                    if D == 2:
                        y, after = v1.nn.bidirectional_dynamic_rnn(*own, y, lengths, start(2 * k), start(2 * k + 1))
                        y = v1.concat(y, 2)
                        last += after
                    else:
                        y = v1.reverse_sequence(y, lengths, seq_axis=1, batch_axis=0) if layer.reverse else y
                        y, after = v1.nn.dynamic_rnn(own[0], y, lengths, start(k))
                        y = v1.reverse_sequence(y, lengths, seq_axis=1, batch_axis=0) if layer.reverse else y
                        last.append(after)
                made += own
            reader = v1.train.load_checkpoint(path)
            for cell, found in zip(made, group.cells, strict=True):
                load(cell, found, reader, session)
            y, last = session.run([y, last])
        if layer.kind == "lstm":
            return y, np.stack([part.h for part in last]), np.stack([part.c for part in last])
        return y, np.stack(last), None

    return f"tensorflow {v1.__version__ if hasattr(v1, '__version__') else v1.VERSION}", run
