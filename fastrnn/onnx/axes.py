"""The axes of tensors by what they hold, followed through the nodes that move, join and split them.

An axis is one of the constants below, or an axis of the graph's input, "x0", "x1", ..., until it is known what that
holds. A pair of axes is one that was made of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

BATCH, STEPS, WIDTH = "batch", "steps", "width"
ONE = "one"  # of size 1, whatever it stands for
DIRECTIONS, UNITS = "directions", "units"  # what the width of a bidirectional layer is made of
STATES = "states"  # layers times directions

#: Of a tensor that is reshaped: the ways to do so are tried, and they grow with the axes.
MOST_AXES = 8

Axis = str | tuple[str, str]
Axes = tuple[Axis, ...]

#: A size of a shape that is computed: a number, or the size of an axis of the input.
Size = int | Axis


class NotAChain(Exception):
    """Why a graph is no chain of layers."""


class Roles:
    """What the axes of the input hold, learned from the nodes that use them.

    Parameters
    ----------
    count : how many axes the input has
    sizes : those that the file fixes, by axis
    """

    def __init__(self, count: int, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self._roles: dict[str, str | None] = {f"x{index}": None for index in range(count)}

    def of(self, axis: Axis) -> str | None:
        """What an axis holds; None where it is not known."""
        if isinstance(axis, tuple):
            return None
        return self._roles.get(axis, axis)

    def take(self, axis: Axis, role: str, what: str) -> None:
        """Use an axis as `role`, which it keeps; an axis of size 1 can be used as rows or as steps."""
        if self.of(axis) == role or (axis == ONE and role != WIDTH):
            return
        if self.of(axis) is not None or isinstance(axis, tuple) or role in self._roles.values():
            raise NotAChain(f"the {what} has another axis in the place of the {role}")
        self._roles[axis] = role

    def new_steps(self, size: int | None) -> str:
        """An axis of steps of another number: a convolution changes it."""
        axis = f"steps{len(self._roles)}"
        self._roles[axis] = STEPS
        if size is not None:
            self.sizes[axis] = size
        return axis


def reshape(axes: Axes, target: Sequence[Size], size: Callable[[Axis], int | None], what: str) -> Axes:
    """The axes after a Reshape.

    Parameters
    ----------
    target : the sizes; -1 is what is left, 0 has been replaced
    size : gives the size of an axis, None where it is not known

    Raises
    ------
    NotAChain
        The reshape mixes axes, or what it does to them is not known.
    """
    found: set[Axes] = set()
    if max(len(axes), len(target)) > MOST_AXES:
        raise NotAChain(f"the {what} has more than {MOST_AXES} axes")

    def fits(wanted: Size, axis: Axis) -> bool:
        return wanted in (-1, axis) or (isinstance(wanted, int) and wanted == size(axis))

    def match(i: int, j: int, made: Axes) -> None:
        if len(found) > 1:
            return
        if i == len(axes) and j == len(target):
            found.add(made)
        if i < len(axes):
            axis = axes[i]
            if axis == ONE:
                match(i + 1, j, made)
            if j < len(target):
                if fits(target[j], axis):
                    match(i + 1, j + 1, (*made, axis))
                for parts in _splits(axis):
                    if j + 1 < len(target) and fits(target[j], parts[0]) and fits(target[j + 1], parts[1]):
                        match(i + 1, j + 2, made + parts)
                if i + 1 < len(axes):
                    joined = _join(axis, axes[i + 1])
                    if joined is not None and fits(target[j], joined):
                        match(i + 2, j + 1, (*made, joined))
        if j < len(target) and target[j] == 1 and not (i < len(axes) and axes[i] == ONE):
            match(i, j + 1, (*made, ONE))

    match(0, 0, ())
    if len(found) != 1:
        raise NotAChain(f"the {what} changes the shape in a way that is not known")
    return found.pop()


def _splits(axis: Axis) -> list[tuple[str, str]]:
    if isinstance(axis, tuple):
        return [axis]
    return [(DIRECTIONS, UNITS)] if axis == WIDTH else []


def _join(left: Axis, right: Axis) -> Axis | None:
    if (left, right) == (DIRECTIONS, UNITS):
        return WIDTH
    if isinstance(left, tuple) or isinstance(right, tuple):
        return None
    inner = (DIRECTIONS, UNITS, WIDTH, ONE, STATES)
    return None if left in inner or right in inner else (left, right)


class Arrangement:
    """How an array gets its axes into another order, joined or split; axes of size 1 come and go.

    Parameters
    ----------
    axes : what the array has; plain ones, none twice
    target : what the result has; of a pair of directions and units both or none
    """

    def __init__(self, axes: Axes, target: Axes) -> None:
        self._is_same = axes == target
        self._split = axes.index(WIDTH) if UNITS in target and WIDTH in axes else None
        if self._split is not None:
            axes = (*axes[: self._split], DIRECTIONS, UNITS, *axes[self._split + 1 :])
        flat = [part for axis in target for part in parts(axis) if part in axes]
        rest = [axis for axis in axes if axis not in flat]
        self._order = tuple(axes.index(axis) for axis in flat + rest)
        self._is_ordered = self._order == tuple(range(len(axes)))
        # New axes of size 1 alone are an index, which is faster than a reshape.
        is_plain = not rest and all(axis == ONE or axis in axes for axis in target)
        self._index = tuple(slice(None) if axis in axes else None for axis in target) if is_plain else None
        self._is_done = is_plain and None not in (self._index or ())
        self._joined = [[flat.index(part) for part in parts(axis) if part in flat] for axis in target]

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array so arranged: a view of it if possible."""
        if self._is_same:
            return array
        if self._split is not None:
            before, width = array.shape[: self._split], array.shape[self._split]
            array = array.reshape(*before, 2, width // 2, *array.shape[self._split + 1 :])
        if not self._is_ordered:
            array = array.transpose(self._order)
        if self._is_done:
            return array
        if self._index is not None:
            return array[self._index]
        sizes = array.shape
        return array.reshape([math.prod(sizes[place] for place in places) for places in self._joined])


def parts(axis: Axis) -> tuple[str, ...]:
    """The plain axes that an axis is made of."""
    return axis if isinstance(axis, tuple) else (axis,)
