"""The picture: time against batches, and accuracy against time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from .. import extras, outputs
from .experiment import rows_in_words

COLORS = {"static": "#d9660f", "dynamic": "#1764ab"}
LEAST_PERCENT = 90  # closer limits would mainly show differences between single batches
WIDTHS = {"static": 3.0, "dynamic": 1.5}  # so that both are visible if they take the same time
LINES = {"fastrnn": "-", "TensorFlow": "--"}


def new_figure() -> Any:
    """Return an empty figure.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    """
    extras.require(["matplotlib"], "the picture", "mnist")
    from matplotlib.figure import Figure

    return Figure(figsize=(11, 4.4), layout="constrained")


def check_place(path: Path, option: str) -> None:
    """Check that matplotlib can write a picture to `path`, which `option` named.

    Raises
    ------
    OSError, ValueError
        The file cannot be written, or matplotlib cannot write the format of its suffix.
    """
    from matplotlib.figure import Figure

    outputs.check_file(path, option)
    known = Figure(figsize=(1, 1)).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(
            f"{option} {path}: wanted a name that ends with one of {', '.join(f'.{name}' for name in known)}"
        )


def draw(figure: Any, results: dict[str, Any], path: Path) -> None:
    """Write the figures of :func:`fastrnn.mnist.experiment.run` to `path`, in the format of its suffix.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        An empty one, of :func:`new_figure`.
    results : dict
        What :func:`~fastrnn.mnist.experiment.run` returned.
    path : Path

    Raises
    ------
    OSError, ValueError
        The file cannot be written, or matplotlib does not know the format.
    """
    time, accuracy = figure.subplots(1, 2)
    percent = [100 * part for part in results["accuracy_so_far"]]
    for engine in results["engines"]:
        milliseconds = [us / 1e3 for us in itertools.accumulate(engine["batch_us"])]
        style = {
            "color": COLORS[engine["path"]],
            "linewidth": WIDTHS[engine["path"]],
            "linestyle": LINES[engine["library"]],
            "label": f"{engine['library']} {engine['path']}",
        }
        time.plot(range(len(milliseconds) + 1), [0, *milliseconds], **style)
        accuracy.plot(milliseconds, percent, marker="o", markersize=3, **style)
    time.set(
        title="time against batches", xlabel=f"batches of {results['batch_size']} images", ylabel="milliseconds so far"
    )
    accuracy.set(title="accuracy against time", xlabel="milliseconds so far", ylabel="images read correctly so far, %")
    time.set_ylim(bottom=0)
    accuracy.set_xlim(left=0)
    accuracy.set_ylim(min(LEAST_PERCENT, *percent), 100)
    for axis in (time, accuracy):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e6e6e6")
        axis.set_axisbelow(True)
        axis.legend(frameon=False)
    facts = results["info"]
    figure.suptitle(
        f"MNIST row by row, {rows_in_words(results)}, LSTM of {results['hidden_size']}, {facts['isa']}, "
        f"threads: {facts['threads']}"
    )
    figure.savefig(path, dpi=150)
