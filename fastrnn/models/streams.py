"""Live streams of models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..arguments import Casting, as_ids
from ..streams import Copied
from .ids import id_error

if TYPE_CHECKING:
    from .sequential import Sequential


class ModelStream(Copied, _core.ModelStream):
    """The state of a live batch of a model, carried from call to call. Made by ``model.stream(batch_size)``.

    It holds the states of the recurrent layers and the last inputs of the causal convolutions, all zeros at first.
    ``step`` and ``run`` give the same bits as one call of the model over the whole sequence, however it is cut into
    calls, and whichever rows take their steps together. If convolutions have strides, whose product is n, every call of
    ``run`` takes a multiple of n steps.

    Copies, shallow or deep, and pickles are independent streams in the same state. A copy shares the model; a pickle
    holds it, and loads on any instruction set. Only one thread at a time may use a stream.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> model = fastrnn.Sequential(fastrnn.Conv1d(np.ones((1, 1, 3), "f4"), padding="causal"))
    >>> stream = model.stream()
    >>> stream.run(np.ones((1, 2, 1), "f4")).ravel(), stream.step(np.ones((1, 1), "f4")).ravel()
    (array([1., 2.], dtype=float32), array([3.], dtype=float32))
    """

    _owner: Sequential

    def step(self, x: ArrayLike, rows: ArrayLike | None = None, *, casting: Casting = "safe") -> NDArray[Any]:
        """One step of every row, or of the named ones.

        Parameters
        ----------
        x : (B, I) array, or ids (B,); with rows (R, I) or (R,), in the order of `rows`
            With mask_zero, a row with id 0 keeps its state, and its result is zero.
        rows : (R,) integers, numbers of rows from 0 to B-1, each once, in any order; None: all
            The other rows keep their states and cost nothing.
        casting : which conversions of x to float32 are allowed, by NumPy's names; see the layers

        Returns
        -------
        (B, O) or (R, O) array

        Raises
        ------
        TypeError, ValueError
            x or rows does not fit, or convolutions have strides, so that one step gives no result; the stream's state
            is unchanged.
        RuntimeError
            Another thread is in a call of this stream.
        """
        if (stride := self._owner.stride) > 1:
            raise ValueError(
                f"the convolutions' strides multiply to {stride}, wanted run() with a multiple of {stride} steps"
            )
        masked = self._masked(x, rows, 1)
        if masked is None:
            return self._checked(super().step, x, rows, casting)
        ids, chosen = masked
        y = np.zeros((len(ids), self._owner.output_size), np.float32)
        y[ids != 0] = self._checked(super().step, ids[ids != 0], chosen[ids != 0], casting)
        return y

    def run(self, x: ArrayLike, rows: ArrayLike | None = None, *, casting: Casting = "safe") -> NDArray[Any]:
        """Several steps of every row, or of the named ones: the same bits as one step at a time.

        Parameters
        ----------
        x : (B, T, I) array, or ids (B, T); with rows (R, T, I) or (R, T), in the order of `rows`
            T is a multiple of the product of the convolutions' strides.
        rows : (R,) integers, as in :meth:`step`
        casting : which conversions of x to float32 are allowed, by NumPy's names; see the layers

        Returns
        -------
        (B, T, O) or (R, T, O) array; with strides of product n it has T / n steps

        Raises
        ------
        TypeError, ValueError
            x or rows does not fit; the stream's state is unchanged.
        RuntimeError
            Another thread is in a call of this stream.
        KeyboardInterrupt
            Ctrl-C; the stream's state is unchanged.
        """
        masked = self._masked(x, rows, 2)
        if masked is None:
            return self._checked(super().run, x, rows, casting)
        ids, chosen = masked
        if (stride := self._owner.stride) > 1:
            raise ValueError(f"x has the id 0, which mask_zero leaves out, but the convolutions have stride {stride}")
        if ((ids < 0) | (ids >= self._owner.num_ids)).any():
            raise id_error([("x", ids)], self._owner.num_ids)
        y = np.zeros((*ids.shape, self._owner.output_size), np.float32)
        before = self.snapshot()
        try:
            for step, column in enumerate(ids.T):
                y[column != 0, step] = super().step(column[column != 0], chosen[column != 0], casting=casting)
        except BaseException:
            self.restore(before)
            raise
        return y

    def _masked(self, x: ArrayLike, rows: ArrayLike | None, ndim: int) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
        """x and the numbers of its rows, if they fit and mask_zero leaves out one of its ids."""
        if self._owner.mask_zero:
            ids, chosen = as_ids(x, "x"), self.check_rows(rows)
            if ids.ndim == ndim and len(ids) == len(chosen) and not ids.all():
                return ids, chosen
        return None

    def _checked(
        self, run: Callable[..., NDArray[Any]], x: Any, rows: ArrayLike | None, casting: Casting
    ) -> NDArray[Any]:
        """A step or run, whose error names an id that is out of range."""
        try:
            return run(x, rows, casting=casting)
        except _core.IdError:
            raise id_error([("x", as_ids(x, "x"))], self._owner.num_ids) from None
