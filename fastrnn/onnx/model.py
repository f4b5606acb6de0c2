"""A loaded model of ONNX: its recurrent nodes run here, what is around them in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_array, as_floats
from ..layers.engine import Backend
from ..layers.layer import Layer
from .constants import Constants
from .graph import DOMAINS, Graph, Node, refuse, shape_of, type_of
from .recurrent import OTHERS, Call, Recurrent, find, key
from .session import Session, evaluate, tensor_type
from .split import Segment, split


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph.

    Attributes
    ----------
    name : the graph's
    dtype : of its elements; None where the file does not say, or NumPy has none
    shape : sizes, or names of those that are free; None where the file does not say
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class Part:
    """What runs in one place.

    Attributes
    ----------
    engine : "fastrnn" or "onnxruntime"
    nodes : what messages call its nodes, such as "LSTM node 'encoder'"
    reads, gives : the names that it takes and gives
    """

    engine: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    gives: tuple[str, ...]


class Model:
    """A graph of ONNX; ``fastrnn.load`` makes it.

    LSTM, GRU and RNN nodes run here, with the same bits for a row in every batch. All other nodes, and recurrent ones in
    the bodies of If, Loop and Scan, run in onnxruntime, which promises no such thing.

    Attributes
    ----------
    inputs, outputs : tuple of Port
    parts : tuple of Part
        In the order in which they run.
    layers : dict of LSTM, GRU and RNN
        By the first output of their nodes. Nodes whose weights come with each call are not among them.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parts: tuple[Part, ...]
    layers: dict[str, Layer[Any]]

    def __init__(self, graph: Graph, *, backend: Backend = "auto", isa: str | None = None) -> None:
        constants, recurrent = survey(graph)
        self.inputs = tuple(_port(info) for info in graph.inputs.values())
        self.outputs = tuple(_port(info) for info in graph.outputs.values())
        self.layers = {}
        self._path = graph.path
        self._dtypes = {port.name: port.dtype for port in self.inputs}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._steps: list[Call | Session] = []
        shared: dict[int, Layer[Any]] = {}
        types: dict[str, Any] = {name: info.type for name, info in graph.inputs.items()}
        parts = []
        for part in split(graph, constants, recurrent):
            if isinstance(part, Segment):
                session = Session(graph, part.nodes, part.reads, part.gives, types)
                self._steps.append(session)
                types |= session.types()
                parts.append(Part("onnxruntime", part.titles(constants), part.reads, part.gives))
                continue
            call = Call(part, graph.opset, backend, isa, shared)
            self._steps.append(call)
            types |= _types(part)
            if call.layer is not None:
                self.layers[key(part.node)] = call.layer
            parts.append(Part("fastrnn", (part.node.title,), call.reads, call.gives))
        self.parts = tuple(parts)
        used = {name for part in parts if part.engine == "fastrnn" for name in part.reads} | graph.outputs.keys()
        self._fixed = {name: constants.value(name) for name in used if name in constants}
        self._states = _states(graph, recurrent)
        self._lengths = _lengths(graph, recurrent)
        others = self._states | {self._lengths}
        self._main = next((port.name for port in self.inputs if port.name not in others), None)

    def __repr__(self) -> str:
        names = [", ".join(repr(port.name) for port in ports) for ports in (self.inputs, self.outputs)]
        here = sum(part.engine == "fastrnn" for part in self.parts)
        return f"fastrnn.onnx.Model({names[0]} -> {names[1]}, {here} of {len(self.parts)} parts here)"

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, ArrayLike]) -> list[Any]:
        """Compute outputs by the graph's own names, as ``onnxruntime.InferenceSession.run`` does.

        Parameters
        ----------
        output_names : names of outputs; None for all
        feed : for each input that these need an array of the graph's type and shape
            An input that only holds initial states may be left out: they are zero then.

        Returns
        -------
        list of arrays, in the order of `output_names`

        Raises
        ------
        ValueError, TypeError
            A name is unknown, an input is missing or does not fit; the message says which.
        """
        names = None if output_names is None else tuple(output_names)
        plan = self._plans.get(names)  # type: ignore[arg-type]
        if plan is None:
            plan = self._plans[names] = self._plan(names)  # type: ignore[index]
        values: dict[str, Any] = self._fixed | feed  # type: ignore[operator]
        for name in feed:
            array = values[name]
            if type(array) is not np.ndarray or array.dtype != self._dtypes.get(name):
                values[name] = self._checked(name, array)
        if not plan.needs <= values.keys():
            raise ValueError(f"feed lacks {', '.join(map(repr, sorted(plan.needs - values.keys())))}")
        for step, gives in plan.steps:
            step(values, gives)
        return [values[name] for name in plan.names]

    def __call__(self, x: ArrayLike, *, lengths: ArrayLike | None = None, **others: ArrayLike) -> Any:
        """Compute all outputs.

        Parameters
        ----------
        x : the graph's first input that is neither lengths nor an initial state alone, of the graph's shape
            Python's numbers become the graph's type; other types must convert without loss.
        lengths : (B,) integers, where the graph has an input for sequence_lens
        others : the graph's other inputs by name; initial states that are left out are zero

        Returns
        -------
        The graph's output, or a tuple of several.

        Raises
        ------
        ValueError, TypeError
            As of :meth:`run`; and lengths is given where the graph has no input for it.
        """
        if self._main is None:
            raise ValueError(f"{self._path} has no input for x: run(output_names, feed) takes {self._listed()}")
        if self._main in others:
            raise ValueError(f"{self._main!r} is given, but it is x")
        given: dict[str, Any] = {self._main: x, **others}
        if lengths is not None:
            if self._lengths is None:
                raise ValueError(
                    f"lengths is given, but no input of {self._path} is the sequence_lens of its recurrent nodes; "
                    f"it has {self._listed()}"
                )
            given[self._lengths] = _as_lengths(lengths, self._dtypes[self._lengths])
        for name, value in given.items():
            if type(value) is not np.ndarray or value.dtype != self._dtypes.get(name):
                given[name] = _converted(value, "x" if name == self._main else name, self._dtypes.get(name))
        results = self.run(None, given)
        return results[0] if len(results) == 1 else tuple(results)

    def _plan(self, output_names: tuple[str, ...] | None) -> _Plan:
        known = [port.name for port in self.outputs]
        names = tuple(known) if output_names is None else output_names
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"output_names has {unknown[0]!r}, wanted some of {', '.join(map(repr, known))}")
        wanted = set(names)
        steps: list[tuple[Call | Session, list[str]]] = []
        for step in reversed(self._steps):
            if gives := [name for name in step.gives if name in wanted]:
                steps.append((step, gives))
                wanted.update(step.reads)
        needs = frozenset(port.name for port in self.inputs if port.name in wanted) - self._states
        return _Plan(names, steps[::-1], needs)

    def _checked(self, name: str, value: Any) -> Any:
        """An input of the graph's type; what is no tensor of numbers is left to onnxruntime."""
        if name not in self._dtypes:
            raise ValueError(f"feed has {name!r}, wanted only {self._listed()}")
        dtype = self._dtypes[name]
        if dtype is None:
            return value
        array = as_array(value, name)
        if array.dtype != dtype:
            raise TypeError(f"feed has {name!r} of type {array.dtype}, wanted {dtype}")
        return np.asarray(array)

    def _listed(self) -> str:
        return ", ".join(repr(port.name) for port in self.inputs) or "nothing"


@dataclass(frozen=True)
class _Plan:
    """What a call runs for some outputs.

    Attributes
    ----------
    names : of the outputs
    steps : with those of their outputs that are used
    needs : the inputs that have to be given
    """

    names: tuple[str, ...]
    steps: list[tuple[Call | Session, list[str]]]
    needs: frozenset[str]


def survey(graph: Graph) -> tuple[Constants, dict[str, Recurrent]]:
    """A graph's constants, and its recurrent nodes that run here.

    Raises
    ------
    ValueError
        There are none, or some of them cannot be read; the message lists every reason.
    """
    faults: list[str] = []
    constants = Constants(graph, evaluate)
    recurrent = find(graph, constants, faults)
    if not recurrent and not faults:
        faults = elsewhere(graph) or ["it has no LSTM, GRU or RNN node"]
    refuse(graph.path, faults)
    return constants, recurrent


def elsewhere(graph: Graph) -> list[str]:
    """The recurrent nodes that are left to onnxruntime, and why."""
    found = []
    for node in graph.nodes:
        if node.inner:
            found.append(f"{' and '.join(sorted({*node.inner}))} in the bodies of the {node.title} do not run here")
        if (node.domain, node.op) in OTHERS:
            found.append(f"{node.title} of {node.domain} does not run here")
    return found


def _port(info: Any) -> Port:
    return Port(info.name, type_of(info), shape_of(info))


def _types(part: Recurrent) -> dict[str, Any]:
    """The types of a node's outputs, with the sizes that do not depend on the input."""
    if part.spec is None:
        D = H = None
    else:
        D, H = part.spec.num_directions, part.spec.hidden_size
    y, state = ([None, None, D, H], [None, D, H]) if part.layout else ([None, D, None, H], [D, None, H])
    return {
        name: tensor_type(part.dtype, y if output == "Y" else state) for output, name in part.outputs.items()
    }


def _states(graph: Graph, recurrent: Mapping[str, Recurrent]) -> frozenset[str]:
    """The inputs that are initial states of recurrent nodes and nothing else."""
    states, others = set(), set(graph.outputs)
    for node in graph.nodes:
        call = recurrent.get(key(node))
        for name, value in call.names.items() if call is not None else (("", value) for value in node.reads):
            (states if name.startswith("initial") else others).add(value)
    return frozenset((states - others) & graph.inputs.keys())


#: Operators that change the type or the shape of lengths, and not the lengths.
_SAME_LENGTHS = frozenset(("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"))


def _lengths(graph: Graph, recurrent: Mapping[str, Recurrent]) -> str | None:
    """The input that is the sequence_lens of all nodes that have one, None where there is no such input."""
    found = set()
    for call in recurrent.values():
        name = call.names.get("sequence_lens")
        while name is not None and name not in graph.inputs:
            node: Node | None = graph.producers.get(name)
            known = node is not None and node.domain in DOMAINS and node.op in _SAME_LENGTHS
            name = node.inputs[0] if known and node is not None else None
            if name is None:
                return None
        if name is not None:
            found.add(name)
    return found.pop() if len(found) == 1 else None


def _converted(value: Any, name: str, dtype: np.dtype[Any] | None) -> Any:
    """An input as the graph's type, if nothing is lost."""
    if dtype is None:
        return value
    if dtype in (np.float32, np.float64):
        return as_floats(value, name, dtype)
    array = as_array(value, name)
    return array.astype(dtype) if np.can_cast(array.dtype, dtype) or isinstance(value, list | int) else array


def _as_lengths(lengths: ArrayLike, dtype: np.dtype[Any] | None) -> NDArray[Any]:
    array = as_array(lengths, "lengths")
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths is of type {array.dtype}, wanted integers")
    wanted = np.dtype(np.int32) if dtype is None else dtype
    converted = array.astype(wanted)
    if not np.array_equal(converted, array):
        raise ValueError(f"lengths holds numbers beyond {wanted}, wanted numbers within")
    return converted
