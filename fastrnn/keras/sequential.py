"""Recurrent layers one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray

from ..spec import WeightDtype
from .bidirectional import Bidirectional
from .masking import Masking
from .recurrent import Recurrent

Stacked = Recurrent | Bidirectional | Masking


class Sequential:
    """Layers one behind the other, of any sizes and kinds, as ``keras.Sequential`` of recurrent layers and Masking.

    A mask reaches every layer behind it, up to one that returns its last output alone, and Masking makes one.

    Parameters
    ----------
    layers : SimpleRNN, LSTM, GRU, Bidirectional and Masking of fastrnn.keras
        They are used as they are, not copied. All but the last recurrent layer return sequences, and nothing else.

    Raises
    ------
    TypeError, ValueError
        A layer is of another kind, or cannot be followed by the next; the message names it.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> weights = [np.ones((2, 9)), np.ones((3, 9)), np.ones((2, 9))]
    >>> first = fastrnn.keras.GRU(3, return_sequences=True, weights=weights)
    >>> last = fastrnn.keras.SimpleRNN(4, weights=[np.ones((3, 4)), np.ones((4, 4)), np.ones(4)])
    >>> model = fastrnn.keras.Sequential([fastrnn.keras.Masking(0.0), first, last])
    >>> model(np.ones((5, 7, 2))).shape
    (5, 4)
    """

    def __init__(self, layers: Sequence[Stacked]) -> None:
        if not isinstance(layers, list | tuple) or not layers:
            raise TypeError(f"layers is {layers!r}, wanted a list of layers")
        for i, layer in enumerate(layers):
            if not isinstance(layer, Stacked):
                kinds = "a SimpleRNN, LSTM, GRU, Bidirectional or Masking of fastrnn.keras"
                raise TypeError(f"layers[{i}] is {type(layer).__name__}, wanted {kinds}")
            if i == len(layers) - 1 or isinstance(layer, Masking):
                continue
            if not layer.return_sequences or layer.return_state or getattr(layer, "merge_mode", "concat") is None:
                raise ValueError(f"layers[{i}] does not return sequences alone, wanted so: another layer follows")
        self.layers = tuple(layers)

    def with_weight_dtype(self, weight_dtype: WeightDtype | None) -> Self:
        """A model of copies of the layers, with kernels kept in another type; see the layers' `weight_dtype`."""
        layers = [part if isinstance(part, Masking) else part.with_weight_dtype(weight_dtype) for part in self.layers]
        return type(self)(layers)

    def get_weights(self) -> list[NDArray[Any]]:
        """Copies of all layers' weights, in their order."""
        return [array for layer in self.layers if not isinstance(layer, Masking) for array in layer.get_weights()]

    def reset_state(self) -> None:
        """Let every stateful layer go back to a state of zeros."""
        for layer in self.layers:
            if not isinstance(layer, Masking):
                layer.reset_state()

    reset_states = reset_state

    def __call__(self, x: ArrayLike, mask: ArrayLike | None = None, training: bool = False) -> Any:
        """Run sequences.

        Parameters
        ----------
        x : (B, T, I) numbers
        mask : (B, T) as for the layers; a Masking layer replaces it for the layers behind it
        training : as for the layers

        Returns
        -------
        What the last layer returns.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit; the message says which, what was found and what was wanted.
        """
        y: Any = x
        before = [None if isinstance(layer, Masking) else layer.states for layer in self.layers]
        try:
            for layer in self.layers:
                if isinstance(layer, Masking):
                    mask = layer.compute_mask(y)
                    y = layer(y)
                else:
                    y = layer(y, mask=mask, training=training)
        except BaseException:
            for layer, states in zip(self.layers, before, strict=True):
                if not isinstance(layer, Masking):
                    _restore(layer, states)  # a failed call leaves no half of a new state
            raise
        return y


def _restore(layer: Recurrent | Bidirectional, states: list[NDArray[Any]] | None) -> None:
    if isinstance(layer, Bidirectional):
        count = layer.forward_layer.num_states
        layer.forward_layer.states = None if states is None else states[:count]
        layer.backward_layer.states = None if states is None else states[count:]
    else:
        layer.states = states
