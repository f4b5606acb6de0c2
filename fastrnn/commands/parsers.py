"""The arguments of the commands that work on files. A command's module is imported when the command runs."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import extras

#: The options of `fastrnn.load` that choose and complete what a file holds.
READING = ("prefix", "scope", "nonlinearity", "batch_first", "forget_bias", "config")

#: Those that say how the layer computes.
COMPUTING = ("backend", "dtype", "isa", "weight_dtype")

WEIGHT_DTYPES = ("float32", "float16", "int8")

CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")

BATCH_STEPS = 8192


def add(commands: Any) -> None:
    """Add the four commands to what ``add_subparsers`` gave."""
    inspect = _command(commands, "inspect", "show the recurrent layers of a file", _INSPECT)
    convert = _command(commands, "convert", "convert a layer to fastrnn's own format", _CONVERT)
    convert.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    convert.add_argument("--force", action="store_true", help="replace OUT if it is there")
    verify = _command(commands, "verify", "compare a layer with the framework that its file is from", _VERIFY)
    verify.add_argument("--seed", type=int, default=0, help="of the random input (default: %(default)s)")
    verify.add_argument(
        "--tolerance",
        type=_positive(float),
        help="the largest difference that passes, absolute up to 1 and relative beyond (default: 1e-5, of float64 "
        "1e-10, with weights of float16 5e-3, of int8 8e-2)",
    )
    run = _command(commands, "run", "run sequences through a layer", _RUN)
    run.add_argument("--input", default="-", metavar="X", help="npz, JSON lines, or - for JSON lines (default: -)")
    run.add_argument(
        "--output", default="-", metavar="Y", help="a path that ends with .npz or .jsonl, or - for JSON lines"
    )
    run.add_argument(
        "--key", action="append", metavar="NAME", help="an array of an npz to read, no others; may be repeated"
    )
    run.add_argument(
        "--batch-steps",
        type=_positive(int),
        default=BATCH_STEPS,
        metavar="N",
        help="steps that are in memory at a time, of all sequences together (default: %(default)s)",
    )
    run.add_argument(
        "--casting", choices=CASTINGS, default="safe", help="which conversions of the input's type are allowed"
    )
    run.add_argument("--quiet", action="store_true", help="show no progress bar")
    for command in (inspect, verify):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (convert, run):
        command.set_defaults(json=False)


_INSPECT = (
    "Show every recurrent layer of a file: cells, options, sizes, parameters, floating-point operations a step, which "
    "options of the command choose it, and what is not supported and why. Weights are not run. The exit code is 0 if "
    "there is a recurrent layer, or a model that loads."
)
_CONVERT = (
    "Write a layer to a file of fastrnn's own format, a standard safetensors file. A file that is there is replaced "
    "with --force alone, and only when the new one is whole."
)
_VERIFY = (
    "Run a layer and the same layer of the framework that the file is from (PyTorch, Keras or TensorFlow, where it is "
    "installed) on random sequences of unequal lengths, and report the largest difference and where it is. The "
    "framework reads the file itself, so use files that you trust. The exit code is 0 if the difference is within the "
    "tolerance, 1 if it is not, 2 if there is nothing to compare with."
)
_RUN = (
    "Run sequences of any lengths through a layer, in bounded memory, and write the outputs in the order of the "
    "input. Input: JSON lines, one array (T, I) a line; or an npz with one array (T, I) for each sequence, or one "
    "array (B, T, I), with 'lengths' (B,) if the sequences are shorter. The output has the same form. A progress bar "
    f"is shown on a terminal ({extras.cure('progress')})."
)


def _command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=description)
    command.add_argument("file", metavar="FILE", help="the model; of a TensorFlow 1 checkpoint its prefix")
    group = command.add_argument_group("what the file cannot say", "the keyword arguments of fastrnn.load")
    group.add_argument("--prefix", help="which layer, where there are several: what its names begin with")
    group.add_argument("--scope", help="which cells of a TensorFlow 1 checkpoint")
    group.add_argument("--nonlinearity", choices=("tanh", "relu"), help="of an RNN")
    group.add_argument(
        "--batch-first", action=argparse.BooleanOptionalAction, help="whether inputs are (B, T, I) or (T, B, I)"
    )
    group.add_argument("--forget-bias", type=float, metavar="B", help="of TensorFlow 1's LSTM cells")
    group.add_argument("--config", metavar="JSON", help="the architecture of a Keras .weights.h5: a path")
    group.add_argument("--backend", choices=("auto", "fused", "blas"), default="auto", help="(default: auto)")
    group.add_argument("--dtype", choices=("float32", "float64"), help="to compute in; default: the weights' type")
    group.add_argument("--isa", help="the instruction set; default: the best")
    group.add_argument(
        "--weight-dtype",
        choices=WEIGHT_DTYPES,
        help="to keep weights in; default: the file's, or else that of --dtype",
    )
    command.set_defaults(run=_runner(name))
    return command


def _runner(name: str) -> Callable[[argparse.Namespace], Any]:
    def run(arguments: argparse.Namespace) -> Any:
        return importlib.import_module(f"fastrnn.commands.{name}").run(arguments)

    return run


def _positive(kind: type[Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is given, wanted a positive number")
        return value

    convert.__name__ = kind.__name__  # argparse names it where the text is no number
    return convert
