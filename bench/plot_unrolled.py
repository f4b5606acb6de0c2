"""Draw the dynamic path against the unrolled one: ``python bench/plot_unrolled.py unrolled.png``.

Both take turns in one process, and the fastest of a few rounds counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from timing import fastest
from workloads import Workload, build_layer, draw_input, draw_lengths

import fastrnn

STEPS = [10, 25, 50, 100, 200, 400]
BATCH, HIDDEN = 32, 128
LABELS = {"full": "equal lengths", "uniform": "lengths uniform in 1..T", "lognormal": "log-normal, median T/5"}
DYNAMIC, UNROLLED = "#1764ab", "#d9660f"


def milliseconds(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    return [1e3 * seconds for seconds in fastest(calls, rounds)]


def measure(rounds: int) -> tuple[list[float], dict[str, list[list[float]]]]:
    """Return the build times in ms a T, and for each kind of lengths pairs (dynamic, unrolled) in ms a T."""
    built = []
    ran: dict[str, list[list[float]]] = {kind: [] for kind in LABELS}
    for steps in STEPS:
        workload = Workload("unrolled", "lstm", HIDDEN, HIDDEN, 1, 1, BATCH, steps, "full")
        layer, x = build_layer(workload), draw_input(workload)
        fixed = layer.unroll(steps)
        built += milliseconds([partial(layer.unroll, steps)], 10 * rounds)
        for kind, pairs in ran.items():
            lengths = draw_lengths(kind, BATCH, steps)
            pairs.append(milliseconds([partial(layer, x, lengths=lengths), partial(fixed, x)], rounds))
    return built, ran


def draw(built: list[float], ran: dict[str, list[list[float]]], path: Path) -> None:
    """Write the four panels to `path`."""
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 1 + len(ran), figsize=(15, 4.2), layout="constrained")
    axes[0].plot(STEPS, [1e3 * value for value in built], "o-", color=UNROLLED, label="unrolled: a graph for each T")
    axes[0].axhline(0, color=DYNAMIC, linewidth=2, label="dynamic: nothing to build")
    axes[0].set(title="build", ylabel="microseconds")
    for axis, (kind, pairs) in zip(axes[1:], ran.items(), strict=True):
        axis.plot(STEPS, [unrolled for _, unrolled in pairs], "o-", color=UNROLLED, label="unrolled")
        axis.plot(STEPS, [dynamic for dynamic, _ in pairs], "o-", color=DYNAMIC, label="dynamic")
        axis.set(title=f"run: {LABELS[kind]}", ylabel="milliseconds")
        axis.sharey(axes[1])
    for axis in axes:
        axis.set(xlabel="T, steps of the longest row")
        axis.set_ylim(bottom=0)
        axis.grid(color="#e6e6e6")
        axis.set_axisbelow(True)
        axis.legend(frameon=False)
    facts = fastrnn.info()
    figure.suptitle(
        f"LSTM, {HIDDEN} inputs, {HIDDEN} units, {BATCH} rows, float32, {facts['isa']}, threads: {facts['threads']}"
    )
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the dynamic path against the unrolled one.")
    parser.add_argument("path", type=Path, help="the PNG file to write")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    fastrnn.set_num_threads(arguments.threads)
    draw(*measure(arguments.rounds), arguments.path)


if __name__ == "__main__":
    main()
