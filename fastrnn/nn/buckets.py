"""Bucketing: static plans for several fixed lengths; each batch runs on the shortest that is long enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..arguments import as_array, as_integer
from .static import StaticPlan
from .structure import Structure


class Buckets:
    """Static plans of one cell for several lengths, as in ``model_with_buckets``.

    Kept for comparison: every row runs every step of its bucket, padding included, and the state is the one after
    the last of them. :func:`dynamic_rnn` with lengths computes only the real steps.

    Parameters
    ----------
    cell : a cell of this package, or any that takes one array
    buckets : the lengths, in any order

    Attributes
    ----------
    plans : dict of length -> StaticPlan, shortest first

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import nn
    >>> weights = {"kernel": np.ones((2, 1)), "bias": np.zeros(1)}
    >>> cell = nn.rnn_cell.BasicRNNCell(1, activation="linear", weights=weights)
    >>> outputs, state = nn.Buckets(cell, [4, 8])(np.ones((2, 3, 1)))
    >>> outputs.shape, state[0]
    ((2, 4, 1), array([3.]))
    """

    def __init__(self, cell: Any, buckets: Sequence[int]) -> None:
        if not isinstance(buckets, (list, tuple)) or not buckets:
            raise TypeError(f"buckets is {buckets!r}, wanted a list of at least one length")
        sizes = sorted({as_integer(size, f"buckets[{i}]", 1) for i, size in enumerate(buckets)})
        self.plans = {size: StaticPlan(cell, size) for size in sizes}

    def bucket_of(self, num_steps: int) -> int:
        """The smallest bucket that holds num_steps steps.

        Raises
        ------
        ValueError
            There is none.
        """
        for size in self.plans:
            if num_steps <= size:
                return size
        raise ValueError(f"inputs has {num_steps} steps, but the largest bucket has {max(self.plans)}")

    def __call__(
        self, inputs: NDArray[Any], initial_state: Structure = None, dtype: DTypeLike | None = None
    ) -> tuple[Structure, Structure]:
        """Run inputs (B, T, I), padded with zeros to the length of their bucket.

        Returns
        -------
        outputs : (B, bucket, O)
        state : after the bucket's last step

        Raises
        ------
        ValueError
            There are more steps than the largest bucket has.
        """
        array = as_array(inputs, "inputs")
        if array.ndim < 3:
            raise ValueError(f"inputs has shape {array.shape}, wanted (B, T, I)")
        B, T, *rest = array.shape
        size = self.bucket_of(T)
        if size > T:
            array = np.concatenate([array, np.zeros((B, size - T, *rest), array.dtype)], axis=1)
        return self.plans[size].run_batch(array, initial_state, dtype)
