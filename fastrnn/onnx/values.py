"""What a name of a graph may hold, in the eyes of who follows a chain: vectors, states, shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..models.ops import Final
from ..models.spec import AnyOp
from ..spec import LayerSpec
from .axes import DIRECTIONS, ONE, STATES, UNITS, WIDTH, Axes, Axis, NotAChain, Size


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
