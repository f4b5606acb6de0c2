"""fastrnn's own format: a standard safetensors file under PyTorch's names, the configuration in its metadata."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import int8_weights
from ..models.ops import OPS, Op
from ..models.spec import ModelSpec
from ..spec import WEIGHTS, Activation, CellSpec, LayerSpec
from .json_text import parse_json
from .safetensors_file import Header, map_file, read_header, tensors
from .tensors import Tensor

VERSION = "1"  # of a layer
MODEL_VERSION = "2"
METADATA = ("format", "format_version", "config")

#: A cell's arrays; each is stored as ``LayerSpec.name`` says, such as ``peephole_l0``, where the cell has it.
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")

SIZES = ("input_size", "hidden_size", "num_layers", "proj_size")
CELL_OPTIONS = ("activations", "cell_clip", "gate_clip", "proj_clip", "coupled", "linear_before_reset")
OP_LAYER_OPTIONS = ("kind", *SIZES, "bidirectional", "reverse")  # and cells
LAYER_OPTIONS = (*OP_LAYER_OPTIONS, "batch_first", "dtype", "cells")
MODEL_OPTIONS = ("batch_first", "ops")
WEIGHT_OPTIONS = ("weight_dtype",)  # where weights are not smaller than other arrays, a file does not say so

REALS = ("float32", "float64")
TYPES = {"int8": "I8", "float16": "F16", "float32": "F32", "float64": "F64"}
SMALL = ("float16", "int8")  # weight dtypes
SMALL_WANTED = f"wanted {' or '.join(SMALL)}, of dtype float32"
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
    """Read a layer or model; its arrays are views of the file.

    Raises
    ------
    ValueError
        The file is damaged, of another version, or its configuration and arrays do not agree; the message lists every
        reason.
    """
    with open(path, "rb") as file:
        header = read_header(path, file)
        config = read_config(path, header)
        arrays = tensors(header, file, map_file(file))
        return _build_model(path, config, arrays) if "ops" in config else _build(path, config, arrays)


def read_config(path: str, header: Header) -> dict[str, Any]:
    """The configuration of a file, every name and type in it checked; that of a model has "ops".

    Raises
    ------
    ValueError
        It is of another version, or names or types do not fit.
    """
    metadata = header.metadata
    version = metadata.get("format_version")
    if metadata.get("format") != "fastrnn" or version not in (VERSION, MODEL_VERSION):
        versions = f"{VERSION!r} and {MODEL_VERSION!r}"
        raise ValueError(f"{path} is version {version!r} of fastrnn's format, this fastrnn reads {versions}")
    faults = _names(metadata, METADATA, "__metadata__")
    config = parse_json(path, metadata.get("config", ""), "config")
    if version == MODEL_VERSION:
        faults += _names(config, MODEL_OPTIONS, "config")
        if not faults and not isinstance(config["ops"], list):
            faults.append("ops is no list")
        if not faults:
            faults += _flag_faults(config, "batch_first")
            for index, op in enumerate(config["ops"]):
                faults += _op_faults(op, f"ops[{index}]")
    else:
        faults += _names(config, LAYER_OPTIONS, "config", WEIGHT_OPTIONS)
        if not faults:
            faults += _layer_faults(config, "") + _flag_faults(config, "batch_first")
            if config["dtype"] not in REALS:
                faults.append(f"dtype is {config['dtype']!r}, wanted float32 or float64")
            elif config["weight_dtype"] and config["dtype"] != "float32":
                faults.append(f"weight_dtype is {config['weight_dtype']!r}, {SMALL_WANTED}")
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults[:20])}")
    assert isinstance(config, dict)
    return config


def _op_faults(op: Any, what: str) -> list[str]:
    kind = op.get("op") if isinstance(op, dict) else None
    if kind == "layer":
        return _names(op, ("op", *OP_LAYER_OPTIONS, "cells"), what, WEIGHT_OPTIONS) or _layer_faults(op, f"{what}.")
    if kind == "activation":
        if faults := _names(op, ("op", "name", "alpha", "beta"), what):
            return faults
        fits = _is_activation([op["name"], op["alpha"], op["beta"]])
        return [] if fits else [f"{what} is no activation with two numbers"]
    if not isinstance(kind, str) or kind not in OPS:
        return [f"{what} has op {kind!r}, wanted layer, activation or one of {', '.join(OPS)}"]
    return _names(op, ("op", *_options(OPS[kind])), what)


def _layer_faults(config: dict[str, Any], prefix: str) -> list[str]:
    """What does not fit in the options of a layer whose names are right; prefix : of the names, for messages."""
    faults = [
        f"{prefix}{size} is {config[size]!r}, wanted an integer" for size in SIZES if type(config[size]) is not int
    ]
    for flag in ("bidirectional", "reverse"):
        faults += _flag_faults(config, flag, prefix)
    if config["kind"] not in ("lstm", "gru", "rnn"):
        faults.append(f"{prefix}kind is {config['kind']!r}, wanted lstm, gru or rnn")
    if config["weight_dtype"] not in (None, *SMALL):
        faults.append(f"{prefix}weight_dtype is {config['weight_dtype']!r}, {SMALL_WANTED}")
    if not isinstance(config["cells"], list):
        return [*faults, f"{prefix}cells is no list"]
    for index, cell in enumerate(config["cells"]):
        faults += _cell_faults(cell, f"{prefix}cells[{index}]")
    return faults


def _flag_faults(config: dict[str, Any], flag: str, prefix: str = "") -> list[str]:
    return [] if _is_bool(config[flag]) else [f"{prefix}{flag} is {config[flag]!r}, wanted true or false"]


def _names(found: Any, wanted: tuple[str, ...], what: str, optional: tuple[str, ...] = ()) -> list[str]:
    """A fault for each name that is unknown or missing; those that may be missing are set to None."""
    if not isinstance(found, dict):
        return [f"{what} is no object"]
    faults = [f"{what} has no {name}" for name in wanted if name not in found]
    for name in optional:
        found.setdefault(name, None)
    known = (*wanted, *optional)
    return faults + [f"{what} has the unknown name {name!r}" for name in found if name not in known]


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
    left = dict(arrays)
    spec, faults = _layer(config, left, "", (config["dtype"],))
    faults += [f"{name} is surplus" for name in left]
    if not faults:
        try:
            return replace(spec, batch_first=config["batch_first"]).validate()
        except (ValueError, TypeError) as error:
            faults.append(str(error))
    raise ValueError(f"{path}: {'; '.join(faults[:20])}")


def _build_model(path: str, config: dict[str, Any], arrays: dict[str, Tensor]) -> ModelSpec:
    left = dict(arrays)
    ops: list[Any] = []
    faults: list[str] = []
    for index, options in enumerate(config["ops"]):
        kind = options["op"]
        if kind == "layer":
            spec, found = _layer(options, left, f"{index}.", REALS)
            ops.append(spec)
            faults += found
        elif kind == "activation":
            ops.append(Activation(options["name"], options["alpha"], options["beta"]))
        else:
            own = {name: left.pop(f"{index}.{name}", None) for name, _ in OPS[kind].ARRAYS}
            faults += _type_faults(own, f"{index}.", REALS)
            if not faults:
                weights = {name: None if tensor is None else tensor.read() for name, tensor in own.items()}
                given = {name: options[name] for name in _options(OPS[kind])}
                if isinstance(given.get("padding"), list):
                    given["padding"] = tuple(given["padding"])
                ops.append(OPS[kind](**weights, **given))
    faults += [f"{name} is surplus" for name in left]
    if not faults:
        try:
            return ModelSpec(tuple(ops), config["batch_first"]).validate()
        except (ValueError, TypeError) as error:
            faults.append(str(error))
    raise ValueError(f"{path}: {'; '.join(faults[:20])}")


def _layer(
    config: dict[str, Any], left: dict[str, Tensor], prefix: str, dtypes: tuple[str, ...]
) -> tuple[LayerSpec, list[str]]:
    """A layer, not yet validated, of the arrays under the prefix, which are taken out of `left`; and faults."""
    names = LayerSpec(cells=(), **{name: config[name] for name in (*OP_LAYER_OPTIONS, *WEIGHT_OPTIONS)})
    cells: list[CellSpec] = []
    faults: list[str] = []
    for index, cell in enumerate(config["cells"]):
        arrays: dict[str, Any] = {}
        for part in PARTS:
            name, weight_dtype = prefix + names.name(index, part), config["weight_dtype"] if part in WEIGHTS else None
            tensor = left.pop(name, None)
            scale = left.pop(name + SCALE, None) if tensor and weight_dtype == "int8" else None
            found = _type_faults({name: tensor}, "", (weight_dtype,) if weight_dtype else dtypes)
            faults += found
            if not found and tensor and weight_dtype == "int8":
                arrays[part], found = _read_int8(name, tensor, scale)
                faults += found
            elif not faults:
                arrays[part] = tensor and tensor.read()
        if faults:
            continue
        activations = tuple(Activation(*activation) for activation in cell["activations"])
        cells.append(CellSpec(**arrays, **(cell | {"activations": activations})))
    return replace(names, cells=cells), faults


def _read_int8(name: str, tensor: Tensor, scale: Tensor | None) -> tuple[NDArray[np.float32] | None, list[str]]:
    """Weights as scale * q, and faults of the two arrays."""
    if scale is None:
        return None, [f"{name}{SCALE} is missing, wanted the scales of {name}"]
    if faults := _type_faults({name + SCALE: scale}, "", ("float32",)):
        return None, faults
    if len(tensor.shape) != 2 or scale.shape != tensor.shape[:1]:
        return None, [f"{name} has shape {tensor.shape} and {name}{SCALE} {scale.shape}, wanted (N, K) and (N,)"]
    q, scales = tensor.read(), np.ascontiguousarray(scale.read(), np.float32)
    faults = int8_weights.faults(name, q, scales)
    return None if faults else int8_weights.widen(q, scales), faults


def _type_faults(arrays: dict[str, Tensor | None], prefix: str, dtypes: tuple[str, ...]) -> list[str]:
    return [
        f"{prefix}{name} is {tensor.dtype}, wanted {' or '.join(dtypes)}"
        for name, tensor in arrays.items()
        if tensor is not None and tensor.dtype not in dtypes
    ]
