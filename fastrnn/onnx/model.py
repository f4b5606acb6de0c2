"""Graphs of any kind: recurrent nodes, or a chain with states, run here, and what is around them in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_array, as_floats
from ..layers import LAYERS
from ..layers.layer import Layer
from ..models.sequential import Sequential as Sequential_
from ..models.spec import ModelSpec
from ..spec import LayerSpec
from .analysis import Analysis, Part
from .chain_call import ChainCall
from .graph import Graph
from .recurrent import Call, Recurrent, key
from .runner import Port, Runner, Step
from .session import Session, tensor_type
from .split import Segment

#: How many parts of a graph onnxruntime may have; each takes memory of its own.
MOST_SESSIONS = 256


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
    lengths_input : str or None
        The input that `lengths` of a call feeds.
    why_not_sequential : str
        What in the graph keeps it from being a Sequential.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parts: tuple[Part, ...]
    layers: dict[str, Layer[Any]]
    lengths_input: str | None
    why_not_sequential: str

    def __init__(self, analysis: Analysis, *, isa: str | None = None) -> None:
        graph, constants = analysis.graph, analysis.constants
        self.why_not_sequential, self.parts = analysis.why_not_sequential, analysis.parts
        self.layers = {}
        self._chain, self._isa = analysis.chain, isa
        states = _states(graph, analysis.recurrent)
        if analysis.chain is not None and analysis.runs_as_chain:
            steps: list[Step] = [ChainCall(analysis.chain, isa=isa)]
            states |= {state.name for pair in analysis.chain.states.values() for state in pair if state is not None}
        else:
            steps = self._steps(analysis, isa)
        used = {name for part in self.parts if part.engine == "fastrnn" for name in part.reads} | graph.outputs.keys()
        fixed = {name: constants.value(name) for name in used if name in constants}
        self._runner = Runner(graph, steps, fixed, states)
        self.inputs, self.outputs = self._runner.inputs, self._runner.outputs
        self.lengths_input = analysis.lengths
        others = self._runner.optional | {self.lengths_input}
        self._main = next((port.name for port in self.inputs if port.name not in others), None)

    def _steps(self, analysis: Analysis, isa: str | None) -> list[Step]:
        """A step for each part of a divided graph; those in onnxruntime one by one, as each gives types to the next."""
        graph = analysis.graph
        if (count := sum(isinstance(part, Segment) for part in analysis.divided)) > MOST_SESSIONS:
            raise ValueError(f"{graph.path}: onnxruntime would run it in {count} parts, wanted {MOST_SESSIONS} at most")
        shared: dict[int, Layer[Any]] = {}
        types: dict[str, Any] = {name: info.type for name, info in graph.inputs.items()}
        steps: list[Step] = []
        for part in analysis.divided:
            if isinstance(part, Segment):
                session = Session(graph, part.nodes, part.reads, part.gives, types)
                steps.append(session)
                types |= session.types()
                continue
            call = Call(part, graph.opset, isa, shared)
            steps.append(call)
            types |= _types(part)
            if call.layer is not None:
                self.layers[key(part.node)] = call.layer
        return steps

    def __repr__(self) -> str:
        names = [", ".join(repr(port.name) for port in ports) for ports in (self.inputs, self.outputs)]
        here = sum(part.engine == "fastrnn" for part in self.parts)
        return f"fastrnn.onnx.Model({names[0]} -> {names[1]}, {here} of {len(self.parts)} parts here)"

    def without_states(self) -> Layer[Any] | Sequential_ | None:
        """The layer or model of a chain, which starts from zeros and does not give its final states as outputs.

        Returns
        -------
        LSTM, GRU or RNN
            Of a chain that has one layer, or several that are one of PyTorch.
        fastrnn.Sequential
            Of other chains.
        None
            The graph is no chain, or gives states alone.
        """
        if self._chain is None or all(output.states for output in self._chain.outputs.values()):
            return None
        spec = _stacked(self._chain.spec)
        if isinstance(spec, LayerSpec):
            return LAYERS[spec.kind](spec, isa=self._isa)
        return Sequential_.from_spec(spec, isa=self._isa)

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
            if self.lengths_input is None:
                raise ValueError(
                    f"lengths is given, but no input of {runner.path} is the sequence_lens of its recurrent nodes; it "
                    f"has {runner.listed()}"
                )
            given[self.lengths_input] = _as_lengths(lengths, runner.dtypes[self.lengths_input])
        if runner.fits(given):
            results = runner.compute(None, given)
        else:
            for name, value in given.items():
                given[name] = _converted(value, "x" if name == main else name, runner.dtypes.get(name))
            results = runner.run(None, given)
        return results[0] if len(results) == 1 else tuple(results)


def _stacked(model: ModelSpec) -> LayerSpec | ModelSpec:
    """Layers alone, each of the same cells on the outputs of the one before, as one layer; other models as they are."""
    specs = [op for op in model.ops if isinstance(op, LayerSpec)]
    first = replace(specs[0], batch_first=model.batch_first)
    same = ("kind", "hidden_size", "proj_size", "num_directions", "reverse", "weight_dtype")
    if len(specs) < len(model.ops) or any(
        getattr(spec, name) != getattr(first, name) for spec in specs for name in same
    ):
        return model
    if len(specs) == 1:
        return first
    cells = [cell for spec in specs for cell in spec.cells]
    return replace(first, cells=cells, num_layers=sum(spec.num_layers for spec in specs)).validate()


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
    if type(lengths) is np.ndarray and lengths.dtype == dtype:
        return lengths
    array = as_array(lengths, "lengths")
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths is of type {array.dtype}, wanted integers")
    wanted = np.dtype(np.int32) if dtype is None else dtype
    converted = array.astype(wanted)
    if not np.array_equal(converted, array):
        raise ValueError(f"lengths holds numbers beyond {wanted}, wanted numbers within")
    return converted
