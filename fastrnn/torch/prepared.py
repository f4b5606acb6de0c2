"""A layer prepared from a module's tensors, and whether they have changed since."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..importers.pytorch import Nonlinearity, spec_from_state_dict
from ..layers import LAYERS
from ..spec import CellKind

#: PyTorch's `mode` of a module to the kind of a layer and its nonlinearity.
MODES: dict[str, tuple[CellKind, Nonlinearity | None]] = {
    "LSTM": ("lstm", None),
    "GRU": ("gru", None),
    "RNN_TANH": ("rnn", "tanh"),
    "RNN_RELU": ("rnn", "relu"),
}

#: The weights of one layer in one direction, by how many there are, in PyTorch's order.
PARTS = {
    2: ("weight_ih", "weight_hh"),
    3: ("weight_ih", "weight_hh", "weight_hr"),
    4: ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
    5: ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"),
}
WIDENED = (torch.float16, torch.bfloat16)


class Prepared:
    """Prepared weights. Immutable, so threads may share it.

    A tensor is unchanged if it is the same object, at the same address, with the same version counter. If one is not,
    its values are compared with those that were prepared: a module with parametrizations computes new tensors for
    every call. Inference tensors have no version counters: their values are compared in every call.

    Parameters
    ----------
    mode : PyTorch's name of the recurrence, see MODES
    weights : of every layer and direction, in PyTorch's order
    """

    def __init__(self, mode: str, weights: Sequence[Tensor], num_layers: int, bidirectional: bool) -> None:
        self.dtype: torch.dtype = weights[0].dtype
        self.sources = [weakref.ref(weight) for weight in weights]
        self.marks = [_mark(weight) for weight in weights]
        # An alias keeps the memory, so that no other tensor gets its address.
        self.values = [weight.detach().clone() if weight.is_inference() else weight.detach() for weight in weights]
        if self.dtype in WIDENED:
            warnings.warn(
                f"weights of {self.dtype} are widened to float32: fastrnn computes in float32 and returns {self.dtype}",
                stacklevel=2,
            )
        directions = ("", "_reverse") if bidirectional else ("",)
        parts = PARTS[len(weights) // (num_layers * len(directions))]
        names = [f"{part}_l{layer}{end}" for layer in range(num_layers) for end in directions for part in parts]
        kind, nonlinearity = MODES[mode]
        mapping = dict(zip(names, weights, strict=True))
        spec = spec_from_state_dict(kind, mapping, nonlinearity=nonlinearity, copy=False)
        self.layer = LAYERS[kind](spec)

    def is_current(self, weights: Sequence[Tensor]) -> bool:
        """Whether these are the weights that were prepared, unchanged."""
        for weight, source, mark in zip(weights, self.sources, self.marks, strict=True):
            if source() is not weight or mark is None or mark != _mark(weight):
                return False
        return True

    def has_values_of(self, weights: Sequence[Tensor]) -> bool:
        """Whether the weights have the values that were prepared."""
        return all(
            (mark is None or value._version == mark[1])
            and (value.dtype, value.shape, value.device) == (weight.dtype, weight.shape, weight.device)
            and torch.equal(value, weight)
            for weight, value, mark in zip(weights, self.values, self.marks, strict=True)
        )

    def __deepcopy__(self, memo: Any) -> Prepared:
        return self


def _mark(weight: Tensor) -> tuple[int, int, tuple[int, ...]] | None:
    """What changes if a tensor's memory or values change; None if nothing can tell."""
    return None if weight.is_inference() else (weight.data_ptr(), weight._version, weight.stride())
