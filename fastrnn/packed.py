"""Packed sequences: the valid steps of a ragged batch, step by step, longest row first."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import as_array, as_boolean, as_integer
from .schedule import Schedule, check_lengths, positions, schedule


@dataclass(frozen=True, init=False)
class Packed:
    """The valid steps of a ragged batch, as in PyTorch's ``PackedSequence``.

    Rows of length zero are allowed: they have indices, but no data. ``Packed(*packed_sequence)`` converts
    one of PyTorch. Indices that are None, as in PyTorch's for sorted rows, become the indices of the given order.

    Attributes
    ----------
    data : (sum of lengths, ...), step 0 of all rows in sorted order, then step 1 of those still running, ...
    batch_sizes : (T,) int64, number of rows still running at each step
    sorted_indices : (B,) int64; row r in sorted order is the caller's row ``sorted_indices[r]``
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

    def __init__(
        self,
        data: ArrayLike,
        batch_sizes: ArrayLike,
        sorted_indices: ArrayLike | None = None,
        unsorted_indices: ArrayLike | None = None,
    ) -> None:
        steps = as_array(data, "data")
        if steps.ndim == 0:
            raise ValueError("data has shape (), wanted (sum of lengths, ...)")
        sizes = _as_order(batch_sizes, "batch_sizes")
        inverse = None if unsorted_indices is None else _as_order(unsorted_indices, "unsorted_indices")
        if sorted_indices is None:
            B = len(inverse) if inverse is not None else max(0, int(sizes[0])) if len(sizes) else 0
            if len(steps) < B and inverse is None:
                raise ValueError(f"data has {len(steps)} steps, but batch_sizes begins with {B}")
            order = _as_order(np.arange(B), "sorted_indices")
        else:
            order = _as_order(sorted_indices, "sorted_indices")
            B = len(order)
            if not np.array_equal(np.sort(order), np.arange(B)):
                raise ValueError(f"sorted_indices is not a permutation of 0 to {B - 1}")
        if inverse is None:
            inverse = _as_order(np.argsort(order), "unsorted_indices")
        if len(inverse) != B or not np.array_equal(inverse[order], np.arange(B)):
            raise ValueError("unsorted_indices is not the inverse of sorted_indices")
        if len(sizes) and (sizes[0] > B or sizes[-1] < 1 or (np.diff(sizes) > 0).any()):
            found = f"goes from {sizes[0]} to {sizes[-1]}"
            raise ValueError(f"batch_sizes {found}, wanted it never to increase, from at most {B} to at least 1")
        if sizes.sum() != len(steps):
            raise ValueError(f"data has {len(steps)} steps, but batch_sizes adds up to {sizes.sum()}")
        for name, value in zip(("data", "batch_sizes", *_INDICES), (steps, sizes, order, inverse), strict=True):
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are built and checked by the constructor."""
        return Packed, (self.data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)

    @property
    def schedule(self) -> Schedule:
        """The order that the data is in."""
        alive = np.searchsorted(-self.batch_sizes, -np.arange(len(self.sorted_indices)), side="left")
        return Schedule(alive.astype(np.int64), self.sorted_indices, self.unsorted_indices, self.batch_sizes)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(B,) lengths in the caller's order."""
        return self.schedule.lengths[self.unsorted_indices]


class PackedLike(Protocol):
    """Packed and PyTorch's PackedSequence, for type checkers."""

    @property
    def data(self) -> Any: ...
    @property
    def batch_sizes(self) -> Any: ...
    @property
    def sorted_indices(self) -> Any: ...
    @property
    def unsorted_indices(self) -> Any: ...


_INDICES = ("sorted_indices", "unsorted_indices")


def _as_order(value: Any, name: str) -> NDArray[np.int64]:
    """A read-only copy as int64: the engine computes addresses from it, so it must not change."""
    array = as_array(value, name)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"{name} is {array.dtype} of shape {array.shape}, wanted integers in one dimension")
    return np.frombuffer(array.astype(np.int64).tobytes(), np.int64)


def is_torch_packed(value: Any) -> bool:
    """Whether it is PyTorch's PackedSequence, without importing PyTorch."""
    kind = getattr(sys.modules.get("torch.nn.utils.rnn"), "PackedSequence", None)
    return kind is not None and isinstance(value, kind)


def as_packed(value: Any, name: str) -> Packed:
    """Return a Packed unchanged, and PyTorch's PackedSequence converted to one.

    Raises
    ------
    TypeError, ValueError
        It is neither, or its parts do not describe one batch.
    """
    if isinstance(value, Packed):
        return value
    if not is_torch_packed(value):
        raise TypeError(f"{name} is {type(value).__name__}, wanted fastrnn.Packed or PyTorch's PackedSequence")
    return Packed(as_array(value.data, f"{name}.data"), *value[1:])


def with_torch_data(like: Any, data: NDArray[Any], order: Schedule | None = None) -> Any:
    """A PackedSequence of PyTorch with other data, in the order of `like`, or in another one."""
    from_numpy = sys.modules["torch"].from_numpy
    if order is None:
        return type(like)(from_numpy(data), like.batch_sizes, like.sorted_indices, like.unsorted_indices)
    parts = order.batch_sizes, order.sorted_indices, order.unsorted_indices
    return type(like)(from_numpy(data), *(from_numpy(np.array(part)) for part in parts))


def pack(x: ArrayLike, lengths: ArrayLike, batch_first: bool = True, enforce_sorted: bool = False) -> Packed:
    """Pack padded sequences, as PyTorch's ``pack_padded_sequence``.

    The defaults differ: PyTorch's are batch_first=False and enforce_sorted=True.

    Parameters
    ----------
    x : (B, T, ...), or (T, B, ...) if not batch_first
    lengths : (B,) integers from 0 to T; PyTorch refuses zeros
    enforce_sorted : whether to refuse lengths that are not in decreasing order instead of sorting the rows

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
    if array.ndim < 2:
        raise ValueError(f"x has shape {array.shape}, wanted two dimensions or more")
    if not as_boolean(batch_first, "batch_first"):
        array = array.swapaxes(0, 1)
    checked = check_lengths(lengths, array.shape[0], array.shape[1])
    if as_boolean(enforce_sorted, "enforce_sorted"):
        _check_sorted(checked, "lengths[{}] is {} after {}")
    order = schedule(checked)
    steps, rows = positions(order)
    return Packed(array[rows, steps], order.batch_sizes, order.sorted_indices, order.unsorted_indices)


def unpack(
    packed: PackedLike, batch_first: bool = True, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Unpack to padded sequences and their lengths, as PyTorch's ``pad_packed_sequence``.

    The default of PyTorch is batch_first=False.

    Parameters
    ----------
    packed : Packed, or PyTorch's PackedSequence
    padding_value : fills y past a row's end; a number that the data's type can represent
    total_length : steps of the result; None takes the longest row's

    Returns
    -------
    x : (B, T, ...), or (T, B, ...) if not batch_first
    lengths : (B,) int64, in the order that was packed

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type, padding_value does not fit, or total_length is less than the longest row.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x, lengths = fastrnn.unpack(fastrnn.pack(np.arange(6).reshape(2, 3), [1, 3]))
    >>> x
    array([[0, 0, 0],
           [3, 4, 5]])
    """
    given = as_packed(packed, "packed")
    order = given.schedule
    longest = len(given.batch_sizes)
    T = longest if total_length is None else as_integer(total_length, "total_length", 0)
    if longest > T:
        raise ValueError(f"total_length is {T}, but the longest sequence has {longest} steps")
    padding = _check_padding(padding_value, given.data.dtype)
    try:
        x = np.full((len(order.lengths), T, *given.data.shape[1:]), padding, given.data.dtype)
    except ValueError:  # NumPy's message does not name the argument
        raise ValueError(f"total_length is {T}, wanted fewer steps: the result exceeds the address range") from None
    steps, rows = positions(order)
    x[rows, steps] = given.data
    return (x if as_boolean(batch_first, "batch_first") else x.swapaxes(0, 1)), given.lengths


def pad_sequence(
    sequences: Iterable[ArrayLike],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: Literal["right", "left"] = "right",
) -> NDArray[Any]:
    """Pad sequences of unequal length and stack them, as PyTorch's ``pad_sequence`` and with its defaults.

    Parameters
    ----------
    sequences : B arrays (T_i, ...) that differ only in T_i
    padding_value : fills the shorter sequences; a number that their type can represent
    padding_side : "right" or "left", the end at which the padding is added

    Returns
    -------
    (T, B, ...) array, or (B, T, ...) if batch_first; T is the longest sequence's

    Raises
    ------
    TypeError, ValueError
        There are no sequences, they differ in type or in other axes, or an argument does not fit.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.pad_sequence([[1, 2], [3]], batch_first=True)
    array([[1, 2],
           [3, 0]])
    """
    if not isinstance(padding_side, str) or padding_side not in ("right", "left"):
        raise ValueError(f"padding_side is {padding_side!r}, wanted 'right' or 'left'")
    arrays = _check_sequences(sequences)
    padding = _check_padding(padding_value, arrays[0].dtype)
    T = max(map(len, arrays))
    x = np.full((len(arrays), T, *arrays[0].shape[1:]), padding, arrays[0].dtype)
    for row, array in zip(x, arrays, strict=True):
        start = T - len(array) if padding_side == "left" else 0
        row[start : start + len(array)] = array
    return x if as_boolean(batch_first, "batch_first") else x.swapaxes(0, 1)


def pack_sequence(sequences: Iterable[ArrayLike], enforce_sorted: bool = True) -> Packed:
    """Pack sequences of unequal length, as PyTorch's ``pack_sequence`` and with its defaults.

    Parameters
    ----------
    sequences : B arrays (T_i, ...) that differ only in T_i; T_i may be 0, which PyTorch refuses
    enforce_sorted : whether to refuse sequences that are not in order of decreasing length instead of sorting them

    Raises
    ------
    TypeError, ValueError
        There are no sequences, or they do not fit; the message names the first that does not.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.pack_sequence([[1, 2, 3], [4, 5], [6]]).data
    array([1, 4, 6, 2, 5, 3])
    """
    arrays = _check_sequences(sequences)
    lengths = np.array([len(array) for array in arrays], np.int64)
    if as_boolean(enforce_sorted, "enforce_sorted"):
        _check_sorted(lengths, "sequences[{}] has {} steps after {}")
    order = schedule(lengths)
    steps, rows = positions(order)
    data = np.concatenate(arrays)[(np.cumsum(lengths) - lengths)[rows] + steps]
    return Packed(data, order.batch_sizes, order.sorted_indices, order.unsorted_indices)


def unpack_sequence(packed_sequences: PackedLike) -> list[NDArray[Any]]:
    """The sequences (T_i, ...) in the order that was packed, as PyTorch's ``unpack_sequence``.

    Parameters
    ----------
    packed_sequences : Packed, or PyTorch's PackedSequence

    Raises
    ------
    TypeError
        It is neither.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.unpack_sequence(fastrnn.pack_sequence([[1, 2], [3]]))
    [array([1, 2]), array([3])]
    """
    packed = as_packed(packed_sequences, "packed_sequences")
    steps, rows = positions(packed.schedule)
    data = packed.data[np.lexsort((steps, rows))]
    return np.split(data, np.cumsum(packed.lengths)[:-1])[: len(packed.sorted_indices)]


def _check_sequences(sequences: Iterable[ArrayLike]) -> list[NDArray[Any]]:
    """The sequences as arrays: at least one, all of one type and equal in every axis but the first."""
    try:
        given = list(sequences)
    except TypeError as error:
        raise TypeError(f"sequences is {type(sequences).__name__}, wanted an iterable of arrays: {error}") from error
    arrays = [as_array(sequence, f"sequences[{i}]") for i, sequence in enumerate(given)]
    if not arrays:
        raise ValueError("sequences is empty, wanted at least one: an array's other axes and type are not known")
    trailing = "".join(f", {size}" for size in arrays[0].shape[1:])
    for i, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(f"sequences[{i}] has shape {array.shape}, wanted (T{trailing or ','})")
        if array.dtype != arrays[0].dtype:
            raise TypeError(f"sequences[{i}] is {array.dtype}, wanted {arrays[0].dtype} as sequences[0]")
    return arrays


def _check_sorted(lengths: NDArray[np.int64], found: str) -> None:
    longer = np.flatnonzero(np.diff(lengths) > 0)
    if len(longer):
        row = int(longer[0]) + 1
        found = found.format(row, lengths[row], lengths[row - 1])
        raise ValueError(f"{found}, wanted the longest first, or enforce_sorted=False")


def _check_padding(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`value` in that type: exact in an integer type, rounded but finite in a floating-point type."""
    given = as_array(value, "padding_value")
    message = f"padding_value is {value!r}, wanted a number that fits {dtype}"
    if given.shape != () or given.dtype.kind not in "fciubO" or (given.dtype.kind == "c" and dtype.kind != "c"):
        raise TypeError(message)
    if given.dtype.kind == "O" and type(value) is not int:  # an integer beyond 64 bits is of type object
        raise TypeError(message)
    try:
        with np.errstate(all="ignore"):
            padding = given.astype(dtype)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(message) from None
    if dtype.kind in "fc":
        fits = bool(np.isfinite(padding)) or (given.dtype.kind != "O" and not np.isfinite(given))
    else:
        fits = padding.item() == given.item()
    if not fits:
        raise ValueError(message)
    return padding
