"""The command ``fastrnn bench``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .. import outputs
from ..spec import WeightDtype
from . import engines, environment, markdown, plots, precision, report, workloads
from .run import run


def bench(
    groups: Sequence[str],
    *,
    engine_names: Sequence[str] | None = None,
    threads: int = 1,
    isa: str | None = None,
    weights: WeightDtype = "float32",
    seconds: float = 0.3,
    rounds: int = 7,
    json_path: Path | None = None,
    compare_path: Path | None = None,
    markdown_path: Path | None = None,
    plot_directory: Path | None = None,
) -> str:
    """Run the groups, print each row as soon as it is measured, and return the text that follows them.

    If no groups are given, the default ones run, or those of the older run to compare with. All arguments are checked
    before the first call is timed.
    """
    if rounds < 1 or seconds < 0:
        raise ValueError(f"rounds is {rounds} and seconds {seconds}, wanted at least 1 and 0")
    if weights != "float32" and (markdown_path is not None or plot_directory is not None):
        raise ValueError(f"weights is {weights!r}, but --markdown and --plot show the limits of float32 weights")
    old = None if compare_path is None else report.load(compare_path)
    chosen = workloads.choose(groups or ([row["group"] for row in old["rows"]] if old else []))
    names = engines.choose(engine_names)
    if json_path is not None:
        outputs.check_file(json_path, "--json")
    if markdown_path is not None:
        outputs.check_file(markdown_path, "--markdown")
    if plot_directory is not None:
        plots.require_matplotlib()
        outputs.make_directory(plot_directory, "--plot")

    with environment.limited(threads, isa):
        print(report.heading(names, threads, rounds, weights), flush=True)
        results = run(
            chosen,
            names,
            threads=threads,
            seconds=seconds,
            rounds=rounds,
            weights=weights,
            on_row=lambda row: print(report.line(row, names), flush=True),
        )
        parts = [report.summary(results)]
        if json_path is not None:
            json_path.write_text(json.dumps(results, indent=1) + "\n")
        if markdown_path is not None:
            markdown.write(results, markdown_path)
        if old is not None:
            parts.append(report.compare(old, results))
        if plot_directory is not None:
            written = plots.draw_all(results, plot_directory)
            parts.append("\n".join(f"wrote {path}" for path in written))
    return "\n" + "\n\n".join(parts)


def compare_precision(
    models: Sequence[str],
    *,
    threads: int = 1,
    isa: str | None = None,
    seconds: float = 0.3,
    rounds: int = 7,
    sound: Path | None = None,
    most: int | None = None,
    json_path: Path | None = None,
    markdown_path: Path | None = None,
) -> str:
    """Measure trained models with weights of each type, and return the tables.

    Parameters
    ----------
    models : keys of ``precision.MODELS``; none: all whose packages are installed
    sound, most : as of ``precision.run``
    """
    if rounds < 1 or seconds < 0:
        raise ValueError(f"rounds is {rounds} and seconds {seconds}, wanted at least 1 and 0")
    chosen, left_out = precision.choose(models, sound)
    for path, name in ((json_path, "--json"), (markdown_path, "--markdown")):
        if path is not None:
            outputs.check_file(path, name)
    with environment.limited(threads, isa):
        results = precision.run(chosen, threads=threads, seconds=seconds, rounds=rounds, sound=sound, most=most)
    text = precision.table(results)
    if json_path is not None:
        json_path.write_text(json.dumps(results, indent=1) + "\n")
    if markdown_path is not None:
        markdown.replace(markdown_path, f"precision, {results['int8_isa']}, threads: {threads}", text)
    return "\n".join([text, *(f"left out: {reason}" for reason in left_out)])


def listing() -> str:
    """A text with every group and its workloads."""
    return "\n".join(str(workload) for group in workloads.read_groups().values() for workload in group)
