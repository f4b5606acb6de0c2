"""The machine's limits, measured: multiply-adds in registers, reads from every level of memory, gates, calls.

They give a workload's least time, which is a sum. Each layer has two products: with the inputs, whose weights have to
be read once a call (in a stream, once a step), and with the state, whose weights have to be read once a step. A product
takes at least the time of its arithmetic at the peak rate, and at least that of reading its weights at the bandwidth of
the smallest level that holds them. The gates take at least the time of their sigmoids and tanhs, many of them at once,
and a call that of a call with a single unit. States, inputs and outputs are not counted.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn import _core
from fastrnn.spec import NUM_GATES

from .environment import Cache
from .timing import fastest
from .workloads import Workload, build_layer

BLOCK = 256  # FR_PROBE_BLOCK: arrays to be read have a multiple of this length
ALIGNMENT = 64
SHARE = 4  # a buffer's part of a cache: small enough that it stays in the cache and its pages in the TLB
MOST_BYTES = 2**30  # of the buffer for measuring memory
GATE_VALUES = 8 * BLOCK  # in L1

#: What the gates of one unit in one step compute; a product of both needs only one division.
GATES = {
    "lstm": {"sigmoid": 1, "sigmoid*tanh": 2},
    "gru": {"sigmoid": 2, "tanh": 1},
    "rnn": {"tanh": 1},
}
#: A step of a stream and a call of a layer in which only the call itself takes time.
SMALLEST_STEP = Workload("smallest", "lstm", 1, 1, 1, 1, 1, 1, "stream")
SMALLEST_CALL = SMALLEST_STEP._replace(lengths="full")
SMALLEST_ROUNDS = 7  # in which the two take turns


class Level(NamedTuple):
    """A level of memory: the size of all threads' caches together (bytes), and their total bandwidth (bytes/s)."""

    name: str
    size: float
    bandwidth: float


class Limits(NamedTuple):
    """The machine's limits.

    Attributes
    ----------
    flops : float
        Floating-point operations per second, of multiply-adds.
    levels : tuple of Level
        Smallest first.
    gates : dict of str to float
        How many of each of ``_core.PROBE_GATES`` are computed per second; if it is empty, gates take no time.
    step, call : float
        Seconds of a stream's step and of a layer's call, both with a single unit.
    """

    flops: float
    levels: tuple[Level, ...]
    gates: Mapping[str, float] = MappingProxyType({})
    step: float = 0.0
    call: float = 0.0

    def level(self, size: float) -> Level:
        """The smallest level that holds `size` bytes."""
        return next(level for level in self.levels if size <= level.size)

    def to_json(self) -> dict[str, Any]:
        """For JSON; the size of memory, which is unlimited, is null."""
        levels = [level._asdict() | {"size": None if math.isinf(level.size) else level.size} for level in self.levels]
        return {**self._asdict(), "levels": levels, "gates": dict(self.gates)}


class Bound(NamedTuple):
    """The work of a call of a workload, and its least time.

    Attributes
    ----------
    flops : int
        Floating-point operations of the matrix products over the real steps, a multiply-add being two.
    bytes : int
        Of weights that have to be read.
    parts : dict of str to float
        The seconds of the least time by what limits them: ``FMA`` for multiply-adds, the name of the level that weights
        are read from, ``gates`` for activations, and ``call``. The largest is first.
    """

    flops: int
    bytes: int
    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        """The least time."""
        return sum(self.parts.values())

    @property
    def by(self) -> str:
        """What limits most of that time."""
        return next(iter(self.parts))


def measure(isa: str, threads: int, caches: list[Cache], seconds: float = 0.1) -> Limits:
    """Measure the limits for an instruction set, `threads` threads at once, `seconds` for each figure."""
    with ThreadPoolExecutor(threads) as pool:

        def rate(works: list[Callable[[], float]]) -> float:
            barrier = Barrier(threads)
            return sum(pool.map(lambda work: _fastest_rate(work, barrier, seconds), works))

        flops = rate([lambda: 2 * _core.probe_fma(isa, 5000)[0]] * threads)
        levels = []
        for cache in caches:
            together = min(threads, cache.sharers)
            part = _buffers(cache.size // SHARE // together, threads)
            levels.append(Level(cache.name, cache.size * threads / together, rate([_reader(isa, b) for b in part])))
        memory = _buffers(min(4 * caches[-1].size, MOST_BYTES) // threads, threads)
        levels.append(Level("memory", math.inf, rate([_reader(isa, b) for b in memory])))
        gates = {gate: rate([_gate(isa, gate)] * threads) for gate in _core.PROBE_GATES}
    step, call = fastest([_smallest_step(), _smallest_call()], SMALLEST_ROUNDS, seconds)
    return Limits(flops, tuple(levels), gates, step, call)


def _gate(isa: str, gate: str) -> Callable[[], float]:
    """Work that computes a gate's function for about 0.1 ms, and returns of how many values."""
    (values,), times = _buffers(4 * GATE_VALUES, 1), 100

    def work() -> float:
        _core.probe_gate(isa, gate, values, times)
        return times * values.size

    return work


def _smallest_step() -> Callable[[], object]:
    stream, x = build_layer(SMALLEST_STEP).stream(1), np.ones((1, 1), np.float32)
    return lambda: stream.step(x)


def _smallest_call() -> Callable[[], object]:
    layer, x = build_layer(SMALLEST_CALL), np.ones((1, 1, 1), np.float32)
    return lambda: layer(x)


def _buffers(size: int, count: int) -> list[NDArray[np.float32]]:
    """`count` arrays of about `size` bytes that :func:`_core.probe_read` takes."""
    length = max(1, size // 4 // BLOCK) * BLOCK
    found = []
    for _ in range(count):
        raw = np.ones(length + ALIGNMENT // 4, np.float32)
        start = -raw.ctypes.data % ALIGNMENT // 4
        found.append(raw[start : start + length])
    return found


def _reader(isa: str, buffer: NDArray[np.float32]) -> Callable[[], float]:
    """Work that reads the buffer for about a millisecond, at least once, and returns how many bytes it read."""
    times = max(1, 2**26 // buffer.nbytes)

    def work() -> float:
        _core.probe_read(isa, buffer, times)
        return times * buffer.nbytes

    return work


def _fastest_rate(work: Callable[[], float], barrier: Barrier, seconds: float) -> float:
    barrier.wait()
    best, end = 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < end:
        start = time.perf_counter()
        done = work()
        best = max(best, done / (time.perf_counter() - start))
    return best


def bound(workload: Workload, lengths: NDArray[np.int64], limits: Limits) -> Bound:
    """The work of a call of the workload with rows of `lengths` (B,), and its least time.

    Examples
    --------
    >>> from fastrnn.benchmark.probe import Level, Limits, bound
    >>> from fastrnn.benchmark.workloads import Workload
    >>> limits = Limits(1e9, (Level("memory", float("inf"), 1e6),))
    >>> bound(Workload("one", "lstm", 8, 4, 1, 1, 1, 1, "stream"), np.array([1]), limits)
    Bound(flops=384, bytes=768, parts={'memory': 0.000768, 'call': 0.0, 'FMA': 0.0})
    """
    H, D = workload.hidden_size, workload.num_directions
    units = NUM_GATES[workload.cell] * H
    rows_alive = np.count_nonzero(lengths[:, None] > np.arange(workload.steps), axis=0)
    steps = int(lengths.sum())
    model_bytes = 4 * units * D * sum(width + H for width in workload.input_sizes())
    # (multiply-adds of each reading, bytes of each reading, bytes that have to fit into the level together)
    hidden_shares = model_bytes if workload.is_stream else 4 * units * H
    products = [
        (np.array([2 * units * width * steps]), 4 * units * width, model_bytes) for width in workload.input_sizes()
    ]
    products += [(2 * units * H * rows_alive, 4 * units * H, hidden_shares)] * workload.num_layers
    flops = size = 0
    times: defaultdict[str, float] = defaultdict(float)
    if limits.gates:
        unit = sum(count / limits.gates[gate] for gate, count in GATES[workload.cell].items())
        times["gates"] = workload.num_layers * D * H * steps * unit
    times["call"] = limits.step if workload.is_stream else limits.call
    for work, weights, shares in products:
        level = limits.level(shares)
        arithmetic, reading = work / limits.flops, weights / level.bandwidth
        is_arithmetic = arithmetic >= reading
        times["FMA"] += D * float(arithmetic[is_arithmetic].sum())
        times[level.name] += D * reading * int(np.count_nonzero(~is_arithmetic))
        flops += D * int(work.sum())
        size += D * weights * len(work)
    return Bound(flops, size, dict(sorted(times.items(), key=lambda part: -part[1])))
