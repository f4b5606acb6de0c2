"""Keras's layers beside the recurrent ones, as configurations have them -> operations of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from ..models.ops import (
    BatchNorm,
    Conv1d,
    Embedding,
    LayerNorm,
    Linear,
    LogSoftmax,
    Max,
    Mean,
    Pool,
    Softmax,
)
from ..models.spec import AnyOp
from .keras_fields import (
    Fault,
    Refusal,
    activation_layer,
    activation_of,
    dtype_of,
    get,
    get_flag,
    get_number,
    get_object,
    get_size,
    major_of,
    short,
)

#: A weight of Keras: its name, and the size of each axis, None where it is the width of a step's vector before.
Array = tuple[str, tuple[int | None, ...]]

Weights = Mapping[str, NDArray[Any]]

#: Layers that pass numbers and masks on at inference as they are, but for Identity of Keras 2, which passes on no mask.
IDENTITIES = frozenset(
    (
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "InputLayer",
        "SpatialDropout1D",
    )
)

#: Activations of the whole vector of a step, by Keras's names.
VECTOR_ACTIVATIONS: dict[str, AnyOp] = {"softmax": Softmax(), "log_softmax": LogSoftmax()}


class WeightGroup(NamedTuple):
    """Weights that a file has together: Keras 3's HDF5 group, and Keras's names of them in the order of the file."""

    place: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """One of Keras's layers that is no recurrent one.

    Attributes
    ----------
    names : the layer's name, after those of the models that contain it
    class_name : as in Keras, such as ``Dense``
    group : its own place in Keras 3's files, such as ``layers/dense_1``
    dtype : "float32" or "float64"; None where the configuration is older than the option
    make : gives the operations for weights as Keras has them, which it does not copy
    arrays : its weights
    place : where its weights are in Keras 3's files, from its own place on
    output_size : width of a step's vector after it; None: as before it
    axis : the axis that it works on, as Keras numbers them; None: the last one, or any
    mask : whether it passes a mask on, makes one, uses one and passes none on, ignores it and passes none on,
        ends it and does nothing else, or cannot be called with one
    needs_steps : whether it does not take one vector for each row
    """

    names: tuple[str, ...]
    class_name: str
    group: str
    dtype: str | None
    make: Callable[[Weights], list[AnyOp]]
    arrays: tuple[Array, ...] = ()
    place: str = "vars"
    output_size: int | None = None
    axis: int | None = None
    mask: Literal["passes", "makes", "uses", "ignores", "ends", "fails"] = "passes"
    needs_steps: bool = False

    @property
    def name(self) -> str:
        return "/".join(self.names)

    @property
    def weights(self) -> tuple[WeightGroup, ...]:
        group = WeightGroup(f"{self.group}/{self.place}", tuple(name for name, _ in self.arrays))
        return (group,) if self.arrays else ()

    @property
    def pools(self) -> bool:
        """Whether each row has one vector after it."""
        return self.class_name in POOLS

    @property
    def combines_steps(self) -> bool:
        """Whether a result depends on several steps."""
        return self.class_name in ("Conv1D", *POOLS)


def read_operation(
    class_name: str,
    config: Mapping[str, Any],
    names: tuple[str, ...],
    group: str,
    major: int | None,
    unsupported: Refusal,
) -> Operation | None:
    """Read a layer's configuration; None if there is no operation for its class.

    Parameters
    ----------
    class_name, names, group : as of the Operation
    major : Keras's major version, None if it is not known
    unsupported : makes the exception of a reason

    Raises
    ------
    Fault, Unsupported
        The configuration is damaged, or an option is not read.
    """
    if class_name == "TimeDistributed":
        return _time_distributed(config, names, group, major, unsupported)
    if class_name not in _READERS:
        return None
    operation = partial(Operation, names, class_name, group, dtype_of(config, unsupported))
    return _READERS[class_name](operation, config, major_of(config, major), unsupported)


#: Makes an Operation of the arguments from `make` on.
_Make = Callable[..., Operation]


def _time_distributed(
    config: Mapping[str, Any], names: tuple[str, ...], group: str, major: int | None, unsupported: Refusal
) -> Operation:
    class_name, inner = get_object(config, "layer")
    if class_name in IDENTITIES:
        return Operation(names, "TimeDistributed", group, None, lambda _: [], needs_steps=True)
    found = read_operation(class_name, inner, names, group, major, unsupported) if class_name in POINTWISE else None
    if found is None:
        raise unsupported(f"has a layer of class {class_name!r}, which is not read")
    axis = -1 if found.axis == 1 else found.axis  # 1 is the last one of (rows, elements)
    return replace(found, class_name="TimeDistributed", place="layer/vars", axis=axis, needs_steps=True)


def _dense(operation: _Make, config: Mapping[str, Any], major: int | None, unsupported: Refusal) -> Operation:
    units = get_size(config, "units")
    after = _activations(config, major, unsupported)

    def make(weights: Weights) -> list[AnyOp]:
        return [Linear(weights["kernel"].T, weights.get("bias")), *after]

    return operation(make, _with_bias(config, (None, units)), output_size=units)


def _conv1d(operation: _Make, config: Mapping[str, Any], major: int | None, unsupported: Refusal) -> Operation:
    filters, size = get_size(config, "filters"), get_size(config, "kernel_size")
    stride, dilation = get_size(config, "strides", 1), get_size(config, "dilation_rate", 1)
    padding: Any = get(config, "padding", str, "a text", "valid")
    after = _activations(config, major, unsupported)
    reasons = _channels(config)
    if (groups := get_size(config, "groups", 1)) != 1:
        reasons.append(f"has groups {groups}, wanted 1")
    if padding not in ("valid", "same", "causal"):
        raise Fault(f"padding is {short(padding)}, wanted valid, same or causal")
    if padding == "same" and stride > 1:
        reasons.append(f"has padding 'same' with strides {stride}, where the zeros depend on the length, wanted 1")
    if reasons:
        raise unsupported(" and ".join(reasons))

    def make(weights: Weights) -> list[AnyOp]:
        kernel = weights["kernel"].transpose(2, 1, 0)
        return [Conv1d(kernel, weights.get("bias"), stride, padding, dilation), *after]

    arrays = _with_bias(config, (size, None, filters))
    return operation(make, arrays, output_size=filters, mask="ignores", needs_steps=True)


def _embedding(operation: _Make, config: Mapping[str, Any], major: int | None, unsupported: Refusal) -> Operation:
    rows, columns = get_size(config, "input_dim"), get_size(config, "output_dim")
    mask_zero = get_flag(config, "mask_zero", False)

    def make(weights: Weights) -> list[AnyOp]:
        return [Embedding(weights["embeddings"], mask_zero)]

    arrays = (("embeddings", (rows, columns)),)
    return operation(make, arrays, output_size=columns, mask="makes" if mask_zero else "passes", needs_steps=True)


def _batch_norm(operation: _Make, config: Mapping[str, Any], major: int | None, unsupported: Refusal) -> Operation:
    eps, affine = _epsilon(config), _affine(config)
    if config.get("renorm") not in (None, False):
        raise unsupported("has renorm, which is not read")

    def make(weights: Weights) -> list[AnyOp]:
        mean, variance = weights["moving_mean"], weights["moving_variance"]
        return [BatchNorm(mean, variance, weights.get("gamma"), weights.get("beta"), eps)]

    arrays = (*affine, ("moving_mean", (None,)), ("moving_variance", (None,)))
    return operation(make, arrays, axis=_axis(config, unsupported))


def _layer_norm(operation: _Make, config: Mapping[str, Any], major: int | None, unsupported: Refusal) -> Operation:
    eps = _epsilon(config)
    if config.get("rms_scaling") not in (None, False):
        raise unsupported("has rms_scaling, which is not read")

    def make(weights: Weights) -> list[AnyOp]:
        return [LayerNorm(weights.get("gamma"), weights.get("beta"), eps)]

    return operation(make, _affine(config), axis=_axis(config, unsupported))


def _activation(operation: _Make, config: Mapping[str, Any], major: int | None, unsupported: Refusal) -> Operation:
    after = _activations(config, major, unsupported)
    return operation(lambda _: list(after))


def _named_activation(
    class_name: str, operation: _Make, config: Mapping[str, Any], major: int | None, unsupported: Refusal
) -> Operation:
    activation = activation_layer(class_name, config)
    if activation is None:
        options = ", ".join(key for key in ("max_value", "negative_slope", "threshold") if config.get(key))
        raise unsupported(f"has {options or 'no parameter'}, which is not read")
    return operation(lambda _: [activation])


def _softmax(operation: _Make, config: Mapping[str, Any], major: int | None, unsupported: Refusal) -> Operation:
    return operation(lambda _: [Softmax()], axis=_axis(config, unsupported), mask="fails")


def _pooling(
    pool: Pool,
    mask: Literal["uses", "ignores"],
    operation: _Make,
    config: Mapping[str, Any],
    major: int | None,
    unsupported: Refusal,
) -> Operation:
    reasons = _channels(config)
    if get_flag(config, "keepdims", False):
        reasons.append("has keepdims, which is not read")
    if reasons:
        raise unsupported(" and ".join(reasons))
    return operation(lambda _: [pool], mask=mask, needs_steps=True)


def _activations(config: Mapping[str, Any], major: int | None, unsupported: Refusal) -> list[AnyOp]:
    value = config.get("activation")
    if isinstance(value, str) and value in VECTOR_ACTIVATIONS:
        return [VECTOR_ACTIVATIONS[value]]
    found = activation_of(value, "activation", major, unsupported, tuple(VECTOR_ACTIVATIONS))
    return [] if found.name == "linear" else [found]


def _with_bias(config: Mapping[str, Any], kernel: tuple[int | None, ...]) -> tuple[Array, ...]:
    """A kernel, its output's width last, and its bias if there is one."""
    bias: Array = ("bias", kernel[-1:])
    return (("kernel", kernel), bias) if get_flag(config, "use_bias", True) else (("kernel", kernel),)


def _affine(config: Mapping[str, Any]) -> tuple[Array, ...]:
    options = (("gamma", "scale"), ("beta", "center"))
    return tuple((name, (None,)) for name, option in options if get_flag(config, option, True))


def _epsilon(config: Mapping[str, Any]) -> float:
    eps = get_number(config, "epsilon", 1e-3)
    if not 0 <= eps <= 1:
        raise Fault(f"epsilon is {eps}, wanted 0 to 1")
    return eps


def _axis(config: Mapping[str, Any], unsupported: Refusal) -> int:
    axis = config.get("axis", -1)
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    if isinstance(axis, list):
        raise unsupported(f"has axis {short(axis)}, wanted the last one")
    found: int = get({"axis": axis}, "axis", int, "an integer")
    return found


def _channels(config: Mapping[str, Any]) -> list[str]:
    order = config.get("data_format")
    return [] if order in (None, "channels_last") else [f"has data_format {short(order)}, wanted channels_last"]


#: Keras's classes -> what reads them: (operation, configuration, major version, unsupported).
_READERS: dict[str, Callable[[_Make, Mapping[str, Any], int | None, Refusal], Operation]] = {
    "Activation": _activation,
    "BatchNormalization": _batch_norm,
    "Conv1D": _conv1d,
    "Dense": _dense,
    "Embedding": _embedding,
    "GlobalAveragePooling1D": partial(_pooling, Mean(), "uses"),
    "GlobalMaxPooling1D": partial(_pooling, Max(), "ignores"),
    "LayerNormalization": _layer_norm,
    "Softmax": _softmax,
    **{name: partial(_named_activation, name) for name in ("ELU", "LeakyReLU", "ReLU")},
}

POOLS = ("GlobalAveragePooling1D", "GlobalMaxPooling1D")

#: Classes that compute each step's vector alone, which TimeDistributed may contain.
POINTWISE = tuple(name for name in _READERS if name not in ("Conv1D", "Embedding", *POOLS))
