"""Packed sequences: the valid steps of a ragged batch, step by step, longest row first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import as_array, as_integer
from .schedule import Schedule, check_lengths, positions, schedule


@dataclass(frozen=True)
class Packed:
    """The valid steps of a ragged batch, as in PyTorch's ``PackedSequence``.

    Rows of length zero are allowed: they have indices, but no data.

    Attributes
    ----------
    data : (sum of lengths, I), step 0 of all rows in sorted order, then step 1 of those still alive, ...
    batch_sizes : (T,) int64, rows alive at each step
    sorted_indices : (B,) int64, sorted order to the caller's
    unsorted_indices : (B,) int64, its inverse

    Raises
    ------
    TypeError, ValueError
        The parts do not describe one batch.
    """

    data: NDArray[Any]
    batch_sizes: NDArray[np.int64]
    sorted_indices: NDArray[np.int64]
    unsorted_indices: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("data", "batch_sizes", "sorted_indices", "unsorted_indices"):
            object.__setattr__(self, name, as_array(getattr(self, name), name))
        if self.data.ndim != 2:
            raise ValueError(f"data has shape {self.data.shape}, wanted (sum of lengths, width)")
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            array = getattr(self, name)
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise TypeError(f"{name} is {array.dtype} of shape {array.shape}, wanted one dimension of integers")
            # Over bytes of its own, which nobody can write to: the engine walks memory by these.
            object.__setattr__(self, name, np.frombuffer(array.astype(np.int64).tobytes(), np.int64))
        B, sizes = len(self.sorted_indices), self.batch_sizes
        if not np.array_equal(np.sort(self.sorted_indices), np.arange(B)):
            raise ValueError(f"sorted_indices is no permutation of 0 to {B - 1}")
        inverse = self.unsorted_indices
        if len(inverse) != B or not np.array_equal(inverse[self.sorted_indices], np.arange(B)):
            raise ValueError("unsorted_indices is not the inverse of sorted_indices")
        if len(sizes) and (sizes[0] > B or sizes[-1] < 1 or (np.diff(sizes) > 0).any()):
            found = f"goes from {sizes[0]} to {sizes[-1]}"
            raise ValueError(f"batch_sizes {found}, wanted it never to increase, from at most {B} to at least 1")
        if sizes.sum() != len(self.data):
            raise ValueError(f"data has {len(self.data)} steps, but batch_sizes adds up to {sizes.sum()}")

    @property
    def schedule(self) -> Schedule:
        """The order that the data is in."""
        alive = np.searchsorted(-self.batch_sizes, -np.arange(len(self.sorted_indices)), side="left")
        return Schedule(alive.astype(np.int64), self.sorted_indices, self.unsorted_indices, self.batch_sizes)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(B,) lengths in the caller's order."""
        return self.schedule.lengths[self.unsorted_indices]


def pack(x: ArrayLike, lengths: ArrayLike, batch_first: bool = True) -> Packed:
    """Pack padded sequences (PyTorch's ``pack_padded_sequence`` with ``enforce_sorted=False``).

    Parameters
    ----------
    x : (B, T, I), or (T, B, I) if not batch_first
    lengths : (B,) integers from 0 to T, in any order

    Raises
    ------
    TypeError, ValueError
        A shape, type or length does not fit; the message names it.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> packed = fastrnn.pack(np.arange(6.0).reshape(2, 3, 1), [1, 3])
    >>> packed.data.ravel()
    array([3., 0., 4., 5.])
    """
    array = as_array(x, "x")
    if array.ndim != 3:
        raise ValueError(f"x has shape {array.shape}, wanted three dimensions")
    if not batch_first:
        array = array.swapaxes(0, 1)
    order = schedule(check_lengths(lengths, array.shape[0], array.shape[1]))
    steps, rows = positions(order)
    return Packed(array[rows, steps], order.batch_sizes, order.sorted_indices, order.unsorted_indices)


def unpack(
    packed: Packed, batch_first: bool = True, total_length: int | None = None, padding_value: float = 0.0
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Unpack to padded sequences and their lengths (PyTorch's ``pad_packed_sequence``).

    Parameters
    ----------
    total_length : steps of the result; None takes the longest row's
    padding_value : what stands past a row's end

    Returns
    -------
    x : (B, T, I), or (T, B, I) if not batch_first
    lengths : (B,) int64, in the order that was packed

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type, or total_length is less than the longest row.
    """
    if not isinstance(packed, Packed):
        raise TypeError(f"packed is {type(packed).__name__}, wanted fastrnn.Packed")
    order = packed.schedule
    longest = len(packed.batch_sizes)
    T = longest if total_length is None else as_integer(total_length, "total_length", 0)
    if not np.can_cast(as_array(padding_value, "padding_value").dtype, packed.data.dtype, "same_kind"):
        raise TypeError(f"padding_value is {padding_value!r}, wanted a number that fits {packed.data.dtype}")
    if longest > T:
        raise ValueError(f"total_length is {T}, but the longest sequence has {longest} steps")
    x = np.full((len(order.lengths), T, packed.data.shape[1]), padding_value, packed.data.dtype)
    steps, rows = positions(order)
    x[rows, steps] = packed.data
    return (x if batch_first else x.swapaxes(0, 1)), packed.lengths
