"""How calls are timed beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def fastest(calls: Sequence[Callable[[], object]], rounds: int, seconds: float = 0.0) -> list[float]:
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


def _time(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
