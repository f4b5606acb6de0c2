"""TensorFlow 1's cells on the engine, with weights under TensorFlow's variable names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..arguments import as_boolean, as_integer
from ..importers.tensorflow import spec_from_variables
from ..layers import LAYERS, Layer
from ..spec import LayerSpec, WeightDtype, check_weight_dtype
from .activations import known_activation
from .checkpoint import weights_for
from .checks import as_number, check_dtype, check_inputs, check_state
from .loop import run_steps
from .structure import Structure, flatten, map_structure, zeros

Lengths = NDArray[np.int64] | None
#: (inputs (B, T, ...), state, lengths) -> outputs (B, T, ...), state. The arguments have been checked.
Runner = Callable[[Structure, Structure, Lengths], tuple[Structure, Structure]]


class RNNCell:
    """Base class of the cells here and of your own: an object that is called with one step's inputs and state.

    A cell of your own has the properties `state_size` and `output_size` (integers, TensorShapes or nested structures of
    them) and a method ``call(inputs, state) -> (output, new_state)``. Any other object with these sizes and a
    ``__call__`` is accepted as well; this class adds `zero_state`.
    """

    @property
    def state_size(self) -> Structure:
        raise NotImplementedError(f"{type(self).__name__} has no state_size")

    @property
    def output_size(self) -> Structure:
        raise NotImplementedError(f"{type(self).__name__} has no output_size")

    def call(self, inputs: Structure, state: Structure) -> tuple[Structure, Structure]:
        """One step."""
        raise NotImplementedError(f"{type(self).__name__} has no method call")

    def __call__(self, inputs: Structure, state: Structure, scope: Any = None) -> tuple[Structure, Structure]:
        """One step: inputs (B, I) and a state of (B, size) to the output (B, O) and the new state."""
        return self.call(inputs, state)

    def zero_state(self, batch_size: int, dtype: DTypeLike) -> Structure:
        """Zeros of shape (batch_size, size) for each size in `state_size`."""
        return zeros(
            self.state_size, as_integer(batch_size, "batch_size", 0), dtype=check_dtype(dtype, np.dtype(np.float32))
        )


class SequenceCell(RNNCell):
    """A cell that runs whole sequences at once, as those of this package do.

    Attributes
    ----------
    input_size : int or None
        Width I of the inputs; None if the first cell is a caller's own.
    dtype : float32, float64 or None
        The type of inputs and states; None as above.
    """

    input_size: int | None = None
    dtype: np.dtype[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for a copy or a pickle, without the engine's layers, which the copy builds itself."""
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(getattr(type(self), name, None), cached_property)
        }

    def runner(self, num_steps: int | None) -> Runner:
        """A function that runs sequences: of any lengths if num_steps is None, else of exactly num_steps steps."""
        raise NotImplementedError

    def call(self, inputs: Structure, state: Structure) -> tuple[Structure, Structure]:
        arrays = check_inputs(inputs, "inputs", "B", self.input_size, self.dtype)
        state = check_state(state, self.state_size, len(flatten(arrays)[0]), self.dtype, "state")
        outputs, state = self.runner(None)(map_structure(lambda leaf: leaf[:, None], arrays), state, None)
        return map_structure(lambda leaf: leaf[:, 0], outputs), state


def as_sequence_cell(cell: Any) -> SequenceCell | None:
    """The cell if it runs sequences itself, else None; a subclass with its own step method does not."""
    own_steps = isinstance(cell, SequenceCell) and (
        type(cell).call is not SequenceCell.call or type(cell).__call__ is not RNNCell.__call__
    )
    return cell if isinstance(cell, SequenceCell) and not own_steps else None


def wanted_of(cell: Any) -> tuple[int | None, np.dtype[Any] | None]:
    """Width and type of the inputs that a cell takes; None if it does not declare them."""
    own = as_sequence_cell(cell)
    return (None, None) if own is None else (own.input_size, own.dtype)


def runner_of(cell: Any, num_steps: int | None) -> Runner:
    """A function that runs sequences through any cell; see :meth:`SequenceCell.runner`."""
    sequence_cell = as_sequence_cell(cell)
    if sequence_cell is None:
        return lambda inputs, state, lengths: run_steps(cell, inputs, state, lengths)
    return sequence_cell.runner(num_steps)


class Stack:
    """Consecutive engine cells of one kind, size and type, which run as one stacked layer."""

    def __init__(self, cells: Sequence[EngineCell]) -> None:
        self.cells = cells

    def takes(self, cell: EngineCell) -> bool:
        """Whether `cell` can come next."""
        last, spec = self.cells[-1].spec, cell.spec
        wanted = (last.kind, last.hidden_size, last.proj_size, last.h_size, last.weight_dtype, self.cells[-1].dtype)
        sizes = spec.hidden_size, spec.proj_size, spec.input_size
        return wanted == (spec.kind, *sizes, spec.weight_dtype, cell.dtype)

    @cached_property
    def layer(self) -> Layer:
        first = self.cells[0]
        if len(self.cells) == 1:
            return first.layer
        cells = [spec for cell in self.cells for spec in cell.spec.cells]
        return LAYERS[first.spec.kind](replace(first.spec, cells=cells, num_layers=len(cells)), dtype=first.dtype)

    def runner(self, num_steps: int | None) -> Runner:
        """A runner whose state is a list of the cells' states."""
        layer = self.layer
        plan = None if num_steps is None else layer.unroll(num_steps)

        def run(inputs: Structure, states: Structure, lengths: Lengths) -> tuple[Structure, Structure]:
            h, c = zip(*(cell.split(state) for cell, state in zip(self.cells, states, strict=True)), strict=True)
            start = _layers(h) if c[0] is None else (_layers(h), _layers(c))
            y, last = layer(inputs, start, lengths=lengths) if plan is None else plan(inputs, start)
            h, c = (last, h) if c[0] is None else last
            return y, [cell.join(h[k], c[k]) for k, cell in enumerate(self.cells)]

        return run


class EngineCell(SequenceCell):
    """One cell as one layer of the engine. Its weights are copied at construction and never change."""

    def __init__(self, spec: LayerSpec, dtype: DTypeLike | None, weight_dtype: WeightDtype | None) -> None:
        self.spec = replace(spec, weight_dtype=weight_dtype).validate()
        self.input_size = spec.input_size
        self.dtype = check_dtype(dtype, spec.cells[0].weight_ih.dtype)
        if self.dtype not in (np.float32, np.float64):
            raise TypeError(f"dtype is {self.dtype}, wanted float32 or float64")
        check_weight_dtype(weight_dtype, self.dtype)

    @cached_property
    def layer(self) -> Layer:
        """The engine's layer, built when the cell first runs on its own."""
        return LAYERS[self.spec.kind](self.spec, dtype=self.dtype)

    @property
    def state_size(self) -> Structure:
        return self.spec.hidden_size

    @property
    def output_size(self) -> int:
        return self.spec.h_size

    def split(self, state: Structure) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """h (B, P) and, of an LSTM, c (B, H) of the cell's state."""
        return state, None

    def join(self, h: NDArray[Any], c: NDArray[Any] | None) -> Structure:
        """The cell's state, made of its parts."""
        return h

    def runner(self, num_steps: int | None) -> Runner:
        run_stack = Stack([self]).runner(num_steps)

        def run(inputs: Structure, state: Structure, lengths: Lengths) -> tuple[Structure, Structure]:
            outputs, (last,) = run_stack(inputs, [state], lengths)
            return outputs, last

        return run


class BasicRNNCell(EngineCell):
    """``output = state = activation([x; h] @ kernel + bias)``.

    Parameters
    ----------
    num_units : H
    activation : name, function or None (tanh); see :func:`fastrnn.nn.activations.known_activation`
    reuse, name : ignored
    dtype : float32, float64 or None
        The type to compute in; None takes the weights' type.
    weights : mapping, such as a :class:`fastrnn.nn.Checkpoint`
        ``kernel`` (I + H, H), ``bias`` (H,). Names may begin with one common scope and end in ``:0``.
    weight_dtype : {"float32", "float16", "int8"} or None; as of ``fastrnn.LSTM``

    Raises
    ------
    TypeError, ValueError
        A weight or an option does not fit; the message names everything that does not.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import nn
    >>> weights = {"kernel": np.ones((3, 2), "f4"), "bias": np.zeros(2, "f4")}
    >>> cell = nn.rnn_cell.BasicRNNCell(2, activation="relu", weights=weights)
    >>> output, state = cell(np.ones((1, 1), "f4"), cell.zero_state(1, "f4"))
    >>> output
    array([[1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        weights: Mapping[str, Any],
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        units = as_integer(num_units, "num_units", 1)
        arrays = weights_for("rnn", weights)
        spec = spec_from_variables("rnn", arrays, units, activation=known_activation(activation))
        super().__init__(spec, dtype, weight_dtype)


class GRUCell(EngineCell):
    """The gated recurrent unit with the reset before the matmul: ``u * h + (1 - u) * activation(...)``.

    Parameters
    ----------
    num_units : H
    activation : of the candidate; name, function or None (tanh)
    reuse, kernel_initializer, bias_initializer, name : ignored
    dtype : float32, float64 or None
        The type to compute in; None takes the weights' type.
    weights : mapping, such as a :class:`fastrnn.nn.Checkpoint`
        ``gates/kernel`` (I + H, 2H) with the gates r and u, ``gates/bias`` (2H,), ``candidate/kernel`` (I + H, H),
        ``candidate/bias`` (H,). Names may begin with one common scope and end in ``:0``.
    weight_dtype : {"float32", "float16", "int8"} or None; as of ``fastrnn.LSTM``

    Raises
    ------
    TypeError, ValueError
        A weight or an option does not fit; the message names everything that does not.
    """

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        weights: Mapping[str, Any],
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        units = as_integer(num_units, "num_units", 1)
        arrays = weights_for("gru", weights)
        spec = spec_from_variables("gru", arrays, units, activation=known_activation(activation))
        super().__init__(spec, dtype, weight_dtype)


class CudnnCompatibleGRUCell(EngineCell):
    """What ``CudnnGRU`` computes: a :class:`GRUCell` with the reset after the matmul.

    Parameters
    ----------
    num_units : H
    reuse, kernel_initializer : mean nothing
    dtype : float32, float64 or None
        What to compute in; None takes the weights'.
    weights : mapping, such as a :class:`fastrnn.nn.Checkpoint`
        ``gates/kernel`` (I + H, 2H) with the gates r and u, ``gates/bias`` (2H,),
        ``candidate/input_projection/kernel`` (I, H), ``candidate/hidden_projection/kernel`` (H, H), and a ``bias``
        (H,) beside each. Names may begin with one common scope and end in ``:0``.
    weight_dtype : {"float32", "float16", "int8"} or None; as of ``fastrnn.LSTM``

    Raises
    ------
    TypeError, ValueError
        A weight does not fit; the message names everything that does not.
    """

    def __init__(
        self,
        num_units: int,
        reuse: Any = None,
        kernel_initializer: Any = None,
        dtype: DTypeLike | None = None,
        *,
        weights: Mapping[str, Any],
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        units = as_integer(num_units, "num_units", 1)
        arrays = weights_for("gru", weights, resets_after=True)
        tanh = known_activation(None)
        spec = spec_from_variables("gru", arrays, units, activation=tanh, resets_after=True)
        super().__init__(spec, dtype, weight_dtype)


class LSTMStateTuple(NamedTuple):
    """An LSTM cell's state: c (B, H) and h (B, P), in TensorFlow's order."""

    c: Any
    h: Any


class LSTMCell(EngineCell):
    """Long short-term memory with optional peepholes, clips and projection.

    Parameters
    ----------
    num_units : H
    use_peepholes : the gates i and f read the old cell state, o the new one
    cell_clip : the cell state is clipped to [-cell_clip, cell_clip]; positive or None
    num_proj : width P of the projected output; None for no projection
    proj_clip : the projected output is clipped; ignored without num_proj
    forget_bias : added to the forget gate's bias
    state_is_tuple : states are LSTMStateTuple(c, h), or c and h side by side in one array (B, H + P)
    activation : of the candidate and the output; name, function or None (tanh)
    initializer, num_unit_shards, num_proj_shards, reuse, name : ignored
    dtype : float32, float64 or None
        The type to compute in; None takes the weights' type.
    weights : mapping, such as a :class:`fastrnn.nn.Checkpoint`
        ``kernel`` (I + P, 4H) with the gates i, j, f and o, ``bias`` (4H,); ``w_i_diag``, ``w_f_diag`` and ``w_o_diag``
        (H,) with peepholes; ``projection/kernel`` (H, P) with num_proj. Names may begin with one common scope and
        end in ``:0``.
    weight_dtype : {"float32", "float16", "int8"} or None; as of ``fastrnn.LSTM``

    Raises
    ------
    TypeError, ValueError
        A weight or an option does not fit; the message names everything that does not.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import nn
    >>> weights = {"kernel": np.zeros((5, 12), "f4"), "bias": np.zeros(12, "f4")}
    >>> cell = nn.rnn_cell.LSTMCell(3, weights=weights)
    >>> outputs, state = nn.dynamic_rnn(cell, np.ones((4, 7, 2), "f4"), sequence_length=[7, 2, 0, 7])
    >>> outputs.shape, state.c.shape
    ((4, 7, 3), (4, 3))
    """

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: Any = None,
        num_proj_shards: Any = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        weights: Mapping[str, Any],
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        spec = spec_from_variables(
            "lstm",
            weights_for("lstm", weights),
            as_integer(num_units, "num_units", 1),
            activation=known_activation(activation),
            num_proj=None if num_proj is None else as_integer(num_proj, "num_proj", 1),
            use_peepholes=as_boolean(use_peepholes, "use_peepholes"),
            cell_clip=None if cell_clip is None else as_number(cell_clip, "cell_clip"),
            proj_clip=None if proj_clip is None else as_number(proj_clip, "proj_clip"),
            forget_bias=as_number(forget_bias, "forget_bias"),
        )
        super().__init__(spec, dtype, weight_dtype)
        self._state_is_tuple = as_boolean(state_is_tuple, "state_is_tuple")

    @property
    def state_size(self) -> Structure:
        sizes = LSTMStateTuple(self.spec.hidden_size, self.spec.h_size)
        return sizes if self._state_is_tuple else sum(sizes)

    def split(self, state: Structure) -> tuple[NDArray[Any], NDArray[Any] | None]:
        if self._state_is_tuple:
            return state.h, state.c
        H = self.spec.hidden_size
        return state[:, H:], state[:, :H]

    def join(self, h: NDArray[Any], c: NDArray[Any] | None) -> Structure:
        assert c is not None
        return LSTMStateTuple(c, h) if self._state_is_tuple else np.concatenate([c, h], axis=1)


class BasicLSTMCell(LSTMCell):
    """:class:`LSTMCell` without its options; the arguments are described there."""

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        weights: Mapping[str, Any],
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        super().__init__(
            num_units,
            forget_bias=forget_bias,
            state_is_tuple=state_is_tuple,
            activation=activation,
            dtype=dtype,
            weights=weights,
            weight_dtype=weight_dtype,
        )


class CudnnCompatibleLSTMCell(LSTMCell):
    """What ``CudnnLSTM`` computes: an :class:`LSTMCell` without options and forget bias."""

    def __init__(
        self,
        num_units: int,
        reuse: Any = None,
        dtype: DTypeLike | None = None,
        *,
        weights: Mapping[str, Any],
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        super().__init__(num_units, forget_bias=0.0, dtype=dtype, weights=weights, weight_dtype=weight_dtype)


def _layers(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """States (B, H), one for each layer, as (L, B, H)."""
    return parts[0][None] if len(parts) == 1 else np.stack(parts)
