"""The command ``fastrnn bench``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .. import outputs
from . import engines, environment, markdown, plots, report, workloads
from .run import run


def bench(
    groups: Sequence[str],
    *,
    engine_names: Sequence[str] | None = None,
    threads: int = 1,
    isa: str | None = None,
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
        print(report.heading(names, threads, rounds), flush=True)
        results = run(
            chosen,
            names,
            threads=threads,
            seconds=seconds,
            rounds=rounds,
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


def listing() -> str:
    """A text with every group and its workloads."""
    return "\n".join(str(workload) for group in workloads.read_groups().values() for workload in group)
