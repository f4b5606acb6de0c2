"""Fields of Keras's configurations (parsed JSON), each checked; what is wrong is an error with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..spec import Activation
from .keras import ACTIVATIONS, KERAS_2_HARD_SIGMOID

#: Policies -> what the engine computes in. A policy of mixed precision has float32 weights.
POLICIES = {
    "bfloat16": "float32",
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
    "mixed_bfloat16": "float32",
    "mixed_float16": "float32",
}

#: Layers used as activations, and the names of their parameter.
_PARAMETRIC = {"ELU": ("elu", ("alpha",)), "LeakyReLU": ("leaky_relu", ("negative_slope", "alpha"))}

#: The packages that Keras's own classes are of.
OWN_MODULES = ("keras", "keras_core", "tensorflow", "tf_keras")

MOST_SIZE = 2**31 - 1  # such as a number of units, or a stride

_REQUIRED = object()


class Fault(ValueError):
    """A configuration is damaged."""


class Unsupported(ValueError):
    """A configuration is in order, but what it says is not read."""


#: Makes the exception of a reason, the layer's name before it.
Refusal = Callable[[str], Unsupported]


def get(config: Mapping[str, Any], key: str, wanted: Any, what: str, default: Any = _REQUIRED) -> Any:
    """A field of a configuration; bool is no int here.

    Raises
    ------
    Fault
        It is missing and has no default, or of another type.
    """
    value = config.get(key, default)
    if value is _REQUIRED:
        raise Fault(f"{key} is missing")
    if value is default:
        return value
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise Fault(f"{key} is {short(value)}, wanted {what}")
    return value


def get_flag(config: Mapping[str, Any], key: str, default: Any = _REQUIRED) -> bool:
    value: bool = get(config, key, bool, "true or false", default)
    return value


def get_number(config: Mapping[str, Any], key: str, default: Any = _REQUIRED) -> float:
    value = get(config, key, (int, float), "a number", default)
    try:
        return float(value)
    except OverflowError:
        raise Fault(f"{key} is {short(value)}, wanted a number within float64") from None


def get_size(config: Mapping[str, Any], key: str, default: Any = _REQUIRED) -> int:
    """An integer of at least 1; Keras writes those of one-dimensional layers also as lists of one."""
    value = config.get(key, default)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    size: int = get({key: value} if value is not _REQUIRED else {}, key, int, "an integer")
    if not 1 <= size <= MOST_SIZE:
        raise Fault(f"{key} is {short(size)}, wanted 1 to {MOST_SIZE}")
    return size


def get_object(config: Mapping[str, Any], key: str) -> tuple[str, Mapping[str, Any]]:
    """Class name and configuration of an object inside a configuration."""
    value: Any = config.get(key)
    class_name = value.get("class_name") if isinstance(value, Mapping) else None
    inner = value.get("config") if isinstance(value, Mapping) else None
    if not isinstance(class_name, str) or not isinstance(inner, Mapping):
        raise Fault(f"{key} is {short(value)}, wanted class_name and config")
    return custom_name(value) or class_name, inner


def custom_name(entry: Mapping[str, Any]) -> str | None:
    """The full name of a class that is none of Keras's layers and models; None if it is one of them."""
    registered, module = entry.get("registered_name"), entry.get("module")
    if isinstance(registered, str) and ">" in registered:
        return registered
    is_own = module is None or (isinstance(module, str) and module.split(".")[0] in OWN_MODULES)
    return None if is_own else f"{module}>{entry.get('class_name')}"[:80]


def major_of(config: Mapping[str, Any], major: int | None) -> int | None:
    """Keras's major version, of the file or by options that one version alone writes."""
    if major is not None:
        return major
    if "time_major" in config or "implementation" in config:
        return 2
    dtype = config.get("dtype")
    is_new = isinstance(dtype, Mapping) and dtype.get("class_name") == "DTypePolicy"
    return 3 if is_new or "zero_output_for_mask" in config or "seed" in config else None


def major_version(version: str | None) -> int | None:
    """2 of "2.15.0" or "2.4.3-tf"; None if it is no version."""
    match = re.match(r"(\d{1,3})(\.|$)", version) if isinstance(version, str) else None
    return int(match[1]) if match else None


def activation_of(
    value: Any, name: str, major: int | None, unsupported: Refusal, others: tuple[str, ...] = ()
) -> Activation:
    """An activation as a configuration has it: a name, null, or a layer that is used as a function.

    others : names that the caller reads itself, for the message
    """

    def unknown() -> Unsupported:
        return unsupported(f"has {name} {short(value)}, wanted one of {', '.join(sorted({*ACTIVATIONS, *others}))}")

    if value is None:
        return ACTIVATIONS["linear"]
    if isinstance(value, Mapping):
        class_name, config = value.get("class_name"), value.get("config")
        if value.get("registered_name") in (None, class_name) and isinstance(config, Mapping):
            known = activation_layer(class_name, config)
            if known is not None:
                return known
        raise unknown()
    if not isinstance(value, str):
        raise Fault(f"{name} is {short(value)}, wanted a name")
    if value == "hard_sigmoid":
        if major is None:
            raise unsupported(
                f"has {name} hard_sigmoid, which is clip(0.2 x + 0.5) in Keras 2 and clip(x / 6 + 0.5) in Keras 3, and "
                "nothing tells which saved the file: put 'keras_version' into config"
            )
        return KERAS_2_HARD_SIGMOID if major == 2 else ACTIVATIONS["hard_sigmoid"]
    if value not in ACTIVATIONS:
        raise unknown()
    return ACTIVATIONS[value]


def activation_layer(class_name: Any, config: Mapping[str, Any]) -> Activation | None:
    """The activation of a layer of class ELU, LeakyReLU or ReLU; None if it is another one, or has other options."""
    if isinstance(class_name, str) and class_name in _PARAMETRIC:
        ours, parameters = _PARAMETRIC[class_name]
        given = [key for key in parameters if key in config]
        return Activation.of(ours, get_number(config, given[0])) if given else None
    others = config.get("max_value") is not None or config.get("negative_slope") or config.get("threshold")
    return ACTIVATIONS["relu"] if class_name == "ReLU" and not others else None


def dtype_of(config: Mapping[str, Any], unsupported: Refusal) -> str | None:
    """What a layer computes in, "float32" or "float64"; None where the configuration is older than the option."""
    dtype = config.get("dtype")
    if isinstance(dtype, Mapping) and isinstance(dtype.get("config"), Mapping):
        dtype = dtype["config"].get("name")
    if dtype is None:
        return None
    if not isinstance(dtype, str) or dtype not in POLICIES:
        raise unsupported(f"has dtype {short(config.get('dtype'))}, wanted one of {', '.join(sorted(POLICIES))}")
    return POLICIES[dtype]


def short(value: Any) -> str:
    """repr of a value of a file, short enough for a message."""
    if isinstance(value, list | Mapping) and len(value) > 20:
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"an object with {', '.join(sorted(map(str, value)))[:80]}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 90 else f"{text[:90]}..."
