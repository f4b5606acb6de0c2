"""A graph of ONNX as its nodes, names and tensors; nothing is computed, and no tensor read, before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The operators' own domain, by either of its names.
DOMAINS = ("", "ai.onnx")

#: Operators that give other values in each run, although nothing feeds them.
RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)

MOST_REASONS = 20  # in one message


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant tensor of the file.

    Attributes
    ----------
    shape : as the file says
    nbytes : of its values; the file has them
    read : gives the array; ValueError where its type is none of NumPy's
    proto : gives a TensorProto with the values inside
    """

    shape: tuple[int, ...]
    nbytes: int
    read: Callable[[], NDArray[Any]]
    proto: Callable[[], Any]


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes
    ----------
    op, domain : its operator
    name : its own, or one that its first output makes
    inputs, outputs : names; "" where an optional one is missing
    captures : names from outside that its bodies use (If, Loop, Scan)
    inner : names of recurrent operators in its bodies, or in the function that it calls
    is_random : whether it may give other values in each run, although nothing feeds it
    proto : the NodeProto
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captures: frozenset[str]
    inner: tuple[str, ...]
    is_random: bool
    proto: Any

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.op} node {self.name!r}"

    @property
    def reads(self) -> Iterator[str]:
        """The names that it needs."""
        yield from (name for name in self.inputs if name)
        yield from sorted(self.captures)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes as int, float, str, lists of these, or as protos.

        Raises
        ------
        ValueError
            One of them occurs twice, or is known only where a function is called.
        """
        values = {attribute.name: _value(attribute) for attribute in self.proto.attribute}
        if len(values) != len(self.proto.attribute):
            raise ValueError("attributes occur twice")
        return values


@dataclass(frozen=True)
class Graph:
    """A checked model.

    Attributes
    ----------
    path : of its file, for messages
    inputs : ValueInfoProto of each input that the caller feeds
    outputs : ValueInfoProto of each output
    nodes : each behind those whose outputs it reads
    tensors : the constants of the file by name
    producers : the node that gives a name
    opset : the version of ONNX's operators
    header : a ModelProto of the same versions and functions, without a graph
    nbytes : of the file, and of those that hold its tensors
    read_tensor : gives the array of a TensorProto among a node's attributes, checked as the others
    """

    path: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    producers: dict[str, Node]
    opset: int
    header: Any
    nbytes: int
    read_tensor: Callable[[Any], NDArray[Any]]


def _value(attribute: Any) -> Any:
    from onnx import AttributeProto

    kinds = AttributeProto
    if attribute.ref_attr_name:
        raise ValueError(f"attribute {attribute.name!r} refers to one of a function")
    plain: dict[int, Callable[[], Any]] = {
        kinds.INT: lambda: int(attribute.i),
        kinds.FLOAT: lambda: float(attribute.f),
        kinds.STRING: lambda: _text(attribute.s),
        kinds.INTS: lambda: [int(item) for item in attribute.ints],
        kinds.FLOATS: lambda: [float(item) for item in attribute.floats],
        kinds.STRINGS: lambda: [_text(item) for item in attribute.strings],
        kinds.TENSOR: lambda: attribute.t,
        kinds.GRAPH: lambda: attribute.g,
    }
    return plain[attribute.type]() if attribute.type in plain else attribute


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def refuse(path: str, reasons: Iterable[str]) -> None:
    """Raise one ValueError if there are reasons."""
    if found := list(reasons):
        more = f"; and {len(found) - MOST_REASONS} more" if len(found) > MOST_REASONS else ""
        raise ValueError(f"{path}: {'; '.join(found[:MOST_REASONS])}{more}")


def shape_of(info: Any) -> tuple[int | str, ...] | None:
    """The shape of a ValueInfoProto: numbers, names of sizes that are free, "" for those without a name; or None."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        int(size.dim_value) if size.HasField("dim_value") else str(size.dim_param) for size in tensor.shape.dim
    )


def type_of(info: Any) -> np.dtype[Any] | None:
    """NumPy's type of a ValueInfoProto's elements; None where it is no tensor, or of a type that NumPy has not."""
    from onnx import helper

    code = info.type.tensor_type.elem_type
    return np.dtype(helper.tensor_dtype_to_np_dtype(code)) if code in helper.get_all_tensor_dtypes() else None
