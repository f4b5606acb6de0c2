"""What a call of a model does: check arguments, decide the order of rows, run the engine, and arrange the results.

B rows of T steps of width I become B rows of S steps of width O, or of one vector if the model pools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..arguments import Casting, as_floats, as_ids
from ..layers.calls import check_width, new_output, vectors_adjacent
from ..masks import check_mask, is_right_padded, packed_steps
from ..packed import Packed, as_packed, pad_sequence, with_torch_data
from ..schedule import Schedule, are_full, batch_sizes_of, check_lengths, positions, schedule
from .ids import id_error

if TYPE_CHECKING:
    from .sequential import Sequential


def run_array(
    model: Sequential,
    x: ArrayLike,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    out: NDArray[Any] | None,
    casting: Casting,
) -> NDArray[Any]:
    array = _take(model, x, "x", casting)
    axes = array.ndim if model.num_ids else array.ndim - 1  # of x without that of a step's vector
    if axes not in (1, 2):
        wanted = "(B, T), or (T,)" if model.num_ids else "(B, T, I), or (T, I)"
        raise ValueError(f"x has shape {array.shape}, wanted {wanted} for one sequence")
    _check_vectors(model, array, "x")
    unbatched = axes == 1
    swapped = not unbatched and not model.batch_first

    def batch_major(steps: NDArray[Any]) -> NDArray[Any]:
        return steps[None] if unbatched else steps.swapaxes(0, 1) if swapped else steps

    rows = batch_major(array)
    B, T = rows.shape[:2]
    batch_axes = () if unbatched else (B,)
    step_axes = () if model.pools else (model.output_steps(T),)
    leading = (*step_axes, *batch_axes) if swapped else (*batch_axes, *step_axes)
    result = new_output(model.dtype, out, array, (*leading, model.output_size))
    y = np.asarray(result)  # a subclass may have other indexing
    y = y.reshape(B, 1, model.output_size) if model.pools else batch_major(y)
    checked = None
    if lengths is not None and not are_full(lengths, B, T):
        checked = check_lengths(lengths, B, T)
    counted = None if mask is None else batch_major(check_mask(mask, array.shape[:axes]))
    if counted is not None and checked is not None:
        counted &= np.arange(T) < checked[:, None]
    try:
        _run_rows(model, rows, y, checked, counted)
    except _core.IdError:
        if counted is None:
            counted = np.arange(T) < (np.full(B, T) if checked is None else checked)[:, None]
        matters = counted.reshape(array.shape) if unbatched else batch_major(counted)
        raise id_error([("x", array)], model.num_ids, matters) from None
    return result


def _run_rows(
    model: Sequential,
    x: NDArray[Any],
    y: NDArray[Any],
    lengths: NDArray[np.int64] | None,
    counted: NDArray[np.bool_] | None = None,
) -> None:
    """Run rows of a padded batch.

    x : (B, T, I) or ids (B, T)
    y : (B, S, O), or (B, 1, O) if the model pools
    counted : (B, T), False at steps that are left out; in place of lengths
    """
    if model.mask_zero:
        if counted is None:
            counted = np.arange(x.shape[1]) < (np.full(len(x), x.shape[1]) if lengths is None else lengths)[:, None]
        counted = counted & (x != 0)
    if counted is not None:
        lengths = counted.sum(axis=1, dtype=np.int64)
        if not is_right_padded(counted):
            _run_masked(model, x, y, counted, schedule(lengths))
            return
    order = None if lengths is None else schedule(lengths)
    model._engine.run(_vectors(model, x), y, order, None if order is None or model.pools else "zero")


def _run_masked(
    model: Sequential, x: NDArray[Any], y: NDArray[Any], counted: NDArray[np.bool_], order: Schedule
) -> None:
    """Run the steps of x that count, and write each result where its step is, the others zero.

    If the model changes the number of steps, a row's results are written one after the other from the first step on.
    """
    rows, steps = packed_steps(counted, order)
    data = _vectors(model, x[rows, steps])
    if model.pools:
        model._engine.run(data, y, order)
        return
    if not model.keeps_steps:
        steps, rows = positions(_order_after(model, order))
    results = np.empty((len(rows), model.output_size), model.dtype)
    model._engine.run(data, results, order)
    y[...] = 0
    y[rows, steps] = results


def run_list(model: Sequential, x: Any, casting: Casting) -> Any:
    rows = []
    for i, sequence in enumerate(x):
        array = _take(model, sequence, f"x[{i}]", casting)
        if array.ndim != (1 if model.num_ids else 2):
            wanted = "(T,)" if model.num_ids else f"(T, {model.input_size})"
            raise ValueError(f"x[{i}] has shape {array.shape}, wanted {wanted}")
        _check_vectors(model, array, f"x[{i}]")
        rows.append(np.ascontiguousarray(array))
    order = schedule(np.array([len(row) for row in rows], np.int64))
    y: Any
    try:
        if model.mask_zero and [row for row in rows if not row.all()]:
            y, after = _run_padded(model, pad_sequence(rows, batch_first=True), order)
            return y if model.pools else [row[:steps] for row, steps in zip(y, after.tolist(), strict=True)]
        if model.pools:
            y = np.empty((len(rows), 1, model.output_size), model.dtype)
        else:
            y = [np.empty((model.output_steps(len(row)), model.output_size), model.dtype) for row in rows]
        model._engine.run([_vectors(model, row) for row in rows], y, order)
    except _core.IdError:
        raise id_error(((f"x[{i}]", row) for i, row in enumerate(rows)), model.num_ids) from None
    return y[:, 0] if model.pools else y


def run_packed(model: Sequential, x: Packed, casting: Casting) -> Any:
    data = np.ascontiguousarray(_take(model, x.data, "x.data", casting))
    if data.ndim != (1 if model.num_ids else 2):
        wanted = "(sum of lengths,)" if model.num_ids else f"(sum of lengths, {model.input_size})"
        raise ValueError(f"x.data has shape {data.shape}, wanted {wanted}")
    _check_vectors(model, data, "x.data")
    order = x.schedule
    if len(data) != order.batch_sizes.sum():
        raise ValueError(f"x.data has {len(data)} steps, but x.batch_sizes adds up to {order.batch_sizes.sum()}")
    after = _order_after(model, order)
    y: Any
    try:
        if model.mask_zero and not data.all():
            steps, rows = positions(order)
            padded = np.zeros((len(order.lengths), len(order.batch_sizes)), data.dtype)
            padded[rows, steps] = data
            y, lengths = _run_padded(model, padded, order)
            if model.pools:
                return y
            after = order if model.keeps_steps else schedule(lengths)
            steps, rows = positions(after)
            y = y[rows, steps]
        elif model.pools:
            y = np.empty((len(order.lengths), 1, model.output_size), model.dtype)
            model._engine.run(_vectors(model, data), y, order)
            return y[:, 0]
        else:
            y = np.empty((after.batch_sizes.sum(), model.output_size), model.dtype)
            model._engine.run(_vectors(model, data), y, order)
    except _core.IdError:
        raise id_error([("x.data", data)], model.num_ids) from None
    return Packed(y, after.batch_sizes, after.sorted_indices, after.unsorted_indices)


def run_torch(model: Sequential, x: Any, casting: Casting) -> Any:
    y = run_packed(model, as_packed(x, "x"), casting)
    if not isinstance(y, Packed):
        return y
    return with_torch_data(x, y.data, None if model.keeps_steps else y.schedule)


def _run_padded(model: Sequential, ids: NDArray[Any], order: Schedule) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Run padded ids (B, T), with zeros among them: y (B, S, O) and its lengths, or y (B, O) if the model pools."""
    B, T = ids.shape
    steps = 1 if model.pools else model.output_steps(T)
    y = np.empty((B, steps, model.output_size), model.dtype)
    lengths = order.lengths[order.unsorted_indices]
    _run_rows(model, ids, y, lengths)
    if model.pools:
        return y[:, 0], lengths
    return y, lengths if model.keeps_steps else model.output_steps((ids != 0).sum(axis=1))


def _order_after(model: Sequential, order: Schedule) -> Schedule:
    """The order of the results of rows in that order."""
    lengths = model.output_steps(order.lengths)
    return order._replace(lengths=lengths, batch_sizes=batch_sizes_of(lengths))


def _take(model: Sequential, x: Any, name: str, casting: Casting) -> NDArray[Any]:
    return as_ids(x, name) if model.num_ids else as_floats(x, name, model.dtype, casting)


def _check_vectors(model: Sequential, x: NDArray[Any], name: str) -> None:
    if not model.num_ids:
        check_width(model.input_size, x, name)


def _vectors(model: Sequential, x: NDArray[Any]) -> NDArray[Any]:
    """Inputs with an axis for a step's vector, of which ids have none, as the engine reads them."""
    if model.num_ids:
        return np.array(x, np.int64, order="C")[..., None]  # a copy: C checks ids, and reads them again later
    return vectors_adjacent(x)
