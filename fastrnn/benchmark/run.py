"""A run: engines' answers are compared, then their calls timed in turns and compared with the machine's limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from . import environment, probe
from .engines import ENGINES, TOLERANCES, answers
from .timing import fastest, one_by_one
from .workloads import Workload, draw_input, draw_lengths

FORMAT = 1  # of the JSON file; changes when older readers would misunderstand a new file
SINGLE_STEPS = (100, 2000)  # number of single steps of a stream: minimum and maximum
SINGLE_SECONDS = 2.0  # for the slowest engine, within these limits

Results = dict[str, Any]
Row = dict[str, Any]


def run(
    workloads: Sequence[Workload],
    engines: Sequence[str],
    *,
    threads: int,
    seconds: float,
    rounds: int,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Results:
    """Measure and return what ``fastrnn bench --json`` writes; call it within :func:`environment.limited`.

    Parameters
    ----------
    workloads : sequence of Workload
    engines : sequence of str
        Keys of ``ENGINES``, including fastrnn.
    threads : int
        For each engine.
    seconds : float
        Time for each engine on each workload.
    rounds : int
        Rounds in which the engines take turns; the fastest counts.
    on_row : callable
        Called with each row as soon as it is measured.
    """
    machine = environment.describe(engines, threads)
    limits = probe.measure(machine["isa"], threads, environment.caches())
    results: Results = {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine,
        "engines": list(engines),
        "seconds": seconds,
        "rounds": rounds,
        "probe": limits.to_json(),
        "rows": [],
    }
    for workload in workloads:
        row = measure(workload, engines, limits, threads=threads, seconds=seconds, rounds=rounds)
        results["rows"].append(row)
        on_row(row)
    return results


def measure(
    workload: Workload, engines: Sequence[str], limits: probe.Limits, *, threads: int, seconds: float, rounds: int
) -> Row:
    """Measure one workload; times in the row are microseconds a call.

    An engine's entry has ``microseconds``, ``weights`` (their type), ``difference`` (the largest from fastrnn's
    outputs), ``agrees`` (whether that is at most the tolerance for such weights) and, for streams, ``p50`` and ``p99``
    of steps timed one by one. ``best_peer`` is the fastest other engine that has float32 weights and agrees, and
    ``ratio`` its time over fastrnn's; both are None if there is no such engine.
    """
    x, lengths = draw_input(workload), draw_lengths(workload)
    calls = {
        engine: ENGINES[engine].build(workload, x, lengths, threads)
        for engine in engines
        if ENGINES[engine].runs(workload)
    }
    given = {engine: answers(workload, call) for engine, call in calls.items()}
    entries: dict[str, Row] = {}
    for engine, took in zip(calls, fastest([*calls.values()], rounds, seconds), strict=True):
        difference = float(np.abs(given[engine] - given["fastrnn"]).max())
        weights = ENGINES[engine].weights
        entries[engine] = {
            "microseconds": 1e6 * took,
            "weights": weights,
            "difference": difference,
            "agrees": difference <= TOLERANCES[weights],
        }
    if workload.is_stream:
        slowest = 1e-6 * max(entry["microseconds"] for entry in entries.values())
        count = int(np.clip(SINGLE_SECONDS / slowest, *SINGLE_STEPS))
        for entry, times in zip(entries.values(), one_by_one([*calls.values()], count), strict=True):
            entry["p50"], entry["p99"] = (1e6 * float(p) for p in np.percentile(times, [50, 99]))
    peers = {
        engine: entry["microseconds"]
        for engine, entry in entries.items()
        if engine != "fastrnn" and entry["agrees"] and entry["weights"] == "float32"
    }
    best_peer = min(peers, key=peers.__getitem__, default=None)
    ours, least = entries["fastrnn"]["microseconds"], probe.bound(workload, lengths, limits)
    return {
        "name": str(workload),
        **workload._asdict(),
        "engines": entries,
        "best_peer": best_peer,
        "ratio": None if best_peer is None else peers[best_peer] / ours,
        "flops": least.flops,
        "bytes": least.bytes,
        "gflops": least.flops / ours / 1e3,
        "limit_microseconds": 1e6 * least.seconds,
        "percent_of_limit": 1e8 * least.seconds / ours,
        "bound_by": least.by,
        "limit_parts": {name: 1e6 * took for name, took in least.parts.items()},
    }
