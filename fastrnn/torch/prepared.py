"""A layer prepared from a module's tensors, and whether they have changed since."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core
from ..importers.pytorch import Nonlinearity, spec_from_state_dict
from ..layers import LAYERS, Layer
from ..spec import CellKind, WeightDtype

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


class Options(NamedTuple):
    """What a layer is prepared with besides its weights.

    mode : PyTorch's name of the recurrence, see MODES
    weight_dtype : as of the layers
    """

    mode: str
    num_layers: int = 1
    bidirectional: bool = False
    weight_dtype: WeightDtype | None = None


class Prepared:
    """A layer, and the weights that it was prepared from. Immutable, so threads may share it.

    Attributes
    ----------
    options : what the layer was prepared with
    layer : the layer
    dtype : of the weights, and of inputs and results
    wide : the dtype to compute in
    runner : runs on tensors as they are; None if they have to be widened
    """

    def __init__(
        self, options: Options, layer: Layer[Any], weights: list[Tensor], versions: _core.TensorVersions
    ) -> None:
        self.options, self.layer, self._versions = options, layer, versions
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


def refresh(prepared: Prepared | None, options: Options, weights: list[Tensor], weak: bool = False) -> Prepared:
    """What is prepared of these weights: `prepared`, if neither they nor the options have changed since.

    Other tensors may have the values that were prepared: a parametrized module computes new ones for each call. So
    values are compared before they are prepared.

    Parameters
    ----------
    weights : of every layer and direction, in PyTorch's order
    weak : whether the result refers to the weights by weak references, which torch.utils.swap_tensors does not like

    Raises
    ------
    RuntimeError
        The weights are of several dtypes.
    ValueError
        The options and the number of weights do not fit.
    """
    if prepared is not None and prepared.options != options:
        prepared = None
    if prepared is not None and prepared.is_of(weights):
        return prepared
    versions = _core.TensorVersions(weights, weak)  # before the values are read
    if prepared is not None and prepared.has_values_of(weights):
        has_versions = not any(weight.is_inference() for weight in weights)
        return Prepared(options, prepared.layer, weights, versions) if has_versions else prepared
    return Prepared(options, _prepare(options, weights), weights, versions)


def _prepare(options: Options, weights: list[Tensor]) -> Layer[Any]:
    kind, nonlinearity = recurrence_of(options.mode)
    directions = ("", "_reverse") if options.bidirectional else ("",)
    count, rest = divmod(len(weights), max(options.num_layers, 1) * len(directions))
    if count not in PARTS or rest or options.num_layers < 1:
        raise ValueError(
            f"there are {len(weights)} weights, but num_layers is {options.num_layers} and bidirectional "
            f"{options.bidirectional}: wanted 2 to 5 weights for each layer and direction"
        )
    names = [
        f"{part}_l{layer}{end}" for layer in range(options.num_layers) for end in directions for part in PARTS[count]
    ]
    dtype = weights[0].dtype
    others = [f"{name} is {w.dtype}" for name, w in zip(names, weights, strict=True) if w.dtype != dtype]
    if others:
        raise RuntimeError(f"{', '.join(others)}, wanted {dtype} for all weights, as {names[0]} is")
    if dtype in WIDENED:
        warnings.warn(
            f"the weights are {dtype}: fastrnn widens them and the inputs to float32, and narrows the results",
            stacklevel=2,
        )
    spec = spec_from_state_dict(kind, dict(zip(names, weights, strict=True)), nonlinearity=nonlinearity, copy=False)
    return LAYERS[kind](spec, weight_dtype=options.weight_dtype)


def recurrence_of(mode: str) -> tuple[CellKind, Nonlinearity | None]:
    """The kind of a layer and its nonlinearity."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, wanted one of {', '.join(MODES)}")
    return MODES[mode]
