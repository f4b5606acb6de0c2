"""``fastrnn verify``: a layer or model against the framework that its file is from, on random ragged input."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import onnx
from ..comparison import absolute_differences
from ..files.load import find_source
from ..keras import Masking, Sequential
from ..layers.layer import Layer
from ..models import sequential as models
from ..spec import LayerSpec
from . import keras_witness, model_witness, onnx_witness, tensorflow_witness, torch_witness
from .model_witness import RowRun
from .options import as_value_errors, framework_errors, load_layer, reading

#: Unsorted, with ties, ones and zeros; no row is as long as the array, so that all have padding.
LENGTHS = (6, 0, 1, 3, 6, 17, 1, 0, 4)
STEPS = 18

#: Largest differences that pass, absolute up to 1 and relative beyond.
TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
#: The same by the type of weights, where it is smaller.
WEIGHT_TOLERANCES = {"float16": 5e-3, "int8": 8e-2}
#: Where rounding errors grow from step to step, PyTorch's float32 differs from its float64 by more than that; then the
#: difference between two engines may be so many times as large, but at most as the last number says.
ROUNDING_FACTOR, MOST_ROUNDING = 4, 1e-3
#: The same where onnxruntime rounds the inputs and states of every layer to 8 bits, and fastrnn does not.
ROUNDED_TOLERANCE = 0.2


@dataclass(frozen=True)
class Part:
    """One result of both sides, and what the axes of the arrays are."""

    name: str
    here: NDArray[Any]
    there: NDArray[Any]
    axes: tuple[str, ...]
    counted: NDArray[np.bool_] | None = None

    def difference(self) -> tuple[float, tuple[int, ...]]:
        """The largest difference and its place; infinite if only one side is NaN there, or if the shapes differ."""
        if self.here.shape != self.there.shape:
            return np.inf, (0,) * len(self.axes)
        if not self.here.size:
            return 0.0, (0,) * len(self.axes)
        found = absolute_differences(self.here, self.there)
        finite = np.isfinite(found)
        found[finite] /= np.fmax(1, np.abs(self.there[finite].astype(np.float64)))
        if self.counted is not None:
            found[~self.counted] = 0
        index = np.unravel_index(np.argmax(found), found.shape)
        return float(found[index]), tuple(map(int, index))


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    """Compare; the exit code is 0 if the largest difference is within the tolerance, else 1.

    Raises
    ------
    ValueError, OSError, ImportError
        The file cannot be loaded, or there is nothing to compare with: the framework is missing, or cannot run it.
    """
    with as_value_errors():
        given = reading(arguments)
        format_name = find_source(arguments.file, given)
    layer = load_layer(arguments)
    rounding = 0.0
    rng = np.random.default_rng(arguments.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # frameworks warn of their own future
        if isinstance(layer, onnx.Sequential | onnx.Model):
            witness, feed, there = onnx_witness.from_file(arguments.file, layer, rng)
            parts, coarse = _whole_graph(layer, feed, there)
        elif isinstance(layer, models.Sequential):
            rows = _rows_of_model(arguments, format_name, layer, given)
            witness, parts, coarse = rows.witness, _against_rows(layer, rows, rng), layer.dtype
        elif format_name in ("keras", "hdf5"):
            witness, parts, coarse = _against_keras(arguments, format_name, layer, given, rng)
        else:
            witness, parts, rounding = _against_plain(arguments.file, format_name, layer, given, rng)
            coarse = layer.dtype
    smaller = [WEIGHT_TOLERANCES.get(name, 0.0) for name in _weight_dtypes(arguments, layer)]
    if format_name == "onnx" and onnx_witness.is_rounded(arguments.file, given.get("prefix")):
        smaller.append(ROUNDED_TOLERANCE)
    tolerance = max((TOLERANCES | WEIGHT_TOLERANCES)[coarse.name], *smaller)
    results = _results(
        arguments, witness, parts, max(tolerance, min(ROUNDING_FACTOR * rounding, MOST_ROUNDING)), rounding
    )
    return results, report(results), 0 if results["agrees"] else 1


def _weight_dtypes(arguments: argparse.Namespace, layer: Any) -> list[str]:
    """The types of the weights of a layer, or of a model's recurrent layers."""
    if isinstance(layer, models.Sequential):
        layers = [op for op in layer.spec.ops if isinstance(op, LayerSpec)]
        return ["float32", *(op.weight_dtype or "float32" for op in layers)]
    return [arguments.weight_dtype or getattr(layer, "weight_dtype", None) or "float32"]


def _against_plain(
    path: str, format_name: str, layer: Layer[Any], given: dict[str, Any], rng: np.random.Generator
) -> tuple[str, list[Part], float]:
    """The witness, the parts, and how far PyTorch's float32 is from its float64, where that may matter."""
    if format_name == "native":
        witness, theirs = torch_witness.from_layer(layer)
    elif format_name == "onnx":
        witness, theirs = onnx_witness.from_node(path, given["prefix"], layer)
    elif format_name == "tensorflow":
        options = {name: given.get(name) for name in ("scope", "nonlinearity", "forget_bias")}
        witness, theirs = tensorflow_witness.from_checkpoint(path, layer=layer, **options)
    else:
        witness, theirs = torch_witness.from_file(path, format_name, given.get("prefix"), layer)
    lengths = np.array(LENGTHS)
    x = rng.standard_normal((len(lengths), STEPS, layer.input_size)).astype(layer.dtype)
    state = _draw_state(layer, len(lengths), rng)
    with framework_errors(witness):
        there = theirs(x, lengths, state)
    h, c = state
    y, last = layer(
        x if layer.batch_first else x.swapaxes(0, 1), h if c is None else (h, c), lengths=lengths, past_end="zero"
    )
    y = y if layer.batch_first else y.swapaxes(0, 1)
    parts = _plain_parts(layer, (y, *last) if c is not None else (y, last), there, lengths)
    rounding = 0.0
    is_plain = layer.dtype == np.float32 and (layer.weight_dtype or "float32") == "float32"
    if is_plain and format_name not in ("onnx", "tensorflow") and _largest(parts) > TOLERANCES["float32"]:
        with framework_errors(witness):
            exact = theirs(
                x.astype(np.float64), lengths, tuple(None if s is None else s.astype(np.float64) for s in state)
            )
        rounding = _largest(_plain_parts(layer, there, exact, lengths))
    return witness, parts, rounding


def _largest(parts: list[Part]) -> float:
    return max(part.difference()[0] for part in parts)


def _whole_graph(
    model: onnx.Sequential | onnx.Model, feed: dict[str, NDArray[Any]], there: list[Any]
) -> tuple[list[Part], np.dtype[Any]]:
    """A part for each output of a graph of ONNX; their coarsest type."""
    parts = [
        Part(port.name, ours, np.asarray(theirs), tuple(f"axis {axis}" for axis in range(np.ndim(theirs))))
        for port, ours, theirs in zip(model.outputs, model.run(None, feed), there, strict=True)
    ]
    floats = [part.here.dtype for part in parts if part.here.dtype.kind == "f"]
    return parts, min(floats, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float32))


class _Rows(NamedTuple):
    """A model in a framework, which runs one row after the other.

    Attributes
    ----------
    witness : the framework's name and version
    run : gives the results of the steps that count
    steps : the number that it is built for, None for any
    runs_empty : whether it gives zeros where no step counts, as ours
    """

    witness: str
    run: RowRun
    steps: int | None = None
    runs_empty: bool = True


def _rows_of_model(
    arguments: argparse.Namespace, format_name: str, model: models.Sequential, given: dict[str, Any]
) -> _Rows:
    if format_name not in ("keras", "hdf5"):
        return _Rows(*model_witness.from_spec(model.spec))
    witness = keras_witness.from_file(arguments.file, format_name, None, given.get("config"))
    count, steps = witness.shape

    def run(row: NDArray[Any]) -> NDArray[Any]:
        y = witness.run(np.repeat(row[None], count or 1, axis=0), None, None)[0][0]
        return np.asarray(y[row != 0] if model.mask_zero and not model.pools else y)

    return _Rows(witness.name, run, steps, runs_empty=False)


def _against_rows(model: models.Sequential, rows: _Rows, rng: np.random.Generator) -> list[Part]:
    """A ragged batch here, the same row by row there."""
    steps = rows.steps or STEPS
    lengths = np.array(LENGTHS) if rows.steps is None else np.full(len(LENGTHS), steps)
    x: NDArray[Any]
    if model.num_ids:
        x = rng.integers(0, model.num_ids, (len(lengths), steps))
        if model.mask_zero:
            x[rng.random(x.shape) < 0.3] = 0
    else:
        x = rng.standard_normal((len(lengths), steps, model.input_size)).astype(model.dtype)
    there = {}
    with framework_errors(rows.witness):
        for index, (row, length) in enumerate(zip(x, lengths.tolist(), strict=True)):
            count = int(np.count_nonzero(row[:length])) if model.mask_zero else length
            if rows.runs_empty or model.output_steps(count):
                there[index] = rows.run(row[:length])
    compared = list(there)
    here = model(x if model.batch_first else x.swapaxes(0, 1), lengths=lengths)
    if model.pools:
        return [Part("y", here[compared], np.stack(list(there.values())), ("row", "unit"))]
    here = here if model.batch_first else here.swapaxes(0, 1)
    padded = np.zeros_like(here)
    for index, result in there.items():
        ids = x[index, : lengths[index]]
        kept = np.flatnonzero(ids) if model.mask_zero and model.keeps_steps else np.arange(len(result))
        padded[index, kept] = result
    return [Part("y", here[compared], padded[compared], ("row", "step", "unit"))]


def _draw_state(layer: Layer[Any], B: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any] | None]:
    count = layer.num_layers * layer.num_directions
    h = rng.uniform(-1, 1, (count, B, layer.proj_size or layer.hidden_size)).astype(layer.dtype)
    c = rng.uniform(-2, 2, (count, B, layer.hidden_size)).astype(layer.dtype) if layer.kind == "lstm" else None
    return h, c


def _plain_parts(
    layer: Layer[Any], here: Sequence[Any], there: Sequence[Any], lengths: NDArray[np.int64]
) -> list[Part]:
    """y by rows, steps, directions and units; h and c by layers, directions, rows and units."""
    L, D = layer.num_layers, layer.num_directions
    counted = np.arange(STEPS) < lengths[:, None]
    shape = (len(lengths), STEPS, D, -1)
    y = Part("y", here[0].reshape(shape), np.asarray(there[0]).reshape(shape), ("row", "step", "direction", "unit"))
    parts = [Part(y.name, y.here, y.there, y.axes, counted)]
    for name, ours, theirs in zip(("h", "c"), here[1:], there[1:], strict=False):
        shape = (L, D, len(lengths), -1)
        parts.append(Part(name, ours.reshape(shape), theirs.reshape(shape), ("layer", "direction", "row", "unit")))
    return parts


def _against_keras(
    arguments: argparse.Namespace, format_name: str, layer: Any, given: dict[str, Any], rng: np.random.Generator
) -> tuple[str, list[Part], np.dtype[Any]]:
    """The model as it is; a layer that a prefix chose also from initial states that are not zero."""
    witness = keras_witness.from_file(arguments.file, format_name, given.get("prefix"), given.get("config"))
    rows, steps = witness.shape
    lengths = np.minimum(np.resize(LENGTHS, rows or len(LENGTHS)), steps or STEPS)
    T = steps or STEPS
    right = np.arange(T) < lengths[:, None]
    holes = right & (rng.random(right.shape) < 0.7)
    inner = layer.layers if isinstance(layer, Sequential) else [layer]
    masking = next((part for part in inner if isinstance(part, Masking)), None)
    parts: list[Part] = []
    dtypes = []
    for title, mask in (("", right), (" with gaps", holes)):
        if isinstance(layer, Layer):
            width, dtype = layer.input_size, layer.dtype
        else:
            weights = next(part for part in inner if not isinstance(part, Masking)).get_weights()
            width, dtype = len(weights[0]), weights[0].dtype
        x = rng.standard_normal((*mask.shape, width)).astype(witness.dtype or dtype)
        given_mask: NDArray[np.bool_] | None = mask
        if masking is not None:
            x[~mask], given_mask = masking.mask_value, None
        states = _keras_states(layer, len(mask), rng, dtype) if given.get("prefix") is not None else None
        with framework_errors(witness.name):
            there = witness.run(x, given_mask, states)
        _forget(inner)
        here = _run_here(layer, x, mask, given_mask, states, there)
        dtypes += [array.dtype for array in (*here, *there)]
        for i, (ours, theirs) in enumerate(zip(here, there, strict=True)):
            axes = ("row", "step", "unit") if ours.ndim == 3 else ("row", "unit")
            parts.append(Part(f"output {i}{title}", ours, theirs, axes))
    coarse = min(dtypes, key=lambda dtype: dtype.itemsize)
    return witness.name, parts, coarse if coarse.name in TOLERANCES else np.dtype(np.float32)


def _keras_states(layer: Any, B: int, rng: np.random.Generator, dtype: np.dtype[Any]) -> list[NDArray[Any]] | None:
    """Initial states in Keras's order: h, c of each direction; None where the layer is a stack of cells."""
    if isinstance(layer, Sequential) or (isinstance(layer, Layer) and layer.num_layers > 1):
        return None
    if isinstance(layer, Layer):
        sizes = [layer.hidden_size] * layer.num_directions * (2 if layer.kind == "lstm" else 1)
    else:
        directions = [layer] if not hasattr(layer, "forward_layer") else [layer.forward_layer, layer.backward_layer]
        sizes = [part.units for part in directions for _ in range(part.num_states)]
    return [rng.uniform(-1, 1, (B, size)).astype(dtype) for size in sizes]


def _run_here(
    layer: Any,
    x: NDArray[Any],
    mask: NDArray[np.bool_],
    given_mask: NDArray[np.bool_] | None,
    states: list[NDArray[Any]] | None,
    there: list[NDArray[Any]],
) -> list[NDArray[Any]]:
    """Arrange the results of our layer as Keras returns them: all outputs or the last one, then the states."""
    if not isinstance(layer, Layer):
        options = {} if states is None else {"initial_state": states}
        y = layer(x, mask=given_mask, **options)
        return list(y) if isinstance(y, tuple) else [y]
    count = 2 if layer.kind == "lstm" else 1
    state: Any = None
    if states is not None:
        parts = [np.stack(states[i::count]) for i in range(count)]
        state = tuple(parts) if count == 2 else parts[0]
    if not layer.batch_first:
        x, mask = x.swapaxes(0, 1), mask.swapaxes(0, 1)
    past_end: Literal["zero", "carry"] = "zero" if layer.bidirectional else "carry"
    y, last = layer(x, state, mask=mask, past_end=past_end, casting="same_kind")
    if not layer.batch_first:
        y, mask = y.swapaxes(0, 1), mask.swapaxes(0, 1)
    D = layer.num_directions
    final = last if isinstance(last, tuple) else (last,)
    if there[0].ndim == 3:
        first = y
    else:
        first = np.concatenate(list(final[0][-D:]), axis=-1)
        first[~mask.any(axis=1)] = 0  # as Keras: where no step counts, there is no output
    states_after = [part[direction - D] for direction in range(D) for part in final]
    return [first, *states_after][: len(there)]


def _forget(layers: Sequence[Any]) -> None:
    for part in layers:
        if hasattr(part, "reset_state"):
            part.reset_state()


def _results(
    arguments: argparse.Namespace, witness: str, parts: list[Part], tolerance: float, rounding: float
) -> dict[str, Any]:
    tolerance = tolerance if arguments.tolerance is None else arguments.tolerance
    found = [(*part.difference(), part) for part in parts]
    largest, index, part = max(found, key=lambda item: item[0])
    same_shape = part.here.shape == part.there.shape and part.here.size
    return {
        "file": arguments.file,
        "witness": witness,
        "largest_difference": largest,
        "tolerance": tolerance,
        "rounding": rounding,
        "agrees": bool(largest <= tolerance),
        "where": {"part": part.name, **dict(zip(part.axes, index, strict=True))},
        "here": float(part.here[index]) if same_shape else None,
        "there": float(part.there[index]) if same_shape else None,
        "shapes": [list(part.here.shape), list(part.there.shape)],
        "parts": {part.name: difference for difference, _, part in found},
    }


def report(results: dict[str, Any]) -> str:
    """The results as text."""
    where = dict(results["where"])
    place = ", ".join([f"in {where.pop('part')}", *(f"{name} {value}" for name, value in where.items())])
    values = f"{results['here']:.9g} here, {results['there']:.9g} there" if results["here"] is not None else "no values"
    verdict = "they agree" if results["agrees"] else "THEY DIFFER"
    rounding = [f"rounding            its float32 differs by {results['rounding']:.3g} from its float64"]
    return "\n".join(
        [
            f"{results['file']} against {results['witness']}",
            f"largest difference  {results['largest_difference']:.3g} {place}: {values}",
            "by part             " + ", ".join(f"{name} {value:.3g}" for name, value in results["parts"].items()),
            *(rounding if results["rounding"] else []),
            f"{verdict:19} wanted at most {results['tolerance']:g}, absolute up to 1 and relative beyond",
        ]
    )
