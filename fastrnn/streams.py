"""Live streams: a batch that takes its steps as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from . import _core

if TYPE_CHECKING:
    from .layers import Layer, StateLike, StateT
else:
    StateT = TypeVar("StateT")


class Stream(_core.Stream, Generic[StateT]):
    """The state of a live batch, carried from call to call. Made by ``layer.stream(batch_size)``.

    A stream has one owner; the layer behind it may serve any number of streams. ``step`` and ``run``
    give the same bits as one call over the whole sequence, however it is cut.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> weights = {"weight_ih_l0": np.eye(4, 2, dtype="f4"), "weight_hh_l0": np.eye(4, 1, dtype="f4")}
    >>> stream = fastrnn.LSTM.from_state_dict(weights).stream()
    >>> stream.step(np.ones((1, 2), np.float32)).shape
    (1, 1)
    """

    _layer: Layer[StateT]

    @property
    def state(self) -> StateT:
        """The state as the layer returns it: h (L, B, P), and for an LSTM State(h, c)."""
        h, c = self._layer._new_state(self.batch_size)
        self.get_state(h, c)
        state: StateT = self._layer._join_state(h, c)
        return state

    @state.setter
    def state(self, state: StateLike) -> None:
        self.set_state(*self._layer._check_state(state, self.batch_size, unbatched=False))

    def reset(self) -> None:
        """Go back to a state of zeros."""
        self.set_state(None, None)


def open_stream(layer: Layer[StateT], model: _core.Model, batch_size: int) -> Stream[StateT]:
    """A stream of zeros over the layer's model."""
    stream: Stream[StateT] = Stream(model, batch_size)
    stream._layer = layer
    return stream
