"""The recurrent state of a layer: h, and for an LSTM the pair of h and c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import Casting, as_floats

if TYPE_CHECKING:
    import typing_extensions

    from .layers import Layer

    #: What a layer returns as its state. By default Any, so that annotations may say Layer (typing's from Python 3.13).
    StateT = typing_extensions.TypeVar("StateT", default=Any)
else:
    StateT = TypeVar("StateT")


class State(NamedTuple):
    """The LSTM's state: h (L*D, B, P) and c (L*D, B, H)."""

    h: NDArray[Any]
    c: NDArray[Any]


StateLike = ArrayLike | State | tuple[ArrayLike, ArrayLike] | None


def new_state(layer: Layer[Any], B: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
    count = layer.num_layers * layer.num_directions
    h = np.empty((count, B, layer.proj_size or layer.hidden_size), layer.dtype)
    return h, np.empty((count, B, layer.hidden_size), layer.dtype) if layer.kind == "lstm" else None


def join_state(h: NDArray[Any], c: NDArray[Any] | None) -> Any:
    return h if c is None else State(h, c)


def check_state(
    layer: Layer[Any], state: StateLike, B: int, unbatched: bool, casting: Casting = "safe"
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    if state is None:
        return None, None
    if layer.kind != "lstm":
        width = layer.proj_size or layer.hidden_size
        return _check_part(layer, state, "state", width, B, unbatched, casting), None
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        found = f"{len(state)} entries" if isinstance(state, (tuple, list)) else type(state).__name__
        raise TypeError(f"state is {found}, wanted the pair (h, c)")
    h = _check_part(layer, state[0], "state h", layer.proj_size or layer.hidden_size, B, unbatched, casting)
    return h, _check_part(layer, state[1], "state c", layer.hidden_size, B, unbatched, casting)


def _check_part(
    layer: Layer[Any], part: Any, name: str, width: int, B: int, unbatched: bool, casting: Casting
) -> NDArray[Any]:
    array = as_floats(part, name, layer.dtype, casting)
    count = layer.num_layers * layer.num_directions
    shape = (count, width) if unbatched else (count, B, width)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, wanted {shape}")
    return np.ascontiguousarray(array)
