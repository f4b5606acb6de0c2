"""A chain that runs here as a part of a graph, with initial and final states, in the graph's order of axes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import LAYERS
from ..layers.calls import run_array
from ..layers.layer import Layer
from ..models.ops import Final, Op, Pool, Scale
from ..models.sequential import Sequential
from ..models.spec import AnyOp
from ..spec import Activation, LayerSpec
from .axes import BATCH, ONE, STATES, STEPS, WIDTH, Arrangement, Axes
from .chain import Chain, Output
from .values import InitialState


class ChainCall:
    """Runs a chain.

    Parameters
    ----------
    chain : the chain
    model : a Sequential of all its operations, where it is plain
    isa : as of the layers
    """

    def __init__(self, chain: Chain, model: Sequential | None = None, isa: str | None = None) -> None:
        ops, rows_first = chain.spec.ops, chain.spec.batch_first
        self.reads, self.gives = chain.reads, tuple(chain.outputs)
        self._input, self._lengths, self._rows_first = chain.input, chain.lengths, rows_first
        batch = BATCH if chain.batch == ONE else chain.batch
        self._takes_ids = chain.spec.takes_ids
        steps: Axes = (STEPS if chain.steps == ONE else chain.steps,)
        order = (batch, *steps) if rows_first else (*steps, batch)
        self._in = Arrangement(chain.axes, (*order, *(() if self._takes_ids else (WIDTH,))))
        last = (STEPS if chain.last_steps == ONE else chain.last_steps,)
        self._pools = chain.spec.pools
        after = (batch,) if self._pools else (batch, *last) if rows_first else (*last, batch)
        self._data = {
            name: Arrangement((*after, WIDTH), output.axes)
            for name, output in chain.outputs.items()
            if not output.states
        }
        self._model = model
        self._pieces: list[_Plain | _Stack] = _pieces(chain, isa) if model is None else []
        stacks = [piece for piece in self._pieces if isinstance(piece, _Stack)]
        self._states = {
            name: _Final(output, stacks, Arrangement((STATES, batch, WIDTH), output.axes))
            for name, output in chain.outputs.items()
            if output.states
        }
        self._fill = _fill(ops, isa) if chain.lengths is not None and not self._pools else None

    def on(self, model: Sequential) -> ChainCall:
        """The same call of another model with the same operations."""
        other = copy.copy(self)
        other._model = model
        return other

    def __call__(self, values: dict[str, Any], gives: Sequence[str]) -> None:
        """Take what the chain reads out of `values`, and put there the names in `gives`.

        Raises
        ------
        TypeError, ValueError
            An input does not fit.
        """
        x = self._in(values[self._input])
        if self._takes_ids and x.dtype.kind == "f":
            x = x.astype(np.int64)
        lengths = None if self._lengths is None else values[self._lengths]
        finals: list[tuple[Any, Any]] = []
        try:
            if self._model is not None:
                x = self._model(x, lengths=lengths)
            for piece in self._pieces:
                x = piece(x, lengths, values, finals)
        except (TypeError, ValueError) as error:
            raise type(error)(f"x is {self._input!r}: {error}") from None
        for name in gives:
            if name in self._states:
                values[name] = self._states[name](finals)
            else:
                if self._fill is not None and lengths is not None:
                    self._fill_padding(x, lengths)
                values[name] = self._data[name](x)

    def _fill_padding(self, y: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Write past the rows' ends what the last operations make of zeros, as the graph has it there."""
        steps = np.arange(y.shape[1 if self._rows_first else 0])
        past = steps >= lengths[:, None] if self._rows_first else steps[:, None] >= lengths
        y[past] = self._fill


class _Plain:
    """Operations without states from outside. After pooling a row is a step, so that lengths are none of theirs."""

    def __init__(self, model: Sequential, is_pooled: bool) -> None:
        self._model, self._is_pooled = model, is_pooled

    def __call__(self, x: NDArray[Any], lengths: Any, values: dict[str, Any], finals: list[Any]) -> Any:
        return self._model(x, lengths=None if self._is_pooled else lengths)


class _Final:
    """An output of final states, out of those of the stacks, which each have h and c."""

    def __init__(self, output: Output, stacks: Sequence[_Stack], arrangement: Arrangement) -> None:
        self._arrangement = arrangement
        self._places = []
        for state in output.states:
            number = next(number for number, stack in enumerate(stacks) if state.position in stack.positions)
            row = (state.position - stacks[number].positions[0]) * stacks[number].num_directions + state.direction
            self._places.append((number, "hc".index(state.part), row))
        number, part, row = self._places[0]
        self._is_together = self._places == [(number, part, row + index) for index in range(len(self._places))]
        self._rows = slice(row, row + len(self._places))

    def __call__(self, finals: Sequence[tuple[Any, Any]]) -> NDArray[Any]:
        if self._is_together:
            number, part, _ = self._places[0]
            return self._arrangement(finals[number][part][self._rows])
        return self._arrangement(np.stack([finals[number][part][row] for number, part, row in self._places]))


class _Stack:
    """Layers of one size behind each other that have initial states, or whose final states are used.

    With `pools` it gives h of the last layer, its directions joined, as Final does.
    """

    def __init__(self, specs: Sequence[LayerSpec], first: int, pools: bool, chain: Chain, isa: str | None) -> None:
        cells = [cell for spec in specs for cell in spec.cells]
        spec = replace(specs[0], cells=cells, num_layers=len(specs), batch_first=chain.spec.batch_first)
        self._layer: Layer[Any] = LAYERS[spec.kind](spec, isa=isa)
        self.positions = range(first, first + len(specs))
        self.num_directions = spec.num_directions
        self._pools = pools
        pairs = [chain.states.get(place, (None, None)) for place in self.positions]
        self._initial = [_Initial([pair[part] for pair in pairs], spec.num_directions) for part in (0, 1)]

    def __call__(self, x: NDArray[Any], lengths: Any, values: dict[str, Any], finals: list[Any]) -> Any:
        layer = self._layer
        rows = x.shape[0 if layer.batch_first else 1]
        h, c = (initial(values, layer, rows) for initial in self._initial)
        state: Any = h
        if layer.kind == "lstm":
            state = None if h is None and c is None else (h, c)
            if (h is None) != (c is None):
                zeros = np.zeros((layer.num_layers * layer.num_directions, rows, layer.hidden_size), layer.dtype)
                state = (zeros, c) if h is None else (h, zeros)
        y, last = run_array(layer, x, state, lengths, None, "zero", None, "safe")
        hn, cn = last if layer.kind == "lstm" else (last, None)
        finals.append((hn, cn))
        return np.concatenate(list(hn[-layer.num_directions :]), axis=-1) if self._pools else y


class _Initial:
    """The initial h or c of a stack; `states` has one for each of its layers, None for zeros."""

    def __init__(self, states: Sequence[InitialState | None], num_directions: int) -> None:
        self._states, self._count = states, num_directions
        self._is_zero = not any(states)
        first = states[0]
        self._is_together = first is not None and all(
            state == replace(first, start=first.start + index * num_directions) for index, state in enumerate(states)
        )

    def __call__(self, values: dict[str, Any], layer: Layer[Any], rows: int) -> NDArray[Any] | None:
        if self._is_zero:
            return None
        if self._is_together:
            return self._part(values, self._states[0], len(self._states) * self._count)
        parts = [self._part(values, state, self._count) for state in self._states]
        if all(part is None for part in parts):
            return None
        zeros = np.zeros((self._count, rows, layer.hidden_size), layer.dtype)
        return np.concatenate([zeros if part is None else part for part in parts])

    @staticmethod
    def _part(values: dict[str, Any], state: InitialState | None, count: int) -> NDArray[Any] | None:
        array: NDArray[Any] | None = None if state is None else values.get(state.name)
        if array is None or state is None:
            return None
        array = array.swapaxes(0, 1) if state.rows_first and array.ndim > 1 else array
        return array if state.start == 0 and len(array) == count else array[state.start : state.start + count]


def _pieces(chain: Chain, isa: str | None) -> list[Any]:
    """The operations as Sequentials, and stacks of those layers whose states are used."""
    stateful = {state.position for output in chain.outputs.values() for state in output.states} | chain.states.keys()
    ops, widths = chain.spec.ops, chain.spec.widths
    pieces: list[_Plain | _Stack] = []
    place, start = 0, 0  # of the next operation, and of the first one that is in no piece yet

    def close() -> None:
        if start < place:
            is_pooled = any(isinstance(op, Pool) for op in ops[:start])
            pieces.append(_Plain(_sequential(ops[start:place], widths[start], chain.spec.batch_first, isa), is_pooled))

    while place < len(ops):
        op = ops[place]
        if place not in stateful or not isinstance(op, LayerSpec):
            place += 1
            continue
        close()
        stack = [op]
        for other in range(place + 1, len(ops)):
            following = ops[other]
            if other not in stateful or not isinstance(following, LayerSpec) or not _fits(op, following):
                break
            stack.append(following)
        after = place + len(stack)
        pools = after < len(ops) and isinstance(ops[after], Final)
        pieces.append(_Stack(stack, place, pools, chain, isa))
        place = start = after + pools
    close()
    return pieces


def _sequential(ops: Sequence[AnyOp], width: int, rows_first: bool, isa: str | None) -> Sequential:
    """A model of operations. If all of them take any width, a Scale by one in front sets it."""
    takes_any = all(isinstance(op, Activation) or (isinstance(op, Op) and op.input_size is None) for op in ops)
    one = (Scale(np.ones(width, np.float32), np.zeros(width, np.float32)),) if takes_any and width else ()
    return Sequential(*one, *ops, batch_first=rows_first, isa=isa)


def _fits(first: LayerSpec, other: LayerSpec) -> bool:
    """Whether a layer can be one of a stack that begins with `first`."""
    names = ("kind", "hidden_size", "bidirectional", "reverse")
    return all(getattr(first, name) == getattr(other, name) for name in names)


def _fill(ops: Sequence[AnyOp], isa: str | None) -> NDArray[Any] | None:
    """What the operations behind the last recurrent layer make of a step of zeros; None if there are none."""
    last = max(place for place, op in enumerate(ops) if isinstance(op, LayerSpec))
    spec, tail = ops[last], ops[last + 1 :]
    assert isinstance(spec, LayerSpec)
    if not tail:
        return None
    width = spec.num_directions * spec.hidden_size
    y: NDArray[Any] = _sequential(tail, width, True, isa)(np.zeros((1, 1, width), np.float32))
    step: NDArray[Any] = y[0, 0]
    return step
