"""The order in which the rows of a ragged batch run. Python decides the order, C runs the loop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import as_array


class Schedule(NamedTuple):
    """A ragged batch in run order: longest row first, so that the rows still running at a step are the first.

    Attributes
    ----------
    lengths : (B,) int64, in run order, never increasing
    sorted_indices : (B,) int64; row r in run order is the caller's row ``sorted_indices[r]``
    unsorted_indices : (B,) int64, its inverse
    batch_sizes : (max(lengths),) int64, number of rows still running at each step
    """

    lengths: NDArray[np.int64]
    sorted_indices: NDArray[np.int64]
    unsorted_indices: NDArray[np.int64]
    batch_sizes: NDArray[np.int64]


def schedule(lengths: NDArray[np.int64]) -> Schedule:
    """Sort rows by length, longest first; rows of equal length keep their order.

    Parameters
    ----------
    lengths : (B,) int64, none negative

    Examples
    --------
    >>> schedule(np.array([2, 0, 3])).batch_sizes
    array([2, 2, 1])
    """
    sorted_indices = np.argsort(-lengths, kind="stable")
    unsorted_indices = np.empty_like(sorted_indices)
    unsorted_indices[sorted_indices] = np.arange(len(lengths))
    in_order = lengths[sorted_indices]
    return Schedule(in_order, sorted_indices, unsorted_indices, batch_sizes_of(in_order))


def batch_sizes_of(in_order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of rows still running at each step; in_order: (B,) lengths, never increasing."""
    longest = int(in_order[0]) if len(in_order) else 0
    return (len(in_order) - np.cumsum(np.bincount(in_order, minlength=longest + 1))[:longest]).astype(np.int64)


def positions(order: Schedule) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The step, and the row in the caller's order, of each packed vector."""
    steps = np.repeat(np.arange(len(order.batch_sizes)), order.batch_sizes)
    starts = np.cumsum(order.batch_sizes) - order.batch_sizes
    return steps, order.sorted_indices[np.arange(len(steps)) - np.repeat(starts, order.batch_sizes)]


def are_full(lengths: ArrayLike, num_rows: int, num_steps: int) -> bool:
    """Whether these are valid lengths and all equal num_steps, so that there is nothing to sort."""
    array = as_array(lengths, "lengths")
    # Counting in a list takes a microsecond for a hundred rows; each NumPy reduction would take more.
    return array.dtype.kind in "iu" and array.shape == (num_rows,) and array.tolist().count(num_steps) == num_rows


def check_lengths(
    lengths: ArrayLike, num_rows: int, num_steps: int | None, name: str = "lengths", of: str = "x"
) -> NDArray[np.int64]:
    """Check a caller's lengths in their own integer type, then convert them to int64.

    Parameters
    ----------
    lengths : (num_rows,) of any integer type, each from 0 to num_steps
    num_steps : steps that x has; None sets no upper bound
    name, of : the caller's names of lengths and x, for messages

    Raises
    ------
    TypeError
        They are not integers.
    ValueError
        Their shape or one of their values is wrong; the message names the row.
    """
    array = as_array(lengths, name)
    if array.dtype.kind not in "iu" and isinstance(lengths, list | tuple) and all(type(n) is int for n in lengths):
        array = np.array(lengths, object)  # empty, or beyond 64 bits: NumPy would make floats
    elif array.dtype.kind not in "iu":
        raise TypeError(f"{name} is of type {array.dtype}, wanted integers")
    if array.shape != (num_rows,):
        raise ValueError(f"{name} has shape {array.shape}, wanted ({num_rows},): one for each row of {of}")
    bad = (array < 0) | (array > (np.iinfo(np.int64).max if num_steps is None else num_steps))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{name}[{row}] is {array[row]}, but {_steps(num_steps, name, of)}")
    return array.astype(np.int64)


def _steps(num_steps: int | None, name: str, of: str) -> str:
    return f"{name} are from 0 up" if num_steps is None else f"{of} has {num_steps} steps: wanted 0 to {num_steps}"
