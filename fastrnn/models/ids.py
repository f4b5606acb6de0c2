"""Ids as inputs of a model: one integer for each step, the index of a row of the embedding."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def id_error(
    arrays: Iterable[tuple[str, NDArray[np.integer]]], num_ids: int, counted: NDArray[np.bool_] | None = None
) -> ValueError:
    """An error that names the first id that is out of range.

    Parameters
    ----------
    arrays : names and ids of any shape and integer type, one of which is out of range
    counted : of that shape, False where an id does not matter
    """
    for name, ids in arrays:
        bad = (ids < 0) | (ids >= num_ids)
        for place in np.argwhere(bad if counted is None else bad & counted):
            found = ids[tuple(place)]
            where = ", ".join(map(str, place))
            return ValueError(
                f"{name}[{where}] is {found}, but the embedding has {num_ids} rows: wanted 0 to {num_ids - 1}"
            )
    return ValueError("x was changed by another thread during the call")
