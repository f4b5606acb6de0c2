"""Live streams: batches that are computed step by step, as their inputs arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _core
from .states import StateLike, StateT, check_state, join_state, new_state

if TYPE_CHECKING:
    from .layers import Layer

CopiedT = TypeVar("CopiedT", bound="Copied")


class Copied(_core.BaseStream):
    """Copies and pickles of streams: what made the stream, and a snapshot of its state."""

    _owner: Any  # the layer or model

    def __reduce__(self) -> tuple[Any, ...]:
        others = {name: value for name, value in vars(self).items() if name != "_owner"}
        return _reopen, (type(self), self._owner, self.batch_size, self.snapshot()), others or None

    def __setstate__(self, others: dict[str, Any]) -> None:
        vars(self).update(others)


class Stream(Copied, _core.Stream, Generic[StateT]):
    """The state of a live batch, carried from call to call. Made by ``layer.stream(batch_size)``.

    Only one thread at a time may use a stream; any number of streams may share a layer. ``step`` and
    ``run`` give the same bits as one call over the whole sequence, however it is cut into calls, and
    whichever rows take their steps together.

    Copies, shallow or deep, and pickles are independent streams in the same state. A copy shares the
    layer, which is immutable; a pickle holds it, as a pickle of the layer does, and loads on any
    instruction set.

    Examples
    --------
    >>> import copy
    >>> import numpy as np, fastrnn
    >>> weights = {"weight_ih_l0": np.ones((4, 2), "f4"), "weight_hh_l0": np.ones((4, 1), "f4")}
    >>> stream = fastrnn.LSTM.from_state_dict(weights).stream(batch_size=3)
    >>> stream.step(np.ones((3, 2), np.float32)).shape
    (3, 1)
    >>> stream.run(np.ones((2, 5, 2), np.float32), rows=[2, 0]).shape
    (2, 5, 1)
    >>> other = copy.copy(stream)
    >>> stream.reset()
    >>> float(stream.state.h.max()), bool((other.state.h > 0).all())
    (0.0, True)
    """

    _owner: Layer[StateT]

    @property
    def state(self) -> StateT:
        """A copy of the state as the layer returns it: h (L, B, P), and for an LSTM State(h, c) with c (L, B, H).

        Setting it takes h or (h, c) of the layer's dtype, or None for zeros.

        Raises
        ------
        TypeError, ValueError
            The new state has another type or shape; the stream's state is unchanged.
        RuntimeError
            Another thread is in a call of this stream.
        """
        h, c = new_state(self._owner, self.batch_size)
        self.get_state(h, c)
        state: StateT = join_state(h, c)
        return state

    @state.setter
    def state(self, state: StateLike) -> None:
        self.set_state(*check_state(self._owner, state, self.batch_size, unbatched=False))


def open_stream(owner: Any, batch_size: int, kind: Callable[[Any, int], CopiedT]) -> CopiedT:
    """Make a stream with a state of zeros on the prepared weights of a layer or model; kind : the stream's class."""
    stream = kind(owner._engine, batch_size)
    stream._owner = owner
    return stream


def _reopen(kind: Callable[[Any, int], CopiedT], owner: Any, batch_size: int, snapshot: bytes) -> CopiedT:
    stream = open_stream(owner, batch_size, kind)
    stream.restore(snapshot)
    return stream
