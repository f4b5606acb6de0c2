"""The description of a recurrent layer, whatever framework it comes from: arrays and options.

Importers make it; the engine and the reference are built from it. Arrays have PyTorch's layout, gates PyTorch's order:
LSTM ``i f g o``, GRU ``r z n``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from . import _core, int8_weights
from .arguments import as_boolean, as_integer, as_real

CellKind = Literal["lstm", "gru", "rnn"]

NUM_GATES: dict[str, int] = {"lstm": 4, "gru": 3, "rnn": 1}

WeightDtype = Literal["float32", "float16", "int8"]
WEIGHT_DTYPES: tuple[WeightDtype, ...] = get_args(WeightDtype)

#: A cell's arrays that a weight dtype is for; biases and peepholes are float32.
WEIGHTS = ("weight_ih", "weight_hh", "weight_hr")

FLOAT16_LIMIT = 65520  #: numbers of this magnitude and beyond are rounded to infinity; the largest float16 is 65504

#: The activations of a cell: one for each gate, and for the LSTM a last one of the cell state at its output.
DEFAULT_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "lstm": ("sigmoid", "sigmoid", "tanh", "sigmoid", "tanh"),
    "gru": ("sigmoid", "sigmoid", "tanh"),
    "rnn": ("tanh",),
}

#: name -> (default alpha, default beta): ONNX's defaults, None where ONNX has none. The list is that of fastrnn.h.
#: ONNX's names are these without underscores, such as HardSigmoid.
ACTIVATIONS: dict[str, tuple[float | None, float | None]] = _core.ACTIVATION_DEFAULTS

SPELLINGS = {spelling: name for name in ACTIVATIONS for spelling in (name, name.replace("_", ""))}


@dataclass(frozen=True)
class Activation:
    """An activation function by name, with its two parameters (ONNX's alpha and beta).

    The names are ``sigmoid``, ``tanh``, ``relu``, ``linear``, ``softsign`` (x / (1 + abs(x))), ``softplus``
    (log(1 + exp(x))), and with parameters

    - ``hard_sigmoid``: alpha x + beta, clipped to [0, 1]. Keras 3 and PyTorch have alpha = 1/6
    - ``leaky_relu``: x if x >= 0 else alpha x
    - ``elu``: x if x >= 0 else alpha (exp(x) - 1)
    - ``affine``: alpha x + beta
    - ``scaled_tanh``: alpha tanh(beta x)
    - ``thresholded_relu``: x if x > alpha else 0

    Examples
    --------
    >>> Activation.of("HardSigmoid")
    Activation(name='hard_sigmoid', alpha=0.2, beta=0.5)
    """

    name: str
    alpha: float
    beta: float

    @classmethod
    def of(cls, name: str, alpha: float | None = None, beta: float | None = None) -> Activation:
        """Look up `name`, a key of ``ACTIVATIONS`` or ONNX's name in any case, and fill in ONNX's default parameters.

        Raises
        ------
        TypeError, ValueError
            The name is unknown, or a parameter without a default is missing or not a number.
        """
        if not isinstance(name, str):
            raise TypeError(f"activation is {name!r}, wanted a str")
        key = SPELLINGS.get(name.lower())
        if key is None:
            raise ValueError(f"activation is {name!r}, wanted one of {', '.join(sorted(ACTIVATIONS))}, or ONNX's name")
        default_alpha, default_beta = ACTIVATIONS[key]
        a, b = default_alpha if alpha is None else alpha, default_beta if beta is None else beta
        if a is None or b is None:
            missing = "alpha and beta" if a is b else "alpha" if a is None else "beta"
            verb = "are" if a is b else "is"
            raise ValueError(f"{missing} of {name} {verb} missing, wanted a number: ONNX has no default")
        return cls(key, as_real(a, "alpha"), as_real(b, "beta"))


@dataclass(frozen=True)
class CellSpec:
    """One layer in one direction. G gates, I inputs, H hidden units, P outputs (H without projection).

    Attributes
    ----------
    weight_ih : (G*H, I)
    weight_hh : (G*H, P)
    bias_ih, bias_hh : (G*H,) or None
        None counts as zero. Only for the GRU's candidate gate does it matter which of the two a number is in.
    weight_hr : (P, H) or None
        The LSTM's output projection (PyTorch's ``proj_size``).
    peephole : (3, H) or None
        LSTM rows ``i f o``: i and f see the old cell state, o the new, clipped one.
    activations : tuple of Activation
        One for each gate; the LSTM has a fifth, of the cell state at the output. Empty: the cell's defaults.
    cell_clip : float or None
        LSTM: the new cell state is clipped to [-cell_clip, cell_clip] (TensorFlow's ``cell_clip``).
    gate_clip : float or None
        Inputs of the gates' activations are clipped (ONNX's ``clip``); the output activation's is not.
    proj_clip : float or None
        The projected output is clipped (TensorFlow's ``proj_clip``).
    coupled : bool
        LSTM: the forget gate is 1 - i (ONNX's ``input_forget``); its own weights are not used.
    linear_before_reset : bool
        GRU: True resets after the matmul (PyTorch, cuDNN), False before it (TensorFlow 1).
    """

    weight_ih: NDArray[Any]
    weight_hh: NDArray[Any]
    bias_ih: NDArray[Any] | None = None
    bias_hh: NDArray[Any] | None = None
    weight_hr: NDArray[Any] | None = None
    peephole: NDArray[Any] | None = None
    activations: tuple[Activation, ...] = ()
    cell_clip: float | None = None
    gate_clip: float | None = None
    proj_clip: float | None = None
    coupled: bool = False
    linear_before_reset: bool = True


@dataclass(frozen=True)
class LayerSpec:
    """One or more stacked layers of one kind of cell, in one or two directions.

    `cells` is any iterable of CellSpec in the order l0, l0 reverse, l1, l1 reverse, ...; it is kept as a tuple.
    With `reverse` the only direction is the reverse one: in every layer each row runs from its own last step.
    `weight_dtype` is the type in which a layer keeps weight_ih, weight_hh and weight_hr, None that in which it
    computes; the arrays are float32 or float64 in any case, and need not be rounded.
    Build it, then call :meth:`validate`, which names everything that does not fit.
    """

    kind: CellKind
    cells: Sequence[CellSpec]
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    batch_first: bool = True
    reverse: bool = False
    weight_dtype: WeightDtype | None = None

    def __post_init__(self) -> None:
        # validate() would exhaust an iterator, and a list could change after it.
        if isinstance(self.cells, Iterable) and not isinstance(self.cells, str | Mapping):
            object.__setattr__(self, "cells", tuple(self.cells))

    @property
    def num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def h_size(self) -> int:
        """Width P of one direction's output."""
        return self.proj_size or self.hidden_size

    def name(self, index: int, part: str) -> str:
        """PyTorch's name of array `part` of cell `index`, such as ``weight_ih_l0_reverse``."""
        layer, direction = divmod(index, self.num_directions)
        return f"{part}_l{layer}" + ("_reverse" if direction else "")

    def validate(self) -> LayerSpec:
        """Check sizes, shapes and options; return self.

        Raises
        ------
        ValueError, TypeError
            One message that lists every fault found.
        """
        types: list[str] = []
        faults: list[str] = []
        self._check_options(types, faults)
        if types:
            raise TypeError("; ".join(types + faults))
        if self.reverse and self.bidirectional:
            faults.append("reverse is True, but the layer is bidirectional: wanted one of the two")
        if self.proj_size and self.kind != "lstm":
            faults.append(f"proj_size is {self.proj_size}, but only an LSTM has a projection")
        if len(self.cells) != self.num_layers * self.num_directions:
            faults.append(f"cells has {len(self.cells)} entries, wanted {self.num_layers * self.num_directions}")
        if not faults:
            for index, cell in enumerate(self.cells):
                faults += self._cell_faults(index, cell)
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _check_options(self, types: list[str], faults: list[str]) -> None:
        """Add a fault for each option or cell of the wrong type and each option that is out of range."""

        def check(take: Callable[..., Any], *arguments: Any) -> None:
            try:
                take(*arguments)
            except TypeError as error:
                types.append(str(error))
            except ValueError as error:
                faults.append(str(error))

        if not isinstance(self.kind, str) or self.kind not in NUM_GATES:
            faults.append(f"kind is {self.kind!r}, wanted one of {', '.join(NUM_GATES)}")
        for size, least in (("input_size", 0), ("hidden_size", 1), ("num_layers", 1), ("proj_size", 0)):
            check(as_integer, getattr(self, size), size, least)
        for option in ("bidirectional", "batch_first", "reverse"):
            check(as_boolean, getattr(self, option), option)
        check(check_weight_dtype, self.weight_dtype)
        if not isinstance(self.cells, Sequence) or isinstance(self.cells, str):
            types.append(f"cells is {type(self.cells).__name__}, wanted a list of CellSpec")
            return
        for index, cell in enumerate(self.cells):
            if not isinstance(cell, CellSpec):
                types.append(f"cells[{index}] is {type(cell).__name__}, wanted a CellSpec")
                continue
            for option in ("coupled", "linear_before_reset"):
                check(as_boolean, getattr(cell, option), self.name(index, option))
            for clip in ("cell_clip", "gate_clip", "proj_clip"):
                if getattr(cell, clip) is not None:
                    check(as_real, getattr(cell, clip), self.name(index, clip))
            name = self.name(index, "activations")
            if not isinstance(cell.activations, (list, tuple)):
                types.append(f"{name} is {cell.activations!r}, wanted a tuple of Activation")
                continue
            for activation in cell.activations:
                if not isinstance(activation, Activation):
                    types.append(f"{name} has {activation!r}, wanted an Activation")
                    continue
                check(as_real, activation.alpha, f"{name}: alpha of {activation.name}")
                check(as_real, activation.beta, f"{name}: beta of {activation.name}")

    def _cell_faults(self, index: int, cell: CellSpec) -> list[str]:
        rows, P = NUM_GATES[self.kind] * self.hidden_size, self.h_size
        width = self.input_size if index < self.num_directions else self.num_directions * P
        wanted: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, width),
            "weight_hh": (rows, P),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
            "weight_hr": (P, self.hidden_size),
            "peephole": (3, self.hidden_size),
        }
        faults = []
        for part, shape in wanted.items():
            array = getattr(cell, part)
            if array is None:
                if part in ("weight_ih", "weight_hh") or (part == "weight_hr" and self.proj_size):
                    faults.append(f"{self.name(index, part)} is missing, wanted shape {shape}")
            elif part == "weight_hr" and not self.proj_size:
                faults.append(f"{self.name(index, part)} is given, but proj_size is 0")
            elif part == "peephole" and self.kind != "lstm":
                faults.append(f"{self.name(index, part)} is given, but only an LSTM has peepholes")
            elif not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
                found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                faults.append(f"{self.name(index, part)} is {found}, wanted a float32 or float64 array")
            elif array.shape != shape:
                faults.append(f"{self.name(index, part)} has shape {array.shape}, wanted {shape}")
            elif self.weight_dtype in WEIGHT_FAULTS and part in WEIGHTS:
                faults += WEIGHT_FAULTS[self.weight_dtype](self.name(index, part), array)
        count = len(DEFAULT_ACTIVATIONS[self.kind])
        if cell.activations and len(cell.activations) != count:
            faults.append(f"{self.name(index, 'activations')} has {len(cell.activations)} entries, wanted {count}")
        for activation in cell.activations:
            if activation.name not in ACTIVATIONS:
                faults.append(f"{self.name(index, 'activations')} names {activation.name!r}, which is unknown")
        for clip in ("cell_clip", "gate_clip", "proj_clip"):
            value = getattr(cell, clip)
            if value is not None and not value > 0:
                faults.append(f"{self.name(index, clip)} is {value}, wanted a positive number or None")
        if self.kind != "lstm" and (cell.coupled or cell.cell_clip is not None):
            faults.append(f"{self.name(index, 'options')}: coupled and cell_clip belong to an LSTM")
        if cell.proj_clip is not None and not self.proj_size:
            faults.append(f"{self.name(index, 'proj_clip')} is given, but proj_size is 0")
        return faults


def check_weight_dtype(weight_dtype: Any, dtype: np.dtype[Any] | None = None) -> None:
    """Check that it is one of WEIGHT_DTYPES, or None, and that layers that compute in `dtype` can have it.

    Raises
    ------
    ValueError
        It is none, or they cannot.
    """
    if weight_dtype is None:
        return
    if not isinstance(weight_dtype, str) or weight_dtype not in WEIGHT_DTYPES:
        raise ValueError(f"weight_dtype is {weight_dtype!r}, wanted None or one of {', '.join(WEIGHT_DTYPES)}")
    if dtype is not None and dtype != np.float32:
        raise ValueError(f"weight_dtype is {weight_dtype!r} and dtype {dtype}, wanted None, or dtype 'float32'")


def _float16_faults(name: str, array: NDArray[Any]) -> list[str]:
    """A fault if finite numbers are rounded to infinity."""
    wrong = (np.abs(array) >= FLOAT16_LIMIT) & np.isfinite(array)
    return _weight_faults(name, array, wrong, "out of float16's range: wanted at most 65504")


def _int8_faults(name: str, array: NDArray[Any]) -> list[str]:
    """A fault if numbers are not finite, and if a sum of products could be larger than 32 bits."""
    faults = _weight_faults(
        name, array, ~(np.abs(array) <= np.finfo(np.float32).max), "wanted finite float32 numbers, for int8"
    )
    if array.shape[1] > int8_weights.MOST_COLUMNS:
        wanted = f"at most {int8_weights.MOST_COLUMNS}, for int8: sums of products have 32 bits"
        faults.append(f"{name} has {array.shape[1]} columns, wanted {wanted}")
    return faults


def _weight_faults(name: str, array: NDArray[Any], wrong: NDArray[np.bool_], wanted: str) -> list[str]:
    """A fault that names the first of the weights that are wrong, and says how many there are."""
    places = np.argwhere(wrong)
    if not len(places):
        return []
    at = tuple(map(int, places[0]))
    fault = f"{name}[{', '.join(map(str, at))}] is {array[at]}, {wanted}"
    return [fault if len(places) == 1 else f"{fault} ({len(places)} weights are)"]


#: Weight dtypes that not every finite or infinite weight fits -> a function that gives faults of (name, array).
WEIGHT_FAULTS: dict[str, Callable[[str, NDArray[Any]], list[str]]] = {
    "float16": _float16_faults,
    "int8": _int8_faults,
}


def activations_of(kind: str, cell: CellSpec) -> tuple[Activation, ...]:
    """The cell's activations, or the defaults of its kind if it names none."""
    return cell.activations or tuple(Activation.of(name) for name in DEFAULT_ACTIVATIONS[kind])
