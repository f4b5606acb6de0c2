"""Folding of batch normalisation into the weights of the operations beside it, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import LayerSpec
from .ops import BatchNorm, Conv1d, Embedding, LayerNorm, Linear, Scale
from .spec import AnyOp, ModelSpec

Array = NDArray[np.float64]


def fold(spec: ModelSpec) -> ModelSpec:
    """The operations that a model computes for a valid spec, without BatchNorm.

    A BatchNorm becomes a Scale. A Scale is multiplied into the weights of the Embedding, Linear, Conv1d, LayerNorm or
    Scale before it, or else of the Linear, recurrent layer or Conv1d without padding after it. A padded convolution
    reads zeros that are not scaled, so a Scale before it stays, as one before a layer whose weights are smaller
    than float32.
    """
    ops: list[AnyOp] = []
    for op in spec.ops:
        op = _as_scale(op) if isinstance(op, BatchNorm) else op
        before = ops[-1] if ops else None
        if isinstance(op, Scale) and isinstance(before, Embedding | Linear | Conv1d | LayerNorm | Scale):
            ops[-1] = _scale_outputs(before, op)
        elif isinstance(before, Scale) and isinstance(op, Linear | Conv1d | LayerSpec) and _takes_scales(op):
            ops[-1] = _scale_inputs(before, op)
        else:
            ops.append(op)
    return replace(spec, ops=tuple(ops))


def _takes_scales(op: Linear | Conv1d | LayerSpec) -> bool:
    if isinstance(op, LayerSpec):
        return op.weight_dtype in (None, "float32")  # smaller weights have been rounded, and would be once more
    return not isinstance(op, Conv1d) or (op.left, op.right) == (0, 0)


def _as_scale(op: BatchNorm) -> Scale:
    scale = 1 / np.sqrt(_wide(op.running_var) + op.eps)
    if op.weight is not None:
        scale = scale * op.weight
    shift = -scale * op.running_mean
    return Scale(scale, shift if op.bias is None else shift + op.bias)


def _scale_outputs(
    op: Embedding | Linear | Conv1d | LayerNorm | Scale, after: Scale
) -> Embedding | Linear | Conv1d | LayerNorm | Scale:
    """One operation in place of op and the Scale after it."""
    scale, shift = _wide(after.scale), _wide(after.shift)
    if isinstance(op, Scale):
        return Scale(op.scale * scale, op.shift * scale + shift)
    if isinstance(op, Embedding):
        return replace(op, weight=op.weight * scale + shift)
    bias = shift if op.bias is None else op.bias * scale + shift
    if isinstance(op, LayerNorm):
        return replace(op, weight=scale if op.weight is None else op.weight * scale, bias=bias)
    return replace(op, weight=op.weight * scale.reshape(-1, *[1] * (op.weight.ndim - 1)), bias=bias)


def _scale_inputs(before: Scale, op: Linear | Conv1d | LayerSpec) -> Linear | Conv1d | LayerSpec:
    """One operation in place of op and the Scale before it."""
    if isinstance(op, LayerSpec):
        cells = list(op.cells)
        for index in range(op.num_directions):  # those of layer 0
            weight, bias = _scale_weight(before, cells[index].weight_ih, cells[index].bias_ih)
            cells[index] = replace(cells[index], weight_ih=weight, bias_ih=bias)
        return replace(op, cells=cells)
    weight, bias = _scale_weight(before, op.weight, op.bias)
    return replace(op, weight=weight, bias=bias)


def _scale_weight(before: Scale, weight: NDArray[Any], bias: NDArray[Any] | None) -> tuple[Array, Array]:
    """weight (O, I) or (O, I, K), and bias, of a product with scaled inputs."""
    inputs = [1, -1] + [1] * (weight.ndim - 2)
    shift = (weight * _wide(before.shift).reshape(inputs)).reshape(len(weight), -1).sum(axis=1)
    return weight * _wide(before.scale).reshape(inputs), shift if bias is None else shift + bias


def _wide(array: NDArray[Any]) -> Array:
    return np.asarray(array, np.float64)
