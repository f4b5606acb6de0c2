"""Compare one thread with several: ``python bench/compare_threads.py [GROUP ...] [--threads N]``.

For each workload of ``fastrnn bench --list`` it prints the time on one thread, and how many times as fast N threads
are: with the thresholds of fastrnn/core/plan.c, and with every call shared that can be divided. Comparing the two shows
where the thresholds should be.
"""

from __future__ import annotations

import argparse
import math

from fastrnn import _core
from fastrnn.benchmark.timing import Call, fastest
from fastrnn.benchmark.workloads import Workload, build_layer, choose, draw_input, draw_lengths


def build(workload: Workload, threads: int, threshold: float) -> Call:
    """A call that first selects the thread pool to be measured."""
    layer, x = build_layer(workload), draw_input(workload)
    lengths = draw_lengths(workload) if workload.is_ragged else None
    stream = layer.stream(workload.batch) if workload.is_stream else None
    set_up = (threads, threshold)

    def call() -> object:
        if build.current != set_up:
            _core.set_num_threads(*set_up)
            build.current = set_up
        return layer(x, lengths=lengths) if stream is None else stream.step(x[:, 0])

    return call


build.current = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=["stream", "single", "ragged", "dense"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    ratios = []
    print(f"{'workload':48} {'1 thread, us':>12} {'as planned':>11} {'all shared':>11}")
    for workload in choose(arguments.groups):
        calls = [build(workload, *set_up) for set_up in ((1, 1.0), (arguments.threads, 1.0), (arguments.threads, 0.0))]
        alone, planned, shared = fastest(calls, arguments.rounds, arguments.seconds)
        ratios.append(alone / planned)
        print(f"{workload!s:48} {1e6 * alone:12.1f} {alone / planned:11.2f} {alone / shared:11.2f}", flush=True)
    print(f"geometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}, worst {min(ratios):.2f}")


if __name__ == "__main__":
    main()
