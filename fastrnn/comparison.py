"""How far the results of two layers on the same input are apart, such as of one layer with two types of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .packed import Packed, is_torch_packed, pad_sequence, unpack


@dataclass(frozen=True)
class Difference:
    """How far two results are apart.

    Attributes
    ----------
    name : of the result: "y", "h" or "c"
    largest : the largest absolute difference; 0 between equal infinities or NaNs, infinite where only one is NaN
    rms : the root of the mean of the squared differences
    size : how many numbers were compared
    where : the place of the largest difference, such as {"row": 2, "step": 17, "unit": 5}; empty if size is 0
    values : the two numbers there
    """

    name: str
    largest: float
    rms: float
    size: int
    where: Mapping[str, int]
    values: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.name}: largest {self.largest:.3g}{self._place()}, rms {self.rms:.3g}"

    def _place(self) -> str:
        if not self.where:
            return ""
        place = ", ".join(f"{axis} {index}" for axis, index in self.where.items())
        return f" at {place} ({self.values[0]:.9g} and {self.values[1]:.9g})"


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` returns; ``str`` shows a line for each result.

    Attributes
    ----------
    parts : a Difference for each result: of the outputs and of each state
    """

    parts: tuple[Difference, ...]

    @property
    def worst(self) -> Difference:
        """The result with the largest difference."""
        return max(self.parts, key=lambda part: part.largest)

    @property
    def largest(self) -> float:
        """The largest difference of all results."""
        return self.worst.largest

    @property
    def rms(self) -> float:
        """The root of the mean of all squared differences."""
        size = sum(part.size for part in self.parts)
        return math.sqrt(sum(part.rms**2 * part.size for part in self.parts) / size) if size else 0.0

    def __str__(self) -> str:
        return "\n".join(map(str, self.parts))


def compare(
    layer: Callable[..., Any], other: Callable[..., Any], x: Any, lengths: ArrayLike | None = None
) -> Comparison:
    """Run two layers on the same input, from states of zeros, and compare their outputs and final states.

    Parameters
    ----------
    layer, other : layers of the same sizes, such as one of float32 and ``layer.with_weight_dtype("float16")``
        Any callables that take x and lengths and return y, or y and a state.
    x, lengths : as of a call
        Only the steps that `lengths` counts are compared.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        As of a call; or the results of the two have different shapes.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"weight_ih_l0": (256, 16), "weight_hh_l0": (256, 64)}
    >>> weights = {name: rng.uniform(-0.125, 0.125, shape).astype("f4") for name, shape in shapes.items()}
    >>> lstm = fastrnn.LSTM.from_state_dict(weights)
    >>> x = rng.standard_normal((4, 30, 16)).astype("f4")
    >>> found = fastrnn.compare(lstm, lstm.with_weight_dtype("float16"), x, lengths=[30, 7, 1, 0])
    >>> found.largest < 1e-3, [part.name for part in found.parts]
    (True, ['y', 'h', 'c'])
    """
    options = {} if lengths is None else {"lengths": lengths}
    here, there = (_results(one, one(x, **options), lengths) for one in (layer, other))
    if len(here) != len(there):
        raise ValueError(f"layer returns {len(here)} arrays, but other {len(there)}: wanted as many")
    return Comparison(tuple(map(_difference, here, there)))


def absolute_differences(here: NDArray[Any], there: NDArray[Any]) -> NDArray[np.float64]:
    """The absolute differences; 0 between equal infinities or two NaNs, infinite where only one is NaN."""
    here, there = here.astype(np.float64), there.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = np.abs(here - there)
    found[(here == there) | (np.isnan(here) & np.isnan(there))] = 0
    found[np.isnan(found)] = np.inf
    return found


@dataclass(frozen=True)
class Result:
    """One array that a call has returned, what its axes are, and which of its elements count."""

    name: str
    array: NDArray[Any]
    axes: tuple[str, ...]
    counted: NDArray[np.bool_]


def _results(layer: Any, returned: Any, lengths: ArrayLike | None) -> list[Result]:
    """The output as (B, T, F), then the states as (L, D, B, width)."""
    y, *states = returned if type(returned) is tuple else (returned,)
    if isinstance(y, Packed) or (isinstance(y, tuple) and is_torch_packed(y)):
        packed: Any = y
        y, lengths = unpack(packed)
    elif isinstance(y, list):
        lengths = [len(row) for row in y]
        y = pad_sequence(y, batch_first=True) if y else np.zeros((0, 0, 0))
    elif y.ndim == 2:
        y = y[None]
        states = [_batched(state) for state in states]
    elif not getattr(layer, "batch_first", True):
        y = y.swapaxes(0, 1)
    counted = np.ones(y.shape, bool)
    if lengths is not None:
        counted &= (np.arange(y.shape[1]) < np.asarray(lengths)[:, None])[:, :, None]
    results = [Result("y", y, ("row", "step", "unit"), counted)]
    parts = [part for state in states for part in (state if isinstance(state, tuple) else (state,))]
    D = getattr(layer, "num_directions", 1)
    for name, part in zip(("h", "c"), parts, strict=False):
        split = part.reshape(len(part) // D, D, *part.shape[1:])
        results.append(Result(name, split, ("layer", "direction", "row", "unit"), np.ones(split.shape, bool)))
    return results


def _batched(state: Any) -> Any:
    """The state of one sequence as that of a batch of one."""
    return tuple(map(_batched, state)) if isinstance(state, tuple) else state[:, None]


def _difference(here: Result, there: Result) -> Difference:
    if here.array.shape != there.array.shape:
        raise ValueError(f"{here.name} of layer has shape {here.array.shape}, that of other {there.array.shape}")
    found = np.where(here.counted, absolute_differences(here.array, there.array), 0)
    size = int(here.counted.sum())
    if not size:
        return Difference(here.name, 0.0, 0.0, 0, {}, (math.nan, math.nan))
    index = np.unravel_index(np.argmax(np.where(here.counted, found, -1)), found.shape)
    where = dict(zip(here.axes, map(int, index), strict=True))
    rms = math.sqrt(float(np.square(found).sum()) / size)
    return Difference(
        here.name, float(found[index]), rms, size, where, (float(here.array[index]), float(there.array[index]))
    )
