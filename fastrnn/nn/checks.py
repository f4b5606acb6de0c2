"""Checks of callers' cells, inputs, states and lengths; an error names the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_array, as_integer, as_real
from ..schedule import check_lengths
from .structure import Structure, axes_of, map_structure, pack, shape_of, walk


def check_cell(cell: Any, name: str) -> None:
    """Check that an object is a cell: it can be called and has `state_size` and `output_size`."""
    if isinstance(cell, type):
        raise TypeError(f"{name} is the class {cell.__name__}, wanted a cell made from it")
    missing = [part for part in ("state_size", "output_size") if not hasattr(cell, part)]
    if not callable(cell) or missing:
        found = f"{type(cell).__name__}, without {' and '.join(missing) or '__call__'}"
        raise TypeError(f"{name} is {found}: wanted a cell")
    for part in ("state_size", "output_size"):
        for path, size in walk(getattr(cell, part), f"{name}.{part}"):
            for axis in axes_of(size):
                as_integer(axis, path, 0)


def check_inputs(
    inputs: Structure, name: str, axes: str, input_size: int | None, dtype: np.dtype[Any] | None
) -> Structure:
    """Inputs as arrays with the leading `axes` ("BT", "TB" or "B").

    Engine cells take one array of their input_size and dtype; None accepts every size or type.
    """
    arrays = map_structure(lambda leaf: as_array(leaf, name), inputs)
    leaves = list(walk(arrays, name))
    if not leaves:
        raise ValueError(f"{name} is empty, wanted an array")
    wanted, count = f"({', '.join(axes)}, I)", len(axes)
    if input_size is None:
        for path, array in leaves:
            if array.ndim <= count:
                raise ValueError(f"{path} has shape {array.shape}, wanted {wanted}")
            if array.shape[:count] != leaves[0][1].shape[:count]:
                raise ValueError(f"{path} has shape {array.shape}, but {leaves[0][0]} has {leaves[0][1].shape}")
        return arrays
    if len(leaves) > 1:
        raise TypeError(f"{name} is a {type(inputs).__name__} of {len(leaves)} arrays, wanted one, {wanted}")
    (array,) = (leaf for _, leaf in leaves)
    if array.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{name} is {array.dtype}, wanted {dtype}")
    if array.ndim != count + 1 or array.shape[-1] != input_size:
        raise ValueError(f"{name} has shape {array.shape}, wanted {wanted} with I = {input_size}")
    return array


def check_state(state: Structure, sizes: Structure, B: int, dtype: np.dtype[Any] | None, name: str) -> Structure:
    """A caller's state of B rows, as arrays in the containers of `sizes`; dtype None accepts any type."""

    def check(size: Any, leaf: Any, path: str) -> NDArray[Any]:
        array, shape = as_array(leaf, path), (B, *shape_of(size))
        if array.shape != shape:
            raise ValueError(f"{path} has shape {array.shape}, wanted {shape}")
        if dtype is not None and array.dtype.newbyteorder("=") != dtype:
            raise TypeError(f"{path} is {array.dtype}, wanted {dtype}")
        return array

    return pack(sizes, state, name, check)


def check_sequence_length(lengths: ArrayLike | None, B: int, T: int) -> NDArray[np.int64] | None:
    """Lengths from 0 to T; None stays None."""
    return None if lengths is None else check_lengths(lengths, B, T, "sequence_length", "inputs")


def check_dtype(dtype: Any, default: np.dtype[Any]) -> np.dtype[Any]:
    """A NumPy type from what NumPy accepts or from TensorFlow's types; None gives the default."""
    if dtype is None:
        return default
    try:
        found: np.dtype[Any] = np.dtype(getattr(dtype, "as_numpy_dtype", dtype))
    except TypeError:
        raise TypeError(f"dtype is {dtype!r}, wanted a type such as np.float32") from None
    return found


def check_like(like: Structure, structure: Structure, name: str) -> Structure:
    """Check a structure of arrays for the shapes and types of `like`, and return it in the containers of `like`."""

    def check(wanted: NDArray[Any], leaf: Any, path: str) -> NDArray[Any]:
        array = as_array(leaf, path)
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            found = f"{array.dtype} of shape {array.shape}"
            raise ValueError(f"{path} is {found}, wanted {wanted.dtype} of shape {wanted.shape}")
        return array

    return pack(like, structure, name, check)


def as_number(value: Any, name: str) -> float:
    """A finite float."""
    number = as_real(value, name)
    if not np.isfinite(number):
        raise ValueError(f"{name} is {value!r}, wanted a finite number")
    return number
