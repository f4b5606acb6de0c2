"""Compare fastrnn with the other engines that are installed: ``python bench/compare.py --group stream``.

The engines take turns in one process, and the fastest of a few rounds counts. A peer whose answers differ from
fastrnn's is marked with an exclamation mark, and doesn't count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any


def limit_threads(count: int) -> None:
    """Give this process `count` CPUs and its libraries `count` threads; call it before they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def compare(group: str | None, threads: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Time every workload of `group` (None: all), print a row each, and return the rows."""
    # Imported here: these read the environment that limit_threads sets.
    from peers import ENGINES, TOLERANCE, answers, missing_packages
    from timing import fastest
    from workloads import draw_input, draw_lengths, read_workloads

    missing = {engine: packages for engine in ENGINES if (packages := missing_packages(engine))}
    for engine, packages in missing.items():
        print(f"{engine} is left out: not installed: {', '.join(packages)}")
    engines = [engine for engine in ENGINES if engine not in missing]
    print(f"{threads} thread(s), microseconds a call, fastest of {rounds} rounds; ratio: best peer / fastrnn")
    print(f"{'workload':46}", *(f"{engine:>12}" for engine in engines), f"{'ratio':>6}")
    rows = []
    for workload in read_workloads():
        if group not in (None, workload.group):
            continue
        x, lengths = draw_input(workload), draw_lengths(workload.lengths, workload.batch, workload.steps)
        calls = {engine: ENGINES[engine](workload, x, lengths, threads) for engine in engines}
        given = {engine: answers(workload, call) for engine, call in calls.items()}
        differences = {engine: float(abs(y - given["fastrnn"]).max()) for engine, y in given.items()}
        took = {engine: 1e6 * t for engine, t in zip(engines, fastest([*calls.values()], rounds, seconds), strict=True)}
        agrees = {engine: difference <= TOLERANCE for engine, difference in differences.items()}
        peers = [t for engine, t in took.items() if agrees[engine] and engine != "fastrnn"]
        ratio = min(peers, default=math.nan) / took["fastrnn"]
        cells = (f"{t:11.1f}{' ' if agrees[engine] else '!'}" for engine, t in took.items())
        print(f"{workload!s:46}", *cells, f"{ratio:6.2f}", flush=True)
        rows.append({**workload._asdict(), "microseconds": took, "differences": differences, "ratio": ratio})
    return rows


def summarize(rows: list[dict[str, Any]]) -> None:
    """Print the geometric mean and the worst of each group's ratios."""
    for group in dict.fromkeys(row["group"] for row in rows):
        ratios = [row["ratio"] for row in rows if row["group"] == group]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"{group:8} geometric mean {mean:.2f}, worst {min(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare fastrnn with the other engines that are installed.")
    parser.add_argument("--group", help="a file of bench/shapes, without .txt; without this, all of them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each engine on each workload")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    rows = compare(arguments.group, arguments.threads, arguments.seconds, arguments.rounds)
    if not rows:
        parser.error(f"no workload in group {arguments.group!r}: the groups are the files of bench/shapes")
    summarize(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
