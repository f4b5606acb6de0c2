"""Graphs of any kind: recurrent nodes, or a chain with states, run here, and what is around them in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_array, as_floats
from ..layers.layer import Layer
from .chain import SAME_LENGTHS, Chain
from .chain_call import ChainCall
from .constants import Constants
from .graph import DOMAINS, Graph, refuse
from .recurrent import OTHERS, Call, Recurrent, find, key
from .runner import Port, Runner, Step
from .session import Session, evaluate, tensor_type
from .split import Segment, needed_nodes, split


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

    LSTM, GRU and RNN nodes run here, with the same bits for a row in every batch. All other nodes, and recurrent ones
    in the bodies of If, Loop and Scan, run in onnxruntime, which promises no such thing. A chain of layers that has
    initial or final states as inputs or outputs runs here as a whole.

    Attributes
    ----------
    inputs, outputs : tuple of Port
    parts : tuple of Part
        In the order in which they run.
    layers : dict of LSTM, GRU and RNN
        By the first output of their nodes. Nodes whose weights come with each call are not among them, nor is a chain.
    why_not_sequential : str
        What in the graph keeps it from being a Sequential.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parts: tuple[Part, ...]
    layers: dict[str, Layer[Any]]
    why_not_sequential: str

    def __init__(
        self,
        graph: Graph,
        constants: Constants,
        recurrent: Mapping[str, Recurrent],
        *,
        chain: Chain | None,
        why_not_sequential: str,
        isa: str | None = None,
    ) -> None:
        self.why_not_sequential = why_not_sequential
        self.layers = {}
        nodes = needed_nodes(graph, recurrent)
        if chain is not None and any(key(node) not in recurrent for node in nodes):
            steps, parts = self._as_chain(graph, constants, chain, isa)
        else:
            steps, parts = self._in_parts(graph, constants, recurrent, isa)
        self.parts = tuple(parts)
        used = {name for part in parts if part.engine == "fastrnn" for name in part.reads} | graph.outputs.keys()
        fixed = {name: constants.value(name) for name in used if name in constants}
        self._lengths = lengths_input(graph, recurrent)
        states = set(self.parts[0].reads[1:]) - {self._lengths} if chain is not None else set()
        self._runner = Runner(graph, steps, fixed, states | _states(graph, recurrent))
        self.inputs, self.outputs = self._runner.inputs, self._runner.outputs
        others = self._runner.optional | {self._lengths}
        self._main = next((port.name for port in self.inputs if port.name not in others), None)

    def _as_chain(
        self, graph: Graph, constants: Constants, chain: Chain, isa: str | None
    ) -> tuple[list[Step], list[Part]]:
        call = ChainCall(chain, isa=isa)
        return [call], [Part("fastrnn", titles(graph, constants), call.reads, call.gives)]

    def _in_parts(
        self, graph: Graph, constants: Constants, recurrent: Mapping[str, Recurrent], isa: str | None
    ) -> tuple[list[Step], list[Part]]:
        shared: dict[int, Layer[Any]] = {}
        types: dict[str, Any] = {name: info.type for name, info in graph.inputs.items()}
        steps: list[Step] = []
        parts = []
        for part in split(graph, constants, recurrent):
            if isinstance(part, Segment):
                session = Session(graph, part.nodes, part.reads, part.gives, types)
                steps.append(session)
                types |= session.types()
                parts.append(Part("onnxruntime", part.titles(constants), part.reads, part.gives))
                continue
            call = Call(part, graph.opset, isa, shared)
            steps.append(call)
            types |= _types(part)
            if call.layer is not None:
                self.layers[key(part.node)] = call.layer
            parts.append(Part("fastrnn", (part.node.title,), call.reads, call.gives))
        return steps, parts

    def __repr__(self) -> str:
        names = [", ".join(repr(port.name) for port in ports) for ports in (self.inputs, self.outputs)]
        here = sum(part.engine == "fastrnn" for part in self.parts)
        return f"fastrnn.onnx.Model({names[0]} -> {names[1]}, {here} of {len(self.parts)} parts here)"

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, ArrayLike]) -> list[Any]:
        """Compute outputs by the graph's own names, as ``onnxruntime.InferenceSession.run`` does.

        Parameters
        ----------
        output_names : names of outputs; None for all
        feed : for each input an array of the graph's type and shape
            An input that only holds initial states may be left out, and they are zero; so may one that no part of the
            model reads on the way to these outputs.

        Returns
        -------
        list of arrays, in the order of `output_names`

        Raises
        ------
        ValueError, TypeError
            A name is unknown, an input is missing or does not fit; the message says which.
        """
        return self._runner.run(output_names, feed)

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
        runner, main = self._runner, self._main
        if main is None:
            raise ValueError(f"{runner.path} has no input for x: run(output_names, feed) takes {runner.listed()}")
        if main in others:
            raise ValueError(f"{main!r} is given, but it is x")
        given: dict[str, Any] = {main: x, **others}
        if lengths is not None:
            if self._lengths is None:
                raise ValueError(
                    f"lengths is given, but no input of {runner.path} is the sequence_lens of its recurrent nodes; it "
                    f"has {runner.listed()}"
                )
            given[self._lengths] = _as_lengths(lengths, runner.dtypes[self._lengths])
        for name, value in given.items():
            dtype = runner.dtypes.get(name)
            if type(value) is not np.ndarray or value.dtype != dtype:
                given[name] = _converted(value, "x" if name == main else name, dtype)
        results = runner.run(None, given)
        return results[0] if len(results) == 1 else tuple(results)


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
            found.append(f"{' and '.join(sorted({*node.inner}))} inside the {node.title} do not run here")
        if (node.domain, node.op) in OTHERS:
            found.append(f"the {node.title} of {node.domain} does not run here")
    return found


def titles(graph: Graph, constants: Constants) -> tuple[str, ...]:
    """What messages call the nodes of a graph that do not give constants."""
    return tuple(node.title for node in graph.nodes if key(node) not in constants)


def lengths_input(graph: Graph, recurrent: Mapping[str, Recurrent]) -> str | None:
    """The input that is the sequence_lens of all nodes that have one; None where there is no such input."""
    found = set()
    for call in recurrent.values():
        name = call.names.get("sequence_lens")
        while name is not None and name not in graph.inputs:
            node = graph.producers.get(name)
            if node is None or node.domain not in DOMAINS or node.op not in SAME_LENGTHS:
                return None
            name = node.inputs[0]
        if name is not None:
            found.add(name)
    return found.pop() if len(found) == 1 else None


def _types(part: Recurrent) -> dict[str, Any]:
    """The types of a node's outputs, with the sizes that do not depend on the input."""
    D = H = None
    if part.spec is not None:
        D, H = part.spec.num_directions, part.spec.hidden_size
    y, state = ([None, None, D, H], [None, D, H]) if part.layout else ([None, D, None, H], [D, None, H])
    return {name: tensor_type(part.dtype, y if output == "Y" else state) for output, name in part.outputs.items()}


def _states(graph: Graph, recurrent: Mapping[str, Recurrent]) -> set[str]:
    """The inputs that are initial states of recurrent nodes and nothing else."""
    states: set[str] = set()
    others = set(graph.outputs)
    for node in graph.nodes:
        call = recurrent.get(key(node))
        if call is None:
            others.update(node.reads)
        else:
            for name, value in call.names.items():
                (states if name.startswith("initial") else others).add(value)
    return (states - others) & graph.inputs.keys()


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
