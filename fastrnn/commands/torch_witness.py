"""PyTorch's layer out of a file that PyTorch reads itself, or out of a LayerSpec, for comparison."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..files import state_dict
from ..files.state_dict import mappings
from ..layers.layer import Layer
from ..spec import DEFAULT_ACTIVATIONS, NUM_GATES, LayerSpec, activations_of
from .options import framework_errors
from .survey import tensors_of

#: Runs x (B, T, I) with lengths (B,) from a state (h, c or None): y (B, T, D*P), h and c. A layer of float32 in PyTorch
#: also runs in float64, if x is.
PlainRun = Callable[[NDArray[Any], NDArray[np.int64], Any], tuple[Any, Any, Any]]


def from_file(path: str, format_name: str, prefix: str | None, layer: Layer[Any]) -> tuple[str, PlainRun]:
    """A module with what PyTorch, safetensors or NumPy itself reads under the layer's names."""
    extras.require(["torch"], "verify", "torch")
    group = state_dict.choose(path, tensors_of(path, format_name), prefix)
    with framework_errors("PyTorch"):
        content = _read(path, format_name)
    arrays = {}
    for name in group.tensors:
        known = name if "_l" in name else f"{name}_l0"  # a cell's names have no layer
        value = _look_up(content, group.prefix + name)
        arrays[known] = _as_tensor(value) if format_name == "json" else value
    return _build(layer, arrays, any(name.startswith("bias") for name in arrays))


def from_layer(layer: Layer[Any]) -> tuple[str, PlainRun]:
    """A module with a layer's weights.

    Raises
    ------
    ValueError
        The layer has options that PyTorch does not have; the message names them.
    """
    extras.require(["torch"], "verify", "torch")
    import torch

    spec = layer._unpack()
    if reasons := lacking(spec):
        raise ValueError(
            f"PyTorch has no layer with {', '.join(reasons)}, so there is nothing to compare with: verify the file "
            "that the layer was converted from, by Keras or TensorFlow"
        )
    bias = any(cell.bias_ih is not None or cell.bias_hh is not None for cell in spec.cells)
    arrays: dict[str, Any] = {}
    for index, cell in enumerate(spec.cells):
        zeros = np.zeros(len(cell.weight_ih), cell.weight_ih.dtype)
        parts = {"weight_ih": cell.weight_ih, "weight_hh": cell.weight_hh, "weight_hr": cell.weight_hr}
        if bias:
            parts |= {name: getattr(cell, name) for name in ("bias_ih", "bias_hh")}
            parts |= {name: zeros for name in ("bias_ih", "bias_hh") if parts[name] is None}
        arrays |= {spec.name(index, name): torch.tensor(part) for name, part in parts.items() if part is not None}
    return _build(layer, arrays, bias)


def lacking(spec: LayerSpec) -> list[str]:
    """The options of a layer that PyTorch does not have."""
    reasons = []
    names = {tuple(a.name for a in activations_of(spec.kind, cell)) for cell in spec.cells}
    if names - ({("tanh",), ("relu",)} if spec.kind == "rnn" else {DEFAULT_ACTIVATIONS[spec.kind]}) or len(names) > 1:
        reasons.append("other activations")
    if any(cell.peephole is not None for cell in spec.cells):
        reasons.append("peepholes")
    for name in ("cell_clip", "gate_clip", "proj_clip"):
        if any(getattr(cell, name) is not None for cell in spec.cells):
            reasons.append(name)
    if any(cell.coupled for cell in spec.cells):
        reasons.append("coupled gates")
    if spec.kind == "gru" and not all(cell.linear_before_reset for cell in spec.cells):
        reasons.append("a reset before the matmul")
    return reasons


def _read(path: str, format_name: str) -> Mapping[str, Any]:
    import torch

    if format_name == "torch":
        content: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    if format_name == "json":
        with open(path, "rb") as file:
            document: Mapping[str, Any] = json.load(file)
        return document
    if format_name == "npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.asarray(archive[name])) for name in archive.files}
    extras.require(["safetensors"], "verify", "verify")
    from safetensors.torch import load_file

    return load_file(path)


def _as_tensor(value: Any) -> Any:
    import torch

    return torch.tensor(value, dtype=torch.float32)


def _look_up(content: Mapping[str, Any], name: str) -> Any:
    """An array of a state dict, or of one inside a checkpoint, whose keys may precede its names."""
    for keys, inner in mappings(content):
        for known in (name, name.removeprefix(f"{keys}.")):
            if known in inner:
                return inner[known]
    raise ValueError(f"PyTorch finds no {name} in the file")


def _build(layer: Layer[Any], arrays: dict[str, Any], bias: bool) -> tuple[str, PlainRun]:
    import torch

    module_class = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[layer.kind]
    options: dict[str, Any] = {"proj_size": layer.proj_size} if layer.kind == "lstm" else {}
    if layer.kind == "rnn":
        options["nonlinearity"] = activations_of("rnn", layer._unpack().cells[0])[0].name
    module = module_class(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        bias=bias,
        batch_first=True,
        bidirectional=layer.bidirectional,
        dtype=getattr(torch, layer.dtype.name),
        **options,
    )
    with framework_errors(f"torch {torch.__version__}"):
        module.load_state_dict(arrays)
    module.eval()
    modules = {layer.dtype: module}
    assert len(arrays["weight_ih_l0"]) == NUM_GATES[layer.kind] * layer.hidden_size

    def run(x: NDArray[Any], lengths: NDArray[np.int64], state: Any) -> tuple[Any, Any, Any]:
        """PyTorch refuses empty rows; they are left out, and keep their state."""
        h, c = state
        if x.dtype not in modules:
            modules[x.dtype] = copy.deepcopy(module).to(getattr(torch, x.dtype.name))
        module_of = modules[x.dtype]
        rows = np.flatnonzero(lengths)
        turned = _turn(x, lengths) if layer.reverse else x
        pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
        packed = pack(torch.tensor(turned[rows]), torch.tensor(lengths[rows]), batch_first=True, enforce_sorted=False)
        first: Any = torch.tensor(h[:, rows])
        with torch.no_grad():
            packed, last = module_of(packed, first if c is None else (first, torch.tensor(c[:, rows])))
            found, _ = pad(packed, batch_first=True, total_length=x.shape[1])
        y = np.zeros((*x.shape[:2], layer.output_size), x.dtype)
        y[rows] = found.numpy()
        h, c = h.copy(), None if c is None else c.copy()
        h[:, rows] = (last if c is None else last[0]).numpy()
        if c is not None:
            c[:, rows] = last[1].numpy()
        return (_turn(y, lengths) if layer.reverse else y), h, c

    return f"torch {torch.__version__}", run


def _turn(x: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[Any]:
    """Every row's own steps from its last to its first."""
    turned = x.copy()
    for row, length in enumerate(lengths):
        turned[row, :length] = x[row, :length][::-1]
    return turned
