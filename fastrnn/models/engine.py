"""A ModelSpec to the compiled module's model."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from ..layers.engine import engine_arguments
from ..spec import Activation, LayerSpec
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


def build_engine(spec: ModelSpec, isa: str | None) -> _core.Model:
    """Prepare a valid and folded spec."""
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
            options = {"input_size": len(op.weight), "output_size": op.output_size, "weight": op.weight}
        case ops.Linear() | ops.Conv1d():
            options |= {"output_size": op.output_size, "weight": op.weight, "bias": op.bias}
        case ops.LayerNorm():
            options |= {"weight": op.weight, "bias": op.bias, "eps": float(op.eps)}
        case ops.Scale():
            options |= {"weight": op.scale, "bias": op.shift}
    if isinstance(op, ops.Conv1d):
        options |= {"kernel_size": op.weight.shape[2], "stride": op.stride, "dilation": op.dilation}
        options["padding"] = op.left, op.right
    return KINDS[type(op)], options
