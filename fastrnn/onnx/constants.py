"""The constants of a graph: weights that exporters put behind chains of nodes, computed with NumPy when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import DOMAINS, Graph, Node

Arrays = list[NDArray[Any]]

#: Bytes that new arrays may take together: so many times the file and those of its tensors, and so many more.
MOST_GROWTH, SPARE = 4, 1 << 24

#: How many nodes are looked at to find that an initial state is zero.
MOST_BEHIND = 64


class Constants:
    """Which names of a graph are constant, and their values.

    A node gives constants if it is not random and all that it reads is constant.

    Parameters
    ----------
    graph : the graph
    evaluate : computes a constant whose operator is not among those of this module
    """

    def __init__(self, graph: Graph, evaluate: Callable[[Graph, str], NDArray[Any]]) -> None:
        self._graph, self._evaluate = graph, evaluate
        self._known: dict[str, NDArray[Any]] = {}
        self._zero: dict[str, bool] = {}  # of tensors of the file
        self._left = MOST_GROWTH * graph.nbytes + SPARE
        self.names = set(graph.tensors)
        for node in graph.nodes:
            if not node.is_random and all(name in self.names for name in node.reads):
                self.names.update(filter(None, node.outputs))

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def value(self, name: str) -> NDArray[Any]:
        """The value of a constant; it must not be written to.

        Raises
        ------
        ValueError
            It is not constant, or comes from an operator that is not computed here, or would take too much memory.
        """
        waiting = [name]
        while waiting:
            current = waiting[-1]
            if current in self._known:
                waiting.pop()
            elif current in self._graph.tensors:
                self._known[current] = self._read(current)
            elif current not in self.names:
                raise ValueError(f"{current!r} is not constant")
            else:
                node = self._graph.producers[current]
                if node.domain not in DOMAINS or node.op not in _OPERATORS:
                    self._known[current] = self._evaluate(self._graph, current)
                elif missing := [one for one in node.reads if one not in self._known]:
                    waiting += missing
                else:
                    self._compute(node)
        return self._known[name]

    def _read(self, name: str) -> NDArray[Any]:
        try:
            return self._graph.tensors[name].read()
        except ValueError as error:
            raise ValueError(f"tensor {name!r} {error}") from None

    def _compute(self, node: Node) -> None:
        inputs = [self._known[name] if name else None for name in node.inputs]

        def take(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
            self.charge(math.prod(map(int, shape)) * dtype.itemsize)

        try:
            with np.errstate(all="ignore"):
                results = _OPERATORS[node.op](_Call(node, self._graph, inputs, take))
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError, MemoryError) as error:
            raise ValueError(f"{node.title} cannot be computed: {error}") from None
        self._known.update(zip(node.outputs, results, strict=False))
        if missing := [name for name in node.outputs if name and name not in self._known]:
            raise ValueError(f"{node.title} has {len(node.outputs)} outputs, wanted {len(results)}: {missing[0]!r}")

    def charge(self, nbytes: int) -> None:
        """Count the bytes of a new array.

        Raises
        ------
        ValueError
            They are more than all that is computed from a file of its size may take.
        """
        self._left -= nbytes
        if self._left < 0:
            raise ValueError(f"it would take {nbytes} bytes, and all that is computed from the file too many")

    def is_zero(self, name: str) -> bool:
        """Whether all elements are zero, whatever the shape is: the initial states of exporters."""
        waiting, seen = [name], set[str]()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            if len(seen) > MOST_BEHIND:
                return False
            node = self._graph.producers.get(current)
            if node is None or node.domain not in DOMAINS:
                if current not in self._graph.tensors:
                    return False
                if current not in self._zero:
                    self._zero[current] = not np.any(self._read(current))
                if not self._zero[current]:
                    return False
            elif node.op == "ConstantOfShape":
                fill = node.attributes.get("value")
                if fill is not None and np.any(self._graph.read_tensor(fill)):
                    return False
            elif node.op == "Constant":
                if np.any(self.value(current)):
                    return False
            elif node.op == "Concat":
                waiting += node.inputs
            elif node.op in _KEEP_ZERO and node.inputs:
                waiting.append(node.inputs[0])
            else:
                return False
        return True


#: Operators whose outputs are zero if the first input is.
_KEEP_ZERO = frozenset(
    "Cast Expand Flatten Gather Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze".split()  # noqa: SIM905
)


class _Call:
    """A node with the arrays that it reads."""

    def __init__(self, node: Node, graph: Graph, inputs: list[NDArray[Any] | None], take: Callable[..., None]) -> None:
        self.node, self.opset, self.inputs, self.take = node, graph.opset, inputs, take
        self.read_tensor = graph.read_tensor

    def array(self, index: int = 0) -> NDArray[Any]:
        array = self.optional(index)
        if array is None:
            raise ValueError(f"it has no input {index}")
        return array

    def optional(self, index: int) -> NDArray[Any] | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def numbers(self, name: str, index: int, since: int) -> list[int] | None:
        """Integers that were an attribute up to an opset, and an input from there on."""
        if self.opset < since:
            given = self.attribute(name)
            return None if given is None else [int(number) for number in given]
        array = self.optional(index)
        if array is not None and (array.dtype.kind not in "iu" or array.ndim > 1):
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, wanted a list of integers")
        return None if array is None else [int(number) for number in array.ravel()]


def _constant(call: _Call) -> Arrays:
    for name in ("value_float", "value_floats"):
        if (given := call.attribute(name)) is not None:
            return [np.array(given, np.float32)]
    for name in ("value_int", "value_ints"):
        if (given := call.attribute(name)) is not None:
            return [np.array(given, np.int64)]
    value = call.attribute("value")
    if value is None:
        raise ValueError("it holds neither a tensor nor numbers")
    return [call.read_tensor(value)]


def _constant_of_shape(call: _Call) -> Arrays:
    shape = _shape(call.array())
    if min(shape, default=0) < 0:
        raise ValueError(f"the shape is {shape}, wanted sizes of at least 0")
    fill = call.attribute("value")
    value = np.zeros(1, np.float32) if fill is None else call.read_tensor(fill)
    call.take(shape, value.dtype)
    return [np.full(shape, value.ravel()[0])]


def _shape(array: NDArray[Any]) -> tuple[int, ...]:
    if array.dtype != np.int64 or array.ndim != 1 or len(array) > 32:
        raise ValueError(f"a shape is {array.dtype} of shape {array.shape}, wanted a list of int64")
    return tuple(map(int, array))


def _cast(call: _Call) -> Arrays:
    from onnx import helper

    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(call.attribute("to")))
    if dtype.kind not in "fiubV" or dtype.itemsize == 0:
        raise ValueError(f"it makes {dtype}, wanted numbers")
    call.take(call.array().shape, dtype)
    return [call.array().astype(dtype)]


def _transpose(call: _Call) -> Arrays:
    return [np.transpose(call.array(), call.attribute("perm"))]


def _unsqueeze(call: _Call) -> Arrays:
    axes = call.numbers("axes", 1, 13)
    if axes is None or len(axes) > 32:
        raise ValueError(f"axes are {axes}, wanted up to 32")
    return [np.expand_dims(call.array(), tuple(axes))]


def _squeeze(call: _Call) -> Arrays:
    axes = call.numbers("axes", 1, 13)
    return [np.squeeze(call.array(), None if axes is None else tuple(axes))]


def _reshape(call: _Call) -> Arrays:
    array, shape = call.array(), list(_shape(call.array(1)))
    if not call.attribute("allowzero", 0):
        shape = [array.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    if min(shape, default=0) < -1:
        raise ValueError(f"the shape is {shape}, wanted sizes of at least 0, or one -1")
    if not array.flags.c_contiguous:
        call.take(array.shape, array.dtype)
    return [array.reshape(shape)]


def _flatten(call: _Call) -> Arrays:
    array, axis = call.array(), call.attribute("axis", 1)
    axis += array.ndim if axis < 0 else 0
    before = int(np.prod(array.shape[:axis], dtype=np.int64))
    return [array.reshape(before, -1 if array.size else int(np.prod(array.shape[axis:], dtype=np.int64)))]


def _concat(call: _Call) -> Arrays:
    arrays = [call.array(index) for index in range(len(call.inputs))]
    for array in arrays:
        call.take(array.shape, array.dtype)
    return [np.concatenate(arrays, call.attribute("axis"))]


def _slice(call: _Call) -> Arrays:
    array = call.array()
    starts, ends = call.numbers("starts", 1, 10), call.numbers("ends", 2, 10)
    if starts is None or ends is None:
        raise ValueError("it has no starts or no ends")
    axes = call.numbers("axes", 3, 10) or list(range(len(starts)))
    steps = (call.numbers("steps", 4, 10) if call.opset >= 10 else None) or [1] * len(starts)
    slices = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # An end below the first element is written as a very negative number, which is None to NumPy.
        last = None if step < 0 and end < -array.shape[axis] else end
        slices[axis] = slice(start, last, step)
    return [array[tuple(slices)]]


def _split(call: _Call) -> Arrays:
    array, axis = call.array(), call.attribute("axis", 0)
    sizes = call.numbers("split", 1, 13)
    if sizes is None:
        count = call.attribute("num_outputs", len(call.node.outputs))
        each = -(-array.shape[axis] // count)
        sizes = [each] * (count - 1)
        sizes.append(array.shape[axis] - sum(sizes))
    if len(sizes) != len(call.node.outputs) or min(sizes) < 0 or sum(sizes) != array.shape[axis]:
        raise ValueError(f"it splits {array.shape[axis]} into {sizes[:8]}")
    return np.split(array, np.cumsum(sizes)[:-1], axis)


def _gather(call: _Call) -> Arrays:
    array, indices, axis = call.array(), call.array(1), call.attribute("axis", 0)
    if indices.dtype.kind not in "iu":
        raise ValueError(f"indices are {indices.dtype}, wanted integers")
    axis += array.ndim if axis < 0 else 0
    call.take(array.shape[:axis] + indices.shape + array.shape[axis + 1 :], array.dtype)
    return [np.take(array, indices, axis)]


def _expand(call: _Call) -> Arrays:
    array = call.array()
    shape = np.broadcast_shapes(array.shape, _shape(call.array(1)))
    call.take(shape, array.dtype)
    return [np.broadcast_to(array, shape).copy()]


def _shape_of(call: _Call) -> Arrays:
    shape = call.array().shape
    return [np.array(shape[call.attribute("start", 0) : call.attribute("end")], np.int64)]


def _elementwise(function: Callable[..., NDArray[Any]]) -> Callable[[_Call], Arrays]:
    def compute(call: _Call) -> Arrays:
        left, right = call.array(), call.array(1)
        call.take(np.broadcast_shapes(left.shape, right.shape), left.dtype)
        return [function(left, right)]

    return compute


#: The operators that are computed; each gives the arrays of the outputs.
_OPERATORS: dict[str, Callable[[_Call], Arrays]] = {
    "Add": _elementwise(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda call: [call.array()],
    "Mul": _elementwise(np.multiply),
    "Reshape": _reshape,
    "Shape": _shape_of,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
