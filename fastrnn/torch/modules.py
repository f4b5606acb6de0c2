"""The classes of replaced modules: PyTorch's own with another ``forward``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .checks import check_dtypes, check_mode
from .prepared import Prepared
from .run import Results, refresh, run, run_operator


class Accelerated:
    """What replaced modules share. Mixed into a subclass of PyTorch's class, it changes `forward` alone."""

    original: ClassVar[type]  #: the class that the module had

    _prepared: Prepared | None = None
    _num_threads: int = 0  # 0: PyTorch's number

    # What a subclass of nn.Module has.
    training: bool
    _parameters: dict[str, Tensor | None]

    def __getstate__(self) -> dict[str, Any]:
        """The module's own state: what is prepared from the weights is left out."""
        state = dict(super().__getstate__())  # type: ignore[arg-type]
        state.pop("_prepared", None)
        return state

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        _, _, *rest = super().__reduce_ex__(protocol)
        return (_new, (self.original,), *rest)

    def __prepare_scriptable__(self) -> Any:
        """Called by torch.jit.script.

        Raises
        ------
        RuntimeError
        """
        raise RuntimeError(
            f"{type(self).__name__} is accelerated by fastrnn and cannot be scripted: TorchScript cannot compile it; "
            "script the model that was accelerated, or use torch.compile or torch.export"
        )

    def _weights(self, names: Sequence[str]) -> list[Tensor]:
        """The tensors that the module would compute with now."""
        parameters = self._parameters
        return [weight if (weight := parameters.get(name)) is not None else getattr(self, name) for name in names]

    def _run(
        self,
        mode: str,
        weights: list[Tensor],
        x: Tensor,
        batch_sizes: Tensor | None,
        h0: Tensor | None,
        c0: Tensor | None,
        num_layers: int,
        bidirectional: bool,
        batch_first: bool,
    ) -> Results:
        if not torch.compiler.is_dynamo_compiling() and not torch.jit.is_tracing() and _are_plain(x, h0, c0, *weights):
            prepared = refresh(self._prepared, mode, weights, num_layers, bidirectional)
            self._prepared = prepared
            return run(prepared, x, batch_sizes, h0, c0, batch_first, self._num_threads)
        y, hn, cn = run_operator(
            x, batch_sizes, h0, c0, weights, mode, num_layers, bidirectional, batch_first, self._num_threads
        )
        return y, hn, cn if mode == "LSTM" else None


class AcceleratedSequence(Accelerated):
    """``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``."""

    mode: str
    num_layers: int
    bidirectional: bool
    batch_first: bool
    _flat_weights_names: list[str]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run sequences; arguments and results are those of PyTorch's class."""
        is_lstm = self.mode == "LSTM"
        is_packed = isinstance(input, PackedSequence)
        x, batch_sizes, sorted_indices, unsorted_indices = input if is_packed else (input, None, None, None)
        states = [] if hx is None else [hx[0], hx[1]] if is_lstm else [hx]
        weights = self._weights(self._flat_weights_names)
        check_mode(self, self._flat_weights_names, weights, [x, *states])
        is_single = not is_packed and x.dim() == 2
        if not is_packed:
            _check_dimensions(self.mode.partition("_")[0], x, states)
        if is_single:
            x, states = x.unsqueeze(0 if self.batch_first else 1), [state.unsqueeze(1) for state in states]
        check_dtypes(weights[0].dtype, x, states)
        if sorted_indices is not None:
            states = [state.index_select(1, sorted_indices) for state in states]
        if states:
            self.check_forward_args(x, tuple(states) if is_lstm else states[0], batch_sizes)  # type: ignore[attr-defined]
        else:
            self.check_input(x, batch_sizes)  # type: ignore[attr-defined]
        if not is_packed and x.shape[1 if self.batch_first else 0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        h0, c0 = (*states, None, None)[:2]
        y, hn, cn = self._run(
            self.mode, weights, x, batch_sizes, h0, c0, self.num_layers, self.bidirectional, self.batch_first
        )
        last = [state for state in (hn, cn) if state is not None]
        if is_single:
            y, last = y.squeeze(0 if self.batch_first else 1), [state.squeeze(1) for state in last]
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
        is_lstm = mode == "LSTM"
        states = [] if hx is None else [hx[0], hx[1]] if is_lstm else [hx]
        names = CELL_NAMES[: 4 if self.bias else 2]
        weights = self._weights(names)
        check_mode(self, names, weights, [input, *states])
        _check_cell(self, input, states, is_lstm)
        check_dtypes(weights[0].dtype, input, states)
        is_single = input.dim() == 1
        x = input[None, None] if is_single else input[:, None]
        h0, c0 = (*(state[None, None] if is_single else state[None] for state in states), None, None)[:2]
        _, hn, cn = self._run(mode, weights, x, None, h0, c0, 1, False, True)
        last = [state[0, 0] if is_single else state[0] for state in (hn, cn) if state is not None]
        return tuple(last) if is_lstm else last[0]

    def _mode(self) -> str:
        if isinstance(self, nn.LSTMCell):
            return "LSTM"
        return f"RNN_{self.nonlinearity.upper()}" if isinstance(self, nn.RNNCell) else "GRU"


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


@functools.cache
def accelerated_class(original: type) -> type:
    """PyTorch's class, or a subclass of it, with the `forward` of this package."""
    mixin = next(mixin for base, mixin in MIXINS.items() if issubclass(original, base))
    names = {"__module__": __name__, "__doc__": original.__doc__, "original": original}
    return type(original.__name__, (mixin, original), names)


def _new(original: type) -> Any:
    """A module without state, for copies and pickles."""
    cls = accelerated_class(original)
    return cls.__new__(cls)


def _are_plain(*tensors: Tensor | None) -> bool:
    """Whether these are tensors with memory, and not of a subclass, such as the fake ones of PyTorch's compilers."""
    return all(tensor is None or type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)


def _check_dimensions(name: str, x: Tensor, states: Sequence[Tensor]) -> None:
    if x.dim() not in (2, 3):
        raise ValueError(f"{name}: Expected input to be 2D or 3D, got {x.dim()}D instead")
    if all(state.dim() == x.dim() for state in states):
        return
    batched = "batched" if x.dim() == 3 else "unbatched"
    found = ", ".join(f"{state.dim()}-D" for state in states)
    wanted = f"For {batched} {x.dim()}-D input, hx"
    if len(states) > 1:
        raise RuntimeError(f"{wanted} and cx should also be {x.dim()}-D but got ({found}) tensors")
    raise RuntimeError(f"{wanted} should also be {x.dim()}-D but got {found} tensor")


def _check_cell(cell: Any, x: Tensor, states: Sequence[Tensor], is_lstm: bool) -> None:
    name = f"{'LSTM' if is_lstm else 'GRU' if isinstance(cell, nn.GRUCell) else 'RNN'}Cell"
    if x.dim() not in (1, 2):
        raise ValueError(f"{name}: Expected input to be 1D or 2D, got {x.dim()}D instead")
    for i, state in enumerate(states):
        if state.dim() not in (1, 2):
            what = f"hx[{i}]" if is_lstm else "hidden"
            raise ValueError(f"{name}: Expected {what} to be 1D or 2D, got {state.dim()}D instead")
        if state.dim() != x.dim():
            raise RuntimeError(f"hidden{i} is {state.dim()}D, but the input is {x.dim()}D")
    if x.shape[-1] != cell.input_size:
        raise RuntimeError(f"input has inconsistent input_size: got {x.shape[-1]} expected {cell.input_size}")
    for i, state in enumerate(states):
        if state.shape[-1] != cell.hidden_size:
            found = f"got {state.shape[-1]}, expected {cell.hidden_size}"
            raise RuntimeError(f"hidden{i} has inconsistent hidden_size: {found}")
        if state.shape[0] != x.shape[0] and x.dim() == 2:
            raise RuntimeError(f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size {state.shape[0]}")
