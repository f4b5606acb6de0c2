"""Activations as TensorFlow 1's cells take them: names, or functions that are known by what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import Activation

#: What TensorFlow computes under each name, with its default parameters.
_FUNCTIONS: dict[str, tuple[Activation, Callable[[NDArray[Any]], Any]]] = {
    "tanh": (Activation.of("tanh"), np.tanh),
    "relu": (Activation.of("relu"), lambda x: np.maximum(x, 0)),
    "sigmoid": (Activation.of("sigmoid"), lambda x: np.exp(-np.logaddexp(0, -x))),
    "linear": (Activation.of("linear"), lambda x: x),
    "hard_sigmoid": (Activation.of("hard_sigmoid", 0.2, 0.5), lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "leaky_relu": (Activation.of("leaky_relu", 0.2), lambda x: np.where(x >= 0, x, 0.2 * x)),
    "elu": (Activation.of("elu"), lambda x: np.where(x >= 0, x, np.expm1(np.minimum(x, 0)))),
    "softsign": (Activation.of("softsign"), lambda x: x / (1 + np.abs(x))),
    "softplus": (Activation.of("softplus"), lambda x: np.logaddexp(0, x)),
}

#: Where no two of them agree, nor any with a variant that clips or scales.
_PROBES = np.array([0, 1e-3, 0.1, 0.5, 1, 2, 3, 5, 8, 30, 1e3], np.float32)
_PROBES = np.concatenate([-_PROBES[:0:-1], _PROBES])


def known_activation(activation: Any, name: str = "activation") -> Activation:
    """The engine's activation for a name, a function or None (tanh).

    Parameters
    ----------
    activation : str, callable or None
        A function is called on some float32 numbers, and has to compute what a known activation does:
        ``np.tanh``, ``tf.nn.relu`` and ``lambda x: np.maximum(x, 0)`` are all understood.

    Raises
    ------
    TypeError, ValueError
        It is none that the engine has.
    """
    if activation is None:
        return _FUNCTIONS["tanh"][0]
    if isinstance(activation, str):
        key = activation.lower()
        if key in _FUNCTIONS:
            return _FUNCTIONS[key][0]
    elif callable(activation):
        try:
            with np.errstate(all="ignore"):
                found = np.asarray(activation(_PROBES.copy()), np.float64)
        except Exception as error:
            raise TypeError(f"{name} is {activation!r}, which failed on a float32 array: {error}") from error
        for known, function in _FUNCTIONS.values():
            wanted = function(_PROBES.astype(np.float64))
            if found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-5, atol=1e-6):
                return known
    else:
        raise TypeError(f"{name} is {type(activation).__name__}, wanted a name, a function or None")
    choices = ", ".join(sorted(_FUNCTIONS))
    raise ValueError(f"{name} is {activation!r}, wanted what computes one of {choices}; or a cell of your own")
