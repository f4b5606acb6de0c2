"""The options of `fastrnn.load` as the commands get them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..files.load import load
from ..onnx import Model
from .parsers import COMPUTING, READING


def reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `fastrnn.load` that the user has given."""
    options = {name: getattr(arguments, name) for name in READING}
    return {name: value for name, value in options.items() if value is not None}


def load_layer(arguments: argparse.Namespace) -> Any:
    """Call `fastrnn.load` with a command's arguments.

    Raises
    ------
    ValueError, OSError, ImportError
        As of load.
    """
    computing = {name: getattr(arguments, name) for name in COMPUTING}
    with as_value_errors():
        return load(arguments.file, **reading(arguments), **computing)


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Turn errors in a file or an argument into ValueError, which the command line reports in one line."""
    try:
        yield
    except (TypeError, NotImplementedError) as error:
        raise ValueError(str(error)) from error


@contextmanager
def framework_errors(framework: str) -> Iterator[None]:
    """Turn whatever a framework raises into a ValueError that says so."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{framework} cannot run the layer, so nothing is compared: {reason}") from error


def without_states(model: Model, refusal: str) -> Any:
    """The layer or model of a graph of ONNX that is a chain apart from initial and final states.

    Raises
    ------
    ValueError
        It is none; the message is `refusal`, the reason, and what else there is.
    """
    found = model.without_states()
    if found is None:
        raise ValueError(
            f"{refusal}: it is a graph of ONNX that is no Sequential ({model.why_not_sequential}); --prefix chooses "
            "one of its recurrent nodes, which inspect lists, and in Python the run of fastrnn.load(...) takes its "
            "inputs by name"
        )
    return found
