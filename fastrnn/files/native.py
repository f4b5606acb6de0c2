"""fastrnn's own format: a standard safetensors file under PyTorch's names, the configuration in its metadata."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ..spec import WEIGHTS, Activation, CellSpec, LayerSpec
from .json_text import parse_json
from .safetensors_file import Header, map_file, read_header, tensors
from .tensors import Tensor

VERSION = "1"
METADATA = ("format", "format_version", "config")

#: A cell's arrays; each is stored as ``LayerSpec.name`` says, such as ``peephole_l0``, where the cell has it.
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")

SIZES = ("input_size", "hidden_size", "num_layers", "proj_size")
FLAGS = ("bidirectional", "batch_first", "reverse")
CELL_OPTIONS = ("activations", "cell_clip", "gate_clip", "proj_clip", "coupled", "linear_before_reset")
LAYER_OPTIONS = ("kind", "dtype", "weight_dtype", *SIZES, *FLAGS, "cells")

TYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}


def write(spec: LayerSpec, path: str | os.PathLike[str]) -> None:
    """Write a layer; a file that is there is replaced when the new one is whole, and not before.

    The same layer gives the same bytes.

    Parameters
    ----------
    spec : of one dtype throughout
    path : the file; its name does not matter

    Raises
    ------
    OSError
        It cannot be written.
    """
    dtype = spec.cells[0].weight_ih.dtype
    cells = []
    for cell in spec.cells:
        options = {option: getattr(cell, option) for option in CELL_OPTIONS}
        cells.append(options | {"activations": [[a.name, a.alpha, a.beta] for a in cell.activations]})
    config = {name: getattr(spec, name) for name in ("kind", *SIZES, *FLAGS)} | {"dtype": dtype.name, "cells": cells}
    weight_dtype = spec.weight_dtype or dtype.name
    if weight_dtype != dtype.name:
        config["weight_dtype"] = weight_dtype
    arrays = {
        spec.name(index, part): getattr(cell, part).astype(weight_dtype if part in WEIGHTS else dtype, copy=False)
        for index, cell in enumerate(spec.cells)
        for part in PARTS
        if getattr(cell, part) is not None
    }
    header: dict[str, Any] = {
        "__metadata__": dict(zip(METADATA, ("fastrnn", VERSION, json.dumps(config, sort_keys=True)), strict=True))
    }
    end = 0
    for name, array in sorted(arrays.items()):
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned

    import tempfile  # takes longer to import than all else here

    target = os.path.realpath(path)  # a symbolic link stays, and what it points to is replaced
    folder, name = os.path.split(target)
    if os.path.isdir(target):
        raise IsADirectoryError(f"path {os.fspath(path)} is a directory, wanted a file")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(f"path {os.fspath(path)} is a device or a pipe, wanted a file")
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, array in sorted(arrays.items()):
                file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # as open() would have made it; mkstemp's is for the owner alone
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: str) -> LayerSpec:
    """Read a layer; its arrays are views of the file.

    Raises
    ------
    ValueError
        The file is damaged, of another version, or its configuration and arrays do not agree; the message lists every
        reason.
    """
    with open(path, "rb") as file:
        header = read_header(path, file)
        config = read_config(path, header)
        return _build(path, config, tensors(header, file, map_file(file)))


def read_config(path: str, header: Header) -> dict[str, Any]:
    """The configuration of a file, every name and type in it checked.

    Raises
    ------
    ValueError
        It is of another version, or names or types do not fit.
    """
    metadata = header.metadata
    version = metadata.get("format_version")
    if metadata.get("format") != "fastrnn" or version != VERSION:
        raise ValueError(f"{path} is version {version!r} of fastrnn's format, this fastrnn reads {VERSION!r}")
    faults = _names(metadata, METADATA, "__metadata__")
    config = parse_json(path, metadata.get("config", ""), "config")
    if isinstance(config, dict):
        config.setdefault("weight_dtype", None)  # where weights are of dtype, a file does not say so
    faults += _names(config, LAYER_OPTIONS, "config")
    if not faults:
        faults += [f"{size} is {config[size]!r}, wanted an integer" for size in SIZES if type(config[size]) is not int]
        faults += [f"{flag} is {config[flag]!r}, wanted true or false" for flag in FLAGS if not _is_bool(config[flag])]
        if config["kind"] not in ("lstm", "gru", "rnn"):
            faults.append(f"kind is {config['kind']!r}, wanted lstm, gru or rnn")
        if config["dtype"] not in ("float32", "float64"):
            faults.append(f"dtype is {config['dtype']!r}, wanted float32 or float64")
        if config["weight_dtype"] not in ((None, "float16") if config["dtype"] == "float32" else (None,)):
            faults.append(f"weight_dtype is {config['weight_dtype']!r}, wanted float16, of dtype float32")
        if not isinstance(config["cells"], list):
            faults.append("cells is no list")
        else:
            for index, cell in enumerate(config["cells"]):
                faults += _cell_faults(cell, f"cells[{index}]")
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults[:20])}")
    assert isinstance(config, dict)
    return config


def _names(found: Any, wanted: tuple[str, ...], what: str) -> list[str]:
    """A fault for each name that is unknown or missing."""
    if not isinstance(found, dict):
        return [f"{what} is no object"]
    faults = [f"{what} has no {name}" for name in wanted if name not in found]
    return faults + [f"{what} has the unknown name {name!r}" for name in found if name not in wanted]


def _cell_faults(cell: Any, what: str) -> list[str]:
    if faults := _names(cell, CELL_OPTIONS, what):
        return faults
    checks: dict[str, Callable[[Any], bool]] = {
        "activations": lambda value: isinstance(value, list) and all(map(_is_activation, value)),
        "coupled": _is_bool,
        "linear_before_reset": _is_bool,
    }
    for option in CELL_OPTIONS:
        if not checks.get(option, lambda value: value is None or _is_number(value))(cell[option]):
            faults.append(f"{what} has {option} {cell[option]!r}")
    return faults


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def _is_activation(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and all(map(_is_number, value[1:]))


def _build(path: str, config: dict[str, Any], arrays: dict[str, Tensor]) -> LayerSpec:
    options = {name: config[name] for name in ("kind", *SIZES, *FLAGS, "weight_dtype")}
    names = LayerSpec(cells=(), **options)
    cells, faults = [], []
    left = dict(arrays)
    for index, cell in enumerate(config["cells"]):
        parts = {part: left.pop(names.name(index, part), None) for part in PARTS}
        found = {part: tensor for part, tensor in parts.items() if tensor is not None}
        for part, tensor in found.items():
            wanted = (part in WEIGHTS and config["weight_dtype"]) or config["dtype"]
            if tensor.dtype != wanted:
                faults.append(f"{names.name(index, part)} is {tensor.dtype}, wanted {wanted}")
        if faults:
            continue
        activations = tuple(Activation(*activation) for activation in cell["activations"])
        weights: dict[str, Any] = {part: tensor.read() for part, tensor in found.items()}
        weights = dict.fromkeys(("weight_ih", "weight_hh")) | weights
        cells.append(CellSpec(**weights, **(cell | {"activations": activations})))
    faults += [f"{name} is surplus" for name in left]
    if not faults:
        try:
            return LayerSpec(cells=cells, **options).validate()
        except (ValueError, TypeError) as error:
            faults.append(str(error))
    raise ValueError(f"{path}: {'; '.join(faults[:20])}")
