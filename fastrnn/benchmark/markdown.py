"""A run as a Markdown table: how near each workload comes to the machine's limits, and which limit it is."""

from __future__ import annotations

from pathlib import Path

from .run import Results, Row

END = "<!-- end -->"
LEAST_SHARE = 0.01  # of the least time; smaller parts are left out
#: The parts of a least time, by their names in a row; every other name is a level of memory.
PARTS = {"FMA": "multiply-adds", "gates": "gates", "call": "call"}


def write(results: Results, path: Path) -> None:
    """Replace the file's table of the same instruction set and number of threads, as :func:`replace` does."""
    replace(path, f"{results['isa']}, threads: {results['threads']}", table(results))


def replace(path: Path, name: str, content: str) -> None:
    """Replace the file's text of this name; without one, append it. The file is made if it does not exist."""
    begin = f"<!-- fastrnn bench, {name} -->"
    text = path.read_text() if path.exists() else ""
    before, found, after = text.partition(begin)
    if found:
        _, _, after = after.partition(END)
    elif before:
        before = before.rstrip("\n") + "\n\n"
    path.write_text(f"{before}{begin}\n{content}\n{END}{after or chr(10)}")


def table(results: Results) -> str:
    """A paragraph with the machine and its limits, and a table with a line for each workload."""
    probe, threads = results["probe"], results["threads"]
    levels = ", ".join(f"{level['name']} {level['bandwidth'] / 1e9:.0f}" for level in probe["levels"])
    gates = ", ".join(f"{gate} {rate / 1e9:.1f}" for gate, rate in probe["gates"].items())
    return "\n".join(
        [
            f"{results['processor']}, {results['isa']}, {threads} thread{'s' if threads > 1 else ''}, "
            f"fastrnn {results['versions']['fastrnn']}, {results['date'].partition('T')[0]}. "
            f"Multiply-adds: {probe['flops'] / 1e9:.0f} GFLOP/s. Reads in GB/s: {levels}. "
            f"Gates in 10^9/s: {gates.replace('*', ' x ')}. "
            f"Calls in us: step {1e6 * probe['step']:.2f}, layer {1e6 * probe['call']:.1f}.",
            "",
            "| workload | us | % of the limit | what the limit consists of | % of the peak of multiply-adds |",
            "| --- | --- | --- | --- | --- |",
            *(_line(row, probe["flops"]) for row in results["rows"]),
        ]
    )


def _line(row: Row, peak: float) -> str:
    shares = {name: took / row["limit_microseconds"] for name, took in row["limit_parts"].items()}
    parts = ", ".join(
        f"{PARTS.get(name, f'weights in {name}')} {share:.0%}" for name, share in shares.items() if share >= LEAST_SHARE
    )
    ours = row["engines"]["fastrnn"]["microseconds"]
    took = f"{ours:,.0f}" if ours >= 100 else f"{ours:.3g}"
    return f"| {row['name']} | {took} | {row['percent_of_limit']:.0f} | {parts} | {100e9 * row['gflops'] / peak:.0f} |"
