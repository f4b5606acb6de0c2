"""Masking by value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_numbers


class Masking:
    """Mask the steps whose features all equal a value, as ``keras.layers.Masking``.

    Parameters
    ----------
    mask_value : compared exactly, in the input's own dtype; NaN is equal to nothing

    Examples
    --------
    >>> masking = Masking(mask_value=0.37)
    >>> masking.compute_mask(np.array([[[0.37, 0.37], [0.37, 1.0]]], np.float32))
    array([[False,  True]])
    """

    def __init__(self, mask_value: float = 0.0) -> None:
        if not isinstance(mask_value, int | float | np.number):
            raise TypeError(f"mask_value is {mask_value!r}, wanted a number")
        self.mask_value = mask_value

    def compute_mask(self, inputs: ArrayLike) -> NDArray[np.bool_]:
        """The mask (B, T) of inputs (B, T, I), for the ``mask=`` of the layers that follow."""
        array = as_numbers(inputs, "inputs")
        # A Python float is compared in float32 with float32; an integer input is never equal to 0.37.
        with np.errstate(over="ignore"):
            value = array.dtype.type(self.mask_value) if array.dtype.kind == "f" else self.mask_value
        return np.asarray((array != value).any(axis=-1))

    def __call__(self, inputs: ArrayLike) -> NDArray[Any]:
        """Inputs with the masked steps set to zero."""
        array = as_numbers(inputs, "inputs")
        return np.where(self.compute_mask(array)[..., None], array, np.zeros((), array.dtype))
