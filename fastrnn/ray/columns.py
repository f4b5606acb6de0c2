"""Columns of a batch to sequences, and results to columns: NumPy's, Arrow's and pandas's batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: A row as it is in a column: an array (T,) or (T, I), nested lists of numbers, a string, or a list of strings.
Row = Any


def rows_of(batch: Any, name: str) -> list[Row]:
    """The rows of a column.

    Parameters
    ----------
    batch : a mapping of arrays, a pyarrow.Table or a pandas.DataFrame

    Raises
    ------
    KeyError
        There is no such column.
    TypeError
        A row is no sequence.
    ValueError
        A row or a value is missing; rows of an Arrow column have steps of unequal widths.
    """
    names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
    if name not in names:
        raise KeyError(f"there is no column {name!r}, only {', '.join(map(repr, names))}")
    column = batch[name]
    rows: list[Row] = []
    if isinstance(column, pa.ChunkedArray):
        for chunk in column.chunks:
            rows.extend(_rows_of_arrow(chunk, name, len(rows)))
    else:
        rows.extend(column)
    for index, row in enumerate(rows):
        if row is None:
            raise ValueError(f"{name}[{index}] is missing")
        if not hasattr(row, "__len__") or isinstance(row, Mapping):
            raise TypeError(f"{name}[{index}] is {row!r:.100}, wanted a sequence")
    return rows


def _rows_of_arrow(array: pa.Array, name: str, first: int) -> list[Row]:
    """The rows of a chunk; first : the number of its first row in the column, for messages."""
    kind = array.type
    if _is_string(kind) or (_is_list(kind) and _is_string(kind.value_type)):
        texts: list[Row] = array.to_pylist()
        return texts
    if isinstance(array, pa.FixedShapeTensorArray):
        return list(array.to_numpy_ndarray())
    if not _is_list(kind):
        return list(array.to_numpy(zero_copy_only=False))  # of an extension, such as Ray's tensors
    if array.null_count:
        raise ValueError(f"{name}[{first + array.is_null().to_pylist().index(True)}] is missing")
    if pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_type))
    try:
        steps = _numbers(array.flatten(), name)
    except ValueError:
        for index in range(len(array)):  # which row it is
            _numbers(array.slice(index, 1).flatten(), f"{name}[{first + index}]")
        raise
    ends = array.offsets.to_numpy()
    return [steps[start:end] for start, end in zip(ends[:-1] - ends[0], ends[1:] - ends[0], strict=True)]


def _numbers(values: pa.Array, name: str) -> NDArray[Any]:
    """Steps as an array (T,), or (T, I) of lists of numbers."""
    if values.null_count:
        raise ValueError(f"{name} has a value that is missing")
    if not _is_list(values.type):
        steps: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return steps
    inner = _numbers(values.flatten(), name)
    if pa.types.is_fixed_size_list(values.type):
        return inner.reshape(len(values), values.type.list_size)
    widths = np.diff(values.offsets.to_numpy())
    if len(widths) and (widths != widths[0]).any():
        raise ValueError(f"{name} has steps of {widths.min()} and of {widths.max()} numbers")
    return inner.reshape(len(widths), -1) if len(widths) else inner.reshape(0, 0)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def with_column(batch: Any, name: str, results: Sequence[Any]) -> Any:
    """The batch with a column of results, one a row; a column of that name is replaced.

    In an Arrow table arrays become lists: (S, O) a list of S lists of fixed size O, (O,) a list of fixed size O.
    """
    if isinstance(batch, pa.Table):
        column = _arrow_column(results)
        if name in batch.column_names:
            return batch.set_column(batch.column_names.index(name), name, column)
        return batch.append_column(name, column)
    objects = np.empty(len(results), object)
    objects[:] = list(results)
    if hasattr(batch, "assign"):
        return batch.assign(**{name: objects})
    return {**batch, name: objects}


def _arrow_column(results: Sequence[Any]) -> pa.Array:
    if not results or not isinstance(results[0], np.ndarray):
        return pa.array(list(results))
    width = results[0].shape[-1]
    steps = np.concatenate(results, axis=None) if results[0].ndim == 2 else np.stack(results).ravel()
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(steps), width)
    if results[0].ndim == 1:
        return vectors
    offsets = np.cumsum([0, *map(len, results)])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), vectors)
