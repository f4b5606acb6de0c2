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


def as_integer(value: Any, name: str, least: int) -> int:
    """`value` as an int of at least `least`.

    Raises
    ------
    TypeError, ValueError
        It is no integer, or too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, wanted an integer") from None
    if isinstance(value, bool) or not least <= number < 2**63:
        raise ValueError(f"{name} is {value!r}, wanted an integer of at least {least}, within 64 bits")
    return number
