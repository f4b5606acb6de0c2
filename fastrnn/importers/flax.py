"""Parameters of Flax's recurrent cells -> LayerSpec. Neither Flax nor JAX is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import NUM_GATES, CellKind, LayerSpec
from .pytorch import MOST_SUGGESTED, Nonlinearity, spec_from_state_dict

#: Flax's names of the gates in our order. nnx writes `if_`, as `if` is a word of Python.
GATES: dict[CellKind, str] = {"lstm": "ifgo", "gru": "rzn", "rnn": ""}

#: Names of nnx's fused cells (all gates side by side, in our order), and of linen's SimpleCell.
DENSE = ({"dense_i", "dense_h"}, {"i", "h"})

#: linen's minimal gated unit, which the engine does not have.
MGU = {"if", "in", "hf", "hn"}


def spec_from_params(
    kind: CellKind,
    params: Mapping[str, Any],
    prefix: str = "",
    *,
    nonlinearity: Nonlinearity | None = None,
    batch_first: bool = True,
) -> LayerSpec:
    """Describe one cell from its parameters: linen's dictionary, or nnx's state as one.

    Parameters
    ----------
    kind : "lstm", "gru" or "rnn"
    params : nested mapping of names to arrays
        linen: ``LSTMCell`` and ``OptimizedLSTMCell`` (ii if ig io, hi hf hg ho), ``GRUCell`` (ir iz in, hr hz hn),
        ``SimpleCell`` (i, h); each has a ``kernel`` (in, out), some a ``bias``. nnx: the same with ``if_``, or all
        gates in ``dense_i`` and ``dense_h``. The cell may be deeper, as in what ``model.init`` gives.
    prefix : str
        The names above the cell, such as ``"params.encoder.cell"``; needed where there are several.
    nonlinearity : "tanh" or "relu"
        Of a SimpleCell, which needs it: its parameters cannot tell.
    batch_first : bool

    Raises
    ------
    ValueError
        There is no such cell or there are several, or its arrays do not fit; the message has every reason.
    TypeError
        Arguments or arrays are of another type.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params is {type(params).__name__}, wanted a mapping, as model.init gives")
    if not isinstance(prefix, str):
        raise TypeError(f"prefix is {prefix!r}, wanted a str")
    cells = {path: (found, cell) for path, found, cell in _cells(params, "")}
    asked = prefix.rstrip(".")
    within = {path: cell for path, cell in cells.items() if not asked or path == asked or path.startswith(f"{asked}.")}
    fits = {path: cell for path, (found, cell) in within.items() if found == kind}
    if len(fits) != 1:
        some = "; ".join(
            f"prefix={path!r}: {found or 'MGUCell, which is not supported'}"
            for path, (found, _) in list(cells.items())[:MOST_SUGGESTED]
        )
        count = "several" if fits else "none"
        raise ValueError(
            f"params has {count} of the kind {kind} under {asked!r}, wanted one; it has {some or 'no cell'}"
        )
    ((path, cell),) = fits.items()
    faults: list[str] = []
    arrays = _arrays(kind, path, cell, faults)
    try:
        spec = (
            spec_from_state_dict(kind, arrays, nonlinearity=nonlinearity, batch_first=batch_first)
            if not faults
            else None
        )
    except ValueError as error:
        faults.append(f"{path or 'params'} in PyTorch's terms: {error}")
    if faults or spec is None:
        raise ValueError("; ".join(faults))
    return spec


def _cells(params: Mapping[str, Any], path: str) -> Iterator[tuple[str, CellKind | None, Mapping[str, Any]]]:
    """Path, kind and parameters of every cell; the kind of an MGUCell is None."""
    names = set(params)
    if kind := _kind_of(params):
        yield path, kind, params
    elif names == MGU:
        yield path, None, params
    else:
        for name, value in params.items():
            if isinstance(value, Mapping):
                yield from _cells(value, f"{path}.{name}" if path else str(name))


def _kind_of(params: Mapping[str, Any]) -> CellKind | None:
    names = {str(name).rstrip("_") for name in params}
    if {"hi", "hf", "hg", "ho"} <= names:
        return "lstm"
    if {"hr", "hz", "hn"} <= names:
        return "gru"
    for input_name, recurrent_name in ({"dense_i": "dense_h", "i": "h"}).items():
        recurrent = params.get(recurrent_name)
        if input_name in names and isinstance(recurrent, Mapping) and "kernel" in recurrent:
            shape = np.shape(_value(recurrent["kernel"]))
            if len(shape) == 2 and shape[0]:
                kinds: dict[float, CellKind] = {gates: kind for kind, gates in NUM_GATES.items()}  # type: ignore[misc]
                return kinds.get(shape[1] / shape[0])
    return None


def _value(leaf: Any) -> Any:
    """A leaf's array: nnx keeps it in a variable, linen may box it with the names of its axes."""
    for name in ("value", "unbox"):
        inner = getattr(leaf, name, None)
        if inner is not None and not isinstance(leaf, np.ndarray):
            return inner() if callable(inner) else inner
    return leaf


def _arrays(kind: CellKind, path: str, cell: Mapping[str, Any], faults: list[str]) -> dict[str, NDArray[Any]]:
    """The cell's weights under PyTorch's names, out first; faults are added to the list."""
    names = {str(name).rstrip("_"): name for name in cell}
    sides = {"ih": "i", "hh": "h"}
    wanted = {
        side: [f"{letter}{gate}" for gate in GATES[kind]] if "dense_h" not in names and kind != "rnn" else [dense]
        for (side, letter), dense in zip(
            sides.items(), ("dense_i", "dense_h") if "dense_h" in names else ("i", "h"), strict=True
        )
    }
    where = f"{path}." if path else ""
    known = {name for side in wanted.values() for name in side}
    faults += [
        f"{where}{names[name]} is surplus, wanted {', '.join(sorted(known))}" for name in names if name not in known
    ]
    arrays: dict[str, NDArray[Any]] = {}
    for side, parts in wanted.items():
        kernels, biases = [], []
        for part in parts:
            dense = cell.get(names.get(part, part))
            if not isinstance(dense, Mapping) or "kernel" not in dense:
                faults.append(f"{where}{part}.kernel is missing")
                continue
            faults += [f"{where}{part}.{name} is surplus" for name in dense if name not in ("kernel", "bias")]
            kernel = _as_float(_value(dense["kernel"]), f"{where}{part}.kernel")
            bias = _as_float(_value(dense["bias"]), f"{where}{part}.bias") if "bias" in dense else None
            if kernel.ndim != 2 or (bias is not None and bias.shape != kernel.shape[1:]):
                found = f"kernel {kernel.shape}" + ("" if bias is None else f" and bias {bias.shape}")
                faults.append(f"{where}{part} has {found}, wanted (in, out) and (out,)")
                continue
            kernels.append(kernel)
            biases.append(np.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias)
        if len({kernel.shape for kernel in kernels}) > 1:
            faults.append(
                f"{where}{', '.join(parts)} have kernels of shapes {', '.join(str(k.shape) for k in kernels)}"
            )
        elif kernels:
            arrays[f"weight_{side}_l0"] = np.concatenate(kernels, axis=1).T
            arrays[f"bias_{side}_l0"] = np.concatenate(biases)
    return arrays


def _as_float(value: Any, name: str) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        array = array.astype(np.float32)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} is {array.dtype}, wanted a float32 or float64 array")
    return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32, copy=False)
