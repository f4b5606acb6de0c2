"""A model as it is served: its tensors, and how rows are run through it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..layers import Layer
from ..models.sequential import Sequential
from ..spec import LayerSpec
from ..stream_pool import Session, StreamPool

VERSION = "1"  # of every model: a file is served as it is

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Tensor(NamedTuple):
    """A tensor's name, type by the protocol's name, and shape, with -1 for sizes that vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ServedModel:
    """A layer or Sequential that is served under a name.

    Attributes
    ----------
    pool : StreamPool with `capacity` slots, or None if the model has no streams, and takes whole sequences only
    step_work : multiply-adds of one step of one row, about
    states : names and widths of the state's parts that can be asked for, (L*D, B, width) each

    Raises
    ------
    TypeError, ValueError
        The name or the model cannot be served.
    """

    def __init__(self, name: str, model: Layer[Any] | Sequential, capacity: int) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a model, wanted letters, digits, dots, dashes and underscores")
        if hasattr(model, "without_states"):  # a graph of ONNX: sequences keep the states
            model = model.without_states() or model
        if not isinstance(model, Layer | Sequential):
            kind, why = type(model), getattr(model, "why_not_sequential", "")  # of a graph of ONNX
            why = f" because {why}" if why else ""
            raise TypeError(
                f"model {name} is a {kind.__module__}.{kind.__name__}{why}, wanted a layer or a fastrnn.Sequential"
            )
        if model.dtype != np.float32:
            raise ValueError(f"model {name} computes in {model.dtype}, wanted float32: load it with dtype='float32'")
        self.name, self.model = name, model
        self.fingerprint: int = model._engine.fingerprint
        self.num_ids = model.num_ids if isinstance(model, Sequential) else 0
        self.pools = isinstance(model, Sequential) and model.pools
        self.stride = model.stride if isinstance(model, Sequential) else 1
        self.input_size, self.output_size = model.input_size, model.output_size
        self.step_work = model.nbytes // 4 + 64
        streams = model.streams if isinstance(model, Sequential) else not (model.bidirectional or model.reverse)
        self.pool: StreamPool[Any] | None = StreamPool(model, capacity) if streams else None
        self._state_index, self._recurrent = self._find_state()
        self.states: dict[str, int] = {}
        if self._recurrent is not None:
            self.states["h"] = self._recurrent.proj_size or self._recurrent.hidden_size
            if self._recurrent.kind == "lstm":
                self.states["c"] = self._recurrent.hidden_size

    def _find_state(self) -> tuple[int, Any]:
        """The recurrent layer whose state can be asked for: the only one, of a chain one that has streams."""
        if isinstance(self.model, Layer):
            return 0, self.model
        layers = [op for op in self.model._shape.ops if isinstance(op, LayerSpec)]
        return (0, layers[0]) if len(layers) == 1 and self.pool is not None else (-1, None)

    @property
    def x_dtype(self) -> np.dtype[Any]:
        """Of a row of x: float32 (T, I), or of ids int64 (T,)."""
        return np.dtype(np.int64) if self.num_ids else np.dtype(np.float32)

    @property
    def inputs(self) -> list[Tensor]:
        x = Tensor("x", "INT64", (-1, -1)) if self.num_ids else Tensor("x", "FP32", (-1, -1, self.input_size))
        return [x, Tensor("lengths", "INT64", (-1,))]

    @property
    def outputs(self) -> list[Tensor]:
        y = Tensor("y", "FP32", (-1, self.output_size) if self.pools else (-1, -1, self.output_size))
        return [y, *(Tensor(name, "FP32", (self.state_parts, -1, width)) for name, width in self.states.items())]

    @property
    def state_parts(self) -> int:
        """Layers times directions."""
        layer = self._recurrent
        return layer.num_layers * (2 if layer.bidirectional else 1) if layer is not None else 0

    def output_steps(self, steps: int) -> int:
        """How many steps y has for so many of x."""
        return self.model.output_steps(steps) if isinstance(self.model, Sequential) else steps

    def zero_state(self) -> dict[str, NDArray[Any]]:
        """The state of a row before its first step: parts (L*D, width) by name."""
        return {name: np.zeros((self.state_parts, width), np.float32) for name, width in self.states.items()}

    def state_of(self, session: Session[Any]) -> dict[str, NDArray[Any]]:
        """The state of a session, (L, width) each."""
        state = session.state if isinstance(self.model, Layer) else session.state[self._state_index]
        parts = state if isinstance(state, tuple) else (state,)
        return {name: part[:, 0] for name, part in zip(self.states, parts, strict=False)}

    def run_whole(self, rows: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], list[dict[str, NDArray[Any]]]]:
        """Run whole sequences; returns y and the last state of each row."""
        if isinstance(self.model, Sequential):
            y = self.model(list(rows))
            return list(y), [{} for _ in rows]
        y, state = self.model(list(rows))
        parts = state if isinstance(state, tuple) else (state,)
        states = [
            {name: part[:, row] for name, part in zip(self.states, parts, strict=True)} for row in range(len(rows))
        ]
        return y, states
