"""A layer prepared from a module's tensors, and whether they have changed since."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..importers.pytorch import Nonlinearity, spec_from_state_dict
from ..layers import LAYERS, Layer
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
    """A layer, and the weights that it was prepared from. Immutable, so threads may share it.

    Attributes
    ----------
    layer : the layer
    dtype : of the weights, and of inputs and results
    wide : the dtype to compute in
    runner : runs on tensors as they are; None if they have to be widened
    """

    def __init__(self, layer: Layer[Any], weights: list[Tensor], versions: _core.TensorVersions) -> None:
        self.layer, self._versions = layer, versions
        self.dtype = weights[0].dtype
        self.wide = torch.float32 if self.dtype in WIDENED else self.dtype
        # What was prepared, to compare with: aliases, which also keep the memory, so that no other tensor can have its
        # address; copies of inference tensors, because PyTorch does not count the writes to these.
        self._values = [weight.detach().clone() if weight.is_inference() else weight.detach() for weight in weights]
        self._aliases = [
            value for value, weight in zip(self._values, weights, strict=True) if not weight.is_inference()
        ]
        self._alias_versions = _core.TensorVersions(self._aliases)
        self.runner: _core.TensorRunner | None = None
        if self.wide is self.dtype:
            functions = torch.empty_like, torch.get_num_threads
            self.runner = _core.TensorRunner(layer._engine, versions, Tensor, self.dtype, *functions)

    def is_of(self, weights: list[Tensor]) -> bool:
        """Whether these are the same tensors, at the same addresses, with the same version counters."""
        return self._versions.match(weights)

    def has_values_of(self, weights: list[Tensor]) -> bool:
        """Whether these tensors have the values that were prepared."""
        return (
            len(weights) == len(self._values)
            and self._alias_versions.match(self._aliases)
            and all(map(_equal, weights, self._values))
        )

    def __deepcopy__(self, memo: Any) -> Prepared:
        return self


def refresh(
    prepared: Prepared | None,
    mode: str,
    weights: list[Tensor],
    num_layers: int,
    bidirectional: bool,
    weak: bool = False,
) -> Prepared:
    """What is prepared of these weights: `prepared`, if they have not changed since.

    Other tensors may have the values that were prepared: a parametrized module computes new ones for each call. So
    values are compared before they are prepared.

    Parameters
    ----------
    mode : PyTorch's name of the recurrence, see MODES
    weights : of every layer and direction, in PyTorch's order
    weak : whether the result refers to the weights by weak references, which torch.utils.swap_tensors does not like
    """
    if prepared is not None and prepared.is_of(weights):
        return prepared
    versions = _core.TensorVersions(weights, weak)  # before the values are read
    if prepared is not None and prepared.has_values_of(weights):
        without_versions = any(weight.is_inference() for weight in weights)
        return prepared if without_versions else Prepared(prepared.layer, weights, versions)
    return Prepared(_prepare(mode, weights, num_layers, bidirectional), weights, versions)


def _prepare(mode: str, weights: list[Tensor], num_layers: int, bidirectional: bool) -> Layer[Any]:
    dtype = weights[0].dtype
    if dtype in WIDENED:
        warnings.warn(
            f"the weights are {dtype}: fastrnn widens them and the inputs to float32, and narrows the results",
            stacklevel=2,
        )
    directions = ("", "_reverse") if bidirectional else ("",)
    parts = PARTS[len(weights) // (num_layers * len(directions))]
    names = [f"{part}_l{layer}{end}" for layer in range(num_layers) for end in directions for part in parts]
    kind, nonlinearity = MODES[mode]
    spec = spec_from_state_dict(kind, dict(zip(names, weights, strict=True)), nonlinearity=nonlinearity, copy=False)
    return LAYERS[kind](spec)


def _equal(weight: Tensor, value: Tensor) -> bool:
    if (weight.dtype, weight.shape, weight.device) != (value.dtype, value.shape, value.device):
        return False
    return bool(torch.equal(weight, value))
