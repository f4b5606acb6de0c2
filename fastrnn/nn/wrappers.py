"""Cells made of other cells: stacks, residual connections, dropout (without effect) and processors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..arguments import as_array, as_boolean
from .cells import EngineCell, Lengths, Runner, SequenceCell, Stack, as_sequence_cell, runner_of
from .checks import as_number, check_cell
from .devices import pinned, processor_of
from .structure import Structure, flatten, is_nested, map_structure, shape_of


class MultiRNNCell(SequenceCell):
    """A stack of cells; the inputs of each are the outputs of the one before.

    Consecutive cells of one kind and size run as one stacked layer; others run layer after layer.

    Parameters
    ----------
    cells : list or tuple of cells, any mix of this package's and your own
    state_is_tuple : states are tuples with an entry for each cell, or concatenated in one array

    Raises
    ------
    TypeError, ValueError
        An entry is not a cell, or does not take the outputs of the one before.
    """

    def __init__(self, cells: Sequence[Any], state_is_tuple: bool = True) -> None:
        if not isinstance(cells, (list, tuple)):
            raise TypeError(f"cells is {type(cells).__name__}, wanted a list of cells")
        if not cells:
            raise ValueError("cells is empty, wanted at least one cell")
        self._state_is_tuple = as_boolean(state_is_tuple, "state_is_tuple")
        for i, cell in enumerate(cells):
            check_cell(cell, f"cells[{i}]")
            if not self._state_is_tuple and is_nested(cell.state_size):
                raise ValueError(f"cells[{i}] has the state_size {cell.state_size}, wanted an integer")
        self.cells = tuple(cells)
        sequence_cells = [as_sequence_cell(cell) for cell in self.cells]
        for i in range(1, len(cells)):
            _check_feeds(cells[i - 1], sequence_cells[i - 1], sequence_cells[i], i)
        if sequence_cells[0] is not None:
            self.input_size, self.dtype = sequence_cells[0].input_size, sequence_cells[0].dtype

    @property
    def state_size(self) -> Structure:
        sizes = tuple(cell.state_size for cell in self.cells)
        return sizes if self._state_is_tuple else sum(sizes)

    @property
    def output_size(self) -> Structure:
        return self.cells[-1].output_size

    @cached_property
    def _parts(self) -> list[Stack | Any]:
        """The cells, with consecutive engine cells joined to stacks."""
        parts: list[Stack | Any] = []
        for cell in self.cells:
            engine_cell = engine_cell_of(cell)
            if engine_cell is None:
                parts.append(cell)
            elif parts and isinstance(parts[-1], Stack) and parts[-1].takes(engine_cell):
                parts[-1] = Stack([*parts[-1].cells, engine_cell])
            else:
                parts.append(Stack([engine_cell]))
        return parts

    def runner(self, num_steps: int | None) -> Runner:
        runners = [
            (part.runner(num_steps), len(part.cells)) if isinstance(part, Stack) else (runner_of(part, num_steps), 0)
            for part in self._parts
        ]
        ends = np.cumsum([0 if is_nested(cell.state_size) else cell.state_size for cell in self.cells])[:-1]

        def run(inputs: Structure, state: Structure, lengths: Lengths) -> tuple[Structure, Structure]:
            states = state if self._state_is_tuple else np.split(state, ends, axis=1)
            last: list[Structure] = []
            for part, count in runners:
                if count:
                    inputs, new = part(inputs, states[len(last) : len(last) + count], lengths)
                    last += new
                else:
                    inputs, new = part(inputs, states[len(last)], lengths)
                    last.append(new)
            return inputs, tuple(last) if self._state_is_tuple else np.concatenate(last, axis=1)

        return run


class _Wrapper(SequenceCell):
    """Base class of a cell around another cell, with the same sizes."""

    def __init__(self, cell: Any) -> None:
        check_cell(cell, "cell")
        self.cell = cell
        sequence_cell = as_sequence_cell(cell)
        if sequence_cell is not None:
            self.input_size, self.dtype = sequence_cell.input_size, sequence_cell.dtype

    @property
    def state_size(self) -> Structure:
        return self.cell.state_size

    @property
    def output_size(self) -> Structure:
        return self.cell.output_size


class ResidualWrapper(_Wrapper):
    """Adds a cell's inputs to its outputs.

    Parameters
    ----------
    cell : the cell; its inputs and outputs have the same width unless residual_fn combines them
    residual_fn : callable or None
        ``residual_fn(inputs, outputs) -> outputs`` on any number of rows (N, I) and (N, O) from any steps; the
        result for a row may depend only on that row. None adds.
    """

    def __init__(self, cell: Any, residual_fn: Callable[[Structure, Structure], Structure] | None = None) -> None:
        super().__init__(cell)
        if residual_fn is not None and not callable(residual_fn):
            raise TypeError(f"residual_fn is {type(residual_fn).__name__}, wanted a function or None")
        if residual_fn is None and self.input_size is not None and self.input_size != cell.output_size:
            raise ValueError(f"cell takes {self.input_size} inputs and returns {cell.output_size}, wanted equal widths")
        self._residual_fn = residual_fn or _add

    def runner(self, num_steps: int | None) -> Runner:
        run_cell = runner_of(self.cell, num_steps)

        def run(inputs: Structure, state: Structure, lengths: Lengths) -> tuple[Structure, Structure]:
            outputs, state = run_cell(inputs, state, lengths)
            B, T = flatten(outputs)[0].shape[:2]
            valid = np.ones((B, T), bool) if lengths is None else np.arange(T) < lengths[:, None]
            rows = self._residual_fn(*(map_structure(lambda leaf: leaf[valid], part) for part in (inputs, outputs)))
            count = int(valid.sum())

            def spread(returned: Any) -> Any:
                leaf = as_array(returned, "what residual_fn returned")
                if leaf.shape[:1] != (count,):
                    raise ValueError(f"residual_fn returned shape {leaf.shape}, wanted ({count}, ...): a row for each")
                whole = np.zeros((B, T, *leaf.shape[1:]), leaf.dtype)
                whole[valid] = leaf
                return whole

            return map_structure(spread, rows), state

        return run


class DropoutWrapper(_Wrapper):
    """The cell itself, since nothing is dropped at inference.

    Parameters
    ----------
    cell : the cell
    input_keep_prob, output_keep_prob, state_keep_prob : 1.0
    variational_recurrent, input_size, dtype, seed, dropout_state_filter_visitor : ignored

    Raises
    ------
    ValueError
        A keep probability is not 1.
    """

    def __init__(
        self,
        cell: Any,
        input_keep_prob: float = 1.0,
        output_keep_prob: float = 1.0,
        state_keep_prob: float = 1.0,
        variational_recurrent: bool = False,
        input_size: Any = None,
        dtype: Any = None,
        seed: Any = None,
        dropout_state_filter_visitor: Any = None,
    ) -> None:
        super().__init__(cell)
        given = {"input": input_keep_prob, "output": output_keep_prob, "state": state_keep_prob}
        for part, probability in given.items():
            if as_number(probability, f"{part}_keep_prob") != 1:
                raise ValueError(f"{part}_keep_prob is {probability!r}, wanted 1.0: at inference nothing is dropped")

    def runner(self, num_steps: int | None) -> Runner:
        return runner_of(self.cell, num_steps)


class DeviceWrapper(_Wrapper):
    """Runs a cell on one processor.

    Parameters
    ----------
    cell : the cell
    device : str or None
        ``"/cpu:1"`` keeps the calling thread on one processor, the second of those that this process may use, while
        the cell runs; None and ``""`` do nothing. The engine's other threads stay on all processors;
        ``fastrnn.set_num_threads(1)`` turns them off.

    Raises
    ------
    TypeError, ValueError
        The device is not a processor, or this process may not use so many.
    """

    def __init__(self, cell: Any, device: str | None) -> None:
        super().__init__(cell)
        self._processor = processor_of(device)

    def runner(self, num_steps: int | None) -> Runner:
        run_cell = runner_of(self.cell, num_steps)

        def run(inputs: Structure, state: Structure, lengths: Lengths) -> tuple[Structure, Structure]:
            with pinned(self._processor):
                return run_cell(inputs, state, lengths)

        return run


def engine_cell_of(cell: Any) -> EngineCell | None:
    """The engine cell that a cell is equal to at inference, or None."""
    while isinstance(cell, DropoutWrapper) and as_sequence_cell(cell) is not None:
        cell = cell.cell
    return cell if isinstance(cell, EngineCell) and as_sequence_cell(cell) is not None else None


def _add(inputs: Structure, outputs: Structure) -> Structure:
    def add(x: Any, y: Any) -> Any:
        if x.shape != y.shape:
            raise ValueError(f"inputs are {x.shape[1:]} wide and outputs {y.shape[1:]}, wanted equal widths")
        return x + y

    return map_structure(add, inputs, outputs)


def _check_feeds(before: Any, runs_before: SequenceCell | None, cell: SequenceCell | None, i: int) -> None:
    """Refuse a cell that does not take the outputs of the one before."""
    if cell is None or cell.input_size is None:
        return
    width = None if is_nested(before.output_size) else shape_of(before.output_size)
    if width != (cell.input_size,):
        found = f"cells[{i}] takes {cell.input_size} inputs"
        raise ValueError(f"{found}, but cells[{i - 1}] returns {before.output_size}")
    type_before = None if runs_before is None else runs_before.dtype
    if type_before is not None and type_before != cell.dtype:
        raise TypeError(f"cells[{i}] computes in {cell.dtype}, but cells[{i - 1}] in {type_before}")
