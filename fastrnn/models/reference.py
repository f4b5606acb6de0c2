"""The reference of models: each operation in NumPy float64, row by row. It is what tests compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import reference
from ..reference import Array, wide
from ..spec import Activation, LayerSpec
from . import ops
from .spec import AnyOp, ModelSpec


def run(spec: ModelSpec, rows: Sequence[NDArray[Any]]) -> list[Array]:
    """Run a model over rows of unequal length.

    Parameters
    ----------
    spec : a valid spec, folded or not; its arrays are widened to float64
    rows : B arrays (T_i, I), or of ids (T_i,)

    Returns
    -------
    list of B arrays
        (T_i', O), or (O,) after pooling. With ``mask_zero`` the steps with id 0 are left out.
    """
    results = []
    for row in rows:
        first = spec.ops[0]
        if isinstance(first, ops.Embedding) and first.mask_zero:
            row = row[row != 0]
        x = row if isinstance(first, ops.Embedding) else wide(row)
        for index, op in enumerate(spec.ops):
            before = spec.ops[index - 1]
            x = _final(x, before) if isinstance(op, ops.Final) and isinstance(before, LayerSpec) else run_op(op, x)
        results.append(x)
    return results


def run_op(op: AnyOp, x: NDArray[Any]) -> Array:
    """One operation but Final: x (T, I), or after pooling (I,), or ids (T,)."""
    return wide(_run_op(op, x))


def _run_op(op: AnyOp, x: NDArray[Any]) -> Any:
    match op:
        case LayerSpec():
            return reference.run(op, x[None])[0][0]
        case Activation():
            return reference.activate(op, wide(x))
        case ops.Embedding():
            return wide(op.weight)[x]
        case ops.Linear():
            return x @ wide(op.weight).T + (0 if op.bias is None else wide(op.bias))
        case ops.Conv1d():
            return _convolve(op, x)
        case ops.LayerNorm():
            centred = x - x.mean(axis=-1, keepdims=True)
            normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + op.eps)
            normal = normal * (1 if op.weight is None else wide(op.weight))
            return normal + (0 if op.bias is None else wide(op.bias))
        case ops.BatchNorm():
            normal = (x - wide(op.running_mean)) / np.sqrt(wide(op.running_var) + op.eps)
            normal = normal * (1 if op.weight is None else wide(op.weight))
            return normal + (0 if op.bias is None else wide(op.bias))
        case ops.Scale():
            return wide(op.scale) * x + wide(op.shift)
        case ops.Softmax():
            return np.exp(run_op(ops.LogSoftmax(), x))
        case ops.LogSoftmax():
            return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
        case ops.Reverse():
            return x[::-1]
        case ops.Pool() if len(x) == 0:
            return np.zeros(x.shape[1])
        case ops.Last():
            return x[-1]
        case ops.First():
            return x[0]
        case ops.Mean():
            return x.mean(axis=0)
        case ops.Max():
            return x.max(axis=0)
    raise TypeError(f"op is {type(op).__name__}, which is unknown")


def _convolve(op: ops.Conv1d, x: Array) -> Array:
    padded = np.pad(x, ((op.left, op.right), (0, 0)))
    y = np.zeros((op.output_steps(len(x)), len(op.weight)))
    for t in range(len(y)):
        for k in range(op.weight.shape[2]):
            y[t] += wide(op.weight)[:, :, k] @ padded[t * op.stride + k * op.dilation]
    return wide(y if op.bias is None else y + wide(op.bias))


def _final(x: Array, layer: LayerSpec) -> Array:
    """Each direction's final output of a layer's outputs x (T, D*P)."""
    if len(x) == 0:
        return np.zeros(x.shape[1])
    if layer.bidirectional:
        return np.concatenate([x[-1, : layer.h_size], x[0, layer.h_size :]])
    return wide(x[0] if layer.reverse else x[-1])
