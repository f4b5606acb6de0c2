"""Graphs that are chains: layers one behind the other, with nodes between them that only move axes around.

A graph is followed from its input on: what each name holds is known by the layers that made it and by its axes. A node
that rules.py does not know ends the search, and the graph is run in parts instead (model.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.ops import Conv1d, Final, First, Last, Max, Mean, Reverse
from ..models.spec import AnyOp, ModelSpec
from ..spec import LayerSpec
from .axes import BATCH, DIRECTIONS, ONE, STATES, STEPS, UNITS, WIDTH, Axes, Axis, NotAChain, Roles, Size, parts
from .constants import Constants
from .graph import DOMAINS, Graph, Node, shape_of, type_of
from .recurrent import Recurrent, key
from .split import needed_nodes


@dataclass(frozen=True)
class InitialState:
    """Where a layer's initial state comes from.

    Attributes
    ----------
    name : of an input of the graph, (states, B, H), or (B, states, H) with `rows_first`
    start : the first of the layer's directions in it
    """

    name: str
    rows_first: bool
    start: int


@dataclass(frozen=True)
class FinalState:
    """A final state: which operation's, "h" or "c", and which direction."""

    position: int
    part: str
    direction: int


@dataclass(frozen=True)
class Output:
    """An output of the graph.

    Attributes
    ----------
    axes : in their order
    states : of each layer and direction; empty where the output is the result of the last operation
    """

    axes: Axes
    states: tuple[FinalState, ...]


@dataclass(frozen=True)
class Chain:
    """A graph as a chain.

    Attributes
    ----------
    spec : the operations, with batch_first as in the input
    input : name of the input
    axes : of the input, in their order
    batch, steps : those of the axes that hold rows and steps; ONE where there is none
    last_steps : the axis of the steps that come out
    lengths : name of the input that is sequence_lens; None where there is none
    states : initial h and c of recurrent operations, by position
    outputs : by name
    """

    spec: ModelSpec
    input: str
    axes: Axes
    batch: Axis
    steps: Axis
    last_steps: Axis
    lengths: str | None
    states: dict[int, tuple[InitialState | None, InitialState | None]]
    outputs: dict[str, Output]

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs: x, then those of states, and lengths."""
        states = dict.fromkeys(state.name for pair in self.states.values() for state in pair if state is not None)
        return (self.input, *states, *(() if self.lengths is None else (self.lengths,)))

    @property
    def is_plain(self) -> bool:
        """Whether x is all that it reads, and the last operation's result all that it gives."""
        return not self.states and not any(output.states for output in self.outputs.values())


# What a name of the graph may hold


@dataclass(frozen=True, eq=False)
class Step:
    """An operation, and the recurrent nodes that it is made of: one, or one for each direction."""

    op: AnyOp
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Data:
    """Vectors, or ids at the input, after some steps of the chain. `width` is that of a vector, None if unknown."""

    steps: tuple[Step, ...]
    axes: Axes
    width: int | None
    is_ids: bool = False

    def then(self, op: AnyOp, width: int | None = None, axes: Axes | None = None) -> Data:
        """The data after one more operation."""
        return Data((*self.steps, Step(op)), axes or self.axes, width or self.width)

    def instead(self, op: AnyOp) -> Data:
        """The data with another last operation."""
        return replace(self, steps=(*self.steps[:-1], Step(op)))

    @property
    def last(self) -> AnyOp | None:
        return self.steps[-1].op if self.steps else None


@dataclass(frozen=True, eq=False)
class States:
    """Final states: an entry (node, part, direction) for each layer and direction."""

    steps: tuple[Step, ...]
    axes: Axes
    entries: tuple[tuple[str, str, int], ...]
    width: int


@dataclass(frozen=True, eq=False)
class Initial:
    """Layers and directions, from `start` on, of an input that holds initial states; `count` is None if unknown."""

    name: str
    axes: Axes
    start: int
    count: int | None


@dataclass(frozen=True, eq=False)
class Sizes:
    """A shape, or a part of one, or a number alone."""

    sizes: tuple[Size, ...]
    is_scalar: bool = False


#: How many numbers a list of axes or a shape may have.
MOST_NUMBERS = 32

#: How many operations a chain may have, and how many states may be joined.
MOST_STEPS = 512

#: How many nodes may be between an input of states or lengths and the recurrent node.
MOST_BETWEEN = 32

#: What a name holds that leads from the input of lengths to sequence_lens.
LENGTHS = object()

#: Operators that change the type or the shape of lengths, and not the lengths.
SAME_LENGTHS = frozenset(("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"))

Value = Any


def find_chain(graph: Graph, constants: Constants, recurrent: Mapping[str, Recurrent], lengths: str | None) -> Chain:
    """Read a graph as a chain.

    Parameters
    ----------
    lengths : the input that is sequence_lens; None where there is none

    Raises
    ------
    NotAChain
        It is none; the message says why.
    """
    follower = Follower(graph, constants, recurrent, lengths)
    try:
        for node in needed_nodes(graph, recurrent):
            if not all(name in constants for name in node.outputs if name):
                follower.follow(node)
        return follower.chain()
    except (ValueError, TypeError, IndexError) as error:
        raise NotAChain(str(error)) from None


class Follower:
    """Follows a graph node by node. `values` says what each name holds."""

    def __init__(
        self, graph: Graph, constants: Constants, recurrent: Mapping[str, Recurrent], lengths: str | None
    ) -> None:
        self.graph, self.constants, self.recurrent, self.lengths = graph, constants, recurrent, lengths
        self.values: dict[str, Value] = {}
        self.initial: dict[str, tuple[InitialState | None, InitialState | None]] = {}
        states = self._state_inputs()
        main = [name for name in graph.inputs if name != lengths and name not in states]
        if len(main) != 1:
            raise NotAChain(f"it has {len(main)} inputs besides lengths and initial states, wanted one")
        self.input = main[0]
        shape, dtype = shape_of(graph.inputs[self.input]), type_of(graph.inputs[self.input])
        if shape is None or dtype is None or (dtype.kind not in "iu" and dtype != np.float32):
            raise NotAChain(f"the input {self.input!r} is {dtype} of shape {shape}")
        self.axes: Axes = tuple(f"x{index}" for index in range(len(shape)))
        fixed = {f"x{index}": size for index, size in enumerate(shape) if isinstance(size, int)}
        self.roles = Roles(len(shape), fixed)
        self.values[self.input] = Data((), self.axes, None, is_ids=dtype.kind in "iu")
        if lengths is not None:
            self.values[lengths] = LENGTHS
        for name in states:
            self.values[name] = self._initial(name)

    def _state_inputs(self) -> dict[str, None]:
        """The inputs that become initial states through nodes that move axes or take parts."""
        found: dict[str, None] = {}
        for call in self.recurrent.values():
            for part in ("initial_h", "initial_c"):
                name = call.names.get(part, "")
                for _ in range(MOST_BETWEEN):
                    node = self.graph.producers.get(name)
                    if node is None or not node.inputs:
                        break
                    name = node.inputs[0]
                if name in self.graph.inputs:
                    found[name] = None
        return found

    def _initial(self, name: str) -> Initial:
        shape = shape_of(self.graph.inputs[name])
        if shape is None or len(shape) != 3:
            raise NotAChain(f"the input {name!r} has shape {shape}")
        # A transposition in between is followed from here on, so that the first order is a matter of the layouts.
        rows_first = all(call.layout for call in self.recurrent.values())
        axes: Axes = (BATCH, STATES, WIDTH) if rows_first else (STATES, BATCH, WIDTH)
        size = shape[axes.index(STATES)]
        count = size if isinstance(size, int) else None
        return Initial(name, axes, 0, count)

    def follow(self, node: Node) -> None:
        """Say what the outputs of a node hold."""
        from .rules import RULES

        call = self.recurrent.get(key(node))
        if call is not None:
            self._layer(call)
            return
        rule = RULES.get(node.op) if node.domain in DOMAINS else None
        if self.value(node) is LENGTHS and node.op in SAME_LENGTHS:
            self.values[node.outputs[0]] = LENGTHS
            return
        if rule is None:
            raise NotAChain(f"the {node.title} is none of the layers of a chain")
        result = rule(self, node)
        results = result if isinstance(result, list) else [result]
        if len([name for name in node.outputs if name]) > len(results):
            raise NotAChain(f"the {node.title} has {len(node.outputs)} outputs")
        if any(len(getattr(value, "steps", ())) > MOST_STEPS for value in results):
            raise NotAChain(f"it has more than {MOST_STEPS} layers")
        self.values.update(zip(node.outputs, results, strict=False))

    # What nodes read

    def value(self, node: Node, index: int = 0) -> Value:
        """What an input of a node holds; None where it is constant or missing."""
        return self.values.get(node.inputs[index]) if index < len(node.inputs) else None

    def data(self, node: Node, index: int = 0) -> Data:
        """An input that must hold vectors, or final states that the rest of the chain takes as such."""
        value = self.value(node, index)
        if isinstance(value, States):
            value = final(value)
        if not isinstance(value, Data) or value.is_ids:
            raise NotAChain(f"the {node.title} does not read the output of a layer")
        return value

    def constant(self, node: Node, index: int) -> NDArray[Any]:
        """An input that must be constant."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self.constants:
            raise NotAChain(f"the {node.title} reads {name!r}, which is not constant")
        return self.constants.value(name)

    def optional(self, node: Node, index: int) -> NDArray[Any] | None:
        """An input that must be constant if it is there."""
        return self.constant(node, index) if index < len(node.inputs) and node.inputs[index] else None

    def floats(self, node: Node, index: int) -> NDArray[np.float32]:
        """An input that must be constant numbers of float32."""
        array = self.constant(node, index)
        if array.dtype != np.float32:
            raise NotAChain(f"the {node.title} reads {node.inputs[index]!r} of type {array.dtype}")
        self.constants.charge(array.nbytes)  # it may be copied
        return array

    def numbers(self, node: Node, attribute: str, index: int, since: int) -> list[int] | None:
        """Integers that were an attribute up to an opset, and are a constant input from there on."""
        if self.graph.opset < since:
            given = node.attributes.get(attribute)
            return None if given is None else list(given)
        array = self.optional(node, index)
        if array is not None and (array.dtype.kind not in "iu" or array.size > MOST_NUMBERS):
            raise NotAChain(f"the {node.title} has {attribute} of type {array.dtype} and shape {array.shape}")
        return None if array is None else [int(number) for number in array.ravel()]

    def size(self, axis: Axis, width: int | None) -> int | None:
        """The size of an axis, None where it is free."""
        if isinstance(axis, tuple):
            parts = [self.size(part, width) for part in axis]
            return None if None in parts else math.prod(part for part in parts if part is not None)
        known = {ONE: 1, DIRECTIONS: 2, WIDTH: width, UNITS: None if width is None else width // 2}
        return known[axis] if axis in known else self.roles.sizes.get(axis)

    def with_width(self, data: Data, place: int, node: Node, width: int | None = None) -> Data:
        """Use an axis as a step's vector, `width` wide; of the input it may not be known before."""
        axis = data.axes[place]
        if axis != WIDTH:
            self.roles.take(axis, WIDTH, node.title)
            axes = tuple(WIDTH if other == axis else other for other in data.axes)
            data = replace(data, axes=axes, width=self.size(axis, None))
        if None not in (width, data.width) and data.width != width:
            raise NotAChain(f"the {node.title} takes vectors of {width} and gets {data.width}")
        return data if width is None else replace(data, width=width)

    # Recurrent nodes

    def _layer(self, call: Recurrent) -> None:
        node, spec = call.node, call.spec
        if spec is None or call.dtype != np.float32:
            raise NotAChain(f"the {node.title} has no constant weights of float32")
        data = self.data(node)
        if len(data.axes) != 3:
            raise NotAChain(f"the {node.title} reads {len(data.axes)} axes")
        steps, rows = (1, 0) if call.layout else (0, 1)
        self.roles.take(data.axes[steps], STEPS, node.title)
        self.roles.take(data.axes[rows], BATCH, node.title)
        data = self.with_width(data, 2, node, spec.input_size)
        self.initial[key(node)] = (self._state(call, "initial_h"), self._state(call, "initial_c"))
        self._check_lengths(call)
        together = (*data.steps, Step(spec, (key(node),)))
        split = (DIRECTIONS, UNITS) if spec.bidirectional else (ONE, WIDTH)
        b, t = data.axes[rows], data.axes[steps]
        axes = (b, t, *split) if call.layout else (t, split[0], b, split[1])
        width = spec.num_directions * spec.hidden_size
        states = (b, STATES, WIDTH) if call.layout else (STATES, b, WIDTH)
        self.values[call.outputs.get("Y", "")] = Data(together, axes, width)
        for part, output in (("h", "Y_h"), ("c", "Y_c")):
            entries = tuple((key(node), part, direction) for direction in range(spec.num_directions))
            self.values[call.outputs.get(output, "")] = States(together, states, entries, spec.hidden_size)
        self.values.pop("", None)

    def _state(self, call: Recurrent, part: str) -> InitialState | None:
        if part not in call.names:
            return None
        value, spec = self.values.get(call.names[part]), call.spec
        assert spec is not None
        if not isinstance(value, Initial):
            raise NotAChain(f"the {call.node.title} has an {part} that is no input of the graph")
        wanted = (BATCH, STATES, WIDTH) if call.layout else (STATES, BATCH, WIDTH)
        axes = tuple(STATES if axis == ONE and value.count == 1 else axis for axis in value.axes)
        if axes != wanted or value.count not in (None, spec.num_directions):
            raise NotAChain(f"the {call.node.title} has an {part} of other axes")
        rows_first = all(call.layout for call in self.recurrent.values())
        return InitialState(value.name, rows_first, value.start)

    def _check_lengths(self, call: Recurrent) -> None:
        name = call.names.get("sequence_lens")
        if (name is None) != (self.lengths is None) or (name is not None and self.values.get(name) is not LENGTHS):
            raise NotAChain(f"sequence_lens of the {call.node.title} is no input of the graph that all others have")

    # The result

    def chain(self) -> Chain:
        values = {name: self.values.get(name) for name in self.graph.outputs}
        if len(values) == 1 and not any(part for pair in self.initial.values() for part in pair):
            values = {name: final(value) if isinstance(value, States) else value for name, value in values.items()}
        known: dict[str, Data | States] = {}
        for name, value in values.items():
            if not isinstance(value, Data | States):
                raise NotAChain(f"the output {name!r} is not the output of a layer, or a state")
            known[name] = value
        longest: tuple[Step, ...] = max((value.steps for value in known.values()), key=len)
        outputs, last_steps = {}, ONE
        for name, value in known.items():
            if any(a is not b for a, b in zip(value.steps, longest, strict=False)):
                raise NotAChain(f"the output {name!r} is not on the same way as the others")
            if isinstance(value, Data):
                if len(value.steps) != len(longest):
                    raise NotAChain(f"the output {name!r} is inside the chain")
                outputs[name] = Output(value.axes, ())
                flat = (part for axis in value.axes for part in parts(axis))
                last_steps = next((axis for axis in flat if self.roles.of(axis) == STEPS), last_steps)
            else:
                outputs[name] = Output(value.axes, tuple(_state(longest, entry) for entry in value.entries))
        ops = tuple(step.op for step in longest)
        states = {}
        for place, step in enumerate(longest):
            pairs = [self.initial[node] for node in step.nodes]
            if any(part for pair in pairs for part in pair):
                if len(pairs) > 1:
                    raise NotAChain("two directions that are nodes of their own have initial states")
                states[place] = pairs[0]
        if not any(isinstance(op, LayerSpec) for op in ops):
            raise NotAChain("its outputs do not depend on a recurrent layer")
        if self.lengths is not None and any(isinstance(op, _OVER_STEPS) for op in ops):
            raise NotAChain("it has lengths, and layers that look beyond the end of a row")
        roles = {self.roles.of(axis): axis for axis in self.axes}
        batch, steps = (
            next((axis for axis in self.axes if self.roles.of(axis) == role), ONE) for role in (BATCH, STEPS)
        )
        if None in roles:
            raise NotAChain(f"it is not known what an axis of the input {self.input!r} is")
        batch_first = steps == ONE or batch == ONE or self.axes.index(batch) < self.axes.index(steps)
        spec = ModelSpec(ops, batch_first).validate()
        axes = tuple(WIDTH if self.roles.of(axis) == WIDTH else axis for axis in self.axes)
        return Chain(spec, self.input, axes, batch, steps, last_steps, self.lengths, states, outputs)


#: Operations that read more than one step, besides recurrent layers.
_OVER_STEPS = (Conv1d, First, Last, Max, Mean, Reverse)


def _state(steps: tuple[Step, ...], entry: tuple[str, str, int]) -> FinalState:
    node, part, direction = entry
    for place, step in enumerate(steps):
        if node in step.nodes:
            return FinalState(place, part, direction if len(step.nodes) == 1 else step.nodes.index(node))
    raise NotAChain("a state is not on the same way as the outputs")


def final(states: States) -> Data:
    """Final states of the last layer, h of all its directions, as what pooling gives: one vector for each row."""
    spec = states.steps[-1].op
    assert isinstance(spec, LayerSpec)
    node = states.steps[-1].nodes[0]
    if states.entries != tuple((node, "h", direction) for direction in range(spec.num_directions)):
        raise NotAChain("it uses a part of a layer's states")
    swap: dict[Axis, Axis] = {STATES: DIRECTIONS, WIDTH: UNITS} if spec.bidirectional else {STATES: ONE}
    axes = tuple(swap.get(axis, axis) for axis in states.axes)
    return Data((*states.steps, Step(Final())), axes, spec.num_directions * states.width)
