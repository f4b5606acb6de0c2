"""Keras's recurrent layers and their weights -> LayerSpec. Keras itself is never imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..functions import recognize
from ..spec import NUM_GATES, Activation, CellKind, CellSpec, LayerSpec
from .gate_orders import reorder_gates

ActivationLike = str | Activation | Callable[[Any], Any] | None

#: The activations of Keras 3 that the engine has, with Keras's parameters where they differ from ONNX's.
ACTIVATIONS: dict[str, Activation] = {
    **{name: Activation.of(name) for name in ("elu", "linear", "relu", "sigmoid", "softplus", "softsign", "tanh")},
    "hard_sigmoid": Activation.of("hard_sigmoid", 1 / 6, 0.5),
    "leaky_relu": Activation.of("leaky_relu", 0.2),
}

#: The hard_sigmoid of Keras 2, which has another slope.
KERAS_2_HARD_SIGMOID = Activation.of("hard_sigmoid", 0.2, 0.5)

#: The activations that a given function is compared with; they include the leaky_relu of JAX and PyTorch.
_AS_FUNCTIONS = (*ACTIVATIONS.values(), KERAS_2_HARD_SIGMOID, Activation.of("leaky_relu", 0.01))

KINDS: dict[str, CellKind] = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}

WEIGHTS = ("kernel", "recurrent_kernel", "bias")

#: The entries of a live layer's configuration that are passed to its counterpart here, besides the activations.
OPTIONS = (
    "units",
    "use_bias",
    "reset_after",
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "zero_output_for_mask",
    "dropout",
    "recurrent_dropout",
)


def activation_of(value: ActivationLike, name: str) -> Activation:
    """The activation of a name of Keras 3, or that a function computes; None is linear, as in Keras.

    Raises
    ------
    TypeError
        A function failed on a float32 array.
    ValueError
        The engine does not have it; the message lists those that it has.
    """
    if isinstance(value, Activation):
        return value
    known = None
    if value is None:
        known = ACTIVATIONS["linear"]
    elif isinstance(value, str):
        known = ACTIVATIONS.get(value)
    elif callable(value):
        known = recognize(value, _AS_FUNCTIONS, name)
    if known is None:
        raise ValueError(
            f"{name} is {value!r}, wanted None, an Activation, one of {', '.join(sorted(ACTIVATIONS))}, "
            "or a function that computes one of them"
        )
    return known


def spec_from_weights(
    kind: CellKind,
    weights: Sequence[NDArray[Any]],
    units: int,
    *,
    activation: Activation,
    recurrent_activation: Activation,
    use_bias: bool = True,
    reset_after: bool = True,
    dtype: DTypeLike = np.float32,
) -> LayerSpec:
    """Describe one layer from what Keras's ``get_weights()`` gives.

    Parameters
    ----------
    kind : "lstm", "gru" or "rnn"
    weights : kernel (I, G*H), recurrent_kernel (H, G*H) and, with use_bias, bias
        Gates in Keras's order; H is `units`. The bias is (G*H,), or (2, G*H), input and recurrent, for a GRU that
        resets after the matmul. Copied as `dtype`.
    activation, recurrent_activation : of the candidate (and the LSTM's output), and of the gates
    reset_after : whether a GRU resets after the matmul

    Raises
    ------
    TypeError, ValueError
        Weights are missing or surplus, have the wrong shape or are not numbers; one message lists them all.
    """
    names = WEIGHTS[: 3 if use_bias else 2]
    if len(weights) != len(names):
        raise ValueError(f"weights has {len(weights)} entries, wanted {len(names)}: {', '.join(names)}")
    wrong = [
        f"{name} is of type {array.dtype}, wanted numbers"
        for name, array in zip(names, weights, strict=True)
        if array.dtype.kind not in "fiu"
    ]
    if wrong:
        raise TypeError("; ".join(wrong))
    columns = NUM_GATES[kind] * units
    two_biases = kind == "gru" and reset_after
    shapes = ((*weights[0].shape[:1], columns), (units, columns), (2, columns) if two_biases else (columns,))
    faults = [
        f"{name} has shape {array.shape}, wanted {shape}"
        for name, array, shape in zip(names, weights, shapes, strict=False)
        if array.shape != shape
    ]
    if faults:
        raise ValueError("; ".join(faults))

    def reordered(array: NDArray[Any]) -> NDArray[Any]:
        """Copy (..., G*H) with the gates in PyTorch's order."""
        return reorder_gates(array, kind, source="keras", axis=-1).astype(dtype, copy=False)  # a copy already

    biases = [*np.atleast_2d(reordered(weights[2])), None] if use_bias else [None, None]
    activations = {
        "lstm": (recurrent_activation, recurrent_activation, activation, recurrent_activation, activation),
        "gru": (recurrent_activation, recurrent_activation, activation),
        "rnn": (activation,),
    }[kind]
    cell = CellSpec(
        weight_ih=np.ascontiguousarray(reordered(weights[0]).T),
        weight_hh=np.ascontiguousarray(reordered(weights[1]).T),
        bias_ih=biases[0],
        bias_hh=biases[1],
        activations=activations,
        linear_before_reset=reset_after,
    )
    return LayerSpec(kind, [cell], weights[0].shape[0], units).validate()


def read_layer(layer: Any) -> tuple[CellKind, dict[str, Any], list[NDArray[Any]]]:
    """Kind, constructor's arguments and weights of a live ``SimpleRNN``, ``LSTM`` or ``GRU`` of Keras 2 or 3.

    Raises
    ------
    TypeError
        It is another kind of layer.
    ValueError
        It has no weights yet.
    """
    kinds = [KINDS[base.__name__] for base in type(layer).__mro__ if base.__name__ in KINDS]
    if not kinds or not callable(getattr(layer, "get_weights", None)):
        raise TypeError(f"layer is {type(layer).__name__}, wanted a Keras SimpleRNN, LSTM or GRU")
    config, weights = layer.get_config(), layer.get_weights()
    if not weights:
        raise ValueError("layer has no weights yet, wanted a layer that was built or called")
    options = {option: config[option] for option in OPTIONS if option in config}
    # Bidirectional sets the flag on the live layer.
    options["zero_output_for_mask"] = bool(getattr(layer, "zero_output_for_mask", False))
    is_keras_2 = type(layer).__module__.split(".")[0] in ("tf_keras", "tensorflow")
    for key in ("activation", "recurrent_activation"):
        if key in config:
            value = config[key]
            if isinstance(value, dict):  # a custom function or a layer: take the live layer's own object
                value = getattr(layer, key)
            options[key] = KERAS_2_HARD_SIGMOID if is_keras_2 and value == "hard_sigmoid" else value
    return kinds[0], options, weights
