"""The fixed-length path: every step laid out ahead for an exact number of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..arguments import Casting, as_array, check_casting
from ..states import StateLike, StateT
from .calls import run_array

if TYPE_CHECKING:
    from .layer import Layer


class Unrolled(Generic[StateT]):
    """The fixed-length path: every row runs all T steps. Made by ``layer.unroll(T)``."""

    def __init__(self, layer: Layer[StateT], engine: _core.Layer, num_steps: int) -> None:
        self._layer, self._unrolled = layer, _core.Unrolled(engine, num_steps)
        self.num_steps = num_steps

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._layer).unroll, (self._layer, self.num_steps)

    def __call__(
        self, x: ArrayLike, state: StateLike = None, *, out: NDArray[Any] | None = None, casting: Casting = "safe"
    ) -> tuple[NDArray[Any], StateT]:
        """Run sequences of exactly T steps; arguments and results are those of the layer.

        Raises
        ------
        ValueError
            x has another number of steps.
        """
        shape = as_array(x, "x").shape
        axis = 1 if len(shape) == 3 and self._layer.batch_first else 0
        if len(shape) in (2, 3) and shape[axis] != self.num_steps:
            raise ValueError(f"x has {shape[axis]} steps, but the layer was unrolled for {self.num_steps}")
        return run_array(self._layer, x, state, None, None, "zero", out, check_casting(casting), self._unrolled)
