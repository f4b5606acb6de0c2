"""One LSTM, GRU or RNN node of ONNX, its attributes and weights -> LayerSpec. The package onnx is never imported.

The equations are those of ONNX's operators at opset 7, 14 and 22; X is the input (T, B, I), D the number of directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import NUM_GATES, Activation, CellKind, CellSpec, LayerSpec
from .gate_orders import reorder_gates

KINDS: dict[str, CellKind] = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}

#: The attributes of each operator besides those that all three have.
ATTRIBUTES: dict[str, frozenset[str]] = {
    "LSTM": frozenset({"input_forget"}),
    "GRU": frozenset({"linear_before_reset"}),
    "RNN": frozenset(),
}
_COMMON = frozenset({"activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size"})

#: The first opset that is read, and the first with the attribute `layout`.
OLDEST_OPSET, LAYOUT_OPSET = 7, 14

#: The names of inputs in their order; the first three are required. P is the LSTM's alone, and so is initial_c.
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")

#: Those of the inputs that are weights.
WEIGHTS = ("W", "R", "B", "P")

OUTPUTS = ("Y", "Y_h", "Y_c")

#: The inputs of onnxruntime's DynamicQuantizeLSTM behind those of LSTM, all weights.
QUANTIZATION = ("W_scale", "W_zero_point", "R_scale", "R_zero_point")

#: An operator's functions f, g, h by default, and for each gate in the engine's order which of them it has.
_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "lstm": ("Sigmoid", "Tanh", "Tanh"),
    "gru": ("Sigmoid", "Tanh"),
    "rnn": ("Tanh",),
}
_OF_GATES: dict[str, tuple[int, ...]] = {"lstm": (0, 0, 1, 0, 2), "gru": (0, 0, 1), "rnn": (0,)}  # i f g o c; r z n; n

#: ONNX's functions in lower case -> whether they have an alpha and a beta.
_PARAMETERS: dict[str, tuple[bool, bool]] = {
    "affine": (True, True),
    "elu": (True, False),
    "hardsigmoid": (True, True),
    "leakyrelu": (True, False),
    "relu": (False, False),
    "scaledtanh": (True, True),
    "sigmoid": (False, False),
    "softplus": (False, False),
    "softsign": (False, False),
    "tanh": (False, False),
    "thresholdedrelu": (True, False),
}


def spec_from_node(
    op: str, attributes: Mapping[str, Any], weights: Mapping[str, NDArray[Any] | None], *, opset: int
) -> LayerSpec:
    """Describe a node as a layer.

    Parameters
    ----------
    op : "LSTM", "GRU" or "RNN"
    attributes : the node's, as int, float, str or lists of these
    weights : W (D, G*H, I), R (D, G*H, H), and where the node has them B (D, 2*G*H) and P (D, 3*H)
        All float32 or all float64.
    opset : the version of ONNX's operators

    Returns
    -------
    LayerSpec
        ``batch_first`` is True with ``layout=1``.

    Raises
    ------
    ValueError, TypeError
        The node cannot be read, or its weights do not fit; the message has every reason.
    """
    if opset < OLDEST_OPSET:
        raise ValueError(f"{op} is of opset {opset}, wanted {OLDEST_OPSET} or later")
    kind = KINDS[op]
    faults: list[str] = []
    known = _COMMON | ATTRIBUTES[op] | ({"layout"} if opset >= LAYOUT_OPSET else set())
    faults += [f"attribute {name!r} is not one of {op} of opset {opset}" for name in sorted(attributes.keys() - known)]
    given = _Attributes(attributes, faults)
    direction = given.choice("direction", ("forward", "reverse", "bidirectional"))
    num_directions = 2 if direction == "bidirectional" else 1
    layout = given.switch("layout")
    clip = given.number("clip")
    if clip is not None and not clip > 0:
        faults.append(f"clip is {clip}, wanted a positive number")
    coupled, linear_before_reset = given.switch("input_forget"), given.integer("linear_before_reset")
    activations = _activations(kind, num_directions, given, faults)
    sizes = _sizes(kind, num_directions, given.integer("hidden_size"), weights, faults)
    if faults:
        raise ValueError("; ".join(faults))
    hidden_size, input_size = sizes
    cells = [
        replace(
            _arrays(kind, hidden_size, weights, index),
            activations=activations[index],
            gate_clip=None if clip == math.inf else clip,
            coupled=bool(coupled),
            linear_before_reset=bool(linear_before_reset),
        )
        for index in range(num_directions)
    ]
    return LayerSpec(
        kind,
        cells,
        input_size,
        hidden_size,
        bidirectional=num_directions == 2,
        batch_first=layout == 1,
        reverse=direction == "reverse",
    ).validate()


def dequantize(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The weights of onnxruntime's DynamicQuantizeLSTM as those of LSTM.

    Parameters
    ----------
    weights : W (D, I, 4*H) and R (D, H, 4*H) of int8 or uint8, for both W_scale and W_zero_point, R_scale and
        R_zero_point of shape (D,) or (D, 4*H), and where the node has them B and P

    Returns
    -------
    dict
        W (D, 4*H, I), R (D, 4*H, H) of float32, B and P. A weight is (integer - zero point) * scale; the node itself
        also rounds its inputs and states to 8 bits.

    Raises
    ------
    ValueError, TypeError
        The arrays do not fit; the message has every reason.
    """
    found = {name: array for name, array in weights.items() if name in WEIGHTS}
    faults = [f"it has no {name}" for name in QUANTIZATION if name not in weights]
    for name in ("W", "R"):
        array = weights[name]
        if array.dtype not in (np.int8, np.uint8):
            raise TypeError(f"{name} is {array.dtype}, wanted int8 or uint8")
        scale, zero = (weights.get(f"{name}_{part}", np.zeros(0)) for part in ("scale", "zero_point"))
        shapes = [array.shape[:1], array.shape[::2]]
        if array.ndim != 3:
            faults.append(f"{name} has shape {array.shape}, wanted three axes")
        elif not faults and (scale.shape not in shapes or zero.shape not in shapes):
            faults.append(
                f"{name}_scale and {name}_zero_point are of shapes {scale.shape} and {zero.shape}, "
                "wanted (D,) or (D, 4H)"
            )
        elif not faults:
            expanded = [part.reshape(len(array), 1, -1).astype(np.float32) for part in (scale, zero)]
            found[name] = ((array - expanded[1]) * expanded[0]).swapaxes(1, 2)
    if faults:
        raise ValueError("; ".join(faults))
    return found


class _Attributes:
    """A node's attributes, checked as they are taken; faults are added to the list."""

    def __init__(self, attributes: Mapping[str, Any], faults: list[str]) -> None:
        self.attributes, self.faults = attributes, faults

    def integer(self, name: str) -> int | None:
        value = self.attributes.get(name)
        if value is None or type(value) is int:
            return value
        self.faults.append(f"{name} is {value!r}, wanted an integer")
        return None

    def number(self, name: str) -> float | None:
        value = self.attributes.get(name)
        if value is None or type(value) is float:
            return value
        self.faults.append(f"{name} is {value!r}, wanted a number")
        return None

    def switch(self, name: str) -> int:
        """0 or 1; 0 where it is missing."""
        value = self.integer(name) or 0
        if value not in (0, 1):
            self.faults.append(f"{name} is {value}, wanted 0 or 1")
        return value

    def choice(self, name: str, words: Sequence[str]) -> str:
        """One of `words`; the first where it is missing."""
        value = self.attributes.get(name, words[0])
        if not isinstance(value, str) or value not in words:
            self.faults.append(f"{name} is {value!r}, wanted {', '.join(words[:-1])} or {words[-1]}")
            return words[0]
        return value

    def many(self, name: str, kind: type) -> list[Any]:
        """A list of floats or of strings; empty where it is missing."""
        value = self.attributes.get(name, [])
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            self.faults.append(f"{name} is {value!r}, wanted a list of {'numbers' if kind is float else 'names'}")
            return []
        return value


def _activations(kind: str, num_directions: int, given: _Attributes, faults: list[str]) -> list[tuple[Activation, ...]]:
    """The activations of each direction's gates, in the engine's order."""
    names = given.many("activations", str)
    each = len(_FUNCTIONS[kind])
    if kind == "rnn" and num_directions == 1 and len(names) == 2 and names[0] == names[1]:
        names = names[:1]  # ONNX's own default has one for each of two directions
    names = names or [*_FUNCTIONS[kind]] * num_directions
    if len(names) != each * num_directions:
        faults.append(f"activations has {len(names)} names, wanted {each * num_directions}")
        return []
    if unknown := [name for name in names if name.lower() not in _PARAMETERS]:
        faults.append(f"activations has {', '.join(map(repr, unknown))}, which ONNX does not have")
        return []
    alphas = _assign("activation_alpha", names, 0, given, faults)
    betas = _assign("activation_beta", names, 1, given, faults)
    made = []
    for name, alpha, beta in zip(names, alphas, betas, strict=True):
        try:
            made.append(Activation.of(name, alpha, beta))
        except ValueError as error:
            faults.append(str(error))
            return []
    directions = [made[start : start + each] for start in range(0, len(made), each)]
    return [tuple(functions[index] for index in _OF_GATES[kind]) for functions in directions]


def _assign(attribute: str, names: Sequence[str], which: int, given: _Attributes, faults: list[str]) -> list[Any]:
    """For each function its alpha (`which` 0) or beta (1), None where it has none or where none is left.

    The functions that have one take the numbers in turn. A list with a number for every function is another reading
    of the standard; it is taken where both readings agree.
    """
    numbers = given.many(attribute, float)
    takers = [index for index, name in enumerate(names) if _PARAMETERS[name.lower()][which]]
    assigned: list[float | None] = [None] * len(names)
    for index, number in zip(takers, numbers, strict=False):
        assigned[index] = number
    if len(numbers) > len(takers):
        agree = len(numbers) == len(names) and all(assigned[index] == numbers[index] for index in takers)
        if not agree:
            have = f"{len(takers)} of the activations {'has' if len(takers) == 1 else 'have'} one"
            faults.append(f"{attribute} has {len(numbers)} numbers, but {have}")
    return assigned


def _sizes(
    kind: str,
    num_directions: int,
    hidden_size: int | None,
    weights: Mapping[str, NDArray[Any] | None],
    faults: list[str],
) -> tuple[int, int]:
    """Hidden units and inputs; every shape is checked."""
    W, R = weights["W"], weights["R"]
    gates = NUM_GATES[kind]
    assert W is not None and R is not None
    if R.ndim != 3:
        faults.append(f"R has shape {R.shape}, wanted (D, {gates}H, H)")
        return 0, 0
    H = R.shape[2]
    if hidden_size is not None and hidden_size != H:
        faults.append(f"hidden_size is {hidden_size}, but R has shape {R.shape}: its last axis is {H} long")
    if not H:
        faults.append(f"R has shape {R.shape}, wanted at least one hidden unit")
    I = W.shape[2] if W.ndim == 3 else 0  # noqa: E741 - the name of the axis
    wanted = {
        "W": (num_directions, gates * H, I),
        "R": (num_directions, gates * H, H),
        "B": (num_directions, 2 * gates * H),
        "P": (num_directions, 3 * H),
    }
    for name, shape in wanted.items():
        array = weights.get(name)
        if array is not None and array.shape != shape:
            faults.append(f"{name} has shape {array.shape}, wanted {shape}")
        if array is not None and array.dtype != R.dtype:
            faults.append(f"{name} is {array.dtype}, but R is {R.dtype}")
    if kind != "lstm" and weights.get("P") is not None:
        faults.append("P is given, but only an LSTM has peepholes")
    return H, I


def _arrays(kind: str, hidden_size: int, weights: Mapping[str, NDArray[Any] | None], direction: int) -> CellSpec:
    """A cell with its arrays in PyTorch's layout, from ONNX's: gates i o f c or z r h; B is Wb then Rb; P is i o f."""
    W, R, B, P = (weights.get(name) for name in WEIGHTS)
    assert W is not None and R is not None
    weight_ih, weight_hh = (reorder_gates(array[direction], kind, source="onnx") for array in (W, R))
    cell = CellSpec(weight_ih, weight_hh)
    if B is not None:
        bias_ih, bias_hh = (reorder_gates(half, kind, source="onnx") for half in np.split(B[direction], 2))
        cell = replace(cell, bias_ih=bias_ih, bias_hh=bias_hh)
    if P is not None:
        cell = replace(cell, peephole=P[direction].reshape(3, hidden_size)[[0, 2, 1]])
    return cell
