"""Graphs that are chains: layers one behind the other, with nodes between them that only move axes around.

A graph is followed from its input on (follower.py): what each name holds is known by the layers that made it and by its
axes. A node that rules.py does not know ends the search, and the graph is run in parts instead (model.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..models.ops import Conv1d, First, Last, Max, Mean, Reverse
from ..models.spec import ModelSpec
from ..spec import LayerSpec
from .axes import BATCH, ONE, STEPS, WIDTH, Axes, Axis, NotAChain, parts
from .constants import Constants
from .follower import Follower
from .graph import Graph
from .recurrent import Recurrent
from .rules import RULES
from .split import needed_nodes
from .values import Data, InitialState, States, Step, final


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
    follower = Follower(graph, constants, recurrent, lengths, RULES)
    try:
        for node in needed_nodes(graph, recurrent):
            if not all(name in constants for name in node.outputs if name):
                follower.follow(node)
        return _result(follower)
    except (ValueError, TypeError, IndexError) as error:
        raise NotAChain(str(error)) from None


def _result(follower: Follower) -> Chain:
    """The chain of a graph that has been followed to its end."""
    values = {name: follower.values.get(name) for name in follower.graph.outputs}
    if len(values) == 1 and not any(part for pair in follower.initial.values() for part in pair):
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
            last_steps = next((axis for axis in flat if follower.roles.of(axis) == STEPS), last_steps)
        else:
            outputs[name] = Output(value.axes, tuple(_state(longest, entry) for entry in value.entries))
    ops = tuple(step.op for step in longest)
    states = {}
    for place, step in enumerate(longest):
        pairs = [follower.initial[node] for node in step.nodes]
        if any(part for pair in pairs for part in pair):
            if len(pairs) > 1:
                raise NotAChain("two directions that are nodes of their own have initial states")
            states[place] = pairs[0]
    if not any(isinstance(op, LayerSpec) for op in ops):
        raise NotAChain("its outputs do not depend on a recurrent layer")
    if follower.lengths is not None and any(isinstance(op, _OVER_STEPS) for op in ops):
        raise NotAChain("it has lengths, and layers that look beyond the end of a row")
    roles = {follower.roles.of(axis): axis for axis in follower.axes}
    batch, steps = (
        next((axis for axis in follower.axes if follower.roles.of(axis) == role), ONE) for role in (BATCH, STEPS)
    )
    if None in roles:
        raise NotAChain(f"it is not known what an axis of the input {follower.input!r} is")
    batch_first = steps == ONE or batch == ONE or follower.axes.index(batch) < follower.axes.index(steps)
    spec = ModelSpec(ops, batch_first).validate()
    axes = tuple(WIDTH if follower.roles.of(axis) == WIDTH else axis for axis in follower.axes)
    return Chain(spec, follower.input, axes, batch, steps, last_steps, follower.lengths, states, outputs)


#: Operations that read more than one step, besides recurrent layers.
_OVER_STEPS = (Conv1d, First, Last, Max, Mean, Reverse)


def _state(steps: tuple[Step, ...], entry: tuple[str, str, int]) -> FinalState:
    node, part, direction = entry
    for place, step in enumerate(steps):
        if node in step.nodes:
            return FinalState(place, part, direction if len(step.nodes) == 1 else step.nodes.index(node))
    raise NotAChain("a state is not on the same way as the outputs")
