"""PyTorch's modules around recurrent ones -> operations of a model. PyTorch itself is never imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..spec import Activation, LayerSpec
from .pytorch import KINDS, spec_from_module
from .pytorch_module import as_floating, weights_of

#: PyTorch's classes -> the names of ours, and the arrays that both have under one name.
OPERATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Embedding": ("Embedding", ("weight",)),
    "Linear": ("Linear", ("weight", "bias")),
    "Conv1d": ("Conv1d", ("weight", "bias")),
    "LayerNorm": ("LayerNorm", ("weight", "bias")),
    "BatchNorm1d": ("BatchNorm", ("running_mean", "running_var", "weight", "bias")),
    "Softmax": ("Softmax", ()),
    "LogSoftmax": ("LogSoftmax", ()),
}

ACTIVATIONS: dict[str, Callable[[Any], Activation]] = {
    "ReLU": lambda module: Activation.of("relu"),
    "Sigmoid": lambda module: Activation.of("sigmoid"),
    "Tanh": lambda module: Activation.of("tanh"),
    "Softsign": lambda module: Activation.of("softsign"),
    "Hardsigmoid": lambda module: Activation.of("hard_sigmoid", 1 / 6, 0.5),
    "LeakyReLU": lambda module: Activation.of("leaky_relu", module.negative_slope),
    "ELU": lambda module: Activation.of("elu", module.alpha),
    "Softplus": lambda module: Activation.of("softplus"),
    "Threshold": lambda module: Activation.of("thresholded_relu", module.threshold),
}

#: What an option of a module has to be, by class: name -> the only value.
WANTED: dict[str, dict[str, Any]] = {
    "Embedding": {"max_norm": None},
    "Conv1d": {"groups": 1, "padding_mode": "zeros"},
    "BatchNorm1d": {"track_running_stats": True},
    "Softplus": {"beta": 1},
    "Threshold": {"value": 0},
}

#: Modules that do nothing in ``eval()``.
NOTHING = ("Identity", "Dropout", "Dropout1d", "AlphaDropout", "FeatureAlphaDropout")

RECURRENT = tuple(name for name in KINDS if not name.endswith("Cell"))


class Operation(NamedTuple):
    """An operation of models/ops.py by its name, and the arguments of its constructor."""

    name: str
    arguments: dict[str, Any]


def operations_from_sequential(module: Any) -> list[Operation | LayerSpec | Activation]:
    """The operations of an ``nn.Sequential``, also nested, in ``eval()``.

    Raises
    ------
    TypeError, ValueError
        A module is of a class that no operation stands for, or one of its options has another value; the message lists
        every one of them.
    """
    if _class_of(module) != "Sequential":
        raise TypeError(f"module is {type(module).__name__}, wanted a torch.nn.Sequential")
    operations: list[Operation | LayerSpec | Activation] = []
    faults: list[str] = []
    _append(module, "", operations, faults)
    if faults:
        raise ValueError("; ".join(faults))
    return operations


def _append(module: Any, path: str, operations: list[Operation | LayerSpec | Activation], faults: list[str]) -> None:
    for name, child in module.named_children():
        kind, where = _class_of(child), f"{path}{name}"
        if kind == "Sequential":
            _append(child, f"{where}.", operations, faults)
        elif kind not in NOTHING:
            try:
                operations.append(operation_from_module(child))
            except (TypeError, ValueError) as error:
                faults.append(f"module {where}: {error}")


def operation_from_module(module: Any) -> Operation | LayerSpec | Activation:
    """The operation that a module of PyTorch (or of a subclass) stands for.

    Raises
    ------
    TypeError, ValueError
        There is none; the message says why.
    """
    kind = _class_of(module)
    if kind in RECURRENT:
        return spec_from_module(module)
    if kind not in OPERATIONS and kind not in ACTIVATIONS:
        known = ", ".join(("Sequential", *RECURRENT, *OPERATIONS, *ACTIVATIONS, *NOTHING))
        raise TypeError(f"{type(module).__name__} is not known, wanted a torch.nn module of {known}")
    faults = [
        f"{option} is {getattr(module, option)!r}, wanted {value!r}"
        for option, value in WANTED.get(kind, {}).items()
        if getattr(module, option, value) != value
    ]
    if kind in ("Softmax", "LogSoftmax") and module.dim not in (-1, 2):
        faults.append(f"dim is {module.dim}, wanted -1, the elements of a step's vector")
    if kind == "LayerNorm" and len(module.normalized_shape) != 1:
        faults.append(f"normalized_shape is {tuple(module.normalized_shape)}, wanted one axis")
    if faults:
        raise ValueError(f"{type(module).__name__}: {'; '.join(faults)}")
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind](module)
    name, arrays = OPERATIONS[kind]
    arguments: dict[str, Any] = {}
    weights = weights_of(module) if arrays else {}
    for array in arrays:
        if weights.get(array) is not None:
            try:
                arguments[array] = as_floating(weights[array], copy=True)
            except TypeError as error:
                raise TypeError(f"{array} is {error}, wanted a float32 or float64 array") from None
    if kind in ("LayerNorm", "BatchNorm1d"):
        arguments["eps"] = module.eps
    if kind == "Conv1d":
        padding = module.padding if isinstance(module.padding, str) else int(module.padding[0])
        arguments |= {"padding": padding, "stride": int(module.stride[0]), "dilation": int(module.dilation[0])}
    return Operation(name, arguments)


def _class_of(module: Any) -> str:
    """The name of a module's class in torch.nn, or of the first base class there; "" if there is none.

    "" as well for a subclass that has a forward of its own, unless it is of a recurrent module: those are subclassed to
    return y alone, so that they fit into an nn.Sequential.
    """
    is_changed = False
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.nn.modules."):
            return "" if is_changed and base.__name__ not in RECURRENT else base.__name__
        is_changed = is_changed or "forward" in vars(base)
    return ""
