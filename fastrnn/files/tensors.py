"""Arrays in files before they are read: name, shape, type, and how to read one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Types of files -> what an array of weights of them becomes: what the engine has not is widened, exactly.
WIDENED: dict[str, type[np.floating[Any]]] = {
    "bfloat16": np.float32,
    "float16": np.float32,
    "float32": np.float32,
    "float64": np.float64,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One array of a file.

    Attributes
    ----------
    shape : as the file says, and its bytes are there
    dtype : "float32", "bfloat16", "int64", ...
    read : gives an array (C order) of float32 or float64, for types in WIDENED; of int8, if that is its type
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[Any]]


def widen(values: NDArray[Any], dtype: str, target: NDArray[Any]) -> None:
    """Put `values` (N,), of bfloat16 as uint16, into `target` (N,), float32 or float64."""
    if dtype == "bfloat16":
        np.left_shift(values, 16, out=target.view(np.uint32), dtype=np.uint32, casting="unsafe")
    else:
        target[...] = values
