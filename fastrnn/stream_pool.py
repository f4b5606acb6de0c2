"""Stream pools: many live streams that come and go, run together as ragged batches."""

from __future__ import annotations

import heapq
import os
import threading
import weakref
from collections.abc import Iterable
from typing import Any, Generic, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .arguments import Casting, as_ids, as_integer, check_casting
from .layers import Layer
from .models.ids import id_error
from .models.sequential import Sequential
from .spec import LayerSpec
from .states import StateT, join_state, new_state


class PoolFull(RuntimeError):
    """All slots of a stream pool are taken."""


class Session(_core.BaseSession, Generic[StateT]):
    """A live stream of a pool. Made by :meth:`StreamPool.open`.

    It has the bits of a stream of one row of its own. Any number of sessions run together in one call of
    :meth:`StreamPool.run`. In a ``with`` statement a session is closed at the end; one to which nothing refers any more
    is closed too.
    """

    pool: StreamPool[StateT]

    @property
    def state(self) -> StateT:
        """A copy of the state, as of a stream of one row: h (L, 1, P), and for an LSTM State(h, c) with c (L, 1, H).

        Of a Sequential a tuple with the state of each of its recurrent layers.

        Raises
        ------
        ValueError
            The session is closed.
        RuntimeError
            The session is in a running call.
        """
        states = []
        for op, layer in self.pool._layers:
            h, c = new_state(layer, 1)
            self.get_state(op, h, c)
            states.append(join_state(h, c))
        state: StateT = states[0] if isinstance(self.pool.model, Layer) else tuple(states)  # type: ignore[assignment]
        return state

    def close(self) -> None:
        """Free the session's slot. A session that is closed stays so, whoever takes the slot next.

        Raises
        ------
        RuntimeError
            The session is in a running call.
        """
        slot = self.take_slot()
        if slot >= 0:
            heapq.heappush(self.pool._free, slot)

    def __del__(self) -> None:
        if self.pool is not None:  # its making has not failed
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session cannot be copied or pickled: open another one with its snapshot()")

    def __repr__(self) -> str:
        return f"<fastrnn.Session of {self.pool!r}{', closed' if self.closed else ''}>"


class StreamPool(Generic[StateT]):
    """Live streams of one layer or model that come and go, and run together in one ragged batch.

    The memory of all states is allocated once, and a run uses the states where they are; only those of layers that no
    fused kernel computes (projections, peepholes, clips, activations of one's own, float64) are copied. Each session
    has the bits of a stream of its own, whichever sessions it runs with. Any thread may call any method; calls of
    :meth:`run` wait for each other, in the order of a lock.

    Parameters
    ----------
    model : a layer or Sequential that has streams
    capacity : how many sessions may be open at a time

    Raises
    ------
    TypeError
        model is something else.
    ValueError
        model has no streams; the message says why.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> weights = {"weight_ih_l0": np.eye(1, 2, dtype="f4"), "weight_hh_l0": np.eye(1, dtype="f4")}
    >>> layer = fastrnn.RNN.from_state_dict(weights, nonlinearity="relu")
    >>> pool = fastrnn.StreamPool(layer, capacity=2)
    >>> first, second = pool.open(), pool.open()
    >>> [y.ravel() for y in pool.run([(first, np.ones((1, 2), "f4")), (second, np.ones((3, 2), "f4"))])]
    [array([1.], dtype=float32), array([1., 2., 3.], dtype=float32)]
    >>> saved = second.snapshot()
    >>> second.close()
    >>> third = pool.open(saved)
    >>> pool.run([(third, np.ones((1, 2), "f4"))])[0].ravel()
    array([4.], dtype=float32)
    >>> pool.open()
    Traceback (most recent call last):
    fastrnn.stream_pool.PoolFull: all 2 slots of the pool are taken
    """

    def __init__(self, model: Layer[StateT] | Sequential, capacity: int = 1024) -> None:
        if not isinstance(model, Layer | Sequential):
            raise TypeError(f"model is {type(model).__name__}, wanted a layer or a Sequential")
        self.capacity = as_integer(capacity, "capacity", 1)
        self.model = model
        self._stream: _core.BaseStream = model.stream(self.capacity)
        self._free = list(range(self.capacity))  # a heap: low slots first, so that those in use are near each other
        self._lock = threading.Lock()
        _pools.add(self)
        ops = enumerate(model._shape.ops) if isinstance(model, Sequential) else [(0, model)]
        self._layers: list[tuple[int, Any]] = [
            (index, _LayerShape(op) if isinstance(op, LayerSpec) else op)
            for index, op in ops
            if isinstance(op, LayerSpec | Layer)
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of the states."""
        return self._stream.state_bytes

    def __len__(self) -> int:
        """How many sessions are open."""
        return self.capacity - len(self._free)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<fastrnn.StreamPool of {type(self.model).__name__}, {len(self)} of {self.capacity} slots taken>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream pool cannot be copied or pickled, but its model and its sessions' snapshots can")

    def open(self, snapshot: bytes | None = None) -> Session[StateT]:
        """Open a session.

        Parameters
        ----------
        snapshot : what ``snapshot()`` of a session, or of a stream of one row, returned; None: a state of zeros

        Raises
        ------
        PoolFull
            All slots are taken.
        ValueError
            The bytes are not a snapshot, or one of other weights or of another number of rows.
        """
        try:
            slot = heapq.heappop(self._free)
        except IndexError:
            raise PoolFull(f"all {self.capacity} slots of the pool are taken") from None
        session: Session[StateT] = Session(self, self._stream, slot)
        try:
            if snapshot is None:
                session.reset()
            else:
                session.restore(snapshot)
        except BaseException:
            session.close()
            raise
        return session

    def run(
        self, pairs: Iterable[tuple[Session[StateT], ArrayLike]], *, casting: Casting = "safe"
    ) -> list[NDArray[Any]]:
        """Run the next steps of some sessions, as one ragged batch.

        Parameters
        ----------
        pairs : of a session of this pool and a chunk (T_i, I), of ids (T_i,); each session once
            T_i may be 0. If convolutions have strides, whose product is n, it is a multiple of n.
        casting : which conversions of the chunks to the model's dtype are allowed, by NumPy's names; see the layers

        Returns
        -------
        list of (T_i, P) arrays, in the order of the pairs; with strides of product n they have T_i / n steps

        Raises
        ------
        TypeError, ValueError
            A pair does not fit, or a session is closed, of another pool, or in two pairs. No state is changed.
        RuntimeError
            A session is in a running call of another thread. No state is changed.
        KeyboardInterrupt
            Ctrl-C; no state is changed.
        """
        if casting != "safe":
            check_casting(casting)
        if isinstance(self.model, Sequential) and self.model.num_ids:
            return self._run_ids(self.model, list(pairs), casting)
        return _core.run_sessions(self._stream, self, self._lock, pairs, casting)

    def _run_ids(self, model: Sequential, pairs: list[Any], casting: Casting) -> list[NDArray[Any]]:
        """With mask_zero the steps with id 0 are left out, and their results are zeros."""
        try:
            pairs_fit = all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs)
            if not (model.mask_zero and pairs_fit):  # of pairs that do not fit, `run_sessions` says which
                return _core.run_sessions(self._stream, self, self._lock, pairs, casting)
            chunks = [as_ids(pair[1], f"the chunk of pairs[{i}]") for i, pair in enumerate(pairs)]
            for i, chunk in enumerate(chunks):
                if model.stride > 1 and chunk.ndim == 1 and not chunk.all():
                    raise ValueError(
                        f"the chunk of pairs[{i}] has the id 0, which mask_zero leaves out, but the convolutions have "
                        f"stride {model.stride}"
                    )
            kept = [(pair[0], chunk[chunk != 0] if chunk.ndim == 1 else chunk) for pair, chunk in _zip(pairs, chunks)]
            results = []
            for chunk, y in _zip(chunks, _core.run_sessions(self._stream, self, self._lock, kept, casting)):
                whole = np.zeros((len(chunk) // model.stride, model.output_size), np.float32)
                whole[chunk != 0 if model.stride == 1 else ...] = y
                results.append(whole)
            return results
        except _core.IdError:
            named = [(f"the chunk of pairs[{i}]", as_ids(pair[1], "")) for i, pair in enumerate(pairs)]
            raise id_error(named, model.num_ids) from None


_pools: weakref.WeakSet[StreamPool[Any]] = weakref.WeakSet()


def _renew_locks() -> None:
    """In the child of a fork, where the thread that may hold a lock does not exist: `run` raises instead of waiting."""
    for pool in _pools:
        pool._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


def _zip(first: list[Any], second: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(first, second, strict=True)


class _LayerShape:
    """The sizes of a recurrent layer within a model, as `new_state` reads them."""

    def __init__(self, spec: LayerSpec) -> None:
        self.kind, self.num_layers, self.num_directions = spec.kind, spec.num_layers, 1
        self.hidden_size, self.proj_size, self.dtype = spec.hidden_size, spec.proj_size, np.dtype(np.float32)
