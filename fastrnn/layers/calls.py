"""What a call of a layer does: check arguments, decide the order of rows, run the engine, and arrange the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..arguments import Casting, as_floats
from ..masks import PastEnd, check_mask, fill_masked, is_right_padded, packed_steps
from ..packed import Packed, as_packed, with_torch_data
from ..schedule import Schedule, are_full, check_lengths, schedule
from ..states import StateLike, check_state, join_state, new_state

if TYPE_CHECKING:
    from .layer import Layer


def run_array(
    layer: Layer[Any],
    x: ArrayLike,
    state: StateLike,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    past_end: PastEnd,
    out: NDArray[Any] | None,
    casting: Casting,
    unrolled: _core.Unrolled | None = None,
) -> tuple[Any, Any]:
    array = as_floats(x, "x", layer.dtype, casting)
    if array.ndim not in (2, 3):
        raise ValueError(f"x has shape {array.shape}, wanted (B, T, I), or (T, I) for one sequence")
    check_width(layer.input_size, array, "x")
    unbatched = array.ndim == 2
    time_major = not unbatched and not layer.batch_first
    rows_first = array[None] if unbatched else array.swapaxes(0, 1) if time_major else array
    B, T = rows_first.shape[:2]
    result = new_output(layer.dtype, out, array, (*array.shape[:-1], layer.output_size))
    y = result if out is None else np.asarray(result)  # a subclass may have other indexing
    y_rows = y[None] if unbatched else y.swapaxes(0, 1) if time_major else y
    h0, c0 = check_state(layer, state, B, unbatched, casting)
    for part in (h0, c0):
        if out is not None and part is not None and np.may_share_memory(y, part):
            raise ValueError("out overlaps state, wanted memory of its own")
    checked = None
    if lengths is not None and not are_full(lengths, B, T):
        checked = check_lengths(lengths, B, T)
    hn, cn = new_state(layer, B)
    if mask is not None:
        counted = check_mask(mask, array.shape[:-1])
        counted = counted[None] if unbatched else counted.swapaxes(0, 1) if time_major else counted
        if checked is not None:
            counted &= np.arange(T) < checked[:, None]
        _run_masked(layer, rows_first, y_rows, counted, past_end, (h0, c0, hn, cn))
    else:
        order = None if checked is None else schedule(checked)
        fill = None if order is None else past_end
        layer._engine.run(vectors_adjacent(rows_first), y_rows, order, h0, c0, hn, cn, unrolled, fill)
    if unbatched:
        hn, cn = hn[:, 0], None if cn is None else cn[:, 0]
    return result, join_state(hn, cn)


def _run_masked(
    layer: Layer[Any],
    x: NDArray[Any],
    y: NDArray[Any],
    mask: NDArray[np.bool_],
    past_end: PastEnd,
    states: tuple[Any, ...],
) -> None:
    """Run the steps of x (B, T, I) where mask (B, T) is True into y (B, T, D*P); states are h0, c0, hn, cn."""
    order = schedule(mask.sum(axis=1, dtype=np.int64))
    if is_right_padded(mask):
        layer._engine.run(vectors_adjacent(x), y, order, *states)
    else:
        rows, steps = packed_steps(mask, order)
        y[rows, steps] = _run_steps(layer, x[rows, steps], order, states)
    fill_masked(y, mask, past_end, (False, True) if layer.bidirectional else (layer.reverse,))


def run_list(layer: Layer[Any], x: Any, state: StateLike, casting: Casting) -> tuple[list[NDArray[Any]], Any]:
    rows = []
    for i, sequence in enumerate(x):
        array = as_floats(sequence, f"x[{i}]", layer.dtype, casting)
        if array.ndim != 2:
            raise ValueError(f"x[{i}] has shape {array.shape}, wanted (T, {layer.input_size})")
        check_width(layer.input_size, array, f"x[{i}]")
        rows.append(np.ascontiguousarray(array))
    h0, c0 = check_state(layer, state, len(rows), False, casting)
    hn, cn = new_state(layer, len(rows))
    y = [np.empty((len(row), layer.output_size), layer.dtype) for row in rows]
    order = schedule(np.array([len(row) for row in rows], np.int64))
    layer._engine.run(rows, y, order, h0, c0, hn, cn)
    return y, join_state(hn, cn)


def run_packed(layer: Layer[Any], x: Packed, state: StateLike, casting: Casting) -> tuple[Packed, Any]:
    data = np.ascontiguousarray(as_floats(x.data, "x.data", layer.dtype, casting))
    if data.ndim != 2:
        raise ValueError(f"x.data has shape {data.shape}, wanted (sum of lengths, {layer.input_size})")
    check_width(layer.input_size, data, "x.data")
    order = x.schedule
    if len(data) != order.batch_sizes.sum():
        raise ValueError(f"x.data has {len(data)} steps, but x.batch_sizes adds up to {order.batch_sizes.sum()}")
    B = len(order.lengths)
    h0, c0 = check_state(layer, state, B, False, casting)
    hn, cn = new_state(layer, B)
    y = _run_steps(layer, data, order, (h0, c0, hn, cn))
    return Packed(y, x.batch_sizes, x.sorted_indices, x.unsorted_indices), join_state(hn, cn)


def run_torch(layer: Layer[Any], x: Any, state: StateLike, casting: Casting) -> tuple[Any, Any]:
    y, last = run_packed(layer, as_packed(x, "x"), state, casting)
    return with_torch_data(x, y.data), last


def _run_steps(layer: Layer[Any], data: NDArray[Any], order: Schedule, states: tuple[Any, ...]) -> NDArray[Any]:
    """Run packed steps (N, I) to packed outputs (N, D*P); states are h0, c0, hn, cn."""
    y = np.empty((len(data), layer.output_size), layer.dtype)
    layer._engine.run(data, y, order, *states)
    return y


def is_list_of_sequences(x: Any) -> bool:
    """Whether x is a list of sequences, rather than of Python numbers that make up one array."""
    if not isinstance(x, list):
        return False
    if not x:
        return True
    for row in x:  # not any(): if memory runs out, Python prints that it cannot close the generator
        if hasattr(row, "__array__") or hasattr(row, "shape"):
            return True
    return len({len(row) for row in x if isinstance(row, list | tuple)}) > 1


def check_width(width: int, array: NDArray[Any], name: str) -> None:
    """Raise ValueError if the vectors of an input are not `width` wide."""
    if array.shape[-1] != width:
        found = f"has shape {array.shape}: its last axis is {array.shape[-1]} wide"
        raise ValueError(f"{name} {found}, wanted {width}")


def new_output(dtype: np.dtype[Any], out: Any, x: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """`out` if a result of that type and shape may be written there, or if it is None, a new array."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is {type(out).__name__}, wanted a NumPy array")
    array = np.asarray(out)  # a subclass may report another dtype or shape
    if array.dtype != dtype or not array.dtype.isnative:
        raise TypeError(f"out is {array.dtype.str}, wanted {dtype.str}")
    if array.shape != shape:
        raise ValueError(f"out has shape {array.shape}, wanted {shape}")
    if not array.flags.carray:
        raise ValueError("out is not C-contiguous, aligned and writeable, wanted an array that is")
    if np.may_share_memory(array, x):
        raise ValueError("out overlaps x, wanted memory of its own")
    return out


def vectors_adjacent(x: NDArray[Any]) -> NDArray[Any]:
    """x, copied if the elements of a step's vector are not adjacent; other strides may have any value."""
    width_ok = x.shape[-1] <= 1 or x.strides[-1] == x.itemsize
    steps_ok = all(stride % x.itemsize == 0 for stride in x.strides[:-1])
    return x if width_ok and steps_ok else np.ascontiguousarray(x)
