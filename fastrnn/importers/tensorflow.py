"""TensorFlow 1's cell variables -> LayerSpec, and back. TensorFlow itself is never imported."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import DEFAULT_ACTIVATIONS, Activation, CellKind, CellSpec, LayerSpec
from .gate_orders import reorder_gates

#: Activations of each kind that TensorFlow's argument `activation` sets; the others are sigmoids.
CHOSEN = {"lstm": (2, 4), "gru": (2,), "rnn": (0,)}


def spec_from_variables(
    kind: CellKind,
    weights: Mapping[str, Any],
    num_units: int,
    *,
    activation: Activation,
    num_proj: int | None = None,
    use_peepholes: bool = False,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    forget_bias: float = 0.0,
    resets_after: bool = False,
    copy: bool = True,
) -> LayerSpec:
    """Describe one cell of ``tf.nn.rnn_cell`` from its variables.

    H is num_units, P is num_proj or H, and I is the number of the kernel's rows less P.

    Parameters
    ----------
    kind : "lstm", "gru" or "rnn"
    weights : name -> array
        lstm: ``kernel`` (I + P, 4H) with gates i j f o, ``bias`` (4H,); with peepholes ``w_i_diag``, ``w_f_diag``,
        ``w_o_diag`` (H,); with num_proj ``projection/kernel`` (H, P).
        gru: ``gates/kernel`` (I + H, 2H) with gates r u, ``gates/bias`` (2H,), ``candidate/kernel`` (I + H, H),
        ``candidate/bias`` (H,). rnn: ``kernel`` (I + H, H), ``bias`` (H,).
        Names may begin with one common scope and end in ``:0``. All float32 or all float64; float16 is widened.
    activation : Activation
        Of the candidate, and of an LSTM's output.
    forget_bias : float
        Added to the forget gate's bias, as TensorFlow does at run time.
    resets_after : bool
        A GRU's candidate is that of ``CudnnCompatibleGRUCell``: ``candidate/input_projection/kernel`` (I, H),
        ``candidate/hidden_projection/kernel`` (H, H), and a ``bias`` (H,) beside each.
    copy : bool
        False where nobody else has the arrays, so that they take no memory twice.

    Raises
    ------
    ValueError
        Weights are missing or surplus, or have the wrong shape or type; one message lists them all.
    TypeError
        weights is not a mapping.
    """
    P = num_proj or num_units
    sizes = (num_units, P, num_proj is not None, use_peepholes, resets_after)
    arrays, faults = _read(weights, shapes_of(kind, 0, *sizes), copy)
    kernel = arrays.get("gates/kernel" if kind == "gru" else "kernel", np.empty(0))
    input_size = max(len(kernel) - P, 0) if kernel.ndim == 2 else 0
    for name, shape in shapes_of(kind, input_size, *sizes).items():
        if name not in arrays:
            faults.append(f"{name} is missing")
        elif arrays[name].shape != shape:
            faults.append(f"{name} has shape {arrays[name].shape}, wanted {shape}")
    if faults:
        raise ValueError("weights: " + "; ".join(faults))
    bias_hh = None
    if kind == "gru":
        candidate, bias = (_candidate(arrays, part, resets_after) for part in ("kernel", "bias"))
        kernel = np.concatenate([arrays.pop("gates/kernel"), candidate], axis=1)
        del candidate
        bias = np.concatenate([arrays["gates/bias"], bias])
        if resets_after:
            bias_hh = np.zeros_like(bias)
            bias_hh[2 * num_units :] = arrays["candidate/hidden_projection/bias"]
    else:
        kernel, bias = arrays.pop("kernel"), arrays["bias"]
    if kind == "lstm":
        bias = bias + np.repeat(np.array([0, 0, forget_bias, 0], bias.dtype), num_units)
    kernel, bias = (reorder_gates(array, kind, source="tensorflow", axis=-1) for array in (kernel, bias))
    activations = [Activation.of(name) for name in DEFAULT_ACTIVATIONS[kind]]
    for index in CHOSEN[kind]:
        activations[index] = activation
    cell = CellSpec(
        weight_ih=np.ascontiguousarray(kernel[:input_size].T),
        weight_hh=np.ascontiguousarray(kernel[input_size:].T),
        bias_ih=bias,
        bias_hh=bias_hh,
        weight_hr=np.ascontiguousarray(arrays["projection/kernel"].T) if num_proj else None,
        peephole=np.stack([arrays[f"w_{gate}_diag"] for gate in "ifo"]) if use_peepholes else None,
        activations=tuple(activations),
        cell_clip=cell_clip,
        proj_clip=proj_clip if num_proj else None,
        linear_before_reset=resets_after,
    )
    return LayerSpec(kind, [cell], input_size, num_units, proj_size=num_proj or 0).validate()


def variables_from_cell(kind: CellKind, cell: CellSpec) -> dict[str, NDArray[Any]]:
    """The variables with which ``BasicLSTMCell`` or ``BasicRNNCell`` computes the same as a cell without options.

    The LSTM's `forget_bias` has to be 0, because the returned bias already includes it.

    Parameters
    ----------
    kind : "lstm" or "rnn"
        No GRU: TensorFlow's resets before the matmul and has one bias, so it computes something else.
    cell : CellSpec
        With default activations, without projection, peepholes and clips; these are not checked.

    Returns
    -------
    dict
        ``kernel`` (I + H, G*H), with an LSTM's gates i j f o, and ``bias`` (G*H,).

    Examples
    --------
    >>> cell = CellSpec(np.ones((8, 3), np.float32), np.ones((8, 2), np.float32))
    >>> {name: array.shape for name, array in variables_from_cell("lstm", cell).items()}
    {'kernel': (5, 8), 'bias': (8,)}
    """
    kernel = np.concatenate([cell.weight_ih, cell.weight_hh], axis=1).T
    bias = np.zeros(kernel.shape[1], kernel.dtype)
    for part in (cell.bias_ih, cell.bias_hh):
        bias += 0 if part is None else part
    variables = {"kernel": kernel, "bias": bias}
    return {name: reorder_gates(array, kind, target="tensorflow", axis=-1) for name, array in variables.items()}


def shapes_of(
    kind: str, input_size: int, H: int, P: int, projects: bool, use_peepholes: bool, resets_after: bool = False
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every variable that the cell has."""
    if kind == "gru":
        sides = {"input_projection/": input_size, "hidden_projection/": H} if resets_after else {"": input_size + H}
        shapes: dict[str, tuple[int, ...]] = {"gates/kernel": (input_size + H, 2 * H), "gates/bias": (2 * H,)}
        for side, rows in sides.items():
            shapes |= {f"candidate/{side}kernel": (rows, H), f"candidate/{side}bias": (H,)}
        return shapes
    width = 4 * H if kind == "lstm" else H
    shapes = {"kernel": (input_size + P, width), "bias": (width,)}
    if use_peepholes:
        shapes |= {f"w_{gate}_diag": (H,) for gate in "ifo"}
    if projects:
        shapes["projection/kernel"] = (H, P)
    return shapes


def _candidate(arrays: dict[str, NDArray[Any]], part: str, resets_after: bool) -> NDArray[Any]:
    """A GRU's candidate kernel (I + H, H), or the bias (H,) that is added to the inputs' part."""
    if not resets_after:
        return arrays.pop(f"candidate/{part}")
    sides = ("input", "hidden") if part == "kernel" else ("input",)
    return np.concatenate([arrays.pop(f"candidate/{side}_projection/{part}") for side in sides])


def _read(weights: Mapping[str, Any], names: Collection[str], copy: bool) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Take the variables with these names; return them and a fault for each variable that is refused."""
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights is {type(weights).__name__}, wanted a mapping of names to arrays")
    arrays: dict[str, NDArray[Any]] = {}
    scopes: set[str] = set()
    faults: list[str] = []
    for full_name, value in weights.items():
        scope, name = _split_name(str(full_name), names)
        if name is None:
            faults.append(f"{full_name} is surplus, wanted {', '.join(names)}")
            continue
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            faults.append(f"{full_name} is {type(value).__name__}, wanted an array: {error}")
            continue
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            faults.append(f"{full_name} is {array.dtype}, wanted float32 or float64")
        elif name in arrays:
            faults.append(f"{full_name} is a second {name}")
        else:
            scopes.add(scope)
            arrays[name] = array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32, copy=copy)
    if len(scopes) > 1:
        faults.append(f"names begin with the scopes {', '.join(sorted(map(repr, scopes)))}, wanted one")
    if len(dtypes := {str(array.dtype) for array in arrays.values()}) > 1:
        faults.append(f"types are {' and '.join(sorted(dtypes))}, wanted one")
    return arrays, faults


def _split_name(full_name: str, names: Collection[str]) -> tuple[str, str | None]:
    """Scope and name, such as ("rnn/lstm_cell/", "projection/kernel"); the name is None if it is not one of `names`."""
    bare = re.sub(r":\d+$", "", full_name)
    for name in sorted(names, key=len, reverse=True):  # "projection/kernel" before "kernel"
        if bare == name or bare.endswith("/" + name):
            return bare.removesuffix(name), name
    return "", None
