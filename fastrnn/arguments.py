"""Checks and conversions of callers' arguments; an error names the argument."""

from __future__ import annotations

import operator
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Casting = Literal["no", "equiv", "safe", "same_kind", "unsafe"]
CASTINGS: tuple[Casting, ...] = get_args(Casting)  # each also allows what those before it allow


def as_array(value: Any, name: str) -> NDArray[Any]:
    """`value` as an array.

    Raises
    ------
    TypeError
        NumPy cannot make an array of it.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} is {type(value).__name__}, wanted an array: {error}") from error


def as_numbers(value: Any, name: str) -> NDArray[Any]:
    """`value` as an array of real numbers of any type, booleans included.

    Raises
    ------
    TypeError
        It is none.
    """
    array = as_array(value, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} is of type {array.dtype}, wanted numbers")
    return array


def as_ids(value: Any, name: str) -> NDArray[Any]:
    """`value` as an array of integers of any type.

    Raises
    ------
    TypeError
        It is none.
    """
    array = as_array(value, name)
    if array.dtype.kind not in "iu" and (array.size or isinstance(value, np.ndarray)):
        raise TypeError(f"{name} is of type {array.dtype}, wanted integers")
    return array if array.dtype.kind in "iu" else array.astype(np.int64)


def as_boolean(value: Any, name: str) -> bool:
    """`value` as a bool; integers and strings are refused.

    Raises
    ------
    TypeError
        It is neither Python's nor NumPy's True or False.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, wanted True or False")
    return bool(value)


def as_real(value: Any, name: str) -> float:
    """`value`, a real number of any type but bool, as a float.

    Raises
    ------
    TypeError
        It is none.
    """
    try:
        array = np.asarray(value)
        if array.ndim == 0 and array.dtype.kind in "fiu":
            return float(array)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise TypeError(f"{name} is {value!r}, wanted a number")


def check_casting(casting: Any) -> Casting:
    """Return `casting` if it is one of NumPy's casting rules.

    Raises
    ------
    ValueError
        It is none.
    """
    if not isinstance(casting, str) or casting not in CASTINGS:
        raise ValueError(f"casting is {casting!r}, wanted 'no', 'equiv', 'safe', 'same_kind' or 'unsafe'")
    return casting


def can_cast(found: np.dtype[Any], dtype: np.dtype[Any], casting: Casting) -> bool:
    """Whether `casting` allows numbers of type `found` to become float32 or float64.

    The rules are NumPy's with two exceptions: only real numbers are ever converted, and 64-bit integers need
    "same_kind" to become float64, because they may lose bits, although NumPy counts that conversion as safe.
    """
    loses = found.kind in "iu" and found.itemsize >= dtype.itemsize
    return found.kind in "fiub" and np.can_cast(found, dtype, casting) and not (loses and casting == "safe")


def as_floats(value: Any, name: str, dtype: np.dtype[Any], casting: Casting = "safe") -> NDArray[Any]:
    """`value` as an aligned array of `dtype`, float32 or float64; `value` itself if it is one already.

    Python's own numbers, also in nested lists, have no type and become `dtype`. `casting` must allow
    any other conversion.

    Raises
    ------
    TypeError
        NumPy cannot make an array of it, or `casting` does not allow the conversion.
    ValueError
        A Python number is too large.
    """
    array = as_array(value, name)
    if array.dtype == dtype:
        return array if array.flags.aligned else array.copy()
    if array.dtype.kind in "fiubO" and _is_nest_of_numbers(value):
        try:  # NumPy makes an array of objects if an integer has more than 64 bits
            numbers = array.astype(np.float64) if array.dtype.kind == "O" else array
        except OverflowError:
            raise ValueError(f"{name} holds numbers beyond {dtype}, wanted numbers within") from None
        with np.errstate(over="ignore"):
            floats = numbers.astype(dtype)
        if (np.isinf(floats) & np.isfinite(numbers)).any():
            raise ValueError(f"{name} holds numbers beyond {dtype}, wanted numbers within")
        return floats
    if can_cast(array.dtype, dtype, casting):
        return array.astype(dtype)
    if array.dtype.kind == "O" and array.ndim == 0:
        raise TypeError(f"{name} is {type(value).__name__}, wanted an array of {dtype}")
    advice = [f'; casting="{word}" converts it' for word in CASTINGS if can_cast(array.dtype, dtype, word)]
    raise TypeError(f"{name} is {array.dtype}, wanted {dtype}{''.join(advice[:1])}")


def _is_nest_of_numbers(value: Any) -> bool:
    """Whether lists and tuples hold only Python's int, float and bool; NumPy's scalars have types of their own."""
    if isinstance(value, list | tuple):
        return all(map(_is_nest_of_numbers, value))
    return type(value) in (int, float, bool)


def as_integer(value: Any, name: str, least: int) -> int:
    """`value` as an int of at least `least`.

    Raises
    ------
    TypeError, ValueError
        It is not an integer, or it is a bool, or it is too small.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, wanted an integer") from None
    if not least <= number < 2**63:
        raise ValueError(f"{name} is {value!r}, wanted an integer of at least {least}, within 64 bits")
    return number
