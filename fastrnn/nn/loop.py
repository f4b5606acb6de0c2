"""The loop over steps for cells that are arbitrary Python objects; slower than the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import as_array
from ..schedule import schedule
from .checks import check_like
from .structure import Structure, flatten, map_structure, pack, shape_of, take, zeros

Step = Callable[[Structure, Structure], tuple[Structure, Structure]]


def run_steps(
    cell: Any, inputs: Structure, state: Structure, lengths: NDArray[np.int64] | None
) -> tuple[Structure, Structure]:
    """Run a cell step by step; rows are sorted by length, and finished ones leave the batch.

    Parameters
    ----------
    inputs : structure of (B, T, ...)
    state : structure of (B, ...), the cell's initial state
    lengths : (B,) int64, checked; None: all T

    Returns
    -------
    outputs : structure of (B, T, ...), 0 past a row's end
    state : structure of (B, ...), each row's last

    Raises
    ------
    TypeError, ValueError
        What the cell returned does not fit its sizes or its state.
    """
    B, T = flatten(inputs)[0].shape[:2]
    if lengths is None:
        rows, batch_sizes = np.arange(B), [B] * T
    else:
        order = schedule(lengths)
        rows, batch_sizes = order.sorted_indices, order.batch_sizes.tolist()
    last = map_structure(np.array, state)
    alive, current = B, take(state, rows)
    outputs: Structure = None
    for t, n in enumerate(batch_sizes):
        if n < alive:
            _store(last, rows[n:alive], take(current, slice(n, alive)))
            alive, current = n, take(current, slice(n))
        output, current = step(cell, map_structure(lambda leaf, now=rows[:n], t=t: leaf[now, t], inputs), current)
        if outputs is None:
            outputs = map_structure(lambda leaf: np.zeros((B, T, *leaf.shape[1:]), leaf.dtype), output)
        _store(outputs, (rows[:n], t), output)
    _store(last, rows[:alive], current)
    if outputs is None:
        outputs = zeros(cell.output_size, B, T, dtype=flatten(state)[0].dtype if flatten(state) else np.float32)
    return outputs, last


def step(cell: Any, inputs: Structure, state: Structure) -> tuple[Structure, Structure]:
    """Call a cell once and check its results: output and new state, as arrays in the containers that it declares."""
    returned = cell(inputs, state)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"cell returned {type(returned).__name__}, wanted the pair (output, state)")
    n = len(flatten(inputs)[0])

    def check(size: Any, leaf: Any, path: str) -> NDArray[Any]:
        array, shape = as_array(leaf, path), (n, *shape_of(size))
        if array.shape != shape:
            raise ValueError(f"cell returned an {path} of shape {array.shape}, wanted {shape}")
        return array

    output = pack(cell.output_size, returned[0], "output", check)
    return output, check_like(state, returned[1], "cell's new state")


def _store(whole: Structure, index: Any, part: Structure) -> None:
    """Write the leaves of a part into those of the whole at an index.

    Raises
    ------
    TypeError
        A cell's outputs have another type than at the first step.
    """

    def store(target: NDArray[Any], leaf: NDArray[Any]) -> None:
        if leaf.dtype != target.dtype:
            raise TypeError(f"cell returned an output that is {leaf.dtype}, wanted {target.dtype} as before")
        target[index] = leaf

    map_structure(store, whole, part)
