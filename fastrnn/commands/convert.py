"""``fastrnn convert``: a layer or model of any file to a file of our own format."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from .. import outputs
from ..layers.layer import Layer
from ..models.sequential import Sequential
from ..onnx import Model
from .options import load_layer, without_states


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Load the file, and save what is in it.

    Raises
    ------
    ValueError, OSError, ImportError
        OUT cannot be written or is there, FILE cannot be loaded, or its layer is one that the format does not have.
    """
    check_place(arguments.out, arguments.force)
    layer = load_layer(arguments)
    if isinstance(layer, Model):
        layer = without_states(layer, f"{arguments.file} cannot be saved")
    if not isinstance(layer, Layer | Sequential):
        raise ValueError(
            f"{arguments.file} is loaded as a fastrnn.keras.{type(layer).__name__}, which fastrnn's format does not "
            "have: it holds layers with PyTorch's meaning, and not the merge modes, go_backwards, stateful, Masking, "
            "or stacks of layers that differ; --prefix chooses one layer of several"
        )
    layer.save(arguments.out)
    return {}, f"{arguments.out}: {layer!r}, {os.path.getsize(arguments.out):,} bytes"


def check_place(path: Path, may_replace: bool) -> None:
    """Check the output's path before anything is read.

    Raises
    ------
    OSError
        It cannot be written, is no plain file, or is there and may not be replaced.
    """
    if os.path.lexists(path) and not os.path.isdir(path):
        if not os.path.isfile(path):
            raise OSError(f"OUT {path} is there and is no plain file, wanted a file or a new name")
        if not may_replace:
            raise FileExistsError(f"OUT {path} is there; --force replaces it")
    outputs.check_file(path, "OUT")
