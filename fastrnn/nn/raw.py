"""raw_rnn: a loop in which a function of the caller controls every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import as_array
from .checks import check_cell, check_like
from .loop import step
from .structure import Structure, flatten, map_structure, pack, take, walk, zeros

LoopFunction = Callable[[int, Structure, Structure, Any], tuple[Any, Structure, Structure, Structure, Any]]


def raw_rnn(
    cell: Any,
    loop_fn: LoopFunction,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    scope: Any = None,
) -> tuple[Structure, Structure, Any]:
    """Run a cell in a loop that the caller's function controls, until every row is finished.

    Parameters
    ----------
    cell : as for :func:`dynamic_rnn`
    loop_fn : (time, cell_output, cell_state, loop_state) -> (finished, next_input, next_state, emit, loop_state)
        Called first with (0, None, None, None), then after each step with all rows' output and state. finished (B,)
        booleans; next_input, next_state structures of (B, ...); emit a structure of (B, ...), the output of this
        step; loop_state any object, None keeps the previous one. The first call's next_state is the initial state;
        its emit is a structure of arrays with one row's shape and type, or None for the cell's output.
    parallel_iterations, swap_memory, scope : ignored

    Returns
    -------
    emits : structure of (T, B, ...), as from ``emit_ta.stack()``; zeros for finished rows
    state : structure of (B, ...), each row's state when it finished
    loop_state : the last

    Raises
    ------
    TypeError, ValueError
        What loop_fn or the cell returned does not fit.

    Notes
    -----
    Finished rows leave the cell's batch. loop_fn still sees all rows: a finished one has an output of zeros and keeps
    its state. TensorFlow shows what the cell continues to compute, and discards it afterwards.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import nn
    >>> weights = {"kernel": np.ones((2, 1)), "bias": np.zeros(1)}
    >>> cell = nn.rnn_cell.BasicRNNCell(1, activation="linear", weights=weights)
    >>> def until_five(time, output, state, loop_state):
    ...     if output is None:
    ...         return np.zeros(2, bool), np.array([[1.0], [2.0]]), cell.zero_state(2, "f8"), None, None
    ...     return state[:, 0] >= 5, output, state, output, None
    >>> emits, state, _ = nn.raw_rnn(cell, until_five)
    >>> emits[:, :, 0], state[:, 0]
    (array([[1., 2.],
           [2., 4.],
           [4., 8.],
           [8., 0.]]), array([8., 8.]))
    """
    check_cell(cell, "cell")
    if not callable(loop_fn):
        raise TypeError(f"loop_fn is {type(loop_fn).__name__}, wanted a function")
    finished, inputs, state, emit_like, loop_state = _call(loop_fn, 0, None, None, None)
    inputs = _arrays(inputs, "next_input")
    B = len(flatten(inputs)[0])
    finished = _check_finished(finished, B)
    state = _rows(pack(cell.state_size, state, "next_state"), B, "next_state")
    zero_output = zeros(cell.output_size, B, dtype=flatten(state)[0].dtype if flatten(state) else np.float32)
    zero_emit = zero_output
    if emit_like is not None:
        zero_emit = map_structure(lambda leaf: np.zeros((B, *leaf.shape), leaf.dtype), _arrays(emit_like, "emit"))

    emits: list[Structure] = []
    while not finished.all():
        alive = ~finished
        rows = np.flatnonzero(alive)
        output, new_state = step(cell, take(inputs, rows), take(state, rows))
        all_output = map_structure(lambda zero, leaf, rows=rows: _spread(zero, rows, leaf), zero_output, output)
        all_state = map_structure(lambda whole, leaf, rows=rows: _spread(whole, rows, leaf), state, new_state)
        next_finished, inputs, next_state, emit, new_loop_state = _call(
            loop_fn, len(emits) + 1, all_output, all_state, loop_state
        )
        loop_state = loop_state if new_loop_state is None else new_loop_state
        inputs = _rows(inputs, B, "next_input")
        next_state = check_like(state, next_state, "next_state")
        emit = check_like(zero_emit, emit, "emit")
        state = map_structure(lambda whole, leaf, rows=rows: _spread(whole, rows, leaf[rows]), state, next_state)
        emits.append(map_structure(lambda zero, leaf, rows=rows: _spread(zero, rows, leaf[rows]), zero_emit, emit))
        finished = finished | _check_finished(next_finished, B)
    if not emits:
        return map_structure(lambda zero: np.zeros((0, *zero.shape), zero.dtype), zero_emit), state, loop_state
    return map_structure(lambda *leaves: np.stack(leaves), *emits), state, loop_state


def _call(loop_fn: LoopFunction, *arguments: Any) -> tuple[Any, Structure, Structure, Structure, Any]:
    returned = loop_fn(*arguments)
    if not isinstance(returned, tuple) or len(returned) != 5:
        wanted = "(finished, next_input, next_state, emit, loop_state)"
        raise TypeError(f"loop_fn returned {type(returned).__name__}, wanted {wanted}")
    return returned


def _check_finished(finished: Any, B: int) -> NDArray[np.bool_]:
    array = as_array(finished, "finished")
    if array.dtype != np.bool_ or array.shape != (B,):
        raise TypeError(f"finished is {array.dtype} of shape {array.shape}, wanted ({B},) booleans")
    return array


def _arrays(structure: Structure, name: str) -> Structure:
    arrays = map_structure(lambda leaf: as_array(leaf, name), structure)
    if not flatten(arrays):
        raise ValueError(f"{name} is empty, wanted an array")
    return arrays


def _rows(structure: Structure, B: int, name: str) -> Structure:
    arrays = map_structure(lambda leaf: as_array(leaf, name), structure)
    for path, leaf in walk(arrays, name):
        if leaf.shape[:1] != (B,):
            raise ValueError(f"{path} has shape {leaf.shape}, wanted ({B}, ...)")
    return arrays


def _spread(whole: NDArray[Any], rows: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
    """A copy of `whole` with these rows replaced."""
    copy = whole.copy()
    copy[rows] = part
    return copy
