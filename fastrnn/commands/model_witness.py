"""A model's operations in PyTorch, for comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..layers import LAYERS
from ..models import ops
from ..models.spec import AnyOp, ModelSpec
from ..spec import Activation, LayerSpec
from . import torch_witness

#: Runs a row x, (T, I) or ids (T,): (S, O), or (O,) after pooling.
RowRun = Callable[[NDArray[Any]], NDArray[Any]]


def from_spec(spec: ModelSpec) -> tuple[str, RowRun]:
    """PyTorch's name and version, and the model in its functions, row by row.

    Raises
    ------
    ValueError
        PyTorch has no such operation; the message names every one.
    """
    extras.require(["torch"], "verify", "torch")
    import torch

    steps: list[Callable[[Any], Any]] = []
    faults: list[str] = []
    for index, op in enumerate(spec.ops):
        before = spec.ops[index - 1] if index else None
        try:
            steps.append(_final(before) if isinstance(op, ops.Final) and isinstance(before, LayerSpec) else _step(op))
        except ValueError as error:
            faults.append(f"{spec.name(index)}: {error}")
    if faults:
        raise ValueError("; ".join(faults))

    def run(x: NDArray[Any]) -> NDArray[Any]:
        value = torch.tensor(x)
        with torch.no_grad():
            for step in steps:
                value = step(value)
        result: NDArray[Any] = value.numpy()
        return result

    return f"torch {torch.__version__}", run


def _step(op: AnyOp) -> Callable[[Any], Any]:
    """An operation on a tensor (T, I), or after pooling (I,), or of ids (T,)."""
    import torch
    from torch.nn import functional

    def tensor(array: NDArray[Any] | None) -> Any:
        return None if array is None else torch.tensor(array)

    def pooled(pool: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: pool(x) if len(x) else x.new_zeros(x.shape[1:])

    match op:
        case LayerSpec():
            return _recurrent(op)
        case Activation():
            return _activation(op)
        case ops.Embedding():
            table = tensor(op.weight)
            return lambda ids: functional.embedding(ids[ids != 0] if op.mask_zero else ids, table)
        case ops.Linear():
            weight, bias = tensor(op.weight), tensor(op.bias)
            return lambda x: functional.linear(x, weight, bias)
        case ops.Conv1d():
            return _convolution(op)
        case ops.LayerNorm():
            weight, bias = tensor(op.weight), tensor(op.bias)
            return lambda x: functional.layer_norm(x, x.shape[-1:], weight, bias, op.eps)
        case ops.BatchNorm():
            mean, var, weight, bias = map(tensor, (op.running_mean, op.running_var, op.weight, op.bias))
            return lambda x: functional.batch_norm(
                x.reshape(-1, len(mean)), mean, var, weight, bias, eps=op.eps
            ).reshape(x.shape)
        case ops.Scale():
            scale, shift = tensor(op.scale), tensor(op.shift)
            return lambda x: scale * x + shift
        case ops.Softmax():
            return lambda x: functional.softmax(x, -1)
        case ops.LogSoftmax():
            return lambda x: functional.log_softmax(x, -1)
        case ops.Reverse():
            return lambda x: x.flip(0)
        case ops.Last():
            return pooled(lambda x: x[-1])
        case ops.First():
            return pooled(lambda x: x[0])
        case ops.Mean():
            return pooled(lambda x: x.mean(0))
        case ops.Max():
            return pooled(lambda x: x.amax(0))
    raise ValueError("PyTorch has no such operation")


def _recurrent(spec: LayerSpec) -> Callable[[Any], Any]:
    """All outputs of a layer that starts from zeros."""
    import torch

    layer = LAYERS[spec.kind](spec, dtype=np.float32)
    _, run = torch_witness.from_layer(layer)

    def step(x: Any) -> Any:
        if not len(x):
            return x.new_zeros((0, layer.output_size))
        count = layer.num_layers * layer.num_directions
        h = np.zeros((count, 1, layer.proj_size or layer.hidden_size), np.float32)
        c = np.zeros((count, 1, layer.hidden_size), np.float32) if layer.kind == "lstm" else None
        y, _, _ = run(x[None].numpy(), np.array([len(x)]), (h, c))
        return torch.tensor(y[0])

    return step


def _final(spec: LayerSpec) -> Callable[[Any], Any]:
    """Each direction's final output, of all outputs of a layer."""
    import torch

    def step(y: Any) -> Any:
        if not len(y):
            return y.new_zeros(y.shape[1:])
        if spec.bidirectional:
            return torch.cat([y[-1, : spec.h_size], y[0, spec.h_size :]])
        return y[0] if spec.reverse else y[-1]

    return step


def _convolution(op: ops.Conv1d) -> Callable[[Any], Any]:
    import torch
    from torch.nn import functional

    weight = torch.tensor(op.weight)
    bias = None if op.bias is None else torch.tensor(op.bias)

    def step(x: Any) -> Any:
        if not op.output_steps(len(x)):
            return x.new_zeros((0, len(weight)))
        padded = functional.pad(x.T, (op.left, op.right))
        return functional.conv1d(padded, weight, bias, op.stride, 0, op.dilation).T

    return step


def _activation(activation: Activation) -> Callable[[Any], Any]:
    import torch
    from torch.nn import functional

    alpha, beta = activation.alpha, activation.beta
    functions: dict[str, Callable[[Any], Any]] = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "linear": lambda x: x,
        "hard_sigmoid": lambda x: (alpha * x + beta).clamp(0, 1),
        "leaky_relu": lambda x: functional.leaky_relu(x, alpha),
        "elu": lambda x: functional.elu(x, alpha),
        "softsign": functional.softsign,
        "softplus": functional.softplus,
        "affine": lambda x: alpha * x + beta,
        "scaled_tanh": lambda x: alpha * torch.tanh(beta * x),
        "thresholded_relu": lambda x: functional.threshold(x, alpha, 0),
    }
    if activation.name not in functions:
        raise ValueError("PyTorch has no such activation")
    return functions[activation.name]
