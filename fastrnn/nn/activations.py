"""Activations as TensorFlow 1's cells take them: names, or functions, which are recognized by their values."""

from __future__ import annotations

from typing import Any

from ..functions import recognize
from ..spec import Activation

#: TensorFlow's activations by name, with its default parameters.
_BY_NAME: dict[str, Activation] = {
    **{
        name: Activation.of(name)
        for name in ("tanh", "relu", "sigmoid", "linear", "hard_sigmoid", "elu", "softsign", "softplus")
    },
    "leaky_relu": Activation.of("leaky_relu", 0.2),
}


def known_activation(activation: Any, name: str = "activation") -> Activation:
    """The engine's activation for a name, a function or None (tanh).

    Parameters
    ----------
    activation : str, callable or None
        A function is called on some float32 numbers and has to give the values of a known activation, as
        ``np.tanh``, ``tf.nn.relu`` and ``lambda x: np.maximum(x, 0)`` do.

    Raises
    ------
    TypeError, ValueError
        The engine does not have it.
    """
    if activation is None:
        return _BY_NAME["tanh"]
    if isinstance(activation, str):
        known = _BY_NAME.get(activation.lower())
    elif callable(activation):
        known = recognize(activation, _BY_NAME.values(), name)
    else:
        raise TypeError(f"{name} is {type(activation).__name__}, wanted a name, a function or None")
    if known is None:
        choices = ", ".join(sorted(_BY_NAME))
        raise ValueError(
            f"{name} is {activation!r}, wanted one of {choices}, or a function that computes one; "
            "for others write a cell"
        )
    return known
