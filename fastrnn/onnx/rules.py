"""What the nodes of a chain do: layers, and nodes that move, join, split or take axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.ops import (
    BatchNorm,
    Conv1d,
    Embedding,
    First,
    Last,
    LayerNorm,
    Linear,
    LogSoftmax,
    Max,
    Mean,
    Op,
    Reverse,
    Scale,
    Softmax,
)
from ..spec import Activation, LayerSpec
from .axes import BATCH, DIRECTIONS, ONE, STATES, STEPS, UNITS, WIDTH, Axes, Axis, NotAChain, Size, reshape
from .follower import Follower, Value
from .graph import Node
from .values import MOST_NUMBERS, MOST_STEPS, Data, Initial, Sizes, States, Step, final

#: What an end of a Slice is where it means all that is left.
END = 1 << 30


class Padded:
    """Data with zeros around their steps, for a convolution."""

    def __init__(self, data: Data, zeros: tuple[int, int]) -> None:
        self.data, self.zeros = data, zeros


class Norm:
    """A part of a layer normalization that is written as single nodes: mean, centered, squared, variance, deviation."""

    def __init__(self, data: Data, part: str, eps: float = 0.0) -> None:
        self.data, self.part, self.eps = data, part, eps


@dataclass(frozen=True, eq=False)
class Half:
    """One direction of a bidirectional layer's output."""

    data: Data
    direction: int
    axes: Axes


@dataclass(frozen=True)
class Negative:
    """Whether ids are below zero, or with `inverted` whether they are not; as a number or a truth value.

    Keras lets such ids count from the end of a table. An Embedding refuses them, so that here they never are.
    """

    inverted: bool


class Shifted:
    """Ids plus a constant."""


def _refuse(node: Node, why: str) -> NotAChain:
    return NotAChain(f"the {node.title} {why}")


def _place(axis: int, axes: Sequence[Any], node: Node) -> int:
    """The index of an axis that may be counted from the end."""
    if not -len(axes) <= axis < len(axes):
        raise _refuse(node, f"has axis {axis} of {len(axes)}")
    return axis % len(axes)


# Nodes that move axes


def _same(f: Follower, node: Node) -> Value:
    return f.value(node)


def _dropout(f: Follower, node: Node) -> Value:
    training = f.optional(node, 2)
    if training is not None and np.any(training):
        raise _refuse(node, "is in training mode")
    return f.value(node)


def _cast(f: Follower, node: Node) -> Value:
    from onnx import TensorProto

    value, to = f.value(node), node.attributes.get("to")
    is_integer = to in (TensorProto.INT32, TensorProto.INT64)
    if isinstance(value, Negative) or (isinstance(value, Data) and value.is_ids and not value.steps):
        return value
    if isinstance(value, Data) and not value.steps and is_integer:
        return replace(value, is_ids=True)
    if is_integer if isinstance(value, Sizes) else to == TensorProto.FLOAT and not getattr(value, "is_ids", False):
        return value
    raise _refuse(node, "changes the type")


def _transpose(f: Follower, node: Node) -> Value:
    value = f.value(node)
    axes = _axes(value, node)
    perm = node.attributes.get("perm") or list(range(len(axes)))[::-1]
    if sorted(perm) != list(range(len(axes))):
        raise _refuse(node, f"has perm {perm} of {len(axes)} axes")
    return replace(value, axes=tuple(axes[place] for place in perm))


def _axes(value: Value, node: Node) -> Axes:
    if not isinstance(value, Data | States | Initial | Half):
        raise _refuse(node, "does not read the output of a layer, or a state")
    return value.axes


def _count(value: Value) -> int | None:
    """How many layers and directions states have."""
    if isinstance(value, States):
        return len(value.entries)
    return value.count if isinstance(value, Initial) else None


def _squeeze(f: Follower, node: Node) -> Value:
    value = f.value(node)
    given = f.numbers(node, "axes", 1, 13)
    if isinstance(value, Sizes):
        if len(value.sizes) != 1:
            raise _refuse(node, "reads a shape of several sizes")
        return Sizes(value.sizes, is_scalar=True)
    axes = _axes(value, node)
    if given is None:
        raise _refuse(node, "takes away all axes of size 1, whatever they are")
    gone = {_place(axis, axes, node) for axis in given}
    for place in gone:
        if axes[place] != ONE and not (axes[place] == STATES and _count(value) == 1):
            raise _refuse(node, f"takes away the axis of the {axes[place]}")
    return replace(value, axes=tuple(axis for place, axis in enumerate(axes) if place not in gone))


def _unsqueeze(f: Follower, node: Node) -> Value:
    value = f.value(node)
    given = f.numbers(node, "axes", 1, 13)
    if isinstance(value, Sizes) and value.is_scalar:
        return Sizes(value.sizes)
    axes = list(_axes(value, node))
    if given is None:
        raise _refuse(node, "has no axes")
    total = len(axes) + len(given)
    for place in sorted(axis % total for axis in given):
        axes.insert(place, ONE)
    return replace(value, axes=tuple(axes))


def _reshape(f: Follower, node: Node) -> Value:
    value, shape = f.value(node), f.value(node, 1)
    target: list[Size]
    if shape is None:
        target = [int(size) for size in f.constant(node, 1).ravel()]
    elif isinstance(shape, Sizes) and not shape.is_scalar:
        target = list(shape.sizes)
    else:
        raise _refuse(node, "has a shape that depends on more than sizes")
    if isinstance(value, Sizes):
        if target not in ([-1], [1], []) or len(value.sizes) != 1:
            raise _refuse(node, "changes a shape")
        return Sizes(value.sizes, is_scalar=not target)
    if isinstance(value, States):
        value = final(value)
    if not isinstance(value, Data):
        raise _refuse(node, "does not read the output of a layer")
    if not node.attributes.get("allowzero", 0):
        target = [_size(f, value, place) if size == 0 else size for place, size in enumerate(target)]
    return _reshaped(f, node, value, target)


def _size(f: Follower, data: Data, place: int) -> Size:
    axis = data.axes[place]
    known = f.size(axis, data.width)
    return axis if known is None else known


def _reshaped(f: Follower, node: Node, data: Data, target: Sequence[Size]) -> Data:
    return replace(data, axes=reshape(data.axes, target, lambda axis: f.size(axis, data.width), node.title))


def _flatten(f: Follower, node: Node) -> Value:
    data = f.data(node)
    place = _place(node.attributes.get("axis", 1), (*data.axes, ONE), node)
    before: Size = 1
    for index in range(place):
        before = _product(before, _size(f, data, index), node)
    return _reshaped(f, node, data, [before, -1])


# Shapes


def _shape(f: Follower, node: Node) -> Value:
    value = f.value(node)
    if isinstance(value, States):
        value = final(value)
    if not isinstance(value, Data):
        raise _refuse(node, "does not read the output of a layer")
    sizes = tuple(_size(f, value, place) for place in range(len(value.axes)))
    return Sizes(sizes[slice(node.attributes.get("start", 0), node.attributes.get("end"))])


def _sizes(f: Follower, node: Node, index: int) -> Sizes:
    """An input that is a shape or a part of one, or constant integers."""
    value = f.value(node, index)
    if isinstance(value, Sizes):
        return value
    array = f.constant(node, index)
    if array.dtype.kind not in "iu" or array.size > 16:
        raise _refuse(node, f"reads {node.inputs[index]!r}, which is no shape")
    return Sizes(tuple(int(size) for size in array.ravel()), is_scalar=array.ndim == 0)


def _reduce_product(f: Follower, node: Node) -> Value:
    sizes, axes = f.value(node), f.numbers(node, "axes", 1, 18)
    if not isinstance(sizes, Sizes) or axes not in (None, [0]) or not sizes.sizes:
        raise _refuse(node, "is no layer")
    product = sizes.sizes[0]
    for size in sizes.sizes[1:]:
        product = _product(product, size, node)
    return Sizes((product,), is_scalar=node.attributes.get("keepdims", 1) != 1)


def _expand(f: Follower, node: Node) -> Value:
    value = f.value(node)
    if not isinstance(value, Sizes) or len(value.sizes) != 1:
        raise _refuse(node, "repeats numbers")
    return value  # the same for every row


def _product(left: Size, right: Size, node: Node) -> Size:
    if isinstance(left, int) and isinstance(right, int) and abs(left * right) < 1 << 63:
        return left * right
    if 1 in (left, right):
        return right if left == 1 else left
    if isinstance(left, str) and isinstance(right, str):
        return left, right
    raise _refuse(node, "multiplies sizes")


# Parts


def _gather(f: Follower, node: Node) -> Value:
    value, indices = f.value(node), f.value(node, 1)
    axis = node.attributes.get("axis", 0)
    if value is None and isinstance(indices, Data):
        return _embedding(f, node, indices)
    array = f.constant(node, 1)
    numbers = [int(number) for number in array.ravel()]
    if isinstance(value, Sizes) and array.ndim <= 1:
        return Sizes(tuple(value.sizes[number] for number in numbers), is_scalar=array.ndim == 0)
    if len(numbers) != 1 or array.ndim > 1:
        raise _refuse(node, "takes several parts")
    place = _place(axis, _axes(value, node), node)
    taken = _take(f, node, value, place, numbers[0], numbers[0] + 1)
    return replace(taken, axes=taken.axes[:place] + taken.axes[place + 1 :]) if array.ndim == 0 else taken


def _embedding(f: Follower, node: Node, ids: Data) -> Data:
    table = f.floats(node, 0)
    if not ids.is_ids or ids.steps or node.attributes.get("axis", 0) != 0 or table.ndim != 2:
        raise _refuse(node, "is no table of vectors for ids of the input")
    return replace(ids.then(Embedding(table), table.shape[1], (*ids.axes, WIDTH)), is_ids=False)


def _take(f: Follower, node: Node, value: Value, place: int, start: int, end: int) -> Value:
    """The part of an axis from `start` to `end`, -1 + 1 and END being the end; the axis stays."""
    axis = value.axes[place]
    is_last, is_first = start == -1 and end in (0, END), (start, end) == (0, 1)
    if start == 0 and end >= END:
        return value
    if axis == ONE and (is_first or is_last):
        return value
    if axis == STATES:
        return _some_states(node, value, start, end)
    if axis == DIRECTIONS and isinstance(value, Data) and end - start == 1 and -2 <= start < 2:
        return Half(value, start % 2, (*value.axes[:place], ONE, *value.axes[place + 1 :]))
    if isinstance(value, Data) and not value.is_ids and f.roles.of(axis) in (STEPS, None) and (is_first or is_last):
        f.roles.take(axis, STEPS, node.title)
        axes = (*value.axes[:place], ONE, *value.axes[place + 1 :])
        return value.then(Last() if is_last else First(), axes=axes)
    raise _refuse(node, f"takes a part of the axis of the {f.roles.of(axis) or axis}")


def _some_states(node: Node, value: States | Initial, start: int, end: int) -> Value:
    count = _count(value)
    if start < 0 or end < 0 or end >= END or start == -1:
        if count is None:
            raise _refuse(node, "counts states from the end")
        end = count if end >= END or (start < 0 and end == 0) else end % count if end < 0 else end
        start %= count
    if not start < end or (count is not None and end > count):
        raise _refuse(node, f"takes the states {start} to {end} of {count}")
    if isinstance(value, States):
        return replace(value, entries=value.entries[start:end])
    return replace(value, start=value.start + start, count=end - start)


def _slice(f: Follower, node: Node) -> Value:
    value = f.value(node)
    starts, ends = f.numbers(node, "starts", 1, 10), f.numbers(node, "ends", 2, 10)
    if starts is None or ends is None:
        raise _refuse(node, "has no starts or no ends")
    axes = f.numbers(node, "axes", 3, 10) or list(range(len(starts)))
    steps = (f.numbers(node, "steps", 4, 10) if f.graph.opset >= 10 else None) or [1] * len(starts)
    if isinstance(value, Sizes):
        if value.is_scalar or len(starts) != 1 or axes != [0]:
            raise _refuse(node, "takes parts of a shape")
        return Sizes(value.sizes[slice(starts[0], ends[0], steps[0])])
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = _place(axis, _axes(value, node), node)
        if step == -1 and (start == -1 or start >= END) and end < -END and isinstance(value, Data) and not value.is_ids:
            value = _reversed(f, node, value, place)
        elif step == 1 and end != 0:
            value = _take(f, node, value, place, start, min(end, END))
        else:
            raise _refuse(node, f"takes a part from {start} to {end} in steps of {step}")
    return value


def _split(f: Follower, node: Node) -> Value:
    value = f.value(node)
    axes = _axes(value, node)
    place = _place(node.attributes.get("axis", 0), axes, node)
    sizes, count = f.numbers(node, "split", 1, 13), _count(value)
    if axes[place] != STATES:
        raise _refuse(node, "divides another axis than that of states")
    if sizes is None and count is not None and count % len(node.outputs) == 0:
        sizes = [count // len(node.outputs)] * len(node.outputs)
    if sizes is None or len(sizes) != len(node.outputs) or count not in (None, sum(sizes)):
        raise _refuse(node, f"divides {count} states into {sizes} and {len(node.outputs)} outputs")
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [_some_states(node, value, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _concat(f: Follower, node: Node) -> Value:
    values = [f.value(node, index) for index in range(len(node.inputs))]
    if any(isinstance(value, Sizes) for value in values):
        parts = [_sizes(f, node, index) for index in range(len(node.inputs))]
        if sum(len(part.sizes) for part in parts) > MOST_NUMBERS:
            raise _refuse(node, "joins shapes to a very long one")
        return Sizes(tuple(size for part in parts for size in part.sizes))
    axes = _axes(values[0], node)
    place = _place(node.attributes.get("axis", 0), axes, node)
    if all(isinstance(value, States) for value in values):
        return _joined_states(node, values, place)
    if len(values) == 2 and all(isinstance(value, Half) for value in values) and axes[place] == UNITS:
        return _both_halves(node, *values)
    if len(values) == 2 and all(isinstance(value, Data) for value in values) and axes[place] == WIDTH:
        return _both_directions(node, *values)
    raise _refuse(node, "joins what is no pair of directions")


def _joined_states(node: Node, values: Sequence[States], place: int) -> Value:
    longest = max(values, key=lambda value: len(value.steps))
    for value in values:
        same = all(a is b for a, b in zip(value.steps, longest.steps, strict=False))
        if value.axes != values[0].axes or value.width != values[0].width or not same:
            raise _refuse(node, "joins states of different layers")
    entries = tuple(entry for value in values for entry in value.entries)
    if len(entries) > MOST_STEPS:
        raise _refuse(node, f"joins more than {MOST_STEPS} states")
    axis = values[0].axes[place]
    if axis == STATES:
        return replace(longest, entries=entries)
    if axis != WIDTH or STATES in values[0].axes:
        raise _refuse(node, "joins another axis than that of states")
    whole = final(replace(longest, axes=(STATES, *values[0].axes), entries=entries))
    return replace(whole, axes=values[0].axes)


def _reverse_sequence(f: Follower, node: Node) -> Value:
    data, lengths = f.data(node), f.value(node, 1)
    place = node.attributes.get("time_axis", 0)
    if not isinstance(lengths, Sizes) or lengths.sizes != (_size(f, data, place),):
        raise _refuse(node, "reverses a part of the steps")
    return _reversed(f, node, data, place)


def _reversed(f: Follower, node: Node, data: Data, place: int) -> Data:
    if data.axes[place] == ONE:
        return data
    f.roles.take(data.axes[place], STEPS, node.title)
    return data.then(Reverse())


def _less(f: Follower, node: Node) -> Value:
    ids = f.value(node)
    if not isinstance(ids, Data) or not ids.is_ids or np.any(f.constant(node, 1)):
        raise _refuse(node, "is no layer")
    return Negative(inverted=False)


def _not(f: Follower, node: Node) -> Value:
    value = f.value(node)
    if not isinstance(value, Negative):
        raise _refuse(node, "is no layer")
    return Negative(not value.inverted)


def _of_ids(f: Follower, node: Node) -> Value:
    """A sum or a product of ids and of what is zero or one because no id is below zero; None for anything else."""
    values = [f.value(node, 0), f.value(node, 1)]
    ids = next((value for value in values if isinstance(value, Data) and value.is_ids), None)
    flag = next((value for value in values if isinstance(value, Negative)), None)
    if ids is not None and node.op == "Add" and None in values:
        return Shifted()
    if ids is not None and flag is not None and flag.inverted == (node.op == "Mul"):
        return ids  # + 0 or * 1
    if (
        node.op == "Mul"
        and flag is not None
        and not flag.inverted
        and any(isinstance(value, Shifted) for value in values)
    ):
        return flag
    return None


def _both_halves(node: Node, left: Half, right: Half) -> Data:
    """The directions of a layer that were taken apart, side by side again."""
    if left.data is not right.data or left.axes != right.axes or (left.direction, right.direction) != (0, 1):
        raise _refuse(node, "joins what is no pair of directions")
    return replace(left.data, axes=tuple(WIDTH if axis == UNITS else axis for axis in left.axes))


def _both_directions(node: Node, left: Data, right: Data) -> Data:
    """Two layers on the same input, one forward and one reverse, as a bidirectional one."""
    first, second = left.last, right.last
    both = isinstance(first, LayerSpec) and isinstance(second, LayerSpec) and left.axes == right.axes
    if not both or len(left.steps) != len(right.steps) or not all(map(_is, left.steps[:-1], right.steps[:-1])):
        raise _refuse(node, "joins what is no pair of directions")
    assert isinstance(first, LayerSpec) and isinstance(second, LayerSpec)
    sizes = [(spec.kind, spec.input_size, spec.hidden_size, spec.num_directions) for spec in (first, second)]
    if sizes[0] != sizes[1] or first.bidirectional or first.reverse or not second.reverse:
        raise _refuse(node, "joins what is no pair of a forward and a reverse layer")
    spec = replace(first, cells=(*first.cells, *second.cells), bidirectional=True)
    nodes = left.steps[-1].nodes + right.steps[-1].nodes
    return Data((*left.steps[:-1], Step(spec, nodes)), left.axes, 2 * first.hidden_size)


def _is(left: Step, right: Step) -> bool:
    return left is right


# Layers


def _vector(f: Follower, node: Node, array: NDArray[Any], data: Data) -> NDArray[np.float32]:
    """A constant that is added to or multiplied with vectors, as one of their width."""
    if array.dtype != np.float32 or data.width is None or WIDTH not in data.axes or array.ndim > len(data.axes):
        raise _refuse(node, f"reads {array.dtype} of shape {array.shape}")
    place = data.axes.index(WIDTH) - (len(data.axes) - array.ndim)
    if any(size != 1 for axis, size in enumerate(array.shape) if axis != place):
        raise _refuse(node, "has other numbers at each step")
    f.constants.charge(2 * 4 * data.width)  # Scale has two
    return np.ascontiguousarray(np.broadcast_to(array.ravel(), (data.width,)))


def _data_and_constant(f: Follower, node: Node) -> tuple[Data, NDArray[np.float32], bool]:
    """One input that is data and one that is constant, and whether the data come first."""
    is_first = f.value(node) is not None
    data = f.data(node, 0 if is_first else 1)
    array = f.constant(node, 1 if is_first else 0)
    if data.width is None or WIDTH not in data.axes:
        data = f.with_width(data, len(data.axes) - 1, node)
    return data, _vector(f, node, array, data), is_first


def _matmul(f: Follower, node: Node) -> Value:
    data, weight = f.data(node), f.floats(node, 1)
    if weight.ndim != 2:
        raise _refuse(node, f"has a weight of shape {weight.shape}")
    data = f.with_width(data, len(data.axes) - 1, node, weight.shape[0])
    return data.then(Linear(np.ascontiguousarray(weight.T)), weight.shape[1])


def _gemm(f: Follower, node: Node) -> Value:
    data, weight, bias = f.data(node), f.floats(node, 1), f.optional(node, 2)
    attributes = node.attributes
    if attributes.get("transA", 0) or len(data.axes) != 2 or weight.ndim != 2:
        raise _refuse(node, "is no layer")
    weight = weight if attributes.get("transB", 0) else weight.T
    weight = np.ascontiguousarray(np.float32(attributes.get("alpha", 1.0)) * weight)
    data = f.with_width(data, 1, node, weight.shape[1])
    linear = data.then(Linear(weight), weight.shape[0])
    if bias is None:
        return linear
    beta = np.float32(attributes.get("beta", 1.0))
    return linear.instead(Linear(weight, beta * _vector(f, node, bias, linear)))


def _add(f: Follower, node: Node) -> Value:
    if (ids := _of_ids(f, node)) is not None:
        return ids
    norm = f.value(node)
    if isinstance(norm, Norm) and norm.part == "variance":
        eps = f.constant(node, 1)
        if eps.size == 1:
            return Norm(norm.data, "variance", norm.eps + float(eps.ravel()[0]))
    data, vector, _ = _data_and_constant(f, node)
    last = data.last
    if isinstance(last, Linear | Conv1d) and last.bias is None:
        return data.instead(replace(last, bias=vector))
    if isinstance(last, LayerNorm) and last.bias is None:
        return data.instead(replace(last, bias=vector))
    return data.then(Scale(np.ones_like(vector), vector))


def _subtract(f: Follower, node: Node) -> Value:
    mean = f.value(node, 1)
    if isinstance(mean, Norm) and mean.part == "mean" and mean.data is f.value(node):
        return Norm(mean.data, "centered")
    data, vector, is_first = _data_and_constant(f, node)
    ones = np.ones_like(vector)
    return data.then(Scale(ones, -vector) if is_first else Scale(-ones, vector))


def _multiply(f: Follower, node: Node) -> Value:
    if (ids := _of_ids(f, node)) is not None:
        return ids
    left, right = f.value(node), f.value(node, 1)
    if isinstance(left, Sizes) or isinstance(right, Sizes):
        sizes = [_sizes(f, node, index) for index in (0, 1)]
        if any(len(part.sizes) != 1 for part in sizes):
            raise _refuse(node, "multiplies shapes")
        scalar = sizes[0].is_scalar and sizes[1].is_scalar
        return Sizes((_product(sizes[0].sizes[0], sizes[1].sizes[0], node),), is_scalar=scalar)
    if isinstance(left, Norm) and left is right and left.part == "centered":
        return Norm(left.data, "squared")
    data, vector, _ = _data_and_constant(f, node)
    last = data.last
    if isinstance(last, LayerNorm) and last.weight is None and last.bias is None:
        return data.instead(replace(last, weight=vector))
    return data.then(Scale(vector, np.zeros_like(vector)))


def _divide(f: Follower, node: Node) -> Value:
    left, right = f.value(node), f.value(node, 1)
    if isinstance(left, Norm) and isinstance(right, Norm):
        if (left.part, right.part) == ("centered", "deviation") and left.data is right.data:
            return left.data.then(LayerNorm(eps=right.eps))
        raise _refuse(node, "is no layer")
    if right is not None:
        raise _refuse(node, "divides by the output of a layer")
    data, vector, _ = _data_and_constant(f, node)
    return data.then(Scale(1 / vector, np.zeros_like(vector)))


def _power(f: Follower, node: Node) -> Value:
    norm, exponent = f.value(node), f.constant(node, 1)
    if not isinstance(norm, Norm) or norm.part != "centered" or exponent.size != 1 or exponent.ravel()[0] != 2:
        raise _refuse(node, "is no layer")
    return Norm(norm.data, "squared")


def _square_root(f: Follower, node: Node) -> Value:
    norm = f.value(node)
    if not isinstance(norm, Norm) or norm.part != "variance":
        raise _refuse(node, "is no layer")
    return Norm(norm.data, "deviation", norm.eps)


def _layer_norm(f: Follower, node: Node) -> Value:
    data, weight, bias = f.data(node), f.floats(node, 1), f.optional(node, 2)
    if _place(node.attributes.get("axis", -1), data.axes, node) != len(data.axes) - 1:
        raise _refuse(node, "is over several axes")
    data = f.with_width(data, len(data.axes) - 1, node, weight.size)
    eps = node.attributes.get("epsilon", 1e-5)
    return data.then(
        LayerNorm(_vector(f, node, weight, data), None if bias is None else _vector(f, node, bias, data), eps)
    )


def _batch_norm(f: Follower, node: Node) -> Value:
    scale, shift, mean, variance = (f.floats(node, index) for index in range(1, 5))
    if node.attributes.get("training_mode", 0):
        raise _refuse(node, "is in training mode")
    data = f.with_width(f.data(node), 1, node, scale.size)
    return data.then(BatchNorm(mean, variance, scale, shift, node.attributes.get("epsilon", 1e-5)))


def _pad(f: Follower, node: Node) -> Value:
    data = f.data(node)
    if node.attributes.get("mode", "constant") != "constant":
        raise _refuse(node, "fills with other numbers than zeros")
    pads = f.numbers(node, "pads", 1, 11)
    fill = node.attributes.get("value", 0.0) if f.graph.opset < 11 else f.optional(node, 2)
    places = f.numbers(node, "axes", 3, 11) if f.graph.opset >= 18 else None
    places = list(range(len(data.axes))) if places is None else [_place(axis, data.axes, node) for axis in places]
    if pads is None or len(pads) != 2 * len(places) or (fill is not None and np.any(fill)) or min(pads) < 0:
        raise _refuse(node, "fills with other numbers than zeros")
    around = dict(zip(places, zip(pads, pads[len(places) :], strict=False), strict=True))
    padded = [place for place, zeros in around.items() if any(zeros)]
    if len(padded) > 1 or any(data.axes[place] == ONE for place in padded):
        raise _refuse(node, "pads another axis than that of the steps")
    if not padded:
        return data
    f.roles.take(data.axes[padded[0]], STEPS, node.title)
    return Padded(data, around[padded[0]])


def _conv(f: Follower, node: Node) -> Value:
    value, zeros = f.value(node), (0, 0)
    if isinstance(value, Padded):
        data, zeros = value.data, value.zeros
    else:
        data = f.data(node)
    weight, bias = f.floats(node, 1), f.optional(node, 2)
    count = weight.ndim - 2
    if count < 1 or len(data.axes) != weight.ndim or node.attributes.get("group", 1) != 1:
        raise _refuse(node, "is no plain convolution over steps")
    along = [place for place in range(count) if data.axes[place + 2] != ONE]
    if len(along) != 1 or any(size != 1 for place, size in enumerate(weight.shape[2:]) if place not in along):
        raise _refuse(node, "is no convolution over steps alone")
    place = along[0]
    f.roles.take(data.axes[0], BATCH, node.title)
    f.roles.take(data.axes[place + 2], STEPS, node.title)
    data = f.with_width(data, 1, node, weight.shape[1])
    stride, dilation = ((node.attributes.get(name) or [1] * count)[place] for name in ("strides", "dilations"))
    weight = weight.reshape(*weight.shape[:2], -1)
    op = Conv1d(
        weight,
        None if bias is None else np.asarray(bias),
        stride=stride,
        padding=_padding(node, place, count, zeros, stride, dilation * (weight.shape[2] - 1)),
        dilation=dilation,
    )
    before = f.size(data.axes[place + 2], None)
    steps = f.roles.new_steps(None if before is None else op.output_steps(before))
    axes: list[Axis] = list(data.axes)
    axes[place + 2] = steps
    return data.then(op, weight.shape[0], tuple(axes))


def _padding(node: Node, place: int, count: int, zeros: tuple[int, int], stride: int, reach: int) -> tuple[int, int]:
    """Zeros before and after the steps."""
    how = node.attributes.get("auto_pad", "NOTSET")
    pads = node.attributes.get("pads") or [0] * (2 * count)
    if how == "NOTSET":
        if any(pads[index] for index in range(2 * count) if index % count != place):
            raise _refuse(node, "pads several axes")
        return zeros[0] + pads[place], zeros[1] + pads[place + count]
    if how == "VALID":
        return zeros
    if how not in ("SAME_UPPER", "SAME_LOWER") or stride != 1:
        raise _refuse(node, f"has auto_pad {how!r} with stride {stride}")
    less, more = reach // 2, reach - reach // 2
    left, right = (less, more) if how == "SAME_UPPER" else (more, less)
    return zeros[0] + left, zeros[1] + right


def _activation(f: Follower, node: Node) -> Value:
    given = [node.attributes.get(name) for name in ("alpha", "beta")]
    return f.data(node).then(Activation.of(node.op, *given))


def _over_width(op: Op) -> Callable[[Follower, Node], Value]:
    def rule(f: Follower, node: Node) -> Value:
        data = f.data(node)
        if f.graph.opset < 13:  # over this axis and all behind it
            place = _place(node.attributes.get("axis", 1), data.axes, node)
            ok = [axis for axis in data.axes[place:] if axis != ONE] == [WIDTH]
        else:
            ok = data.axes[_place(node.attributes.get("axis", -1), data.axes, node)] == WIDTH
        if not ok:
            raise _refuse(node, "is over another axis than that of the vectors")
        return data.then(op)

    return rule


def _reduce(op: Op, since: int) -> Callable[[Follower, Node], Value]:
    def rule(f: Follower, node: Node) -> Value:
        value, keeps = f.value(node), node.attributes.get("keepdims", 1) == 1
        given = f.numbers(node, "axes", 1, since)
        data = value.data if isinstance(value, Norm) else f.data(node)
        places = {_place(axis, data.axes, node) for axis in given or ()}
        ones = sorted(place for place in places if data.axes[place] == ONE)
        if len(places) != len(ones) + 1:
            raise _refuse(node, "is over several axes")
        (place,) = places.difference(ones)
        if isinstance(op, Mean) and keeps and place == len(data.axes) - 1 and data.axes[place] == WIDTH:
            part = value.part if isinstance(value, Norm) else ""
            if part in ("", "squared"):
                return Norm(data, "variance" if part else "mean")
        if isinstance(value, Norm):
            raise _refuse(node, "is no layer")
        pooled = _pooled(f, node, data, op, place)
        gone = () if keeps else places
        return replace(pooled, axes=tuple(axis for index, axis in enumerate(pooled.axes) if index not in gone))

    return rule


def _pooled(f: Follower, node: Node, data: Data, op: Op, place: int) -> Data:
    """The data with an axis of size 1 in the place of that of the steps."""
    f.roles.take(data.axes[place], STEPS, node.title)
    return data.then(op, axes=(*data.axes[:place], ONE, *data.axes[place + 1 :]))


def _global_pool(op: Op) -> Callable[[Follower, Node], Value]:
    def rule(f: Follower, node: Node) -> Value:
        data = f.with_width(f.data(node), 1, node)
        along = [place for place, axis in enumerate(data.axes) if place > 1 and axis != ONE]
        if len(along) != 1:
            raise _refuse(node, "is over several axes")
        return _pooled(f, node, data, op, along[0])

    return rule


#: For each operator, what its output holds.
RULES: dict[str, Callable[[Follower, Node], Value]] = {
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _activation,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool(Mean()),
    "GlobalMaxPool": _global_pool(Max()),
    "HardSigmoid": _activation,
    "Identity": _same,
    "LayerNormalization": _layer_norm,
    "Less": _less,
    "LeakyRelu": _activation,
    "LogSoftmax": _over_width(LogSoftmax()),
    "MatMul": _matmul,
    "Mul": _multiply,
    "Not": _not,
    "Pad": _pad,
    "Pow": _power,
    "ReduceMax": _reduce(Max(), 18),
    "ReduceMean": _reduce(Mean(), 18),
    "ReduceProd": _reduce_product,
    "Relu": _activation,
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "Shape": _shape,
    "Sigmoid": _activation,
    "Slice": _slice,
    "Softmax": _over_width(Softmax()),
    "Softplus": _activation,
    "Softsign": _activation,
    "Split": _split,
    "Sqrt": _square_root,
    "Squeeze": _squeeze,
    "Sub": _subtract,
    "Tanh": _activation,
    "ThresholdedRelu": _activation,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
