"""The recurrent nodes of a graph: their weights found among its constants, and their calls in ONNX's shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..importers.onnx import INPUTS, KINDS, OUTPUTS, QUANTIZATION, WEIGHTS, dequantize, spec_from_node
from ..layers import LAYERS
from ..layers.calls import run_array
from ..layers.engine import choose_weight_dtype
from ..layers.layer import Layer
from ..spec import LayerSpec, WeightDtype, check_weight_dtype
from .constants import Constants
from .graph import DOMAINS, Graph, Node, type_of

#: Operators that run here, the one of onnxruntime that runs as LSTM, and one like them that does not: domain and name.
OPERATORS = frozenset(KINDS)
QUANTIZED = ("com.microsoft", "DynamicQuantizeLSTM")
OTHERS = frozenset({("com.microsoft", "AttnLSTM")})

#: The types of ONNX that a node may have -> the type that it is computed in.
COMPUTED = {"float32": np.float32, "float64": np.float64, "float16": np.float32, "bfloat16": np.float32}


def is_recurrent(node: Node) -> bool:
    return (node.op in OPERATORS and node.domain in DOMAINS) or is_quantized(node)


def is_quantized(node: Node) -> bool:
    """Whether a node is an LSTM that onnxruntime's quantization has made."""
    return (node.domain, node.op) == QUANTIZED


def operator(node: Node) -> str:
    """The operator as which a recurrent node runs here: LSTM, GRU or RNN."""
    return "LSTM" if is_quantized(node) else node.op


@dataclass(frozen=True)
class Recurrent:
    """A recurrent node.

    Attributes
    ----------
    node : the node
    spec : its layer; None where weights are not constant, but come with each call
    dtype : the type of its input and outputs
    names : what it reads, by ONNX's names of the inputs: X, sequence_lens, initial_h, initial_c
        Initial states that are zero are left out. Where `spec` is None, the weights are among them.
    outputs : what it gives, by ONNX's names of the outputs
    layout : 0 or 1
    weight_dtype : the type in which weights are kept; None is that of the layer
    """

    node: Node
    spec: LayerSpec | None
    dtype: np.dtype[Any]
    names: dict[str, str]
    outputs: dict[str, str]
    layout: int
    weight_dtype: WeightDtype | None = None


def find(
    graph: Graph, constants: Constants, faults: list[str], weight_dtype: WeightDtype | None = None
) -> dict[str, Recurrent]:
    """The recurrent nodes of a graph by the names of their first outputs; a fault for each that cannot be read.

    Nodes with the same weights and attributes share their LayerSpec.
    """
    found: dict[str, Recurrent] = {}
    shared: dict[Any, LayerSpec] = {}
    for node in graph.nodes:
        if not is_recurrent(node):
            continue
        try:
            found[key(node)] = _read(node, graph, constants, shared, weight_dtype)
        except (ValueError, TypeError) as error:
            faults.append(f"{node.title}: {error}")
    return found


def choose(graph: Graph, constants: Constants, name: str, batch_first: bool | None) -> LayerSpec:
    """The layer of one node.

    Parameters
    ----------
    name : the node's, or that of its first output
    batch_first : as of the layers; None is as the node's attribute `layout` says

    Raises
    ------
    ValueError
        There is no such node, or it cannot be read.
    """
    node = node_named(graph, name)
    try:
        recurrent = _read(node, graph, constants, {})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{graph.path}: {node.title}: {error}") from None
    if recurrent.spec is None:
        raise ValueError(f"{graph.path}: {node.title}: its weights are not constant")
    return recurrent.spec if batch_first is None else replace(recurrent.spec, batch_first=batch_first)


def node_named(graph: Graph, name: str) -> Node:
    """A recurrent node by its name, or that of its first output.

    Raises
    ------
    ValueError
        There is none, or several have the name.
    """
    nodes = [node for node in graph.nodes if is_recurrent(node)]
    chosen = [node for node in nodes if name in (node.name, key(node))]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"{choice_of(node, nodes)!r} ({node.op})" for node in nodes) or "none"
    found = f"{len(chosen)} recurrent nodes" if chosen else "no recurrent node"
    raise ValueError(f"{graph.path} has {found} named {name!r}; it has {known}")


def choice_of(node: Node, others: Iterable[Node]) -> str:
    """A name that chooses this node alone: its own, or that of its first output where others have its name, too."""
    alike = sum(node.name in (other.name, key(other)) for other in others)
    return node.name if alike == 1 else key(node)


def key(node: Node) -> str:
    """What a node is known by: its first output."""
    return next(filter(None, node.outputs), "")


def _read(
    node: Node,
    graph: Graph,
    constants: Constants,
    shared: dict[Any, LayerSpec],
    weight_dtype: WeightDtype | None = None,
) -> Recurrent:
    called = INPUTS + QUANTIZATION if is_quantized(node) else INPUTS
    given = {name: value for name, value in zip(called, node.inputs, strict=False) if value}
    if len(node.inputs) > (len(called) if operator(node) == "LSTM" else 6):
        raise ValueError(f"it has {len(node.inputs)} inputs, which are too many")
    if missing := [name for name in INPUTS[:3] if name not in given]:
        raise ValueError(f"it has no {missing[0]}")
    outputs = {name: value for name, value in zip(OUTPUTS, node.outputs, strict=False) if value}
    if len(node.outputs) > (3 if operator(node) == "LSTM" else 2):
        raise ValueError(f"it has {len(node.outputs)} outputs, which are too many")
    weights = {name: given.pop(name) for name in WEIGHTS + QUANTIZATION if name in given}
    names = {
        name: value for name, value in given.items() if not (name.startswith("initial") and constants.is_zero(value))
    }
    layout = node.attributes.get("layout", 0)
    if not all(name in constants for name in weights.values()):
        if is_quantized(node):
            raise ValueError("its weights are not constant")
        dtype = _declared(graph, weights["W"])
        return Recurrent(node, None, dtype, names | weights, outputs, layout, weight_dtype)
    arrays = {name: constants.value(value) for name, value in weights.items()}
    arrays = dequantize(arrays) if is_quantized(node) else arrays
    dtype = arrays["W"].dtype
    memo = (node.op, tuple(sorted(weights.items())), repr(sorted(node.attributes.items())))
    if memo not in shared:
        constants.charge(
            sum(array.size for array in arrays.values()) * np.dtype(COMPUTED.get(dtype.name, dtype)).itemsize
        )
        shared[memo] = spec_of(node, arrays, graph.opset, weight_dtype)
    return Recurrent(node, shared[memo], dtype, names, outputs, layout, weight_dtype)


def _declared(graph: Graph, name: str) -> np.dtype[Any]:
    """The type of an input of the graph; float32 where it is not known."""
    info = graph.inputs.get(name)
    return (type_of(info) if info is not None else None) or np.dtype(np.float32)


def spec_of(
    node: Node, arrays: Mapping[str, NDArray[Any]], opset: int, weight_dtype: WeightDtype | None = None
) -> LayerSpec:
    """The layer of a node with its weights, widened to a type that is computed in.

    Raises
    ------
    ValueError, TypeError
        As of ``importers.onnx.spec_from_node``; or the weights cannot be kept in `weight_dtype`.
    """
    wide = {}
    for name, array in arrays.items():
        if array.dtype.name not in COMPUTED:
            raise TypeError(f"{name} is {array.dtype}, wanted {', '.join(COMPUTED)}")
        if array.dtype != arrays["W"].dtype:
            raise TypeError(f"{name} is {array.dtype}, but W is {arrays['W'].dtype}")
        wide[name] = array.astype(COMPUTED[array.dtype.name], copy=False)
    check_weight_dtype(weight_dtype, wide["W"].dtype)
    return choose_weight_dtype(
        spec_from_node(operator(node), node.attributes, wide, opset=opset), weight_dtype
    ).validate()


class Call:
    """A recurrent node that runs on arrays of ONNX's shapes.

    Parameters
    ----------
    recurrent : the node
    opset : of the graph
    isa : as of the layers
    layers : those that were made from a LayerSpec, by its identity; nodes with the same weights share one
    """

    def __init__(self, recurrent: Recurrent, opset: int, isa: str | None, layers: dict[int, Layer[Any]]) -> None:
        self.title, self.layout, self.dtype = recurrent.node.title, recurrent.layout, recurrent.dtype
        self.reads, self.gives = tuple(recurrent.names.values()), tuple(recurrent.outputs.values())
        self._names = dict(recurrent.names)
        self._isa = isa
        self.layer = None
        if recurrent.spec is None:
            self._node, self._opset, self._weight_dtype = recurrent.node, opset, recurrent.weight_dtype
        else:
            if id(recurrent.spec) not in layers:
                layers[id(recurrent.spec)] = LAYERS[recurrent.spec.kind](recurrent.spec, isa=isa)
            self.layer = layers[id(recurrent.spec)]
        self._x = self._names["X"]
        self._lengths, self._h, self._c = (self._names.get(name) for name in _RUN_TIME[1:])
        self._y, self._hn, self._cn = (recurrent.outputs.get(name) for name in OUTPUTS)
        self._is_converted = self.dtype not in (np.float32, np.float64)

    def __call__(self, values: dict[str, Any], gives: Sequence[str]) -> None:
        """Take what the node reads out of `values`, and put there what it gives, not only the names in `gives`.

        An initial state that is not there is zero.

        Raises
        ------
        TypeError, ValueError
            An input does not fit; the message names the node, and what its inputs are called.
        """
        layer = self.layer or self._layer_of(values)
        x = values[self._x]
        lengths = None if self._lengths is None else values[self._lengths]
        h = None if self._h is None else values.get(self._h)
        c = None if self._c is None else values.get(self._c)
        try:
            if x.ndim != 3:
                raise ValueError(f"x has shape {x.shape}, wanted three axes")
            if self._is_converted:
                x = self._convert(x, layer.dtype)
                h, c = (None if part is None else self._convert(part, layer.dtype) for part in (h, c))
            if self.layout:
                h, c = (None if part is None else part.swapaxes(0, 1) for part in (h, c))
            y, last = run_array(layer, x, self._state(layer, x, h, c), lengths, None, "zero", None, "safe")
        except (TypeError, ValueError) as error:
            called = ", ".join(f"{here} is {self._names[name]!r}" for name, here in _NAMES if name in self._names)
            raise type(error)(f"{self.title} ({called}): {error}") from None
        hn, cn = (last, None) if layer.kind != "lstm" else last
        if self._y is not None:
            values[self._y] = self._with_directions(y, layer)
        if self._hn is not None:
            values[self._hn] = hn.swapaxes(0, 1) if self.layout else hn
        if self._cn is not None:
            values[self._cn] = cn.swapaxes(0, 1) if self.layout and cn is not None else cn
        if self._is_converted:
            for name in self.gives:
                values[name] = values[name].astype(self.dtype)

    def _state(self, layer: Layer[Any], x: NDArray[Any], h: Any, c: Any) -> Any:
        """The initial state as the layer takes it."""
        if layer.kind != "lstm":
            return h
        if h is not None and c is not None:
            return h, c
        if h is None and c is None:
            return None
        B = x.shape[0 if self.layout else 1]
        zeros = np.zeros((layer.num_directions, B, layer.hidden_size), layer.dtype)
        return (zeros, c) if h is None else (h, zeros)

    def _with_directions(self, y: NDArray[Any], layer: Layer[Any]) -> NDArray[Any]:
        """A view of y that has an axis for the directions."""
        if layer.num_directions == 1:
            return y[:, :, None] if self.layout else y[:, None]
        y = y.reshape(*y.shape[:2], 2, layer.hidden_size)
        return y if self.layout else y.swapaxes(1, 2)

    def _convert(self, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """float16 or bfloat16 to float32, exactly."""
        if array.dtype != self.dtype:
            raise TypeError(f"found {array.dtype}, wanted {self.dtype}")
        return array.astype(dtype)

    def _layer_of(self, values: dict[str, Any]) -> Layer[Any]:
        """A layer of the weights that come with a call."""
        arrays = {name: values[self._names[name]] for name in WEIGHTS if name in self._names}
        try:
            spec = spec_of(self._node, arrays, self._opset, self._weight_dtype)
            return LAYERS[spec.kind](spec, isa=self._isa)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.title}: {error}") from None


#: The inputs that come with each call, and what a layer calls them.
_RUN_TIME = ("X", "sequence_lens", "initial_h", "initial_c")
_NAMES = tuple(zip(_RUN_TIME, ("x", "lengths", "state h", "state c"), strict=True))
