"""PyTorch's recurrent modules and state dicts -> LayerSpec. PyTorch itself is never imported."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray

from ..spec import NUM_GATES, Activation, CellKind, CellSpec, LayerSpec
from .pytorch_module import as_floating, weights_of

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
NAME = re.compile(rf"({'|'.join(PARTS)})(?:_l(0|[1-9][0-9]{{0,5}})(_reverse)?)?")  # a cell's names have no layer number
PREFIXED_NAME = re.compile(rf"(.*?){NAME.pattern}", re.DOTALL)
MOST_SUGGESTED = 8
KINDS: dict[str, CellKind] = {
    "LSTM": "lstm",
    "GRU": "gru",
    "RNN": "rnn",
    "LSTMCell": "lstm",
    "GRUCell": "gru",
    "RNNCell": "rnn",
}
NONLINEARITIES = ("tanh", "relu")

Nonlinearity = Literal["tanh", "relu"]

Key = tuple[str, int, int]  # part, layer, direction


def spec_from_module(module: Any) -> LayerSpec:
    """Describe a live ``torch.nn.LSTM``, ``GRU``, ``RNN``, ``LSTMCell``, ``GRUCell`` or ``RNNCell`` (or a subclass).

    Parameters
    ----------
    module : torch.nn.Module
        Its weights are copied, from any device; its `batch_first` and `nonlinearity` are used. Dropout is left out,
        as in ``eval()``. A cell becomes a spec of one layer with `batch_first` set. It may be scripted, and its weights
        may be computed: by weight_norm, a parametrisation or pruning.

    Raises
    ------
    TypeError, ValueError
        It is another kind of module, or its weights do not fit.
    """
    bases = [base.__name__ for base in type(module).__mro__]
    is_script = "ScriptModule" in bases
    names = [name for name in (getattr(module, "original_name", None) if is_script else None, *bases) if name in KINDS]
    if not names or not callable(getattr(module, "state_dict", None)):
        raise TypeError(f"module is {type(module).__name__}, wanted a torch.nn.LSTM, GRU or RNN, or a cell of these")
    kind, is_cell = KINDS[names[0]], names[0].endswith("Cell")
    if is_script and not hasattr(module, "hidden_size"):
        raise TypeError(
            f"module is a traced {names[0]}, which does not keep its options: wanted the module that was traced, or a "
            "scripted one"
        )
    spec = spec_from_state_dict(
        kind,
        weights_of(module),
        nonlinearity=getattr(module, "nonlinearity", None) if kind == "rnn" else None,
        batch_first=is_cell or bool(getattr(module, "batch_first", False)),
    )
    for size in ("input_size", "hidden_size", "num_layers", "bidirectional", "proj_size"):
        declared = getattr(module, size, getattr(spec, size))
        if declared != getattr(spec, size):
            raise ValueError(f"module.{size} is {declared}, but its weights have {size} {getattr(spec, size)}")
    return spec


def spec_from_state_dict(
    kind: CellKind,
    mapping: Mapping[str, Any],
    prefix: str = "",
    *,
    nonlinearity: Nonlinearity | None = None,
    batch_first: bool = True,
    copy: bool = True,
) -> LayerSpec:
    """Describe a recurrent network from weights with PyTorch's names and shapes.

    The names determine the number of layers and directions, the shapes of layer 0 the sizes.

    Parameters
    ----------
    kind : "lstm", "gru" or "rnn"
    mapping : name -> array or tensor
        ``weight_ih_l0`` (G*H, I), ``weight_hh_l0`` (G*H, P), ``bias_ih_l0`` and ``bias_hh_l0`` (G*H,),
        ``weight_hr_l0`` (P, H); then ``_l1`` and so on, with ``_reverse`` at the end for the second direction.
        Or a cell's: ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``.
        All float32 or all float64; float16 and bfloat16 (of PyTorch or ml_dtypes) are widened to float32, exactly.
        Everything is copied, tensors on other devices to the CPU first.
    prefix : str
        Only names that begin with it are read, such as ``"encoder."``. If no weight's name begins with it, it is tried
        again with a dot added.
    nonlinearity : "tanh" or "relu"
        Required for an RNN, because a state dict does not contain it. None for an LSTM and a GRU.
    batch_first : bool
        Whether x will be (B, T, I) rather than (T, B, I).
    copy : bool
        False: arrays that need no widening are taken as they are, for a caller that drops them afterwards.

    Raises
    ------
    ValueError
        Weights are missing, surplus, of mixed types or of the wrong shape; one message lists them all. No weights
        are under the prefix; the message lists the prefixes that have some.
    TypeError
        Weights are not floating-point arrays, or tensors without data; one message lists them all. An argument is of
        another type.
    """
    if kind not in NUM_GATES:
        raise ValueError(f"kind is {kind!r}, wanted one of {', '.join(NUM_GATES)}")
    if kind != "rnn" and nonlinearity is not None:
        raise ValueError(f"nonlinearity is {nonlinearity!r}, but only an RNN has a choice: wanted None")
    if kind == "rnn" and nonlinearity is None:
        raise TypeError("nonlinearity is missing, wanted 'tanh' or 'relu': a state dict cannot tell")
    if kind == "rnn" and nonlinearity not in NONLINEARITIES:
        raise ValueError(f"nonlinearity is {nonlinearity!r}, wanted 'tanh' or 'relu'")

    if not callable(getattr(mapping, "keys", None)) or not hasattr(mapping, "__getitem__"):
        found = type(mapping).__name__ + (f" {mapping!r}" if isinstance(mapping, str) else "")
        raise TypeError(f"mapping is {found}, wanted a mapping of names to arrays, as module.state_dict() gives")
    if not isinstance(prefix, str):
        raise TypeError(f"prefix is {prefix!r}, wanted a str")
    prefix, is_cell = _find(mapping, prefix)
    arrays, faults = _read(kind, mapping, prefix, is_cell, copy)
    num_layers = 1 + max((layer for _, layer, _ in arrays), default=0)
    if num_layers > max(len(arrays), 1):  # a single name with a high number must not cause a huge list of missing ones
        raise ValueError(f"{prefix}*_l{num_layers - 1} is given, but there are only {len(arrays)} weights in all")
    num_directions = 1 + any(direction for _, _, direction in arrays)
    sizes = _sizes(arrays)
    wanted = _wanted(NUM_GATES[kind], num_layers, num_directions, arrays, *sizes)
    for key, shape in wanted.items():
        if key not in arrays:
            faults.append(f"{_name(key, prefix, is_cell)} is missing, wanted shape {_text(shape)}")
        elif arrays[key].shape != shape:
            faults.append(f"{_name(key, prefix, is_cell)} has shape {arrays[key].shape}, wanted {_text(shape)}")
    dtypes = Counter(str(array.dtype) for array in arrays.values())
    for key, array in arrays.items():
        if array.dtype != (usual := dtypes.most_common(1)[0][0]):
            faults.append(f"{_name(key, prefix, is_cell)} is {array.dtype}, wanted {usual} like the others")
    if faults:
        raise ValueError("; ".join(faults))

    activations = (Activation.of(nonlinearity),) if nonlinearity is not None else ()
    cells = []
    for layer in range(num_layers):
        for direction in range(num_directions):
            parts = {part: arrays.get((part, layer, direction)) for part in PARTS}
            cells.append(CellSpec(**parts, activations=activations))  # type: ignore[arg-type]
    input_size, h_size, hidden_size = (int(size) for size in sizes)
    proj_size = h_size if ("weight_hr", 0, 0) in arrays else 0
    bidirectional = num_directions == 2
    spec = LayerSpec(kind, cells, input_size, hidden_size, num_layers, bidirectional, proj_size, batch_first)
    return spec.validate()


def _find(mapping: Mapping[str, Any], prefix: str) -> tuple[str, bool]:
    """The prefix under which weights are, with a dot added if needed, and whether they are a cell's."""
    names = [name for name in mapping.keys() if isinstance(name, str)]  # noqa: SIM118 - as in _read
    matches = [match for name in names if (match := PREFIXED_NAME.fullmatch(name))]
    prefixes = dict.fromkeys(match[1] for match in matches)
    found = prefix if prefix in prefixes or not prefix or f"{prefix}." not in prefixes else f"{prefix}."
    if prefixes and found not in prefixes:
        several = "one of " if len(prefixes) > 1 else ""
        some = ", ".join(f"prefix={name!r}" for name in list(prefixes)[:MOST_SUGGESTED])
        more = f" or one of {len(prefixes) - MOST_SUGGESTED} more" if len(prefixes) > MOST_SUGGESTED else ""
        raise ValueError(f"{prefix}weight_ih_l0 is missing: prefix is {prefix!r}, did you mean {several}{some}{more}?")
    return found, bool(prefixes) and all(match[3] is None for match in matches if match[1] == found)


def _read(
    kind: str, mapping: Mapping[str, Any], prefix: str, is_cell: bool, copy: bool
) -> tuple[dict[Key, NDArray[Any]], list[str]]:
    """Take the weights under `prefix`; return them and a fault for each name that is surplus."""
    arrays: dict[Key, NDArray[Any]] = {}
    surplus: list[str] = []
    wrong: list[str] = []
    for name in mapping.keys():  # noqa: SIM118 - some archives have keys() but do not iterate over names
        if not isinstance(name, str):
            wrong.append(f"name {name!r} is {type(name).__name__}, wanted str")
            continue
        if not name.startswith(prefix):
            continue
        match = NAME.fullmatch(name.removeprefix(prefix))
        if match is None or (match[2] is None) != is_cell or (is_cell and match[1] == "weight_hr"):
            example = _name(("weight_ih", 0, 0), prefix, is_cell)
            surplus.append(f"{name} is surplus, wanted names such as {example}")
        elif match[1] == "weight_hr" and kind != "lstm":
            surplus.append(f"{name} is surplus, only an LSTM has a projection")
        else:
            try:
                arrays[match[1], int(match[2] or 0), int(bool(match[3]))] = as_floating(mapping[name], copy)
            except TypeError as error:
                wrong.append(f"{name} is {error}, wanted a float32 or float64 array")
    if wrong:
        raise TypeError("; ".join(wrong))
    return arrays, surplus


def _sizes(arrays: dict[Key, NDArray[Any]]) -> tuple[int | str, int | str, int | str]:
    """I, P, H of layer 0; the name of a size in place of one that no weight determines."""

    def shape(part: str, *names: str) -> tuple[int | str, ...]:
        array = arrays.get((part, 0, 0), arrays.get((part, 0, 1)))
        return array.shape if array is not None and array.ndim == 2 else names

    _, input_size = shape("weight_ih", "", "input_size")
    _, h_size = shape("weight_hh", "", "hidden_size")
    if any(part == "weight_hr" for part, _, _ in arrays):
        h_size, hidden_size = shape("weight_hr", "proj_size", "hidden_size")
        return input_size, h_size, hidden_size
    return input_size, h_size, h_size


def _wanted(
    gates: int,
    num_layers: int,
    num_directions: int,
    arrays: dict[Key, NDArray[Any]],
    input_size: int | str,
    h_size: int | str,
    hidden_size: int | str,
) -> dict[Key, tuple[int | str, ...]]:
    """Every weight that should be there, with its shape. Biases and projections belong to all cells or to none."""
    present = {part for part, _, _ in arrays}
    has_bias = "bias_ih" in present or "bias_hh" in present
    rows = gates * hidden_size if isinstance(hidden_size, int) else f"{gates} * {hidden_size}"
    stacked = num_directions * h_size if isinstance(h_size, int) else f"{num_directions} * {h_size}"
    wanted: dict[Key, tuple[int | str, ...]] = {}
    for layer in range(num_layers):
        for direction in range(num_directions):
            wanted["weight_ih", layer, direction] = (rows, stacked if layer else input_size)
            wanted["weight_hh", layer, direction] = (rows, h_size)
            if has_bias:
                wanted["bias_ih", layer, direction] = wanted["bias_hh", layer, direction] = (rows,)
            if "weight_hr" in present:
                wanted["weight_hr", layer, direction] = (h_size, hidden_size)
    return wanted


def _name(key: Key, prefix: str, is_cell: bool) -> str:
    part, layer, direction = key
    return f"{prefix}{part}" + ("" if is_cell else f"_l{layer}" + ("_reverse" if direction else ""))


def _text(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
