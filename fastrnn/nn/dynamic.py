"""dynamic_rnn: batches of any lengths on the sorted path."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from ..arguments import as_boolean
from .cells import runner_of, wanted_of
from .checks import check_cell, check_dtype, check_inputs, check_sequence_length, check_state
from .structure import Structure, flatten, map_structure, zeros


def dynamic_rnn(
    cell: Any,
    inputs: Structure,
    sequence_length: ArrayLike | None = None,
    initial_state: Structure = None,
    dtype: DTypeLike | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: Any = None,
) -> tuple[Structure, Structure]:
    """Run a cell over a padded batch; rows are sorted by length, and finished ones drop out.

    Parameters
    ----------
    cell : a cell of :mod:`fastrnn.nn.rnn_cell`, or any object with `state_size`, `output_size` and ``__call__``
    inputs : (B, T, I), or (T, B, I) if time_major; a nested structure of them for a cell of your own
    sequence_length : (B,) integers from 0 to T in any order; None: all T
        TensorFlow treats larger ones as T and negative ones as 0; here they are refused.
    initial_state : structure of (B, size) like ``cell.state_size``; None: zeros
    dtype : type of the zeros; None takes the cell's or the inputs' type
    time_major : whether inputs and outputs are (T, B, .) rather than (B, T, .)
    parallel_iterations, swap_memory, scope : ignored

    Returns
    -------
    outputs : (B, T, O), or (T, B, O) if time_major; zeros past a row's end
    state : structure like ``cell.state_size``, each row's state after its last step; a row of length 0 keeps its
        initial state

    Raises
    ------
    TypeError, ValueError
        An argument does not fit; the message says which, what was found and what was wanted.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import nn
    >>> weights = {"kernel": np.ones((2, 1)), "bias": np.zeros(1)}
    >>> cell = nn.rnn_cell.BasicRNNCell(1, activation="linear", weights=weights)
    >>> outputs, state = nn.dynamic_rnn(cell, np.ones((2, 3, 1)), sequence_length=[3, 1])
    >>> outputs[:, :, 0]
    array([[1., 2., 3.],
           [1., 0., 0.]])
    """
    check_cell(cell, "cell")
    arrays = check_inputs(inputs, "inputs", "TB" if as_boolean(time_major, "time_major") else "BT", *wanted_of(cell))
    if time_major:
        arrays = swap_axes(arrays)
    lengths = check_sequence_length(sequence_length, *flatten(arrays)[0].shape[:2])
    state = start_state(cell, arrays, initial_state, dtype)
    outputs, state = runner_of(cell, None)(arrays, state, lengths)
    return swap_axes(outputs) if time_major else outputs, state


def start_state(
    cell: Any, inputs: Structure, initial_state: Structure, dtype: DTypeLike | None, name: str = "initial_state"
) -> Structure:
    """Check the caller's initial state, or make zeros of type dtype, or else of the cell's or the inputs' type."""
    first, (_, wanted) = flatten(inputs)[0], wanted_of(cell)
    found = check_dtype(dtype, first.dtype if wanted is None else wanted)
    if wanted is not None and found != wanted:
        raise TypeError(f"dtype is {found}, but the cell computes in {wanted}")
    if initial_state is not None:
        return check_state(initial_state, cell.state_size, len(first), wanted, name)
    return zeros(cell.state_size, len(first), dtype=found)


def swap_axes(structure: Structure) -> Structure:
    """(B, T, ...) to (T, B, ...) and back."""
    return map_structure(lambda leaf: leaf.swapaxes(0, 1), structure)
