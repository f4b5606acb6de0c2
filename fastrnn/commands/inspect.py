"""``fastrnn inspect``: the recurrent layers of a file, their sizes, and what is not supported."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..keras import Bidirectional, Masking, Sequential
from ..keras.recurrent import Recurrent
from ..layers.engine import choose_backend, choose_dtype, choose_weight_dtype
from ..models.engine import choose_weight_dtypes
from ..models.ops import Conv1d, Embedding, LayerNorm, Linear, Op, Pool
from ..models.spec import AnyOp, ModelSpec, op_name
from ..runtime import chosen_isa, isa_for
from ..spec import DEFAULT_ACTIVATIONS, WEIGHTS, Activation, CellSpec, LayerSpec, activations_of
from .options import as_value_errors, reading
from .survey import Found, Survey, survey

MOST_OTHERS = 5  # in the text

#: A cell's options with what they are by default; a GRU's linear_before_reset is always shown.
CELL_OPTIONS: dict[str, Any] = {"cell_clip": None, "gate_clip": None, "proj_clip": None, "coupled": False}

#: The options of a layer of fastrnn.keras that say what it returns.
KERAS_OPTIONS = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Describe a file.

    Raises
    ------
    ValueError, OSError, ImportError
        The file is damaged, of an unknown format, or has no recurrent layer.
    """
    with as_value_errors():
        found = survey(arguments.file, reading(arguments))
        results = document(arguments.file, found, arguments)
    return results, report(results)


def document(path: str, found: Survey, arguments: argparse.Namespace) -> dict[str, Any]:
    """What ``--json`` prints; docs/commands.md describes it."""
    others = found.others
    return {
        "file": path,
        "format": found.format,
        "title": found.title,
        "layers": [_entry(layer, arguments) for layer in found.found],
        "unsupported": found.unsupported,
        "parts": None if found.parts is None else [asdict(part) for part in found.parts],
        "other_arrays": None if others is None else {name: list(shape) for name, shape in others.items()},
    }


def _entry(found: Found, arguments: argparse.Namespace) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "choice": found.choice,
        "text": found.text,
        "loads": not found.reasons,
        "needs": found.needs,
        "reasons": found.reasons,
        "layer": None,
    }
    if found.layer is not None:
        entry["layer"] = facts = describe(found.layer)
        if isinstance(found.layer, LayerSpec):
            entry["text"] = summary(found.layer)
            isa = chosen_isa(arguments.isa)
            dtype = choose_dtype(found.layer, arguments.dtype)
            weight_dtype = choose_weight_dtype(found.layer, arguments.weight_dtype).weight_dtype
            backend = choose_backend(arguments.backend, dtype, isa, weight_dtype)
            facts["computes"] = {"dtype": dtype.name, "weight_dtype": weight_dtype or dtype.name, "backend": backend}
            facts["computes"]["isa"] = isa_for(isa, weight_dtype) if backend == "fused" else None
        elif isinstance(found.layer, ModelSpec):
            isa = isa_for(chosen_isa(arguments.isa))
            entry["text"] = f"model of {len(found.layer.ops)} operations"
            chosen = choose_weight_dtypes(found.layer, arguments.weight_dtype)
            types = {op.weight_dtype or "float32" for op in chosen.ops if isinstance(op, LayerSpec)}
            facts["computes"] = {"dtype": "float32", "weight_dtype": types.pop() if len(types) == 1 else None}
            facts["computes"] |= {"backend": "fused", "isa": isa}
        if "nonlinearity" in found.needs:
            for cell in facts["cells"]:
                cell["activations"] = None
    return entry


def describe(layer: Any) -> dict[str, Any]:
    """Facts about a LayerSpec, a ModelSpec or a layer of fastrnn.keras, made of JSON's types."""
    if isinstance(layer, LayerSpec):
        return _describe_spec(layer)
    if isinstance(layer, ModelSpec):
        return _describe_model(layer)
    facts: dict[str, Any] = {"class": f"fastrnn.keras.{type(layer).__name__}"}
    if isinstance(layer, Masking):
        return facts | {"mask_value": float(layer.mask_value), "parameters": 0, "bytes": 0, "flops_per_step": 0}
    if isinstance(layer, Recurrent):
        options = {name: bool(getattr(layer, name)) for name in KERAS_OPTIONS}
        return _describe_spec(layer.describe(layer.get_weights())) | facts | options
    parts = layer.layers if isinstance(layer, Sequential) else (layer.forward_layer, layer.backward_layer)
    inner = [describe(part) for part in parts]
    if isinstance(layer, Bidirectional):
        facts["merge_mode"] = layer.merge_mode
    sums = {name: sum(part[name] for part in inner) for name in ("parameters", "bytes", "flops_per_step")}
    return facts | sums | {"layers": inner}


def _describe_spec(spec: LayerSpec) -> dict[str, Any]:
    cells = [_describe_cell(spec, index, cell) for index, cell in enumerate(spec.cells)]
    arrays = {
        (index, name): array
        for index, cell in enumerate(spec.cells)
        for name, array in vars(cell).items()
        if isinstance(array, np.ndarray)
    }
    dtype = spec.cells[0].weight_ih.dtype.name
    names = ("kind", "input_size", "hidden_size", "proj_size", "num_layers")
    return {
        "class": {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}[spec.kind],
        **{name: getattr(spec, name) for name in names},
        **{name: bool(getattr(spec, name)) for name in ("bidirectional", "reverse", "batch_first")},
        "dtype": dtype,
        "weight_dtype": spec.weight_dtype or dtype,
        "parameters": sum(array.size for array in arrays.values()),
        "bytes": sum(_bytes(array, spec.weight_dtype, name) for (_, name), array in arrays.items()),
        "flops_per_step": 2 * sum(_weights(cell) for cell in spec.cells),
        "cells": cells,
    }


def _bytes(array: NDArray[Any], weight_dtype: str | None, name: str) -> int:
    """Of one of a cell's arrays, in its type, or in the smaller one of weights."""
    if name not in WEIGHTS or weight_dtype in (None, "float32"):
        return array.nbytes
    return array.size + 4 * len(array) if weight_dtype == "int8" else 2 * array.size


def _describe_model(spec: ModelSpec) -> dict[str, Any]:
    inner, stride, is_pooled = [], 1, False
    for op in spec.ops:
        facts = _describe_op(op)
        stride *= op.stride if isinstance(op, Conv1d) else 1
        facts["flops_per_step"] = 0 if is_pooled else facts["flops_per_step"] // stride  # of a step of x
        inner.append(facts)
        is_pooled |= isinstance(op, Pool)
    first = spec.ops[0]
    return {
        "class": "Sequential",
        "batch_first": bool(spec.batch_first),
        "num_ids": len(first.weight) if isinstance(first, Embedding) else None,
        "input_size": None if spec.takes_ids else spec.widths[0],
        "output_size": spec.widths[-1],
        "pools": spec.pools,
        **{name: sum(part[name] for part in inner) for name in ("parameters", "bytes", "flops_per_step")},
        "layers": inner,
    }


def _describe_op(op: AnyOp) -> dict[str, Any]:
    """Facts about an operation of a model; flops_per_step are of one of its own output steps."""
    if isinstance(op, LayerSpec):
        facts = _describe_spec(op)
        del facts["batch_first"]
        return facts
    nothing: dict[str, Any] = {"parameters": 0, "bytes": 0, "flops_per_step": 0}
    if isinstance(op, Activation):
        return {"class": "Activation", "activation": [op.name, op.alpha, op.beta], **nothing}
    arrays = [array for array in (getattr(op, name) for name, _ in op.ARRAYS) if array is not None]
    sizes = {"input_size": op.input_size, "output_size": op.output_size}
    facts = {"class": op_name(op), **{name: size for name, size in sizes.items() if size is not None}, **nothing}
    facts |= {"parameters": sum(array.size for array in arrays), "bytes": sum(array.nbytes for array in arrays)}
    if isinstance(op, Linear | Conv1d):
        facts["flops_per_step"] = 2 * op.weight.size
    return facts | _op_options(op)


def _op_options(op: Op) -> dict[str, Any]:
    if isinstance(op, Embedding):
        return {"num_ids": len(op.weight), "mask_zero": bool(op.mask_zero)}
    if isinstance(op, Conv1d):
        options = {"kernel_size": op.weight.shape[2], "stride": int(op.stride), "dilation": int(op.dilation)}
        return options | {"padding": [op.left, op.right]}
    return {"eps": float(op.eps)} if isinstance(op, LayerNorm) else {}


def _weights(cell: CellSpec) -> int:
    """Elements of the matrices that a step of a row is multiplied with."""
    return sum(matrix.size for matrix in (cell.weight_ih, cell.weight_hh, cell.weight_hr) if matrix is not None)


def _describe_cell(spec: LayerSpec, index: int, cell: CellSpec) -> dict[str, Any]:
    options: dict[str, Any] = {"name": spec.name(index, "cell").removeprefix("cell_")}
    options["activations"] = [[a.name, a.alpha, a.beta] for a in activations_of(spec.kind, cell)]
    options["bias"] = cell.bias_ih is not None or cell.bias_hh is not None
    options["peephole"] = cell.peephole is not None
    options |= {name: getattr(cell, name) for name in CELL_OPTIONS}
    options["linear_before_reset"] = bool(cell.linear_before_reset) if spec.kind == "gru" else None
    return options


def summary(spec: LayerSpec) -> str:
    """Kind and sizes of a layer in words."""
    sizes = [f"{spec.input_size} inputs", f"{spec.hidden_size} units"]
    sizes += [f"{spec.proj_size} outputs"] if spec.proj_size else []
    sizes += [f"{spec.num_layers} layers"] if spec.num_layers > 1 else []
    sizes += ["both directions"] if spec.bidirectional else ["backward"] if spec.reverse else []
    return f"{spec.kind.upper()} of {', '.join(sizes)}"


def report(results: dict[str, Any]) -> str:
    """The document as text."""
    count = sum(bool(entry["choice"]) for entry in results["layers"])  # the whole model is made of the others
    if not count:
        (whole,) = results["layers"]
        is_model = whole["layer"] is not None and whole["layer"]["class"] == "Sequential"
        count = sum("cells" in part for part in whole["layer"]["layers"]) if is_model else 1
    lines = [f"{results['file']}: {results['title']}, {count} recurrent layer{'s' if count != 1 else ''}"]
    for entry in results["layers"]:
        choice = " ".join(f"--{name} {value!r}" for name, value in entry["choice"].items())
        lines += ["", " ".join(part for part in (choice and f"{choice}:", entry["text"]) if part) or "one layer"]
        rows: list[tuple[str, str]] = []
        if entry["layer"] is not None:
            rows += _rows(entry["layer"])
        if entry["needs"]:
            rows.append(("needs", ", ".join(f"--{name.replace('_', '-')}" for name in entry["needs"])))
        rows += [("not loaded", reason) for reason in entry["reasons"]]
        lines += [f"  {name:13} {value}" for name, value in rows]
    if results["parts"] is not None:
        lines += ["", "what runs where:"]
        for part in results["parts"]:
            nodes = part["nodes"]
            more = f", ... ({len(nodes)} nodes)" if len(nodes) > MOST_OTHERS else ""
            names = f"{', '.join(part['reads'])} -> {', '.join(part['gives'])}"
            lines.append(f"  {part['engine']:13} {', '.join(nodes[:MOST_OTHERS])}{more}: {names}")
    if results["unsupported"]:
        lines += ["", "not supported:", *(f"  {reason}" for reason in results["unsupported"])]
    if others := results["other_arrays"]:
        some = ", ".join(f"{name} {tuple(shape)}" for name, shape in list(others.items())[:MOST_OTHERS])
        lines += ["", f"other arrays, which are left alone: {len(others)}, {some}"]
        lines[-1] += ", ..." if len(others) > MOST_OTHERS else ""
    return "\n".join(lines)


def _rows(layer: dict[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for inner in layer.get("layers", ()):
        rows.append((inner["class"].rpartition(".")[2], _inner(inner)))
    if "cells" in layer:
        texts = [_options(layer, cell) for cell in layer["cells"]]
        if len(set(texts)) == 1:
            rows += [("options", texts[0])] if texts[0] else []
        else:
            rows += [
                ("options", f"{cell['name']}: {text or 'none'}")
                for cell, text in zip(layer["cells"], texts, strict=True)
            ]
    if "merge_mode" in layer:
        rows.append(("merge mode", str(layer["merge_mode"])))
    if said := [name for name in KERAS_OPTIONS if layer.get(name)]:
        rows.append(("Keras", ", ".join(said)))
    dtype = f" in {layer['dtype']}{_smaller(layer)}" if "dtype" in layer else ""
    rows.append(("parameters", f"{layer['parameters']:,}{dtype}, {layer['bytes']:,} bytes"))
    rows.append(("FLOPs a step", f"{layer['flops_per_step']:,} for each row"))
    if computes := layer.get("computes"):
        dtype, weight_dtype = computes["dtype"], computes["weight_dtype"]
        weights = f" with weights of {weight_dtype}" if weight_dtype not in (None, dtype) else ""
        isa = f", {computes['isa']}" if computes["isa"] else ""
        rows.append(("runs as", f"{layer['class']} in {dtype}{weights}, backend {computes['backend']}{isa}"))
    else:
        rows.append(("runs as", layer["class"]))
    return rows


def _smaller(layer: dict[str, Any]) -> str:
    """What is said of weights that are smaller than the other arrays."""
    return f" with weights of {layer['weight_dtype']}" if layer["weight_dtype"] != layer["dtype"] else ""


def _inner(layer: dict[str, Any]) -> str:
    if "activation" in layer:
        return _activation(*layer["activation"])
    if "cells" not in layer and "layers" not in layer and "mask_value" not in layer:
        left = ("class", "parameters", "bytes", "flops_per_step")
        return ", ".join(f"{name} {value}" for name, value in layer.items() if name not in left)
    if "mask_value" in layer:
        return f"masks steps of {layer['mask_value']}"
    if "layers" in layer:
        return f"merge mode {layer['merge_mode']}: " + "; ".join(_inner(part) for part in layer["layers"])
    said = [name for name in KERAS_OPTIONS if layer.get(name)]
    if not layer["class"].startswith("fastrnn.keras."):
        said = [f"{layer['num_layers']} layers"] if layer["num_layers"] > 1 else []
        said += ["both directions"] if layer["bidirectional"] else ["backward"] if layer["reverse"] else []
    options = [f"weights of {layer['weight_dtype']}"] if _smaller(layer) else []
    options += [text for cell in layer["cells"] if (text := _options(layer, cell))]
    return ", ".join([f"{layer['input_size']} inputs", f"{layer['hidden_size']} units", *said, *options])


def _options(layer: dict[str, Any], cell: dict[str, Any]) -> str:
    """What of a cell differs from the default, and where a GRU resets."""
    texts = []
    defaults = DEFAULT_ACTIVATIONS[layer["kind"]]
    if cell["activations"] is not None and (
        layer["kind"] == "rnn" or tuple(name for name, *_ in cell["activations"]) != defaults
    ):
        texts.append("activations " + " ".join(_activation(*activation) for activation in cell["activations"]))
    texts += [f"{name} {cell[name]}" for name in ("cell_clip", "gate_clip", "proj_clip") if cell[name] is not None]
    texts += ["peepholes"] if cell["peephole"] else []
    texts += ["coupled gates"] if cell["coupled"] else []
    if cell["linear_before_reset"] is not None:
        texts.append(f"resets {'after' if cell['linear_before_reset'] else 'before'} the matmul")
    texts += [] if cell["bias"] else ["no bias"]
    return ", ".join(texts)


def _activation(name: str, alpha: float, beta: float) -> str:
    """A name with the parameters that it has."""
    if name in ("sigmoid", "tanh", "relu", "linear", "softsign", "softplus"):
        return name
    return f"{name}({alpha:.6g}, {beta:.6g})"
