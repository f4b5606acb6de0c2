"""A run: engines' answers are compared, then their calls timed in turns and compared with the machine's limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from fastrnn.spec import WeightDtype

from . import environment, probe
from .engines import ENGINES, TOLERANCES, Engine, answers, fastrnn_call
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
    weights: WeightDtype = "float32",
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
    weights : {"float32", "float16", "int8"}
        Of fastrnn.
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
        "weights": weights,
        "seconds": seconds,
        "rounds": rounds,
        "probe": limits.to_json(),
        "rows": [],
    }
    for workload in workloads:
        options: dict[str, Any] = {"threads": threads, "seconds": seconds, "rounds": rounds, "weights": weights}
        row = measure(workload, engines, limits, **options)
        results["rows"].append(row)
        on_row(row)
    return results


def measure(
    workload: Workload,
    engines: Sequence[str],
    limits: probe.Limits,
    *,
    threads: int,
    seconds: float,
    rounds: int,
    weights: WeightDtype = "float32",
) -> Row:
    """Measure one workload; times in the row are microseconds a call.

    An engine's entry has ``microseconds``, ``weights`` (their type), ``difference`` (the largest from the outputs of
    fastrnn's float32 weights), ``agrees`` (whether that is at most the tolerance for such weights) and, for streams,
    ``p50`` and ``p99`` of steps timed one by one. ``best_peer`` is the fastest other engine that agrees, among those
    with float32 weights, or among all if fastrnn's are smaller; ``ratio`` is its time over fastrnn's. Both are None if
    there is no such engine. The machine's limits are those of float32 weights, and None with smaller ones.
    """
    x, lengths = draw_input(workload), draw_lengths(workload)
    made = {engine: ENGINES[engine] for engine in engines if ENGINES[engine].runs(workload)}
    plain = made["fastrnn"].build(workload, x, lengths, threads)
    if weights != "float32":
        made["fastrnn"] = Engine(partial(fastrnn_call, weight_dtype=weights), weights=weights)
    calls = {
        name: plain if engine is ENGINES["fastrnn"] else engine.build(workload, x, lengths, threads)
        for name, engine in made.items()
    }
    wanted = answers(workload, plain)
    given = {name: wanted if call is plain else answers(workload, call) for name, call in calls.items()}
    entries: dict[str, Row] = {}
    for name, took in zip(calls, fastest([*calls.values()], rounds, seconds), strict=True):
        difference = float(np.abs(given[name] - wanted).max())
        entries[name] = {
            "microseconds": 1e6 * took,
            "weights": made[name].weights,
            "difference": difference,
            "agrees": difference <= TOLERANCES[made[name].weights],
        }
    if workload.is_stream:
        slowest = 1e-6 * max(entry["microseconds"] for entry in entries.values())
        count = int(np.clip(SINGLE_SECONDS / slowest, *SINGLE_STEPS))
        for entry, times in zip(entries.values(), one_by_one([*calls.values()], count), strict=True):
            entry["p50"], entry["p99"] = (1e6 * float(p) for p in np.percentile(times, [50, 99]))
    peers = {
        name: entry["microseconds"]
        for name, entry in entries.items()
        if name != "fastrnn" and entry["agrees"] and (weights != "float32" or entry["weights"] == "float32")
    }
    best_peer = min(peers, key=peers.__getitem__, default=None)
    ours, least = entries["fastrnn"]["microseconds"], probe.bound(workload, lengths, limits)
    limited = weights == "float32"
    return {
        "name": str(workload),
        **workload._asdict(),
        "engines": entries,
        "best_peer": best_peer,
        "ratio": None if best_peer is None else peers[best_peer] / ours,
        "flops": least.flops,
        "bytes": least.bytes if limited else None,
        "gflops": least.flops / ours / 1e3,
        "limit_microseconds": 1e6 * least.seconds if limited else None,
        "percent_of_limit": 1e8 * least.seconds / ours if limited else None,
        "bound_by": least.by if limited else None,
        "limit_parts": {name: 1e6 * took for name, took in least.parts.items()} if limited else None,
    }
