"""A layer prepared from a module's tensors, and whether they have changed since."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _core
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

#: The weights of one layer in one direction, in PyTorch's order, by how many there are.
PARTS = {
    2: ("weight_ih", "weight_hh"),
    3: ("weight_ih", "weight_hh", "weight_hr"),
    4: ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
    5: ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"),
}

WIDENED = (torch.float16, torch.bfloat16)


class Prepared:
    """Prepared weights. Immutable, so threads may share it.

    Parameters
    ----------
    mode : PyTorch's name of the recurrence, see MODES
    weights : of every layer and direction, in PyTorch's order

    Attributes
    ----------
    dtype : of the weights, and of inputs and results
    wide : the dtype to compute in
    layer : the layer
    step : single steps of a cell; None if there is more than one, or if inputs are widened
    """

    def __init__(self, mode: str, weights: Sequence[Tensor], num_layers: int, bidirectional: bool) -> None:
        self.dtype = weights[0].dtype
        self.wide = torch.float32 if self.dtype in WIDENED else self.dtype
        if self.wide is not self.dtype:
            warnings.warn(
                f"the weights are {self.dtype}: fastrnn widens them and the inputs to float32, computes in it, "
                f"and returns {self.dtype}",
                stacklevel=2,
            )
        self._versions = _core.TensorVersions(list(weights))
        # What was prepared, to compare with: aliases, which also keep the memory, so that no other tensor can have its
        # address; copies of inference tensors, because PyTorch does not count the writes to these.
        self._values = [weight.detach().clone() if weight.is_inference() else weight.detach() for weight in weights]
        self._aliases = [
            value for value, weight in zip(self._values, weights, strict=True) if not weight.is_inference()
        ]
        self._alias_versions = _core.TensorVersions(self._aliases)
        directions = ("", "_reverse") if bidirectional else ("",)
        parts = PARTS[len(weights) // (num_layers * len(directions))]
        names = [f"{part}_l{layer}{end}" for layer in range(num_layers) for end in directions for part in parts]
        kind, nonlinearity = MODES[mode]
        mapping = dict(zip(names, weights, strict=True))
        self.layer = LAYERS[kind](spec_from_state_dict(kind, mapping, nonlinearity=nonlinearity, copy=False))
        self.step: _core.TensorStep | None = None
        if len(weights) == len(parts) and self.wide is self.dtype:
            self.step = _core.TensorStep(
                self.layer._engine,
                self._versions,
                parts,
                Tensor,
                self.dtype,
                torch.empty_like,
                torch.get_num_threads,
            )

    def is_of(self, weights: Sequence[Tensor]) -> bool:
        """Whether these weights have the values that were prepared.

        They have if they are the same tensors, at the same addresses, with the same version counters. Otherwise the
        values are compared: a parametrized module computes new tensors for every call.
        """
        tensors = list(weights)
        if self._versions.match(tensors):
            return True
        return (
            len(tensors) == len(self._values)
            and self._alias_versions.match(self._aliases)
            and all(map(_equal, tensors, self._values))
        )

    def __deepcopy__(self, memo: Any) -> Prepared:
        return self


def refresh(
    prepared: Prepared | None, mode: str, weights: Sequence[Tensor], num_layers: int, bidirectional: bool
) -> Prepared:
    """`prepared` if these weights have its values, else the weights prepared."""
    if prepared is not None and prepared.is_of(weights):
        return prepared
    return Prepared(mode, weights, num_layers, bidirectional)


def _equal(weight: Tensor, value: Tensor) -> bool:
    if (weight.dtype, weight.shape, weight.device) != (value.dtype, value.shape, value.device):
        return False
    return bool(torch.equal(weight, value))
