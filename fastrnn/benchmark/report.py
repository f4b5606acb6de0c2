"""Results as text: the table of a run, and the comparison with an older run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from .run import FORMAT, Results, Row

NAME_WIDTH = 47
SETTINGS = ("processor", "isa", "threads", "weights")


def heading(engines: Sequence[str], threads: int, rounds: int, weights: str = "float32") -> str:
    """The lines above the table; weights: the type of fastrnn's."""
    small = "so its answer is less exact, and it does not count as a peer"
    if weights != "float32":
        small = f"so its answer is less exact; fastrnn's are {weights}, and each peer counts"
    threads_text = f"{threads} thread{'s' if threads > 1 else ''}"
    columns = [*(f"{engine:>{_width(engine)}}" for engine in engines), f"{'ratio':>7}{'GFLOP/s':>9}{'limit':>7} by"]
    return "\n".join(
        [
            f"{threads_text}; microseconds a call, the fastest of {rounds} rounds; ratio: best peer / fastrnn;",
            "GFLOP/s and percent of the limit are fastrnn's; !: its answer differs from that of fastrnn with float32",
            f"weights and does not count; ~: its weights are smaller than float32, {small}",
            f"{'workload':{NAME_WIDTH}}{''.join(columns)}",
        ]
    )


def line(row: Row, engines: Sequence[str]) -> str:
    """A workload's line of the table; ``-`` if an engine does not run it."""
    cells = []
    for engine in engines:
        entry = row["engines"].get(engine)
        cell = "- " if entry is None else f"{entry['microseconds']:.1f}{_mark(entry)}"
        cells.append(f"{cell:>{_width(engine)}}")
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
    limit = f"{row['gflops']:9.1f}"
    limit += f"{'-':>7}" if row["bound_by"] is None else f"{row['percent_of_limit']:6.0f}% {row['bound_by']}"
    return f"{row['name']:{NAME_WIDTH}}{''.join(cells)}{ratio:>7}{limit}"


def _mark(entry: Row) -> str:
    """What follows an engine's time in the table."""
    if not entry["agrees"]:
        return "!"
    return " " if entry["weights"] == "float32" else "~"


def _width(engine: str) -> int:
    return max(12, len(engine) + 2)


def summary(results: Results) -> str:
    """The text after the table: single steps of streams, the groups' ratios, and the machine's limits."""
    rows = results["rows"]
    return "\n\n".join(part for part in (_steps(rows), _groups(rows), _machine(results)) if part)


def _steps(rows: Sequence[Row]) -> str:
    """p50 and p99 of the rows that have them."""
    lines = []
    for row in rows:
        if "p50" in row["engines"]["fastrnn"]:
            pairs = (f"{name} {entry['p50']:.1f} / {entry['p99']:.1f}" for name, entry in row["engines"].items())
            lines.append(f"{row['name']:{NAME_WIDTH}}{', '.join(pairs)}")
    return "\n".join(["steps one by one, p50 / p99 in microseconds", *lines]) if lines else ""


def _groups(rows: Sequence[Row]) -> str:
    """Each group's ratios: to the best peer, and to every peer where both run."""
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group and row["ratio"] is not None]
        if own:
            ratios = [row["ratio"] for row in own]
            peers = dict.fromkeys(engine for row in own for engine in row["engines"] if engine != "fastrnn")
            each = (f"{peer} {geometric_mean(found):.2f}" for peer in peers if (found := ratios_to(peer, own)))
            best = f"geometric mean {geometric_mean(ratios):.2f}, worst {min(ratios):.2f}"
            lines.append(f"{group:12}{best}; of each peer: {', '.join(each)}")
    return "\n".join(lines)


def ratios_to(peer: str, rows: Iterable[Row]) -> list[float]:
    """The peer's time over fastrnn's in the rows in which it runs and agrees."""
    entries = [(row["engines"].get(peer), row) for row in rows]
    return [entry["microseconds"] / _ours(row) for entry, row in entries if entry is not None and entry["agrees"]]


def _machine(results: Results) -> str:
    levels = ", ".join(f"{level['name']} {level['bandwidth'] / 1e9:.0f}" for level in results["probe"]["levels"])
    probe = results["probe"]
    gates = ", ".join(f"{gate} {rate / 1e9:.1f}" for gate, rate in probe["gates"].items())
    return "\n".join(
        [
            f"{results['processor']}, {results['isa']}, threads: {results['threads']}",
            f"limits: {probe['flops'] / 1e9:.0f} GFLOP/s; reads in GB/s: {levels}; gates in 10^9/s: {gates}; "
            f"calls in us: step {1e6 * probe['step']:.2f}, layer {1e6 * probe['call']:.1f}",
            ", ".join(f"{name} {version.partition('-')[0]}" for name, version in results["versions"].items()),
        ]
    )


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers.

    Examples
    --------
    >>> from fastrnn.benchmark.report import geometric_mean
    >>> geometric_mean([1, 4])
    2.0
    """
    logarithms = [math.log(value) for value in values]
    return math.exp(math.fsum(logarithms) / len(logarithms))


def load(path: Path) -> Results:
    """Read what ``fastrnn bench --json`` wrote.

    Raises
    ------
    OSError, ValueError
        The file cannot be read, or is not such a file.
    """
    try:
        results = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    found = results.get("format") if isinstance(results, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}, wanted a file of fastrnn bench --json, format {FORMAT}")
    return {"weights": "float32", **results}  # files of older versions do not say so


def compare(old: Results, new: Results) -> str:
    """Compare a run with an older one, workload by workload; above 1 is better now."""
    changed = [f"{name}: {old[name]} then, {new[name]} now" for name in SETTINGS if old.get(name) != new.get(name)]
    lines = [
        f"against {old['date']}, fastrnn {old['versions']['fastrnn']}; above 1: better now",
        *(f"not the same {text}" for text in changed),
        f"{'workload':{NAME_WIDTH}}{'then us':>12}{'now us':>12}{'faster':>8}"
        f"{'ratio then':>12}{'ratio now':>12}{'ahead':>8}",
    ]
    before = {row["name"]: row for row in old["rows"]}
    pairs = [(before[row["name"]], row) for row in new["rows"] if row["name"] in before]
    if not pairs:
        return "\n".join([*lines, "no workload is in both"])
    for then, now in pairs:
        ratios = [f"{row['ratio']:12.2f}" if row["ratio"] is not None else f"{'-':>12}" for row in (then, now)]
        ahead = gain(then, now)
        times = f"{_ours(then):12.1f}{_ours(now):12.1f}{_ours(then) / _ours(now):8.2f}"
        lines.append(f"{now['name']:{NAME_WIDTH}}{times}{''.join(ratios)}{'-' if ahead is None else f'{ahead:.2f}':>8}")
    for group in dict.fromkeys(now["group"] for _, now in pairs):
        own = [(then, now) for then, now in pairs if now["group"] == group]
        faster = geometric_mean(_ours(then) / _ours(now) for then, now in own)
        ahead_of = [ahead for then, now in own if (ahead := gain(then, now)) is not None]
        text = f", ahead {geometric_mean(ahead_of):.2f}" if ahead_of else ""
        lines.append(f"{group:12}geometric mean: faster {faster:.2f}{text}")
    return "\n".join(lines)


def gain(then: Row, now: Row) -> float | None:
    """How much the ratio to the best peer grew; None if a run has no such ratio."""
    return None if then["ratio"] is None or now["ratio"] is None else float(now["ratio"] / then["ratio"])


def _ours(row: Row) -> float:
    return float(row["engines"]["fastrnn"]["microseconds"])
