"""Masks: which steps of a padded batch count, in any pattern.

A row with masked steps gives the same results as the row without those steps. So the steps that count are packed, run
as a ragged batch, and written back to their positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import as_array
from .schedule import Schedule, positions

#: What the output holds at steps that do not count: zeros, or the output of the step before.
PastEnd = Literal["zero", "carry"]


def check_mask(mask: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Copy a caller's mask.

    Parameters
    ----------
    mask : booleans of that shape, True where a step counts
    shape : of x without its last axis

    Raises
    ------
    TypeError, ValueError
        It has another type or shape.
    """
    array = as_array(mask, "mask")
    if array.dtype != np.bool_:
        raise TypeError(f"mask is of type {array.dtype}, wanted booleans")
    if array.shape != shape:
        raise ValueError(f"mask has shape {array.shape}, wanted {shape}: one for each step of x")
    return array.copy()


def is_right_padded(mask: NDArray[np.bool_]) -> bool:
    """Whether the masked steps of every row (B, T) are its last ones, so that lengths can describe the mask."""
    return not (mask[:, 1:] & ~mask[:, :-1]).any()


def packed_steps(mask: NDArray[np.bool_], order: Schedule) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and step of each packed vector.

    Parameters
    ----------
    mask : (B, T)
    order : the schedule of the numbers of steps that count in each row

    Examples
    --------
    >>> from fastrnn.schedule import schedule
    >>> mask = np.array([[False, True, False], [True, False, True]])
    >>> packed_steps(mask, schedule(mask.sum(axis=1)))
    (array([1, 0, 1]), array([0, 1, 2]))
    """
    counted_first = np.argsort(~mask, axis=1, kind="stable")
    ranks, rows = positions(order)
    return rows, counted_first[rows, ranks]


def fill_masked(y: NDArray[Any], mask: NDArray[np.bool_], past_end: PastEnd, reverse: Sequence[bool]) -> None:
    """Fill y (B, T, D*P) where mask is False: with zeros, or with the direction's previous output.

    The previous output is zeros before the first step that counts.

    reverse : whether each of the D directions is the reverse one
    """
    rows, steps = np.nonzero(~mask)
    if past_end == "zero":
        y[rows, steps] = 0
        return
    T, P = mask.shape[1], y.shape[2] // len(reverse)
    numbers = np.arange(T)
    before = np.maximum.accumulate(np.where(mask, numbers, -1), axis=1)[rows, steps]
    after = np.minimum.accumulate(np.where(mask, numbers, T)[:, ::-1], axis=1)[:, ::-1][rows, steps]
    for direction, backwards in enumerate(reverse):
        source, exists = (after, after < T) if backwards else (before, before >= 0)
        half = slice(direction * P, (direction + 1) * P)
        y[rows, steps, half] = 0
        y[rows[exists], steps[exists], half] = y[rows[exists], source[exists], half]
