"""Conversion between a ModelSpec and the compiled module's model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..layers.engine import PARTS, choose_weight_dtype, engine_arguments, unpack_cells
from ..spec import Activation, LayerSpec, WeightDtype, check_weight_dtype
from . import ops
from .spec import AnyOp, ModelSpec

#: The compiled module's names of the operations that have no other names than those of their classes.
KINDS: dict[type[ops.Op], str] = {
    ops.Embedding: "embedding",
    ops.Linear: "linear",
    ops.Conv1d: "conv1d",
    ops.LayerNorm: "layer_norm",
    ops.Scale: "scale",
    ops.Softmax: "softmax",
    ops.LogSoftmax: "log_softmax",
    ops.Last: "last",
    ops.First: "first",
    ops.Mean: "mean",
    ops.Max: "max",
    ops.Final: "final",
    ops.Reverse: "reverse",
}


def choose_weight_dtypes(spec: ModelSpec, weight_dtype: WeightDtype | None) -> ModelSpec:
    """The spec with this weight dtype for each recurrent layer; None keeps their own.

    Raises
    ------
    ValueError
        Layers have another one already, a weight does not fit, or no operation is a recurrent layer.
    """
    if weight_dtype is None:
        return spec
    check_weight_dtype(weight_dtype)
    if not any(isinstance(op, LayerSpec) for op in spec.ops):
        raise ValueError(f"weight_dtype is {weight_dtype!r}, but the model has no recurrent layer: wanted None")
    ops_, faults = list(spec.ops), []
    for index, op in enumerate(spec.ops):
        if isinstance(op, LayerSpec):
            try:
                ops_[index] = choose_weight_dtype(op, weight_dtype)
            except ValueError as error:
                faults.append(f"{spec.name(index)}: {error}")
    if faults:
        raise ValueError("; ".join(faults))
    return replace(spec, ops=tuple(ops_)).validate()


def build_engine(spec: ModelSpec, isa: str | None) -> _core.Model:
    """Prepare the weights of a valid and folded spec, in float32."""
    return _core.Model([_prepare(op, width) for op, width in zip(spec.ops, spec.widths, strict=False)], isa)


def _prepare(op: AnyOp, width: int) -> tuple[str, dict[str, Any]]:
    """The kind and options of an operation on vectors of that width."""
    if isinstance(op, LayerSpec):
        return "layer", {"cells": engine_arguments(op, np.dtype(np.float32))}
    options: dict[str, Any] = {"input_size": width}
    match op:
        case Activation():
            return "activation", options | {"activation": (op.name, op.alpha, op.beta)}
        case ops.Embedding():
            options = {"input_size": len(op.weight), "output_size": op.output_size}
        case ops.Linear() | ops.Conv1d():
            options["output_size"] = op.output_size
        case ops.LayerNorm():
            options["eps"] = float(op.eps)
    arrays = zip(("weight", "bias"), op.ARRAYS, strict=False)
    options |= {name: _as_float32(getattr(op, field)) for name, (field, _) in arrays}
    if isinstance(op, ops.Conv1d):
        options |= {"kernel_size": op.weight.shape[2], "stride": op.stride, "dilation": op.dilation}
        options["padding"] = op.left, op.right
    return KINDS[type(op)], options


def _as_float32(array: NDArray[Any] | None) -> NDArray[np.float32] | None:
    return None if array is None else np.ascontiguousarray(array, np.float32)


def without_weights(spec: ModelSpec) -> ModelSpec:
    """A spec whose arrays have shapes, but no values and no memory."""
    return replace(spec, ops=tuple(map(_without_weights, spec.ops)))


def _without_weights(op: Any) -> Any:
    if isinstance(op, LayerSpec):
        shapes: list[dict[str, Any]] = [{part: _shape_of(getattr(cell, part)) for part in PARTS} for cell in op.cells]
        return replace(op, cells=[replace(cell, **parts) for cell, parts in zip(op.cells, shapes, strict=True)])
    if isinstance(op, Activation):
        return op
    return replace(op, **{name: _shape_of(getattr(op, name)) for name, _ in op.ARRAYS})


def _shape_of(array: NDArray[Any] | None) -> NDArray[np.float32] | None:
    return None if array is None else np.broadcast_to(np.float32(0), array.shape)


def with_weights(spec: ModelSpec, engine: _core.Model) -> ModelSpec:
    """The inverse of `without_weights`: the weights are those of the spec's engine, in float32."""
    return replace(spec, ops=tuple(_with_weights(op, engine.unpack(index)) for index, op in enumerate(spec.ops)))


def _with_weights(op: Any, unpacked: Any) -> Any:
    if isinstance(op, LayerSpec):
        return replace(op, cells=unpack_cells(unpacked))
    if isinstance(op, Activation):
        return op
    return replace(op, **{name: array for (name, _), array in zip(op.ARRAYS, unpacked, strict=False)})
