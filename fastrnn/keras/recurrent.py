"""SimpleRNN, LSTM and GRU as in Keras."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import layers as engine
from ..arguments import as_array, as_boolean, as_integer, as_numbers
from ..importers import keras as importer
from ..spec import Activation, CellKind, LayerSpec, WeightDtype, check_weight_dtype

#: Arguments of Keras's layers that have no effect here: they concern training or Keras's implementation, or repeat
#: what the weights determine.
WITHOUT_MEANING = frozenset(
    f"{prefix}_{suffix}"
    for prefix in ("kernel", "recurrent", "bias")
    for suffix in ("initializer", "regularizer", "constraint")
) | {
    "activity_regularizer",
    "autocast",
    "batch_input_shape",
    "implementation",
    "input_dim",
    "input_shape",
    "name",
    "seed",
    "trainable",
    "unit_forget_bias",
    "unroll",
    "use_cudnn",
}


#: Keras's dtype policies with the same type for weights and computation.
POLICIES = ("DTypePolicy", "FloatDTypePolicy", "Policy")

PolicyLike = DTypeLike | Mapping[str, Any] | object


class Recurrent:
    """Base class of SimpleRNN, LSTM and GRU; arguments and their meaning are those of Keras 3.

    A layer always runs on the engine's packed path: masked steps are not computed.

    Parameters
    ----------
    units : outputs and hidden units H
    activation : of the candidate and the LSTM's output, by name; None is linear
        elu, hard_sigmoid (x / 6 + 0.5), leaky_relu (slope 0.2), linear, relu, sigmoid, softplus, softsign, tanh; a
        function that computes one of them, such as ``keras.activations.tanh``; or a ``fastrnn.spec.Activation``, such
        as Keras 2's ``Activation.of("hard_sigmoid", 0.2, 0.5)``.
    recurrent_activation : of the gates; LSTM and GRU
    use_bias : whether `weights` end with a bias
    reset_after : GRU; True resets after the matmul and has two biases, False before it
    return_sequences : return every step's output instead of the last one's
    return_state : return the final state after the output
    go_backwards : run from the last step to the first; the outputs are in that order, too
    stateful : keep each row's state from call to call until `reset_state`; one thread at a time may use such a layer
    zero_output_for_mask : the output of a masked step is zeros instead of the output before it
    weights : what `set_weights` takes
    dropout, recurrent_dropout : nothing is dropped at inference; ``training=True`` is refused if a rate is not 0
    dtype : float32 or float64, of weights, states and results; inputs are cast to it, as Keras casts
        Also a policy of Keras of one of these, or its configuration; None is float32.
    time_major : refused if it is True: Keras 2's option for other axes, which its configurations contain
    weight_dtype : {"float32", "float16", "int8"} or None
        The type in which kernels are kept, as of ``fastrnn.LSTM``; None is `dtype`.
    **unused
        Accepted and ignored: ``unroll``, ``implementation`` and ``use_cudnn`` (Keras's implementation),
        ``name``, ``seed``, ``trainable``, ``autocast``, ``input_shape``, ``batch_input_shape``, ``input_dim`` (the
        weights determine it), ``unit_forget_bias`` (the stored bias includes it), initializers, regularizers
        and constraints. So ``LSTM(**layer.get_config(), weights=layer.get_weights())`` converts a layer of Keras.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit; the message says which, what was found and what was wanted.
    """

    kind: ClassVar[CellKind]
    recurrent_activation: Activation = importer.ACTIVATIONS["sigmoid"]
    reset_after: bool = True

    def __init__(
        self,
        units: int,
        activation: importer.ActivationLike,
        use_bias: bool,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        weights: Sequence[ArrayLike] | None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        dtype: PolicyLike = None,
        time_major: bool = False,
        weight_dtype: WeightDtype | None = None,
        **unused: Any,
    ) -> None:
        refuse_unknown(unused, type(self).__name__)
        self.units = as_integer(units, "units", 1)
        self.activation = importer.activation_of(activation, "activation")
        self.use_bias = as_boolean(use_bias, "use_bias")
        self.return_sequences = as_boolean(return_sequences, "return_sequences")
        self.return_state = as_boolean(return_state, "return_state")
        self.go_backwards = as_boolean(go_backwards, "go_backwards")
        self.stateful = as_boolean(stateful, "stateful")
        self.zero_output_for_mask = as_boolean(zero_output_for_mask, "zero_output_for_mask")
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not isinstance(rate, int | float | np.number):
                raise TypeError(f"{name} is {rate!r}, wanted a number")
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.dtype = check_dtype(dtype)
        if time_major:
            raise ValueError("time_major is True, wanted False: x is (B, T, I)")
        check_weight_dtype(weight_dtype, self.dtype)
        self.weight_dtype = weight_dtype
        self.states: list[NDArray[Any]] | None = None
        self._weights: list[NDArray[Any]] = []
        self._engine: engine.Layer | None = None
        if weights is not None:
            self.set_weights(weights)

    @classmethod
    def from_keras(cls, layer: Any) -> Self:
        """Convert a live, built layer of Keras: its options and a copy of its weights.

        Raises
        ------
        TypeError, ValueError
            The layer is of another kind, has no weights yet, or has an activation that the engine does not have.
        """
        taken = from_keras(layer)
        if not isinstance(taken, cls):
            raise TypeError(f"layer is {type(layer).__name__}, wanted a Keras {cls.__name__}")
        return taken

    def with_weight_dtype(self, weight_dtype: WeightDtype | None) -> Self:
        """A copy whose kernels are kept in another type; of any layer, as the given weights stay.

        Raises
        ------
        ValueError
            The type is unknown or not for the layer's dtype, or a weight is out of its range.
        """
        check_weight_dtype(weight_dtype, self.dtype)
        other = copy.copy(self)
        other.weight_dtype = weight_dtype
        if self._weights:
            other.describe(self._weights)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for a copy or a pickle, without the engine's layer, which the copy builds itself."""
        return vars(self) | {"_engine": None}

    @property
    def num_states(self) -> int:
        return 2 if self.kind == "lstm" else 1

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Names of what `set_weights` takes."""
        return importer.WEIGHTS[: 3 if self.use_bias else 2]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Copy kernel (I, G*H), recurrent_kernel (H, G*H) and bias, as ``get_weights()`` of Keras returns them.

        Gates are in Keras's order: LSTM i f c o, GRU z r h. The bias is (G*H,); a GRU with reset_after has (2, G*H).

        Raises
        ------
        TypeError, ValueError
            Weights are missing or surplus, or have the wrong shape; the message names all of them.
        """
        arrays = as_arrays(weights)
        self.describe(arrays)
        self._weights, self._engine = [np.array(array, self.dtype) for array in arrays], None

    def get_weights(self) -> list[NDArray[Any]]:
        """Copies of what `set_weights` took; empty before."""
        return [array.copy() for array in self._weights]

    def without_weights(self) -> Self:
        """A copy with the options only, without weights."""
        other = copy.copy(self)
        other._weights, other._engine, other.states = [], None, None
        return other

    def reset_state(self) -> None:
        """Set the state to zeros, if there is a state."""
        if self.states is not None:
            self.states = [np.zeros_like(part) for part in self.states]

    reset_states = reset_state

    def __call__(
        self,
        x: ArrayLike,
        initial_state: ArrayLike | Sequence[ArrayLike] | None = None,
        mask: ArrayLike | None = None,
        training: bool = False,
    ) -> Any:
        """Run sequences.

        Parameters
        ----------
        x : (B, T, I) numbers
        initial_state : h (B, H), or a list of the states: [h], for an LSTM [h, c]; None for zeros
            A stateful layer begins with its own instead of None.
        mask : (B, T) booleans, or numbers that are not 0 for True; None: all True
            A step that is False leaves the state unchanged and may hold anything.
        training : refused if it is True and the layer has dropout

        Returns
        -------
        (B, H), or with return_sequences (B, T, H); with return_state a tuple (output, h) or (output, h, c)
            The output of a masked step is that of the step run before it, or zeros if there was none or with
            zero_output_for_mask. This also holds for the output of the last step.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit; the message says which, what was found and what was wanted.
        """
        steps, states, counted = self.prepare(x, initial_state, mask, training)
        if self._engine is None:
            self._engine = engine.LAYERS[self.kind](self.describe(self._weights))
        if self.go_backwards:
            steps = steps[:, ::-1]
            counted = counted[:, ::-1] if counted is not None and counted.ndim > 1 else counted
        state = None if states is None else join_states([part[None] for part in states])
        past_end: engine.PastEnd = "zero" if self.zero_output_for_mask else "carry"
        y, last = self._engine(steps, state, mask=counted, past_end=past_end)
        final = [part[0] for part in split_states(last)]
        self.keep(final)
        if not self.return_sequences:
            y = y[:, -1].copy() if steps.shape[1] else np.zeros((len(steps), self.units), self.dtype)
        return (y, *final) if self.return_state else y

    def prepare(
        self, x: Any, initial_state: Any, mask: Any, training: bool
    ) -> tuple[NDArray[Any], list[NDArray[Any]] | None, NDArray[Any] | None]:
        """Cast and check a call's x (B, T, I), its initial states (B, H) or None, and its mask or None."""
        if training and (self.dropout or self.recurrent_dropout):
            raise ValueError("training is True and the layer has dropout, wanted False: fastrnn does not train")
        if not self._weights:
            raise ValueError("the layer has no weights, wanted weights= at construction or set_weights()")
        steps = cast(x, "x", self.dtype)
        if steps.ndim != 3:
            raise ValueError(f"x has shape {steps.shape}, wanted (B, T, {len(self._weights[0])})")
        counted = None if mask is None else as_array(mask, "mask")
        if counted is not None and counted.dtype.kind in "iuf":
            counted = counted != 0
        return steps, self._check_states(initial_state, len(steps)), counted

    def keep(self, final: list[NDArray[Any]]) -> None:
        """Keep copies of the states (B, H) if the layer is stateful."""
        if self.stateful:
            self.states = [part.copy() for part in final]

    def describe(self, weights: Sequence[NDArray[Any]]) -> LayerSpec:
        """The engine's description of the layer with these weights; ValueError or TypeError if they do not fit."""
        spec = importer.spec_from_weights(
            self.kind,
            weights,
            self.units,
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
            use_bias=self.use_bias,
            reset_after=self.reset_after,
            dtype=self.dtype,
        )
        return replace(spec, weight_dtype=self.weight_dtype).validate()

    def _check_states(self, initial_state: Any, B: int) -> list[NDArray[Any]] | None:
        if self.states is not None and len(self.states[0]) != B:
            raise ValueError(f"x has {B} rows, but the stateful layer's state has {len(self.states[0])}")
        given = self.states if initial_state is None else initial_state
        if given is None:
            return None
        parts = list(given) if isinstance(given, list | tuple) else [given]
        if len(parts) != self.num_states:
            raise ValueError(f"initial_state has {len(parts)} entries, wanted {self.num_states}")
        arrays = [cast(part, f"initial_state[{i}]", self.dtype) for i, part in enumerate(parts)]
        for i, array in enumerate(arrays):
            if array.shape != (B, self.units):
                raise ValueError(f"initial_state[{i}] has shape {array.shape}, wanted {(B, self.units)}")
        return arrays


class SimpleRNN(Recurrent):
    """Elman's network, as ``keras.layers.SimpleRNN``.

    Examples
    --------
    >>> import fastrnn
    >>> weights = [np.ones((2, 3)), np.ones((3, 3)), np.zeros(3)]  # as get_weights() of Keras gives them
    >>> rnn = fastrnn.keras.SimpleRNN(3, return_sequences=True, weights=weights)
    >>> rnn(np.ones((4, 5, 2)), mask=np.ones((4, 5), bool)).shape
    (4, 5, 3)
    """

    kind = "rnn"

    def __init__(
        self, units: int, activation: importer.ActivationLike = "tanh", use_bias: bool = True, **options: Any
    ) -> None:
        super().__init__(units, activation, use_bias, **options)


class LSTM(Recurrent):
    """Long short-term memory, as ``keras.layers.LSTM``; states are h and c.

    Examples
    --------
    >>> import fastrnn
    >>> weights = [np.ones((2, 12)), np.ones((3, 12)), np.zeros(12)]
    >>> output, h, c = fastrnn.keras.LSTM(3, return_state=True, weights=weights)(np.ones((4, 5, 2)))
    >>> output.shape, c.shape
    ((4, 3), (4, 3))
    """

    kind = "lstm"

    def __init__(
        self,
        units: int,
        activation: importer.ActivationLike = "tanh",
        recurrent_activation: importer.ActivationLike = "sigmoid",
        use_bias: bool = True,
        **options: Any,
    ) -> None:
        self.recurrent_activation = importer.activation_of(recurrent_activation, "recurrent_activation")
        super().__init__(units, activation, use_bias, **options)


class GRU(Recurrent):
    """Gated recurrent unit, as ``keras.layers.GRU``: reset after the matmul unless reset_after is False.

    Examples
    --------
    >>> import fastrnn
    >>> weights = [np.ones((2, 9)), np.ones((3, 9)), np.zeros((2, 9))]
    >>> fastrnn.keras.GRU(3, weights=weights)(np.ones((4, 5, 2))).shape
    (4, 3)
    """

    kind = "gru"

    def __init__(
        self,
        units: int,
        activation: importer.ActivationLike = "tanh",
        recurrent_activation: importer.ActivationLike = "sigmoid",
        use_bias: bool = True,
        *,
        reset_after: bool = True,
        **options: Any,
    ) -> None:
        self.recurrent_activation = importer.activation_of(recurrent_activation, "recurrent_activation")
        self.reset_after = as_boolean(reset_after, "reset_after")
        super().__init__(units, activation, use_bias, **options)


LAYERS: dict[CellKind, type[Recurrent]] = {layer.kind: layer for layer in (SimpleRNN, LSTM, GRU)}


def from_keras(layer: Any) -> Recurrent:
    """The counterpart here of a live layer of Keras, with its options and a copy of its weights.

    Raises
    ------
    TypeError, ValueError
        The layer is of another kind, has no weights yet, or has an activation that the engine does not have.
    """
    kind, options, weights = importer.read_layer(layer)
    return LAYERS[kind](weights=weights, dtype=weights[0].dtype.name, **options)


def join_states(states: list[NDArray[Any]]) -> Any:
    """[h] or [h, c] as the engine takes them."""
    return tuple(states) if len(states) == 2 else states[0]


def split_states(state: Any) -> list[NDArray[Any]]:
    """The engine's state as [h] or [h, c]."""
    return list(state) if isinstance(state, tuple) else [state]


def refuse_unknown(unused: Mapping[str, Any], owner: str) -> None:
    """Refuse arguments that Keras does not have.

    Raises
    ------
    TypeError
        There are some; the message names them.
    """
    unknown = sorted(set(unused) - WITHOUT_MEANING)
    if unknown:
        raise TypeError(f"{owner} has no argument {', '.join(unknown)}")


def as_arrays(weights: Any) -> list[NDArray[Any]]:
    """A list of weights, as arrays.

    Raises
    ------
    TypeError
        It is not a list, or an entry is not an array.
    """
    if not isinstance(weights, list | tuple):
        raise TypeError(f"weights is {type(weights).__name__}, wanted a list of arrays as get_weights() gives")
    return [as_array(value, f"weights[{i}]") for i, value in enumerate(weights)]


def cast(value: Any, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers as the layer's dtype, as Keras casts its inputs.

    Raises
    ------
    TypeError
        They are not real numbers.
    """
    array = as_numbers(value, name)
    with np.errstate(over="ignore"):  # too large becomes infinite, as in Keras
        return array.astype(dtype, copy=False)


def check_dtype(dtype: PolicyLike) -> np.dtype[Any]:
    """The NumPy dtype for what Keras's layers accept as ``dtype=``; None is float32.

    Raises
    ------
    TypeError
        It is neither float32 nor float64 nor a policy of one of these.
    """
    name: Any = dtype
    if isinstance(dtype, Mapping):  # as get_config() writes a policy
        config = dtype.get("config") if dtype.get("class_name") in POLICIES else None
        name = config.get("name") if isinstance(config, Mapping) else None
    elif type(dtype).__name__ in POLICIES:
        name = getattr(dtype, "name", None)
    elif dtype is None:
        name = "float32"
    try:
        chosen = np.dtype(name) if isinstance(name, str | type | np.dtype) else None
    except (TypeError, ValueError):  # other policies, such as mixed_float16
        chosen = None
    if chosen not in (np.float32, np.float64):
        raise TypeError(f"dtype is {dtype!r}, wanted float32 or float64")
    return chosen.newbyteorder("=")
