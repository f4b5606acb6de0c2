"""``fastrnn run``: sequences of any lengths through a layer or model, in bounded memory, in the order of the input."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import extras, outputs
from ..keras import Bidirectional, Masking, Sequential
from ..layers.layer import Layer
from ..models import sequential as models
from ..onnx import Model
from .options import as_value_errors, load_layer, without_states
from .results import Results, open_results
from .sequences import Fragment, Input, Wanted, open_input


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], None]:
    """Read, run and write.

    Raises
    ------
    ValueError, OSError, ImportError
        The model, the input or a place does not fit; the message names it, and the line or the array. An output file
        is then not made or changed; what was written to the standard output is left.
    """
    is_npz = _check_places(arguments.input, arguments.output)
    layer = load_layer(arguments)
    model: _Model
    if isinstance(layer, Model):
        layer = without_states(layer, f"{arguments.file} does not run by this command")
    if isinstance(layer, models.Sequential):
        model = _Sequential(layer)
    else:
        model = _Plain(layer) if isinstance(layer, Layer) else _Keras(layer)
    wanted = Wanted(model.input_size, model.dtype, arguments.casting, model.num_ids)
    with ExitStack() as stack, as_value_errors():
        stream = stack.enter_context(_open(arguments.input))
        name = "the standard input" if arguments.input == "-" else arguments.input
        source = open_input(name, stream, wanted, arguments.key, arguments.batch_steps)
        (probe,) = model.run([np.zeros((1, *wanted.step_shape), model.dtype)])
        if arguments.output == "-":
            file = _standard(sys.stdout, "output")
        else:
            file = stack.enter_context(outputs.replacing(Path(arguments.output)))
        steps_after = model.steps_after(source.form.steps)
        results = open_results(file, is_npz, source.form, steps_after, probe.shape, probe.dtype)
        try:
            with _progress(source.form.count, arguments.quiet) as advance:
                _run(model, source, results, arguments.batch_steps, advance)
        except BaseException:
            with suppress(Exception):
                results.finish()  # an open zip would be closed later, when its file is gone
            raise
        results.finish()
    return {}, None


def _check_places(input_path: str, output_path: str) -> bool:
    """Check the output's name and place; whether it is an npz."""
    if output_path == "-":
        return False
    path = Path(output_path)
    is_regular = path.is_file() or not path.exists()
    if is_regular and path.suffix not in (".npz", ".jsonl"):
        raise ValueError(f"--output {output_path} has another ending than .npz and .jsonl")
    outputs.check_file(path, "--output")
    if is_regular and input_path != "-" and not Path(input_path).exists():
        raise FileNotFoundError(f"--input {input_path}: there is no such file")
    return path.suffix == ".npz"


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield _standard(sys.stdin, "input")
    else:
        with open(path, "rb") as file:
            yield file


def _standard(stream: Any, what: str) -> BinaryIO:
    if stream is None:
        raise OSError(f"the standard {what} is closed")
    binary: BinaryIO = stream.buffer
    return binary


class _Model(Protocol):
    """What runs sequences x, (T, I) or ids (T,)."""

    input_size: int
    num_ids: int
    dtype: np.dtype[Any]  # of x
    can_stream: bool

    def steps_after(self, steps: int) -> int:
        """How many steps the output of a sequence of so many steps has at most."""

    def run(self, sequences: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of sequences, one batch: (S, O), or (O,) where each has one output alone."""

    def open_stream(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Return a function that runs the parts of one sequence one after the other."""


class _Sequential:
    """A fastrnn.Sequential."""

    def __init__(self, model: models.Sequential) -> None:
        self._model = model
        self.num_ids, self.input_size = model.num_ids, model.input_size
        self.dtype = np.dtype(np.int64) if model.num_ids else model.dtype
        # A part of a sequence may have any number of steps, and with mask_zero each could need a call of its own.
        self.can_stream = model.streams and model.stride == 1 and not model.mask_zero

    def steps_after(self, steps: int) -> int:
        return self._model.output_steps(steps)

    def run(self, sequences: list[NDArray[Any]]) -> list[NDArray[Any]]:
        return list(self._model(sequences))

    def open_stream(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        stream = self._model.stream(1)
        return lambda x: stream.run(x[None])[0]


class _Plain:
    """An LSTM, GRU or RNN."""

    num_ids = 0

    def __init__(self, layer: Layer[Any]) -> None:
        self._layer = layer
        self.input_size, self.dtype = layer.input_size, layer.dtype
        self.can_stream = not (layer.bidirectional or layer.reverse)

    def steps_after(self, steps: int) -> int:
        return steps

    def run(self, sequences: list[NDArray[Any]]) -> list[NDArray[Any]]:
        y: list[NDArray[Any]] = self._layer(sequences)[0]
        return y

    def open_stream(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        stream = self._layer.stream(1)

        def run(x: NDArray[Any]) -> NDArray[Any]:
            y: NDArray[Any] = stream.run(x[None])[0]
            return y

        return run


class _Keras:
    """A layer of fastrnn.keras: sequences of the same length run together, so that no mask is needed.

    Of what the layer returns, the output is taken, and not the states. A stateful layer begins with zeros.
    """

    can_stream = False
    num_ids = 0

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        inner = layer.layers if isinstance(layer, Sequential) else [layer]
        first, last = next(part for part in inner if not isinstance(part, Masking)), inner[-1]
        if getattr(last, "merge_mode", "concat") is None:
            raise ValueError("the layer is a Bidirectional with merge_mode None, which gives two outputs, wanted one")
        weights: list[NDArray[Any]] = first.get_weights()
        self.input_size, self.dtype = len(weights[0]), weights[0].dtype

    def steps_after(self, steps: int) -> int:
        return steps

    def run(self, sequences: list[NDArray[Any]]) -> list[NDArray[Any]]:
        same: dict[int, list[int]] = defaultdict(list)
        for i, x in enumerate(sequences):
            same[len(x)].append(i)
        y: list[Any] = [None] * len(sequences)
        for indices in same.values():
            _forget(self._layer)
            result = self._layer(np.stack([sequences[i] for i in indices]))
            result = result[0] if isinstance(result, tuple) else result
            for i, row in zip(indices, result, strict=True):
                y[i] = row
        return y

    def open_stream(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        raise NotImplementedError("fastrnn.keras has no streams")


def _forget(layer: Any) -> None:
    """Reset a stateful layer, so that the next call may have any number of rows."""
    if isinstance(layer, Sequential):
        for part in layer.layers:
            _forget(part)
    elif isinstance(layer, Bidirectional):
        _forget(layer.forward_layer)
        _forget(layer.backward_layer)
    elif not isinstance(layer, Masking):
        layer.states = None


def _run(model: _Model, source: Input, results: Results, batch_steps: int, advance: Callable[[int], None]) -> None:
    waiting: list[Fragment] = []
    steps = 0

    def flush() -> None:
        nonlocal steps
        for fragment, y in zip(waiting, model.run([fragment.x for fragment in waiting]), strict=True):
            results.whole(fragment.name, y)
        advance(len(waiting))
        waiting.clear()
        steps = 0

    parts: list[NDArray[Any]] = []
    step: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    for fragment in source.fragments(batch_steps):
        if fragment.is_first and fragment.is_last:
            if waiting and steps + len(fragment.x) > batch_steps:
                flush()
            waiting.append(fragment)
            steps += max(len(fragment.x), 1)  # empty sequences take memory, too
            continue
        if fragment.is_first:
            flush()
            step = model.open_stream() if model.can_stream else None
        if step is not None:
            results.part(fragment.name, step(fragment.x), fragment.is_first, fragment.is_last)
        else:
            parts.append(fragment.x)
            if fragment.is_last:
                (y,) = model.run([np.concatenate(parts)])
                parts = []
                results.whole(fragment.name, y)
        advance(int(fragment.is_last))
    flush()


@contextmanager
def _progress(total: int | None, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Return a function that advances a progress bar by a number of finished sequences."""
    if quiet or sys.stderr is None or not sys.stderr.isatty() or extras.missing(["tqdm"]):
        yield lambda count: None
        return
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    with tqdm(total=total, unit=" sequences", file=sys.stderr, delay=0.5) as bar:
        yield bar.update
