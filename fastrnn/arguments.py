"""Callers' arguments, taken or refused by name."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_array(value: Any, name: str) -> NDArray[Any]:
    """`value` as an array.

    Raises
    ------
    TypeError
        NumPy cannot make one of it.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} is {type(value).__name__}, wanted an array: {error}") from error


def as_numbers(value: Any, name: str) -> NDArray[Any]:
    """`value` as an array of real numbers of any type, booleans among them.

    Raises
    ------
    TypeError
        It is none.
    """
    array = as_array(value, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} is of type {array.dtype}, wanted numbers")
    return array


def as_boolean(value: Any, name: str) -> bool:
    """`value` as a bool; no integer and no string counts as one.

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


def as_integer(value: Any, name: str, least: int) -> int:
    """`value` as an int of at least `least`.

    Raises
    ------
    TypeError, ValueError
        It is no integer, which a bool is not, or too small.
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
