"""Timing of several calls in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], object]


def fastest(calls: Sequence[Call], rounds: int, seconds: float = 0.0) -> list[float]:
    """Return each call's time in seconds, the fastest of `rounds` rounds in which the calls take turns.

    A turn repeats its call until it has taken about ``seconds / rounds``, and at least once.
    """
    repeats = []
    for call in calls:
        call()  # the first call may still allocate
        repeats.append(max(1, int(seconds / rounds / _time(call, 1))))
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            best[index] = min(best[index], _time(call, repeats[index]))
    return best


def one_by_one(calls: Sequence[Call], count: int, rounds: int = 4) -> list[NDArray[np.float64]]:
    """Return the seconds of each of `count` single calls for each of `calls`, which take turns in `rounds` rounds."""
    took: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, times in zip(calls, took, strict=True):
            call()  # the other calls ran in between, so caches hold their data
            times += [_time(call, 1) for _ in range(count // rounds)]
    return [np.array(times) for times in took]


def _time(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
