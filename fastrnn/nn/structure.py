"""Nested structures: arrays in tuples, named tuples, lists and dicts, as states, inputs and outputs may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: A leaf, or a tuple, named tuple, list or dict of structures.
Structure = Any


class TensorShape(tuple[int, ...]):
    """Shape of one row's state or output that is not a vector; it counts as a leaf although it is a tuple.

    Examples
    --------
    >>> from fastrnn.nn import TensorShape
    >>> TensorShape([4, 4, 3])
    TensorShape((4, 4, 3))
    """

    def __repr__(self) -> str:
        return f"TensorShape({tuple(self)})"


def is_nested(value: Structure) -> bool:
    """Whether `value` is a container of structures rather than a leaf."""
    return isinstance(value, (tuple, list, dict)) and not isinstance(value, TensorShape)


def flatten(structure: Structure) -> list[Any]:
    """The leaves in order."""
    return [leaf for _, leaf in walk(structure, "")]


def walk(structure: Structure, name: str) -> Iterator[tuple[str, Any]]:
    """Each leaf with the Python expression for it, such as ``state[0].c``."""
    if not is_nested(structure):
        yield name, structure
        return
    for suffix, child in _children(structure):
        yield from walk(child, name + suffix)


def map_structure(function: Callable[..., Any], structure: Structure, *others: Structure) -> Structure:
    """Apply `function` to the leaves, in order, of one or more structures of equal form; return one like the first."""
    if not is_nested(structure):
        return function(structure, *others)
    if isinstance(structure, dict):
        items = {key: map_structure(function, structure[key], *(o[key] for o in others)) for key in sorted(structure)}
        return type(structure)((key, items[key]) for key in structure)
    parts = [map_structure(function, *children) for children in zip(structure, *others, strict=True)]
    if hasattr(structure, "_fields"):
        return type(structure)(*parts)
    return type(structure)(parts)


def pack(
    like: Structure,
    structure: Structure,
    name: str,
    leaf: Callable[[Any, Any, str], Any] = lambda like, leaf, name: leaf,
) -> Structure:
    """`structure` in the containers of `like`; it may have a list where `like` has a tuple.

    `leaf` makes a leaf of the result from the leaf of `like`, that of `structure` and the Python expression for it.

    Raises
    ------
    TypeError, ValueError
        Their forms differ; the message names the place.
    """
    if not is_nested(like):
        if is_nested(structure):
            raise TypeError(f"{name} is a {type(structure).__name__}, wanted one array")
        return leaf(like, structure, name)
    if not is_nested(structure) or isinstance(like, dict) != isinstance(structure, dict):
        raise TypeError(f"{name} is {type(structure).__name__}, wanted a {type(like).__name__} like {like!r}")
    if isinstance(like, dict):
        if structure.keys() != like.keys():
            raise ValueError(f"{name} has the keys {sorted(structure)}, wanted {sorted(like)}")
        return type(like)({key: pack(child, structure[key], f"{name}[{key!r}]", leaf) for key, child in like.items()})
    fields = getattr(like, "_fields", None)
    if fields != getattr(structure, "_fields", fields):
        raise TypeError(f"{name} has the fields {', '.join(structure._fields)}, wanted {type(like).__name__}")
    if len(structure) != len(like):
        raise ValueError(f"{name} has {len(structure)} entries, wanted {len(like)}")
    parts = [
        pack(child, part, name + suffix, leaf) for (suffix, child), part in zip(_children(like), structure, strict=True)
    ]
    return type(like)(*parts) if fields else type(like)(parts)


def axes_of(size: Any) -> tuple[Any, ...]:
    """The axes of a size: an integer, or those of a shape such as TensorShape."""
    if hasattr(size, "as_list"):
        return tuple(size.as_list())
    return tuple(size) if isinstance(size, TensorShape) else (size,)


def shape_of(size: Any) -> tuple[int, ...]:
    """Shape of one row that has a size."""
    return tuple(int(axis) for axis in axes_of(size))


def zeros(sizes: Structure, *leading: int, dtype: DTypeLike) -> Structure:
    """Zeros of shape (*leading, *size) for each size."""
    return map_structure(lambda size: np.zeros((*leading, *shape_of(size)), dtype), sizes)


def take(structure: Structure, rows: NDArray[Any] | slice) -> Structure:
    """The rows of every leaf."""
    return map_structure(lambda leaf: leaf[rows], structure)


def _children(structure: Structure) -> Iterator[tuple[str, Any]]:
    if isinstance(structure, dict):
        yield from ((f"[{key!r}]", structure[key]) for key in sorted(structure))
    elif hasattr(structure, "_fields"):
        yield from ((f".{field}", getattr(structure, field)) for field in structure._fields)
    else:
        yield from ((f"[{i}]", child) for i, child in enumerate(structure))
