"""Weights of int8, as core/int8_weights.h has them: a weight is scale * q, with one scale for each row of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 127  #: the largest q; the smallest is -127
LEAST_SCALE = np.finfo(np.float32).tiny
MOST_COLUMNS = (2**31 - 1) // MOST**2  #: of a row whose sums of products fit 32 bits

SCALE_BITS = 17  #: significant bits of a scale, so that scale * q has at most 24, as float32 has
SPARE_BITS = 24 - SCALE_BITS


def quantize(weights: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a matrix (N, K) of finite weights to q (N, K) and scales (N,).

    The largest magnitude of a row becomes 127, and the others are rounded to nearest even. A matrix of the products
    scale * q, which are exact in float32, gives the same q and scales.

    Examples
    --------
    >>> quantize(np.array([[1.27, -0.5], [0, 0]], np.float32))[0]
    array([[127, -50],
           [  0,   0]], dtype=int8)
    """
    weights = np.asarray(weights, np.float32)
    scales = np.abs(weights).max(1, initial=0) / np.float32(MOST)
    bits = scales.view(np.uint32)
    half = (1 << (SPARE_BITS - 1)) - 1 + (bits >> SPARE_BITS & 1)  # rounds to nearest, ties to even
    bits[...] = (bits + half) >> SPARE_BITS << SPARE_BITS
    np.maximum(scales, LEAST_SCALE, out=scales)
    return np.rint(weights / scales[:, None]).astype(np.int8), scales


def widen(q: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weights: scale * q, exactly."""
    return q * scales[:, None]


def faults(name: str, q: NDArray[np.int8], scales: NDArray[np.float32]) -> list[str]:
    """What does not fit in arrays of a file: those of which `quantize` would make others.

    Parameters
    ----------
    name : of the weights; that of the scales has ``_scale`` at its end
    q : (N, K)
    scales : (N,)
    """
    found = []

    def check(wrong: NDArray[np.bool_], what: NDArray[Any], called: str, wanted: str) -> None:
        places = np.argwhere(wrong)
        if len(places):
            at = tuple(map(int, places[0]))
            found.append(f"{called}[{', '.join(map(str, at))}] is {what[at]}, wanted {wanted}")

    check(q == -MOST - 1, q, name, f"-{MOST} to {MOST}")
    spare = scales.view(np.uint32) & ((1 << SPARE_BITS) - 1)
    largest = np.finfo(np.float32).max / np.float32(MOST)
    wrong = ~((scales >= LEAST_SCALE) & (scales <= largest)) | (spare != 0)
    least = "2**-126"
    check(wrong, scales, f"{name}_scale", f"{least} to {largest}, with {SCALE_BITS} significant bits")
    if not found:
        most = np.maximum(q.max(1, initial=0), -q.min(1, initial=0))
        wrong = (most != MOST) & (scales > LEAST_SCALE)
        check(wrong, most, f"the largest magnitude of {name}", f"{MOST}, or a scale of {least}")
    return found
