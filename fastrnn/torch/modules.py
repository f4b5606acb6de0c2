"""The classes of replaced modules: PyTorch's own with another ``forward``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .. import _core
from ..spec import WeightDtype
from .autocast import autocast_inputs, autocast_results
from .checks import check_cell, check_dimensions, check_dimensions_of_cell, check_inference, check_pair, check_sequences
from .prepared import Options, Prepared, refresh
from .run import run, run_operator


class Accelerated:
    """What replaced modules share. Mixed into a subclass of PyTorch's class, it changes `forward` alone."""

    _original: ClassVar[type]  # the class that the module had
    _prepared: Prepared | None = None
    _num_threads: int = 0  # 0: PyTorch's number
    _weight_dtype: WeightDtype | None = None

    # What every nn.Module has.
    training: bool
    _parameters: dict[str, Tensor | None]

    def __getstate__(self) -> dict[str, Any]:
        """The module's own state: what was prepared from the weights is left out."""
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_prepared"}

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        reduced: Any = super().__reduce_ex__(protocol)
        return (_new, (self._original,), *reduced[2:])

    def __prepare_scriptable__(self) -> Any:
        """Called by torch.jit.script.

        Raises
        ------
        RuntimeError
        """
        raise RuntimeError(
            f"{type(self).__name__} is accelerated, and TorchScript cannot compile it: script the model that was "
            "accelerated, or use torch.jit.trace, torch.compile or torch.export"
        )

    def _weights(self, names: Sequence[str]) -> list[Tensor]:
        """The tensors that the module would compute with now."""
        parameters = self._parameters
        return [weight if (weight := parameters.get(name)) is not None else getattr(self, name) for name in names]

    def _runner(self, mode: str) -> _core.TensorRunner | None:
        """What may run a call without checks in Python, because it refuses what is not as usual."""
        if not _is_plain_call() or torch.is_grad_enabled() or torch._C._is_any_autocast_enabled():
            return None
        prepared = self._prepared
        return None if prepared is None or prepared.options.mode != mode else prepared.runner

    def _run(
        self,
        x: Tensor,
        batch_sizes: Tensor | None,
        states: Sequence[Tensor],
        weights: list[Tensor],
        options: Options,
        batch_first: bool,
    ) -> list[Tensor]:
        """y and the final states."""
        h0, c0 = (*states, None, None)[:2]
        if _is_plain_call() and all(type(tensor) in PLAIN for tensor in (x, *states, *weights)):
            self._prepared = prepared = refresh(self._prepared, options, weights)
            return run(prepared, x, batch_sizes, h0, c0, batch_first, self._num_threads)
        mode, num_layers, bidirectional, weight_dtype = options
        arguments = mode, num_layers, bidirectional, batch_first, self._num_threads, weight_dtype
        results = run_operator(x, batch_sizes, h0, c0, weights, *arguments)
        return list(results[: 3 if mode == "LSTM" else 2])


class AcceleratedSequence(Accelerated):
    """``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``.

    ``torch.compile`` breaks the graph at every instance of these, whatever its ``forward`` does. So the type of an
    accelerated module derives from ``nn.RNNBase`` instead. Outside the compiler ``__class__``, and with it
    ``isinstance``, reports PyTorch's class.
    """

    _shown: ClassVar[type | None] = None  # what `__class__` says, of a type in HIDDEN

    mode: str
    num_layers: int
    bidirectional: bool
    batch_first: bool
    dropout: float
    _flat_weights_names: list[str]

    def _get_class(self) -> type:
        cls = type(self)
        shown = vars(cls).get("_shown")
        return cls if shown is None or _is_asked_by_compiler(sys._getframe(1)) else shown

    def _set_class(self, cls: type) -> None:
        """``module.__class__ = cls``, which torch.nn.utils.parametrize does."""
        vars(object)["__class__"].__set__(self, HIDDEN.get(cls, cls))

    __class__ = property(_get_class, _set_class)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run sequences; arguments and results are those of PyTorch's class."""
        runner = self._runner(self.mode)
        if runner is not None and not (self.training and self.dropout):
            names = self._flat_weights_names
            result = runner.run_sequence(self._parameters, names, input, hx, self.batch_first, self._num_threads)
            if result is not None:
                return result
        is_lstm = self.mode == "LSTM"
        is_packed = isinstance(input, PackedSequence)
        x, batch_sizes, sorted_indices, unsorted_indices = input if is_packed else (input, None, None, None)
        states = [] if hx is None else [hx[0], hx[1]] if is_lstm else [hx]
        weights = self._weights(self._flat_weights_names)
        check_inference(self, self._flat_weights_names, weights, [x, *states])
        batch_axis = 0 if self.batch_first else 1
        is_single = not is_packed and x.dim() == 2
        if not is_packed:
            check_dimensions(self.mode, x, states)
        if is_single:
            x, states = x.unsqueeze(batch_axis), [state.unsqueeze(1) for state in states]
        if sorted_indices is not None:
            states = [state.index_select(1, sorted_indices) for state in states]
        dtype, (x, *states) = autocast_inputs(self.mode, [x, *states], weights[0].dtype, is_cell=False)
        check_sequences(self, x, batch_sizes, states, weights[0].dtype)
        if is_lstm and hx is not None:
            check_pair(hx, "lstm")
        options = Options(self.mode, self.num_layers, self.bidirectional, self._weight_dtype)
        y, *last = autocast_results(self._run(x, batch_sizes, states, weights, options, self.batch_first), dtype)
        if is_single:
            y, last = y.squeeze(batch_axis), [state.squeeze(1) for state in last]
        if unsorted_indices is not None:
            last = [state.index_select(1, unsorted_indices) for state in last]
        result = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices) if is_packed else y
        return result, tuple(last) if is_lstm else last[0]


class AcceleratedCell(Accelerated):
    """``nn.LSTMCell``, ``nn.GRUCell`` and ``nn.RNNCell``."""

    bias: bool
    input_size: int
    hidden_size: int

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Run one step; arguments and results are those of PyTorch's class."""
        mode = self._mode()
        names = CELL_NAMES if self.bias else CELL_NAMES[:2]
        runner = self._runner(mode)
        if runner is not None:
            result = runner.run_cell(self._parameters, names, input, hx, self._num_threads)
            if result is not None:
                return result
        states = [] if hx is None else [*hx] if mode == "LSTM" else [hx]
        weights = self._weights(names)
        check_inference(self, names, weights, [input, *states])
        check_dimensions_of_cell(mode, input, states)
        is_single = input.dim() == 1
        if mode == "LSTM" and hx is not None:
            if not is_single:
                check_pair(hx, "lstm_cell")
            states = [states[0], states[1]]
        dtype, (x, *states) = autocast_inputs(mode, [input, *states], weights[0].dtype, is_cell=True)
        check_cell(self, x, states, weights[0].dtype)
        x = x[None, None] if is_single else x[:, None]
        states = [state[None, None] if is_single else state[None] for state in states]
        options = Options(mode, weight_dtype=self._weight_dtype)
        _, *last = autocast_results(self._run(x, None, states, weights, options, True), dtype)
        last = [state[0, 0] if is_single else state[0] for state in last]
        return tuple(last) if mode == "LSTM" else last[0]

    def _mode(self) -> str:
        """PyTorch's name of the recurrence, as its sequences have it."""
        if isinstance(self, nn.RNNCell):
            if self.nonlinearity not in ("tanh", "relu"):
                raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
            return "RNN_TANH" if self.nonlinearity == "tanh" else "RNN_RELU"
        return "LSTM" if isinstance(self, nn.LSTMCell) else "GRU"


#: The types of tensors that have memory; others, such as the fake tensors of PyTorch's compilers, go to the operator.
PLAIN = (Tensor, nn.Parameter)

CELL_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

#: PyTorch's classes to what is mixed into them.
MIXINS: dict[type, type[Accelerated]] = {
    nn.LSTM: AcceleratedSequence,
    nn.GRU: AcceleratedSequence,
    nn.RNN: AcceleratedSequence,
    nn.LSTMCell: AcceleratedCell,
    nn.GRUCell: AcceleratedCell,
    nn.RNNCell: AcceleratedCell,
}


#: What modules say that their class is, to their type, which derives from nn.RNNBase.
HIDDEN: dict[type, type] = {}


@functools.cache
def accelerated_class(original: Any) -> type[Any]:
    """PyTorch's class, or a subclass of it, with the `forward` of this package.

    It has the names of the original: torch.fx, for one, knows PyTorch's modules by ``__module__``.
    """
    mixin = next(mixin for base, mixin in MIXINS.items() if issubclass(original, base))
    names = {name: getattr(original, name) for name in ("__module__", "__qualname__", "__doc__")} | {
        "_original": original
    }
    cls = type(original.__name__, (mixin, original), names)
    if mixin is not AcceleratedSequence or original not in MIXINS:
        return cls
    own = {name: value for name, value in vars(original).items() if name not in ("forward", "__dict__", "__weakref__")}
    hidden = type(original.__name__, (mixin, nn.RNNBase), own | names | {"_shown": cls})
    HIDDEN[cls] = hidden
    return hidden


def _new(original: type) -> Any:
    """A module without state, for copies and pickles."""
    cls: Any = accelerated_class(original)
    return cls.__new__(cls)


def _is_asked_by_compiler(frame: FrameType) -> bool:
    """Whether the frame is that in which PyTorch's compiler refuses instances of nn.LSTM, nn.GRU and nn.RNN.

    Elsewhere it has to see that the modules are instances: in programs that ask for it.
    """
    return (
        frame.f_code.co_name == "wrap_module" and frame.f_globals.get("__name__") == "torch._dynamo.variables.builder"
    )


def _is_plain_call() -> bool:
    """Whether only the results of a call are wanted: PyTorch does not compile, trace, count or compute tangents."""
    return (
        not torch.compiler.is_dynamo_compiling()
        and not torch._C._is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch.autograd.forward_ad._current_level < 0
    )
