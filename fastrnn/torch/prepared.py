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

_core.use_dlpack(getattr(Tensor, "__dlpack_c_exchange_api__", None))


class Prepared:
    """A layer, and the weights that it was prepared from. Immutable, so threads may share it.

    Attributes
    ----------
    mode : PyTorch's name of the recurrence, see MODES
    layer : the layer
    dtype : of the weights, and of inputs and results
    wide : the dtype to compute in
    runner : runs on tensors as they are; None if they have to be widened
    """

    def __init__(self, mode: str, layer: Layer[Any], weights: list[Tensor], versions: _core.TensorVersions) -> None:
        self.mode, self.layer, self._versions = mode, layer, versions
        self.dtype = weights[0].dtype
        self.wide = torch.float32 if self.dtype in WIDENED else self.dtype
        # What was prepared, to compare with: aliases, which also keep the memory, so that no other tensor can have its
        # address; or copies, because PyTorch does not count the writes to inference tensors.
        self._are_copies = any(weight.is_inference() for weight in weights)
        self._values = [weight.detach().clone() if self._are_copies else weight.detach() for weight in weights]
        self.runner: _core.TensorRunner | None = None
        if self.wide is self.dtype:
            functions = torch.empty_like, torch.get_num_threads
            self.runner = _core.TensorRunner(layer._engine, versions, Tensor, self.dtype, *functions)

    def is_of(self, weights: list[Tensor]) -> bool:
        """Whether these are the same tensors, at the same addresses, with the same version counters."""
        return self._versions.match(weights)

    def has_values_of(self, weights: list[Tensor]) -> bool:
        """Whether these tensors have the values that were prepared."""
        return len(weights) == len(self._values) and all(map(self._has_value_of, range(len(weights)), weights))

    def _has_value_of(self, i: int, weight: Tensor) -> bool:
        value = self._values[i]
        if (weight.dtype, weight.shape, weight.device) != (value.dtype, value.shape, value.device):
            return False
        if not self._are_copies:
            source = self._versions.source(i)
            if source is None:
                return False
            if weight.untyped_storage().data_ptr() == value.untyped_storage().data_ptr():
                # The counter of another tensor of the same memory does not tell what was written since.
                same_elements = weight.data_ptr() == value.data_ptr() and weight.stride() == value.stride()
                return source is weight and same_elements
        return bool(torch.equal(weight, value))

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
    mode : as of Prepared
    weights : of every layer and direction, in PyTorch's order
    weak : whether the result refers to the weights by weak references, which torch.utils.swap_tensors does not like
    """
    if prepared is not None and prepared.mode != mode:
        prepared = None
    if prepared is not None and prepared.is_of(weights):
        return prepared
    versions = _core.TensorVersions(weights, weak)  # before the values are read
    if prepared is not None and prepared.has_values_of(weights):
        has_versions = not any(weight.is_inference() for weight in weights)
        return Prepared(mode, prepared.layer, weights, versions) if has_versions else prepared
    return Prepared(mode, _prepare(mode, weights, num_layers, bidirectional), weights, versions)


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
