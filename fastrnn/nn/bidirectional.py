"""Networks of two directions; the reverse one starts at each row's own last step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..arguments import as_boolean
from .cells import runner_of, wanted_of
from .checks import check_cell, check_inputs, check_sequence_length
from .dynamic import start_state, swap_axes
from .static import split_steps, stack_steps
from .structure import Structure, flatten, map_structure


def bidirectional_dynamic_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Structure,
    sequence_length: ArrayLike | None = None,
    initial_state_fw: Structure = None,
    initial_state_bw: Structure = None,
    dtype: DTypeLike | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: Any = None,
) -> tuple[tuple[Structure, Structure], tuple[Structure, Structure]]:
    """Run one cell forward and another, which may be of another kind, backward over a padded batch.

    Parameters
    ----------
    cell_fw, cell_bw : as `cell` of :func:`dynamic_rnn`
    initial_state_fw, initial_state_bw : as `initial_state` of :func:`dynamic_rnn`, one for each direction
    inputs, sequence_length, dtype, parallel_iterations, swap_memory, time_major, scope : as for :func:`dynamic_rnn`

    Returns
    -------
    outputs : (output_fw, output_bw), each as of :func:`dynamic_rnn`; output_bw[:, t] has read the steps from t on
    states : (state_fw, state_bw); state_bw is after step 0

    Raises
    ------
    TypeError, ValueError
        An argument does not fit; the message says which, what was found and what was wanted.
    """
    check_cell(cell_fw, "cell_fw")
    check_cell(cell_bw, "cell_bw")
    for cell in (cell_fw, cell_bw):
        arrays = check_inputs(
            inputs, "inputs", "TB" if as_boolean(time_major, "time_major") else "BT", *wanted_of(cell)
        )
    if time_major:
        arrays = swap_axes(arrays)
    lengths = check_sequence_length(sequence_length, *flatten(arrays)[0].shape[:2])
    outputs, states = _run_both((cell_fw, cell_bw), None, arrays, lengths, (initial_state_fw, initial_state_bw), dtype)
    return swap_axes(outputs) if time_major else outputs, states


def static_bidirectional_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Sequence[Structure],
    initial_state_fw: Structure = None,
    initial_state_bw: Structure = None,
    dtype: DTypeLike | None = None,
    sequence_length: ArrayLike | None = None,
    scope: Any = None,
) -> tuple[list[Structure], Structure, Structure]:
    """Run one cell forward and one backward over a list of steps.

    Parameters
    ----------
    cell_fw, cell_bw, initial_state_fw, initial_state_bw : as for :func:`bidirectional_dynamic_rnn`
    inputs, dtype, sequence_length, scope : as for :func:`static_rnn`

    Returns
    -------
    outputs : list of T arrays (B, O_fw + O_bw)
    state_fw, state_bw : each direction's last; state_bw is after step 0

    Raises
    ------
    TypeError, ValueError
        An argument does not fit; the message says which, what was found and what was wanted.
    """
    check_cell(cell_fw, "cell_fw")
    check_cell(cell_bw, "cell_bw")
    batch = stack_steps(inputs, cell_fw, cell_bw)
    B, T = flatten(batch)[0].shape[:2]
    lengths = check_sequence_length(sequence_length, B, T)
    num_steps = T if lengths is None else None
    starts = (initial_state_fw, initial_state_bw)
    outputs, states = _run_both((cell_fw, cell_bw), num_steps, batch, lengths, starts, dtype)
    return split_steps(map_structure(lambda *pair: np.concatenate(pair, axis=-1), *outputs), T), *states


def stack_bidirectional_dynamic_rnn(
    cells_fw: Sequence[Any],
    cells_bw: Sequence[Any],
    inputs: Structure,
    initial_states_fw: Sequence[Structure] | None = None,
    initial_states_bw: Sequence[Structure] | None = None,
    dtype: DTypeLike | None = None,
    sequence_length: ArrayLike | None = None,
    parallel_iterations: int | None = None,
    time_major: bool = False,
    scope: Any = None,
    swap_memory: bool = False,
) -> tuple[NDArray[Any], tuple[Structure, ...], tuple[Structure, ...]]:
    """Run layers of two directions; the input of each is both outputs of the one before, concatenated.

    Parameters
    ----------
    cells_fw, cells_bw : lists of cells of equal length, an entry for each layer
    initial_states_fw, initial_states_bw : lists of states, an entry for each layer; None: zeros
    inputs, dtype, sequence_length, parallel_iterations, time_major, scope, swap_memory : as for :func:`dynamic_rnn`

    Returns
    -------
    outputs : (B, T, O_fw + O_bw) of the last layer, or (T, B, .) if time_major
    states_fw, states_bw : tuples, an entry for each layer

    Raises
    ------
    TypeError, ValueError
        An argument does not fit; the message says which, what was found and what was wanted.
    """
    given = {"cells_bw": cells_bw, "initial_states_fw": initial_states_fw, "initial_states_bw": initial_states_bw}
    if not isinstance(cells_fw, (list, tuple)) or not cells_fw:
        raise TypeError(f"cells_fw is {cells_fw!r}, wanted a list of at least one cell")
    for name, value in given.items():
        if value is None and name != "cells_bw":
            continue
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name} is {type(value).__name__}, wanted a list")
        if len(value) != len(cells_fw):
            raise ValueError(f"{name} has {len(value)} entries, but cells_fw has {len(cells_fw)}")
    states: list[tuple[Structure, Structure]] = []
    for layer, cells in enumerate(zip(cells_fw, cells_bw, strict=True)):
        outputs, last = bidirectional_dynamic_rnn(
            *cells,
            inputs,
            sequence_length,
            initial_states_fw[layer] if initial_states_fw is not None else None,
            initial_states_bw[layer] if initial_states_bw is not None else None,
            dtype,
            time_major=time_major,
        )
        inputs = np.concatenate(outputs, axis=-1)
        states.append(last)
    states_fw, states_bw = zip(*states, strict=True)
    return inputs, states_fw, states_bw


def _run_both(
    cells: tuple[Any, Any],
    num_steps: int | None,
    inputs: Structure,
    lengths: NDArray[np.int64] | None,
    initial_states: tuple[Structure, Structure],
    dtype: DTypeLike | None,
) -> tuple[tuple[Structure, Structure], tuple[Structure, Structure]]:
    """Outputs (B, T, O) and states of both directions."""
    names = ("initial_state_fw", "initial_state_bw")
    states = [start_state(*args) for args in zip(cells, [inputs] * 2, initial_states, [dtype] * 2, names, strict=True)]
    reverse = _reversal(lengths)
    output_fw, state_fw = runner_of(cells[0], num_steps)(inputs, states[0], lengths)
    output_bw, state_bw = runner_of(cells[1], num_steps)(map_structure(reverse, inputs), states[1], lengths)
    return (output_fw, map_structure(reverse, output_bw)), (state_fw, state_bw)


def _reversal(lengths: NDArray[np.int64] | None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A function that reverses each row of (B, T, ...) over its own length and fills the rest with zeros."""
    if lengths is None:
        return lambda array: array[:, ::-1]

    def reverse(array: NDArray[Any]) -> NDArray[Any]:
        turned = np.zeros_like(array)
        for row, length in enumerate(lengths):
            turned[row, :length] = array[row, :length][::-1]
        return turned

    return reverse
