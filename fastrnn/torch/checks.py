"""What a replaced module refuses: what this package cannot compute, and what PyTorch refuses, in PyTorch's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def check_mode(module: Any, names: Sequence[str], weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    """Refuse gradients, devices other than the CPU, and training that drops numbers.

    Parameters
    ----------
    names, weights : the module's weights
    inputs : x and the initial states

    Raises
    ------
    RuntimeError
    """
    if torch.is_grad_enabled():
        wanted = "wanted a call under torch.no_grad() or torch.inference_mode(): fastrnn computes no gradients"
        if any(tensor.requires_grad for tensor in inputs):
            raise RuntimeError(f"an input requires grad and grad mode is on, {wanted}")
        for name, weight in zip(names, weights, strict=True):
            if weight.requires_grad:
                raise RuntimeError(f"{name} requires grad and grad mode is on, {wanted}, or requires_grad_(False)")
    if module.training and getattr(module, "dropout", 0) and module.num_layers > 1:
        raise RuntimeError(
            f"the module is in training mode and its dropout is {module.dropout}, wanted eval(): fastrnn drops nothing"
        )
    for what, tensors in (("an input", inputs), ("a weight", weights)):
        for tensor in tensors:
            if not tensor.is_cpu:
                raise RuntimeError(f"{what} is on the device {tensor.device}, wanted the CPU")


def check_dtypes(dtype: torch.dtype, x: Tensor, states: Sequence[Tensor]) -> None:
    """Refuse inputs of another type than the weights'.

    Raises
    ------
    ValueError
        x is of another type.
    RuntimeError
        A state is.
    """
    if x.dtype != dtype:
        raise ValueError(
            f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
            f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
        )
    for state in states:
        if state.dtype != dtype:
            raise RuntimeError(
                "Input and hidden tensors are not the same dtype, found input tensor with "
                f"{dtype} and hidden tensor with {state.dtype}"
            )
