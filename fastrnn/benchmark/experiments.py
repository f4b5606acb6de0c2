"""Measurements for pictures only: single steps by H, paths by distribution of lengths, and building by T."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from fastrnn.layers import LAYERS

from .engines import ENGINES
from .timing import fastest, one_by_one
from .workloads import LENGTHS, Workload, build_layer, draw_input, draw_lengths, draw_weights

HIDDEN_SIZES = (8, 16, 32, 64, 128, 256, 512)
BUILD_STEPS = (10, 25, 50, 100, 200)
LENGTHS_WORKLOAD = Workload("lengths", "lstm", 128, 128, 1, 1, 32, 100, "full")
BUILD_WORKLOAD = Workload("build", "lstm", 32, 32, 1, 1, 1, 1, "full")


class StepTimes(NamedTuple):
    """Median and 99th percentile of single steps, microseconds."""

    p50: float
    p99: float


def step_latency(
    engines: Sequence[str], threads: int, hidden_sizes: Iterable[int] = HIDDEN_SIZES, count: int = 1000
) -> dict[str, dict[int, StepTimes]]:
    """Time `count` single steps of an LSTM stream, I = H, one row, for each engine and H."""
    found: dict[str, dict[int, StepTimes]] = {engine: {} for engine in engines}
    for H in hidden_sizes:
        workload = Workload("latency", "lstm", H, H, 1, 1, 1, 1, "stream")
        x, lengths = draw_input(workload), draw_lengths(workload)
        calls = [ENGINES[engine].build(workload, x, lengths, threads) for engine in engines]
        for engine, times in zip(engines, one_by_one(calls, count), strict=True):
            found[engine][H] = StepTimes(*(1e6 * float(p) for p in np.percentile(times, [50, 99])))
    return found


def lengths_and_paths(workload: Workload = LENGTHS_WORKLOAD, rounds: int = 9) -> dict[str, dict[str, float]]:
    """Time a batch on three paths of fastrnn for each distribution of lengths, milliseconds.

    ``dynamic``: rows are sorted and drop out after their last step; ``padded``: every row runs T steps; ``unrolled``:
    the same with a plan for T steps.
    """
    layer, x = build_layer(workload), draw_input(workload)
    plan = layer.unroll(workload.steps)
    found = {}
    for kind in LENGTHS:
        lengths = draw_lengths(workload._replace(lengths=kind))
        calls = {
            "dynamic": partial(layer, x, lengths=lengths),
            "padded": partial(layer, x),
            "unrolled": partial(plan, x),
        }
        found[kind] = dict(zip(calls, (1e3 * t for t in fastest([*calls.values()], rounds)), strict=True))
    return found


def build_time(
    engines: Iterable[str], steps: Iterable[int] = BUILD_STEPS, workload: Workload = BUILD_WORKLOAD, rounds: int = 3
) -> dict[str, dict[int, float]]:
    """Time building and the first answer of T steps, milliseconds, on the dynamic and the static path.

    Measures fastrnn and the TensorFlow engines among `engines`, and separately the building of fastrnn's plan, the only
    part that depends on T.
    """
    weights = draw_weights(workload)

    def layer_then(T: int, unrolled: bool) -> Callable[[], object]:
        layer = LAYERS[workload.cell].from_state_dict(weights, nonlinearity=workload.nonlinearity)
        x = draw_input(workload._replace(steps=T))
        return partial(layer.unroll(T) if unrolled else layer, x)

    def tensorflow(T: int, engine: str) -> Callable[[], object]:
        longer = workload._replace(steps=T)
        return ENGINES[engine].build(longer, draw_input(longer), draw_lengths(longer), 1)

    fixed = LAYERS[workload.cell].from_state_dict(weights, nonlinearity=workload.nonlinearity)
    ways: dict[str, Callable[[int], Callable[[], object]]] = {
        "fastrnn unrolled, the plan alone": lambda T: partial(fixed.unroll, T),
        "fastrnn dynamic": partial(layer_then, unrolled=False),
        "fastrnn unrolled": partial(layer_then, unrolled=True),
    }
    ways |= {engine: partial(tensorflow, engine=engine) for engine in engines if engine.startswith("tensorflow")}
    found: dict[str, dict[int, float]] = {}
    for name, way in ways.items():
        way(1)()  # imports and first allocations
        found[name] = {T: 1e3 * min(_first_answer(way, T) for _ in range(rounds)) for T in steps}
    return found


def _first_answer(way: Callable[[int], Callable[[], object]], steps: int) -> float:
    start = time.perf_counter()
    way(steps)()
    return time.perf_counter() - start
