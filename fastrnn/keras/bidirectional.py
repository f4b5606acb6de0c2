"""Bidirectional: two layers over one sequence, one from each end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import layers as engine
from ..spec import WeightDtype
from .recurrent import (
    PolicyLike,
    Recurrent,
    as_arrays,
    cast,
    check_dtype,
    from_keras,
    join_states,
    refuse_unknown,
    split_states,
)

MergeMode = Literal["concat", "sum", "ave", "mul"] | None


class Bidirectional:
    """Run a layer and another that goes backwards, and merge their outputs, as ``keras.layers.Bidirectional``.

    Both layers are copied. As in Keras, `zero_output_for_mask` of the copies equals their `return_sequences`: in
    sequences, masked steps are zeros.

    Parameters
    ----------
    layer : SimpleRNN, LSTM or GRU that goes forward
    merge_mode : {"concat", "sum", "ave", "mul", None}
        How the two outputs are merged; None keeps both. To be added or multiplied, both need the same units.
    weights : what `set_weights` takes
    backward_layer : of any kind, size and weights, with go_backwards; None for one like `layer`, without weights
        `stateful`, `return_sequences` and `return_state` must be those of `layer`.
    dtype : float32, float64, a policy of Keras or its configuration; None for the layers' own
        x and the initial states are cast to it before the layers cast them to theirs, and the outputs before they are
        merged. Final states have the layers' dtype.
    **unused : accepted and ignored, as for the layers

    Raises
    ------
    TypeError, ValueError
        An argument does not fit; the message says which, what was found and what was wanted.

    Examples
    --------
    >>> import fastrnn
    >>> weights = [np.ones((2, 9)), np.ones((3, 9)), np.zeros((2, 9))]
    >>> both = fastrnn.keras.Bidirectional(fastrnn.keras.GRU(3, return_sequences=True), weights=weights + weights)
    >>> both(np.ones((4, 5, 2))).shape
    (4, 5, 6)
    """

    def __init__(
        self,
        layer: Recurrent,
        merge_mode: MergeMode = "concat",
        weights: Sequence[ArrayLike] | None = None,
        backward_layer: Recurrent | None = None,
        *,
        dtype: PolicyLike = None,
        **unused: Any,
    ) -> None:
        refuse_unknown(unused, "Bidirectional")
        _check_layer(layer, "layer")
        if merge_mode is not None and (not isinstance(merge_mode, str) or merge_mode not in MERGERS):
            raise ValueError(f"merge_mode is {merge_mode!r}, wanted None or one of {', '.join(MERGERS)}")
        if backward_layer is None:
            backward_layer = layer.without_weights()
            backward_layer.go_backwards = True
        else:
            _check_layer(backward_layer, "backward_layer")
        if layer.go_backwards or not backward_layer.go_backwards:
            found = f"{layer.go_backwards} and {backward_layer.go_backwards}"
            raise ValueError(f"go_backwards of layer and backward_layer is {found}, wanted False and True")
        for name in ("stateful", "return_sequences", "return_state"):
            ours, theirs = getattr(layer, name), getattr(backward_layer, name)
            if ours != theirs:
                raise ValueError(f"backward_layer.{name} is {theirs}, wanted {ours} as of layer")
        if layer.units != backward_layer.units and merge_mode not in ("concat", None):
            found = f"{layer.units} and {backward_layer.units} units"
            raise ValueError(f"merge_mode is {merge_mode!r}, but the layers have {found}: wanted 'concat' or None")
        self.merge_mode, self.dtype = merge_mode, None if dtype is None else check_dtype(dtype)
        self.forward_layer, self.backward_layer = copy.copy(layer), copy.copy(backward_layer)
        for part in (self.forward_layer, self.backward_layer):
            part.states = None
            part.zero_output_for_mask = part.return_sequences
        self.return_sequences, self.return_state = layer.return_sequences, layer.return_state
        self._joined: tuple[tuple[Any, Any], engine.Layer | None] | None = None
        if weights is not None:
            self.set_weights(weights)

    @classmethod
    def from_keras(cls, layer: Any) -> Self:
        """Convert a live, built ``Bidirectional`` of Keras, with both its layers and their weights.

        Raises
        ------
        TypeError, ValueError
            It is another kind of layer, or one of its two layers cannot be converted.
        """
        parts = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer")]
        if None in parts:
            raise TypeError(f"layer is {type(layer).__name__}, wanted a Keras Bidirectional")
        forward, backward = (from_keras(part) for part in parts)
        return cls(forward, layer.merge_mode, backward_layer=backward, dtype=getattr(layer, "compute_dtype", None))

    def with_weight_dtype(self, weight_dtype: WeightDtype | None) -> Self:
        """A copy with both layers' kernels kept in another type; see the layers' `weight_dtype`."""
        other = copy.copy(self)
        other.forward_layer = self.forward_layer.with_weight_dtype(weight_dtype)
        other.backward_layer = self.backward_layer.with_weight_dtype(weight_dtype)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for a copy or a pickle, without the engine's layer, which the copy builds itself."""
        layers = {name: copy.copy(getattr(self, name)) for name in ("forward_layer", "backward_layer")}
        return vars(self) | layers | {"_joined": None}

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Copy weights: the forward layer's, followed by the backward layer's.

        Raises
        ------
        TypeError, ValueError
            Weights are missing or surplus, or have the wrong shape; the message names them.
        """
        arrays = as_arrays(weights)
        counts = [len(part.weight_names) for part in (self.forward_layer, self.backward_layer)]
        if len(arrays) != sum(counts):
            raise ValueError(f"weights has {len(arrays)} entries, wanted {counts[0]} and {counts[1]}")
        forward, backward = copy.copy(self.forward_layer), copy.copy(self.backward_layer)
        forward.set_weights(arrays[: counts[0]])
        backward.set_weights(arrays[counts[0] :])
        self.forward_layer, self.backward_layer = forward, backward

    def get_weights(self) -> list[NDArray[Any]]:
        """Copies of what `set_weights` took."""
        return self.forward_layer.get_weights() + self.backward_layer.get_weights()

    @property
    def states(self) -> list[NDArray[Any]] | None:
        """The forward layer's states and the backward layer's, None before the first call of a stateful layer."""
        forward, backward = self.forward_layer.states, self.backward_layer.states
        return None if forward is None or backward is None else forward + backward

    def reset_state(self) -> None:
        """Set the states to zeros, if there are states."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    reset_states = reset_state

    def __call__(
        self,
        x: ArrayLike,
        initial_state: Sequence[ArrayLike] | None = None,
        mask: ArrayLike | None = None,
        training: bool = False,
    ) -> Any:
        """Run sequences.

        Parameters
        ----------
        x, mask, training : as for the layers
        initial_state : list of the forward layer's states, followed by the backward layer's; None for zeros

        Returns
        -------
        output : the merged outputs, (B, H) or (B, T, H), with the H of both layers concatenated for "concat"
            With merge_mode None the two outputs; sequences of both are in the order of x. With return_state the
            states follow, the forward layer's first, in one flat tuple.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit; the message says which, what was found and what was wanted.
        """
        if self.dtype is not None:
            x = cast(x, "x", self.dtype)
        states = self._split_state(initial_state)
        directions = self._directions()
        if directions is None:
            forward, backward, final = self._run_apart(x, states, mask, training)
            outputs = self._merge(self._cast(forward), self._cast(backward))
        else:
            both, final = self._run_together(directions, x, states, mask, training)
            both = self._cast(both)
            outputs = (both,) if self.merge_mode == "concat" else self._merge(*np.split(both, 2, axis=-1))
        results = (*outputs, *final) if self.return_state else outputs
        return results if len(results) > 1 else results[0]

    def _cast(self, output: NDArray[Any]) -> NDArray[Any]:
        return output if self.dtype is None else cast(output, "output", self.dtype)

    def _merge(self, forward: NDArray[Any], backward: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        return (forward, backward) if self.merge_mode is None else (MERGERS[self.merge_mode](forward, backward),)

    def _directions(self) -> engine.Layer | None:
        """The two layers as one engine layer, which is faster; None if they differ in kind or size."""
        weights = (self.forward_layer._weights, self.backward_layer._weights)
        if self._joined is None or any(a is not b for a, b in zip(self._joined[0], weights, strict=True)):
            self._joined = (weights, _join(self.forward_layer, self.backward_layer) if all(weights) else None)
        return self._joined[1]

    def _run_together(
        self, directions: engine.Layer, x: Any, states: tuple[Any, Any], mask: Any, training: bool
    ) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        """Concatenated outputs of both, (B, T, 2H) or (B, 2H), and all final states."""
        forward, backward = self.forward_layer, self.backward_layer
        steps, first, counted = forward.prepare(x, states[0], mask, training)
        _, second, _ = backward.prepare(steps, states[1], None, training)
        state = None
        if first or second:
            zeros = [np.zeros((len(steps), forward.units), forward.dtype)] * forward.num_states
            state = join_states([np.stack(pair) for pair in zip(first or zeros, second or zeros, strict=True)])
        y, last = directions(steps, state, mask=counted, past_end="zero")
        parts = split_states(last)
        final = [[part[direction] for part in parts] for direction in (0, 1)]
        forward.keep(final[0])
        backward.keep(final[1])
        if not self.return_sequences:
            y = np.concatenate([final[0][0], final[1][0]], axis=-1)
            has_steps = np.ones(steps.shape[:2], bool) if counted is None else counted
            y[~has_steps.any(axis=1)] = 0
        return y, final[0] + final[1]

    def _run_apart(
        self, x: Any, states: tuple[Any, Any], mask: Any, training: bool
    ) -> tuple[NDArray[Any], NDArray[Any], list[NDArray[Any]]]:
        """The forward layer's output, the backward layer's in the order of x, and all final states."""
        before = self.forward_layer.states
        try:
            forward, *first = as_tuple(self.forward_layer(x, states[0], mask, training))
            backward, *second = as_tuple(self.backward_layer(x, states[1], mask, training))
        except BaseException:
            self.forward_layer.states = before  # a failed call must not change one of the two states
            raise
        return forward, backward[:, ::-1] if self.return_sequences else backward, first + second

    def _split_state(self, initial_state: Any) -> tuple[Any, Any]:
        if initial_state is None:
            return None, None
        first, second = self.forward_layer.num_states, self.backward_layer.num_states
        if not isinstance(initial_state, list | tuple) or len(initial_state) != first + second:
            found = f"{len(initial_state)} entries" if isinstance(initial_state, list | tuple) else "no list"
            raise ValueError(f"initial_state has {found}, wanted {first} of layer and {second} of backward_layer")
        if self.dtype is not None:
            initial_state = [cast(part, f"initial_state[{i}]", self.dtype) for i, part in enumerate(initial_state)]
        return initial_state[:first], initial_state[first:]


MERGERS: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "concat": lambda forward, backward: np.concatenate([forward, backward], axis=-1),
    "sum": np.add,
    "ave": lambda forward, backward: (forward + backward) / 2,
    "mul": np.multiply,
}


def _join(forward: Recurrent, backward: Recurrent) -> engine.Layer | None:
    specs = [part.describe(part._weights) for part in (forward, backward)]
    (first, second) = [(spec.kind, spec.input_size, spec.hidden_size, spec.weight_dtype) for spec in specs]
    if first != second or forward.dtype != backward.dtype:
        return None
    cells = [cell for spec in specs for cell in spec.cells]
    return engine.LAYERS[forward.kind](replace(specs[0], cells=cells, bidirectional=True))


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _check_layer(layer: Any, name: str) -> None:
    if not isinstance(layer, Recurrent):
        raise TypeError(f"{name} is {type(layer).__name__}, wanted a SimpleRNN, LSTM or GRU of fastrnn.keras")
