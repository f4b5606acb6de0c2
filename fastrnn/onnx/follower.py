"""Follows a graph node by node, from its input on, and notes what each name holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .axes import BATCH, DIRECTIONS, ONE, STATES, STEPS, UNITS, WIDTH, Axes, Axis, NotAChain, Roles
from .constants import Constants
from .graph import DOMAINS, Graph, Node, shape_of, type_of
from .recurrent import Recurrent, key
from .values import (
    LENGTHS,
    MOST_BETWEEN,
    MOST_NUMBERS,
    MOST_STEPS,
    SAME_LENGTHS,
    Data,
    Initial,
    InitialState,
    States,
    Step,
    final,
)

Value = Any


class Follower:
    """Follows a graph.

    Parameters
    ----------
    lengths : the input that is sequence_lens; None where there is none
    rules : for each operator, what its outputs hold

    Attributes
    ----------
    values : what each name holds
    initial : the initial h and c of each recurrent node
    input, axes : the name and the axes of the input of vectors or ids
    roles : what these axes are
    """

    def __init__(
        self,
        graph: Graph,
        constants: Constants,
        recurrent: Mapping[str, Recurrent],
        lengths: str | None,
        rules: Mapping[str, Callable[[Follower, Node], Value]],
    ) -> None:
        self.graph, self.constants, self.recurrent, self.lengths = graph, constants, recurrent, lengths
        self.rules = rules
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
        call = self.recurrent.get(key(node))
        if call is not None:
            self._layer(call)
            return
        rule = self.rules.get(node.op) if node.domain in DOMAINS else None
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
