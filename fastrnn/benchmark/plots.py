"""Pictures of a run, with matplotlib: PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import extras
from . import experiments
from .experiments import StepTimes
from .run import Results

COLORS = ("#1764ab", "#d9660f", "#2f8f4e", "#8b4fa3", "#b8860b", "#c23b5a", "#5c6b73", "#17a2a8", "#7a7a1f")
LENGTH_LABELS = {
    "full": "all equal",
    "uniform": "uniform in 1..T",
    "lognormal": "log-normal,\nmedian T/5",
    "ort1400": "onnxruntime\nissue 1400",
}
LEVEL_STYLES = ("-", "--", "-.", ":")


def require_matplotlib() -> None:
    """Raise ModuleNotFoundError, which names the extra to install, if matplotlib is not installed."""
    extras.require(["matplotlib"], "--plot", "plot")


def draw_all(results: Results, directory: Path) -> list[Path]:
    """Draw the run, measure and draw what only pictures show, and return the files written."""
    engines, threads = results["engines"], results["threads"]
    ragged = experiments.LENGTHS_WORKLOAD
    title = f"{results['processor']}, {results['isa']}, threads: {threads}"
    figures = {
        "roofline": roofline(results, title),
        "latency": latency(experiments.step_latency(engines, threads), title),
        "lengths": lengths(experiments.lengths_and_paths(ragged), f"{str(ragged).partition(' ')[2]}\n{title}"),
        "build": build(experiments.build_time(engines), title),
    }
    if any(row["ratio"] is not None for row in results["rows"]):
        figures["ratio"] = ratio(results, title)
    paths = []
    for name, figure in figures.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def ratio(results: Results, title: str) -> Any:
    """Bars: the best peer's time over fastrnn's, one bar for each workload."""
    rows = [row for row in results["rows"] if row["ratio"] is not None][::-1]
    colors = _colors(row["group"] for row in results["rows"])
    figure, axis = _figure(f"times as fast as the fastest other engine\n{title}", 9, 1.6 + 0.26 * len(rows))
    for at, row in enumerate(rows):
        axis.barh(at, row["ratio"] - 1, left=1, height=0.7, color=colors[row["group"]])
        beside = max(row["ratio"], 1)
        axis.annotate(
            f"{row['ratio']:.2f}, {row['best_peer']}",
            (beside, at),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.axvline(1, color="black", linewidth=1.2)
    axis.set_xscale("log")
    axis.set_xlim(min(0.8, *(0.9 * row["ratio"] for row in rows)), 2.2 * max(1, *(row["ratio"] for row in rows)))
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlabel("time of the fastest other engine, which is named, over fastrnn's (right of 1: fastrnn is faster)")
    _plain_numbers(axis.xaxis)
    axis.grid(axis="y", visible=False)
    return figure


def roofline(results: Results, title: str) -> Any:
    """Points: GFLOP/s against flops a byte of weights; lines: the limits that the probe measured."""
    figure, axis = _figure(f"GFLOP/s of each workload, and the limits of the machine\n{title}", 9, 6)
    rows, peak = results["rows"], results["probe"]["flops"] / 1e9
    for group, color in _colors(row["group"] for row in rows).items():
        own = [row for row in rows if row["group"] == group]
        intensity = [row["flops"] / row["bytes"] for row in own]
        axis.plot(intensity, [row["gflops"] for row in own], "o", color=color, alpha=0.8, label=group)
    span = np.geomspace(0.25, max(100.0, *(2 * row["flops"] / row["bytes"] for row in rows)), 200)
    for level, style in zip(results["probe"]["levels"], LEVEL_STYLES, strict=False):
        bandwidth = level["bandwidth"] / 1e9
        roof = np.minimum(peak, bandwidth * span)
        axis.plot(
            span,
            roof,
            style,
            color="#444444",
            linewidth=1.2,
            label=f"limit, weights in {level['name']} ({bandwidth:.0f} GB/s)",
        )
    axis.annotate(f"{peak:.0f} GFLOP/s", (span[-1], peak), (0, 4), textcoords="offset points", ha="right")
    axis.set(xscale="log", yscale="log", xlabel="flops per byte of weights that has to be read", ylabel="GFLOP/s")
    _plain_numbers(axis.xaxis, axis.yaxis)
    axis.legend(frameon=False, fontsize=9)
    return figure


def latency(times: Mapping[str, Mapping[int, StepTimes]], title: str) -> Any:
    """Lines: the median of single steps by H, one line for each engine; bands up to the 99th percentile."""
    figure, axis = _figure(f"one step of an LSTM stream of one row\n{title}", 9, 6)
    for engine, color in _colors(times).items():
        sizes = list(times[engine])
        p50, p99 = zip(*times[engine].values(), strict=True)
        axis.fill_between(sizes, p50, p99, color=color, alpha=0.15, linewidth=0)
        axis.plot(sizes, p50, "o-", color=color, linewidth=2.5 if engine == "fastrnn" else 1.3, label=engine)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="units H, and as many inputs",
        ylabel="microseconds: median, band up to the 99th percentile",
    )
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    _plain_numbers(axis.yaxis)
    axis.legend(frameon=False)
    return figure


def lengths(times: Mapping[str, Mapping[str, float]], title: str) -> Any:
    """Bars: milliseconds on the dynamic, the padded and the unrolled path, for each distribution of lengths."""
    figure, axis = _figure(f"rows that drop out (dynamic), padded rows, a fixed length (unrolled)\n{title}", 9, 5)
    kinds, places = list(times), np.arange(len(times))
    for index, (way, color) in enumerate(_colors(times[kinds[0]]).items()):
        bars = axis.bar(places + 0.27 * (index - 1), [times[kind][way] for kind in kinds], 0.25, color=color, label=way)
        axis.bar_label(bars, fmt="%.3g", fontsize=8)
    axis.set_xticks(places, [LENGTH_LABELS[kind] for kind in kinds])
    axis.set(xlabel="distribution of the lengths", ylabel="milliseconds")
    axis.grid(axis="x", visible=False)
    axis.margins(y=0.2)
    axis.legend(frameon=False, ncols=3, loc="upper right")
    return figure


def build(times: Mapping[str, Mapping[int, float]], title: str) -> Any:
    """Lines: milliseconds from weights to a first answer by T, one line for each path."""
    figure, axis = _figure(f"from weights to the first answer of T steps, LSTM of 32 units\n{title}", 9, 5)
    for way, color in _colors(times).items():
        axis.plot([*times[way]], [*times[way].values()], "o-", color=color, label=way)
    axis.set(xscale="log", yscale="log", xlabel="steps T", ylabel="milliseconds")
    steps = [*next(iter(times.values()))]
    axis.set_xticks(steps, [str(T) for T in steps])
    axis.minorticks_off()
    _plain_numbers(axis.yaxis)
    axis.legend(frameon=False)
    return figure


def _figure(title: str, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot, which opens windows and keeps global state

    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    axis.set_title(title, fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e6e6e6")
    axis.set_axisbelow(True)
    return figure, axis


def _plain_numbers(*axes: Any) -> None:
    """Label logarithmic axes with numbers such as 50 and 100, not only powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _colors(names: Any) -> dict[str, str]:
    return {name: COLORS[index % len(COLORS)] for index, name in enumerate(dict.fromkeys(names))}
