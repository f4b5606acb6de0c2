"""Keras's models as chains of layers, and what has to hold for a chain to be a model of operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..models.ops import Final, Reverse
from ..models.spec import AnyOp
from ..spec import Activation, CellKind, LayerSpec
from .keras import WEIGHTS
from .keras_operations import Operation, WeightGroup

Structure = Literal["layer", "cells", "bidirectional"]


@dataclass(frozen=True)
class Cell:
    """One recurrence in one direction.

    Attributes
    ----------
    kind, units, activation, recurrent_activation, use_bias : as of Keras's layer
    reset_after : GRU; None where the configuration is older than the option: the bias tells
    is_cudnn : whether it is of a CuDNN class, whose weights always have CuDNN's layout in files of Keras 2
    dtype : "float32" or "float64"; None where the configuration is older than the option
    group : the HDF5 group of Keras 3's weights, such as ``layers/lstm_1/cell/vars``
    """

    kind: CellKind
    units: int
    activation: Activation
    recurrent_activation: Activation
    use_bias: bool
    reset_after: bool | None
    is_cudnn: bool
    dtype: str | None
    group: str


@dataclass(frozen=True)
class Recurrence:
    """One of Keras's recurrent layers.

    Attributes
    ----------
    names : the layer's name, after those of the models that contain it
    class_name : as in Keras, such as ``Bidirectional``
    structure : "layer" has one cell, "cells" a stack of them, "bidirectional" the forward and the backward one
    group : its own place in Keras 3's files, such as ``layers/lstm_1``
    zero_output_for_mask : of a bidirectional layer without meaning: Keras sets it
    unroll : whether Keras writes out the steps of the (backward) layer
    """

    names: tuple[str, ...]
    class_name: str
    structure: Structure
    cells: tuple[Cell, ...]
    group: str
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    zero_output_for_mask: bool
    unroll: bool
    merge_mode: str | None = "concat"

    @property
    def name(self) -> str:
        return "/".join(self.names)

    @property
    def mistakes_zeros(self) -> bool:
        """Whether Keras turns the outputs round and not the mask by which it sets them to zero."""
        zeros_backwards = self.structure == "bidirectional" or (self.go_backwards and self.zero_output_for_mask)
        return self.unroll and self.return_sequences and zeros_backwards

    @property
    def weights(self) -> tuple[WeightGroup, ...]:
        """Those of each cell."""
        return tuple(WeightGroup(cell.group, WEIGHTS[: 3 if cell.use_bias else 2]) for cell in self.cells)


@dataclass(frozen=True)
class MaskLayer:
    """One of Keras's Masking layers."""

    names: tuple[str, ...]
    value: float
    class_name = "Masking"
    weights = ()

    @property
    def name(self) -> str:
        return "/".join(self.names)


#: What a chain is made of.
Layer = Recurrence | MaskLayer | Operation


@dataclass
class Model:
    """What a configuration says.

    Attributes
    ----------
    chain : the layers that do something at inference, from input to output, where the model is a chain of them
    input_rank : the number of axes of the model's input, with that of the batch; None where nothing tells
    recurrences : every recurrent layer that can be read, in the order of the configuration; prefix chooses one
    outputs : indices of the last layer's results that the model returns; None for its output alone
    unsupported : why the model as a whole is not read: layers, options, connections
    faults : what is damaged
    """

    chain: list[Layer] = field(default_factory=list)
    input_rank: int | None = None
    recurrences: list[Recurrence] = field(default_factory=list)
    outputs: tuple[int, ...] | None = None
    unsupported: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unread: dict[tuple[str, ...], str] = field(default_factory=dict)  # recurrent layers, and why they are not read

    @property
    def has_operations(self) -> bool:
        """Whether the chain has other layers than recurrent ones and Masking, and so can only be a ModelSpec."""
        return any(isinstance(layer, Operation) and layer.mask != "ends" for layer in self.chain)


def refusals(model: Model) -> list[str]:
    """Why nothing here computes what a chain does; of one without other layers than recurrent ones, only by its masks.

    What depends on the layers before is only looked at where all of them are read.
    """
    reasons = []
    if model.has_operations:
        reasons += [f"{_title(layer)} {reason}" for layer in model.chain for reason in _option_refusals(layer)]
    if not model.unsupported:
        reasons += _mask_refusals(model.chain)
        reasons += _flow_refusals(model) if model.has_operations else []
    return reasons


def _mask_refusals(chain: Sequence[Layer]) -> list[str]:
    """Layers for which Keras mistakes masked steps."""
    reasons, masked, lost = [], "", ""  # the layer that a mask is of; what an Identity makes of a mask
    for layer in chain:
        if isinstance(layer, Operation) and layer.mask == "ends" and masked:
            lost = f"takes the steps that {masked!r} masks, because in Keras 2 {_title(layer)} passes on no mask"
        elif lost and (isinstance(layer, Recurrence) or (isinstance(layer, Operation) and layer.combines_steps)):
            reasons.append(f"{_title(layer)} {lost}")
        elif masked and isinstance(layer, Recurrence) and layer.mistakes_zeros:
            reasons.append(
                f"{_title(layer)} is unrolled, and Keras gives zeros for steps other than those that {masked!r} masks"
            )
        masked = mask_after(layer, masked)
    return reasons


def _title(layer: Layer) -> str:
    return f"{layer.class_name} {layer.name!r}"


def _option_refusals(layer: Layer) -> list[str]:
    if isinstance(layer, MaskLayer):
        return ["masks steps by their values, which is not read together with other layers than recurrent ones"]
    reasons = []
    if "float64" in ([layer.dtype] if isinstance(layer, Operation) else [cell.dtype for cell in layer.cells]):
        reasons.append("computes in float64, wanted float32")
    if isinstance(layer, Recurrence):
        if layer.stateful:
            reasons.append("is stateful, wanted stateful=False: a stream keeps states")
        if layer.merge_mode != "concat":
            reasons.append(f"has merge_mode {layer.merge_mode!r}, wanted 'concat'")
        elif layer.structure == "bidirectional" and len({(cell.kind, cell.units) for cell in layer.cells}) > 1:
            reasons.append("has directions that differ, wanted two of one kind and size")
    return reasons


def _flow_refusals(model: Model) -> list[str]:
    """What the layers before a layer do that it, or its operation, cannot take."""
    reasons = []
    first = model.chain[0]
    takes_ids = first.class_name == "Embedding"
    if model.input_rank not in (None, 2 if takes_ids else 3):
        wanted = "2 (batch, steps)" if takes_ids else "3 (batch, steps, features)"
        reasons.append(f"the model's input has {model.input_rank} axes, wanted {wanted}")
    masked, rank = "", 3  # the layer that a mask is of, the number of axes of what comes before
    for layer in model.chain:
        found = []
        if isinstance(layer, Operation):
            if layer.class_name == "Embedding" and layer is not first:
                found.append("takes ids, wanted as the first layer")
            if layer.axis not in (None, -1, rank - 1):
                found.append(f"works on axis {layer.axis}, wanted the last one")
            if masked and layer.mask == "ignores":
                found.append(f"ignores the mask of {masked!r}, so that its results depend on the padding")
            if masked and layer.mask == "fails":
                found.append(f"is called with the mask of {masked!r}, which is one of steps and not of elements")
            rank = 2 if layer.pools else rank
        elif isinstance(layer, Recurrence):
            if masked and layer.go_backwards and layer.return_sequences:
                found.append(f"goes backwards with the mask of {masked!r}, which does not turn round with the steps")
            if (
                masked
                and layer.zero_output_for_mask
                and layer.structure != "bidirectional"
                and not layer.return_sequences
            ):
                found.append(f"has zero_output_for_mask: it gives zeros where {masked!r} masks the step it ends with")
            rank = rank if layer.return_sequences else 2
        masked = mask_after(layer, masked)
        reasons += [f"{_title(layer)} {reason}" for reason in found]
    if isinstance(layer, Recurrence) and model.outputs not in (None, (0,)):
        reasons.append(f"the model returns the results {list(model.outputs)} of {layer.name!r}, wanted its output")
    return reasons


def mask_after(layer: Layer, before: str) -> str:
    """The name of the layer that a layer's output has its mask from, "" without a mask; `before`: that of its input."""
    if isinstance(layer, MaskLayer):
        return layer.name
    if isinstance(layer, Recurrence):
        return before if layer.return_sequences else ""
    return {"passes": before, "makes": layer.name}.get(layer.mask, "")


def sequence_faults(chain: Sequence[Layer]) -> list[str]:
    """Layers that need steps behind one that gives a single vector for each row."""
    faults = []
    before: Layer | None = None  # the layer that gives no steps any more
    for layer in chain:
        if before is not None and not (isinstance(layer, Operation) and not layer.needs_steps):
            hint = ": wanted return_sequences" if isinstance(before, Recurrence) else ""
            faults.append(f"{_title(before)} gives {layer.name!r} no sequence{hint}")
        if isinstance(layer, Recurrence):
            before = None if layer.return_sequences and layer.merge_mode is not None else layer
        elif isinstance(layer, Operation) and (layer.pools or layer.needs_steps):
            before = layer if layer.pools else None
    return faults


def recurrent_operations(layer: Recurrence, cells: Sequence[LayerSpec]) -> list[AnyOp]:
    """The operations of a recurrent layer of a chain that is not refused.

    Parameters
    ----------
    cells : the spec of each cell, as of a layer of one direction
    """
    first = cells[0]
    if layer.structure == "bidirectional":
        both = replace(first, cells=(*first.cells, *cells[1].cells), bidirectional=True)
        return [both] if layer.return_sequences else [both, Final()]
    operations: list[AnyOp] = [replace(cell, reverse=layer.go_backwards) for cell in cells]
    if not layer.return_sequences:
        operations.append(Final())
    elif layer.go_backwards:  # Keras leaves the outputs in the order in which they were computed
        operations.append(Reverse())
    return operations
