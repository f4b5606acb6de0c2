"""What replaced modules refuse: what fastrnn cannot compute, and what PyTorch refuses, in its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def check_inference(module: Any, names: Sequence[str], weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    """Refuse gradients, dropout, and devices other than the CPU.

    Parameters
    ----------
    names, weights : the module's weights
    inputs : x and the initial states

    Raises
    ------
    RuntimeError
        The message says why.
    NotImplementedError
        A tensor is not dense.
    """
    cure = "wanted a call under torch.no_grad() or torch.inference_mode(), as fastrnn computes no gradients"
    if torch.is_grad_enabled():
        if any(tensor.requires_grad for tensor in inputs):
            raise RuntimeError(f"an input requires grad, and grad mode is on: {cure}, or inputs that do not")
        for name, weight in zip(names, weights, strict=True):
            if weight.requires_grad:
                raise RuntimeError(
                    f"{name} requires grad, and grad mode is on: {cure}, or module.requires_grad_(False)"
                )
    if forward_ad._current_level >= 0:
        for tensor in (*inputs, *weights):
            if forward_ad.unpack_dual(tensor).tangent is not None:
                raise RuntimeError("a tensor has a tangent: wanted none, as fastrnn computes no derivatives")
    if module.training and getattr(module, "dropout", 0) and module.num_layers > 1:
        raise RuntimeError(
            f"the module is in training mode and its dropout is {module.dropout}: wanted module.eval(), "
            "as fastrnn drops nothing"
        )
    for tensor in (*inputs, *weights):
        if not tensor.is_cpu:
            raise RuntimeError(f"a tensor is on device {tensor.device}, wanted the CPU for all inputs and weights")
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
            kind = (
                "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else f"of layout {tensor.layout}"
            )
            raise NotImplementedError(f"a tensor is {kind}, wanted dense ones for all inputs and weights")


def check_dimensions(mode: str, x: Tensor, states: Sequence[Tensor]) -> None:
    """Check the numbers of dimensions of sequences that are not packed."""
    if x.dim() not in (2, 3):
        raise ValueError(f"{mode.partition('_')[0]}: Expected input to be 2D or 3D, got {x.dim()}D instead")
    if any(state.dim() != x.dim() for state in states):
        batched = "batched 3-D" if x.dim() == 3 else "unbatched 2-D"
        names = "hx and cx" if len(states) > 1 else "hx"
        found = ", ".join(f"{state.dim()}-D" for state in states)
        raise RuntimeError(f"For {batched} input, {names} should also be {x.dim()}-D but got {found}")


def check_sequences(
    module: Any, x: Tensor, batch_sizes: Tensor | None, states: Sequence[Tensor], dtype: torch.dtype
) -> None:
    """Check types and shapes of sequences; states are in the order of packed rows."""
    if x.dtype != dtype:
        is_checked = batch_sizes is None or module.mode != "LSTM"  # by PyTorch's Python code
        error = ValueError if is_checked and not torch.is_autocast_enabled("cpu") else RuntimeError
        raise error(
            f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
            f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
        )
    _check_states_dtype(x, states)
    wanted = 3 if batch_sizes is None else 2
    if x.dim() != wanted:
        raise RuntimeError(f"input must have {wanted} dimensions, got {x.dim()}")
    if x.shape[-1] != module.input_size:
        raise RuntimeError(
            f"input.size(-1) must be equal to input_size. Expected {module.input_size}, got {x.shape[-1]}"
        )
    if batch_sizes is None or not torch.compiler.is_compiling():  # compiled programs do not know batch_sizes[0]
        sizes = [module.get_expected_hidden_size(x, batch_sizes)]
        sizes += [module.get_expected_cell_size(x, batch_sizes)] if len(states) > 1 else []
        for i, state in enumerate(states):
            name = f"hidden[{i}]" if len(states) > 1 else "hidden"
            module.check_hidden_size(state, sizes[i], f"Expected {name} size {{}}, got {{}}")
    if batch_sizes is None and x.shape[1 if module.batch_first else 0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")


def check_pair(hx: Any, name: str) -> None:
    """Check that an LSTM's initial state is a pair, in PyTorch's words."""
    if isinstance(hx, Tensor):
        raise TypeError(f"{name}(): argument 'hx' must be tuple of Tensors, not {type(hx).__name__}")
    if len(hx) != 2:
        raise RuntimeError(f"{name} expects two hidden states, found {len(hx)}")


def check_dimensions_of_cell(mode: str, x: Tensor, states: Sequence[Tensor]) -> None:
    """Check the numbers of dimensions of a cell's input."""
    name = f"{mode.partition('_')[0]}Cell"
    if x.dim() not in (1, 2):
        raise ValueError(f"{name}: Expected input to be 1D or 2D, got {x.dim()}D instead")
    for i, state in enumerate(states):
        if state.dim() not in (1, 2):
            what = f"hx[{i}]" if mode == "LSTM" else "hidden"
            raise ValueError(f"{name}: Expected {what} to be 1D or 2D, got {state.dim()}D instead")


def check_cell(module: Any, x: Tensor, states: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Check types and shapes of a cell's input."""
    if x.dtype != dtype:
        raise RuntimeError(f"input and weights must have the same dtype, but got {x.dtype} and {dtype}")
    _check_states_dtype(x, states)
    if x.shape[-1] != module.input_size:
        raise RuntimeError(f"input has inconsistent input_size: got {x.shape[-1]} expected {module.input_size}")
    for i, state in enumerate(states):
        if state.shape[-1] != module.hidden_size:
            found = f"got {state.shape[-1]}, expected {module.hidden_size}"
            raise RuntimeError(f"hidden{i} has inconsistent hidden_size: {found}")
        if state.dim() != x.dim():
            raise RuntimeError(f"hidden{i} is {state.dim()}-D, but the input is {x.dim()}-D: wanted the same")
        if x.dim() == 2 and state.shape[0] != x.shape[0]:
            raise RuntimeError(f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size {state.shape[0]}")


def _check_states_dtype(x: Tensor, states: Sequence[Tensor]) -> None:
    for state in states:
        if state.dtype != x.dtype:
            raise RuntimeError(
                "Input and hidden tensors are not the same dtype, found input tensor with "
                f"{x.dtype} and hidden tensor with {state.dtype}"
            )
