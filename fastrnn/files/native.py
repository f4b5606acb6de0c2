"""fastrnn's own format: a standard safetensors file under PyTorch's names, the configuration in its metadata."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core, int8_weights
from ..models.ops import OPS, Op
from ..models.spec import ModelSpec
from ..spec import WEIGHTS, Activation, CellSpec, LayerSpec
from .safetensors_file import map_file, read_header, tensors

# Readers of the format: core/io/model_file.c checks a file, `read` makes a spec of it.
VERSION = "1"  # of a layer
MODEL_VERSION = "2"
METADATA = ("format", "format_version", "config")

#: A cell's arrays; each is stored as ``LayerSpec.name`` says, such as ``peephole_l0``, where the cell has it.
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")

SIZES = ("input_size", "hidden_size", "num_layers", "proj_size")
CELL_OPTIONS = ("activations", "cell_clip", "gate_clip", "proj_clip", "coupled", "linear_before_reset")
OP_LAYER_OPTIONS = ("kind", *SIZES, "bidirectional", "reverse")  # and cells
TYPES = {"int8": "I8", "float16": "F16", "float32": "F32", "float64": "F64"}
SMALL = ("float16", "int8")  # weight dtypes
SCALE = "_scale"  # what ends the name of the scales of int8 weights


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
    config = _layer_config(spec) | {"batch_first": spec.batch_first, "dtype": spec.cells[0].weight_ih.dtype.name}
    _write_file(path, VERSION, config, _layer_arrays(spec))


def write_model(spec: ModelSpec, path: str | os.PathLike[str]) -> None:
    """Write a model as `write` does a layer; its arrays are float32 or float64."""
    ops: list[dict[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for index, op in enumerate(spec.ops):
        if isinstance(op, LayerSpec):
            ops.append({"op": "layer"} | _layer_config(op))
            own: dict[str, Any] = _layer_arrays(op)
        elif isinstance(op, Activation):
            ops.append({"op": "activation"} | asdict(op))
            own = {}
        else:
            ops.append({"op": type(op).__name__} | {name: getattr(op, name) for name in _options(type(op))})
            own = {name: getattr(op, name) for name, _ in op.ARRAYS if getattr(op, name) is not None}
        arrays |= {f"{index}.{name}": array for name, array in own.items()}
    _write_file(path, MODEL_VERSION, {"batch_first": spec.batch_first, "ops": ops}, arrays)


def _options(kind: type[Op]) -> tuple[str, ...]:
    """The names of an operation's options, which are not arrays."""
    return tuple(name for name in getattr(kind, "__dataclass_fields__", ()) if name not in dict(kind.ARRAYS))


def _layer_config(spec: LayerSpec) -> dict[str, Any]:
    """The options of a layer in a file, without batch_first and dtype."""
    cells = []
    for cell in spec.cells:
        options = {option: getattr(cell, option) for option in CELL_OPTIONS}
        cells.append(options | {"activations": [[a.name, a.alpha, a.beta] for a in cell.activations]})
    config = {name: getattr(spec, name) for name in OP_LAYER_OPTIONS} | {"cells": cells}
    return config | ({"weight_dtype": spec.weight_dtype} if spec.weight_dtype in SMALL else {})


def _layer_arrays(spec: LayerSpec) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for index, cell in enumerate(spec.cells):
        for part in PARTS:
            name, array = spec.name(index, part), getattr(cell, part)
            if array is None:
                continue
            if spec.weight_dtype == "int8" and part in WEIGHTS:
                arrays[name], arrays[name + SCALE] = int8_weights.quantize(array)
            elif spec.weight_dtype == "float16" and part in WEIGHTS:
                arrays[name] = array.astype(np.float16)
            else:
                arrays[name] = array
    return arrays


def _write_file(
    path: str | os.PathLike[str], version: str, config: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    header: dict[str, Any] = {
        "__metadata__": dict(zip(METADATA, ("fastrnn", version, json.dumps(config, sort_keys=True)), strict=True))
    }
    end = 0
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))  # so that each is aligned
    for name, array in ordered:
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
            for _, array in ordered:
                file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # as open() would have made it; mkstemp's is for the owner alone
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: str) -> LayerSpec | ModelSpec:
    """Read a layer or model; its arrays are views of the file. The C core checks it (``core/io/model_file.c``).

    Raises
    ------
    ValueError
        The file is damaged, of another version, or its configuration and arrays do not agree; the message lists every
        reason.
    """
    with open(path, "rb") as file:
        header = read_header(path, file)
        view = map_file(file)
        try:
            _core.check_model_file(view)
            config = json.loads(header.metadata["config"])
            arrays = {name: tensor.read() for name, tensor in tensors(header, file, view).items()}
            return _model(config, arrays).validate() if "ops" in config else _layer_file(config, arrays).validate()
        except (ValueError, TypeError) as error:
            separator = " " if str(error).startswith("is ") else ": "
            raise ValueError(f"{path}{separator}{error}") from None


def _layer_file(config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> LayerSpec:
    return replace(_layer(config, arrays, ""), batch_first=config["batch_first"])


def _model(config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> ModelSpec:
    ops: list[Any] = []
    for index, options in enumerate(config["ops"]):
        kind = options["op"]
        if kind == "layer":
            ops.append(_layer(options, arrays, f"{index}."))
        elif kind == "activation":
            ops.append(Activation(options["name"], options["alpha"], options["beta"]))
        else:
            given = {name: options[name] for name in _options(OPS[kind])}
            if isinstance(given.get("padding"), list):
                given["padding"] = tuple(given["padding"])
            ops.append(OPS[kind](**{name: arrays.get(f"{index}.{name}") for name, _ in OPS[kind].ARRAYS}, **given))
    return ModelSpec(tuple(ops), config["batch_first"])


def _layer(config: dict[str, Any], arrays: dict[str, NDArray[Any]], prefix: str) -> LayerSpec:
    """A layer, not yet validated, of the arrays under the prefix."""
    options = {name: config[name] for name in OP_LAYER_OPTIONS}
    spec = LayerSpec(cells=(), **options, weight_dtype=config.get("weight_dtype"))
    cells = []
    for index, cell in enumerate(config["cells"]):
        activations = tuple(Activation(*activation) for activation in cell["activations"])
        parts = {part: _part(arrays, prefix + spec.name(index, part)) for part in PARTS}
        cells.append(CellSpec(**parts, **(cell | {"activations": activations})))  # type: ignore[arg-type]
    return replace(spec, cells=cells)


def _part(arrays: dict[str, NDArray[Any]], name: str) -> NDArray[Any] | None:
    """One of a cell's arrays; of int8 weights, the products with the scales of their rows."""
    array = arrays.get(name)
    if array is None or array.dtype != np.int8:
        return array
    scales = np.ascontiguousarray(arrays[name + SCALE], np.float32)
    if faults := int8_weights.faults(name, array, scales):
        raise ValueError("; ".join(faults))
    return int8_weights.widen(array, scales)
