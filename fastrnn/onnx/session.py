"""Parts of a graph as models of their own, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from .. import extras
from ..runtime import get_num_threads
from .graph import Graph, Node
from .split import behind

#: Bytes of a model, with its constants, that Protocol Buffers can hold.
MOST_BYTES = (1 << 31) - 1


class Session:
    """A part of a graph in onnxruntime.

    Parameters
    ----------
    graph : the whole graph
    nodes : of the part, in the graph's order, with those that give constants
    reads, gives : names that it takes and gives
    types : TypeProto of each name that it takes

    Raises
    ------
    ModuleNotFoundError
        onnxruntime is not installed.
    ValueError
        It refuses the part; the message has its reason.
    """

    def __init__(
        self, graph: Graph, nodes: Sequence[Node], reads: Sequence[str], gives: Sequence[str], types: Mapping[str, Any]
    ) -> None:
        extras.require(["onnxruntime"], f"the nodes of {graph.path} that are not recurrent", "onnx")
        import onnxruntime

        self.reads, self.gives = tuple(reads), tuple(gives)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = get_num_threads()
        options.log_severity_level = 3  # errors alone
        model = _submodel(graph, nodes, reads, gives, types)
        if _has_float16(model.graph):
            # Version 1.32 ends the process in its last optimizations where a MatMul of float16 follows a Transpose.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # of classes of its own
            raise ValueError(f"{graph.path}: onnxruntime refuses the part {_ends(nodes)}: {error}") from None

    def types(self) -> dict[str, Any]:
        """TypeProto of each name that it gives."""
        return {output.name: _type(output.type) for output in self._session.get_outputs()}

    def __call__(self, values: dict[str, Any], gives: Sequence[str]) -> None:
        """Take what it reads out of `values`, and put there those of its outputs that are in `gives`.

        Raises
        ------
        ValueError
            onnxruntime refuses; the message has its reason.
        """
        try:
            results = self._session.run(gives, {name: values[name] for name in self.reads})
        except Exception as error:
            raise ValueError(f"onnxruntime: {error}") from None
        values.update(zip(gives, results, strict=True))

    def __reduce__(self) -> Any:
        raise TypeError("a model with parts in onnxruntime cannot be pickled: load its file again")


def evaluate(graph: Graph, name: str) -> NDArray[Any]:
    """Compute a constant in onnxruntime.

    Raises
    ------
    As of :class:`Session`, also where it cannot be computed.
    """
    nodes = behind(graph, [name])
    inside = {id(node) for node in nodes}
    values: dict[str, Any] = {}
    Session(graph, [node for node in graph.nodes if id(node) in inside], (), (name,), {})(values, (name,))
    array: NDArray[Any] = values[name]
    return array


def _ends(nodes: Sequence[Node]) -> str:
    return nodes[0].title if len(nodes) == 1 else f"from the {nodes[0].title} to the {nodes[-1].title}"


def _submodel(
    graph: Graph, nodes: Sequence[Node], reads: Sequence[str], gives: Iterable[str], types: Mapping[str, Any]
) -> Any:
    """A ModelProto of the nodes."""
    from onnx import ModelProto, SparseTensorProto

    model = ModelProto()
    model.CopyFrom(graph.header)
    part = model.graph
    part.name = "part"
    for name in reads:
        part.input.add(name=name).type.CopyFrom(types[name])
    for name in gives:
        part.output.add(name=name)
    part.node.extend(node.proto for node in nodes)
    wanted = {name for node in nodes for name in node.reads if name in graph.tensors}
    nbytes = sum(graph.tensors[name].nbytes for name in wanted) + part.ByteSize()
    if nbytes > MOST_BYTES:
        raise ValueError(f"{graph.path}: its part for onnxruntime has {nbytes} bytes, wanted at most {MOST_BYTES}")
    for name in sorted(wanted):
        proto = graph.tensors[name].proto()
        (part.sparse_initializer if isinstance(proto, SparseTensorProto) else part.initializer).append(proto)
    return model


def _has_float16(graph: Any) -> bool:
    """Whether a graph takes, holds or makes float16, its bodies included."""
    from onnx import TensorProto

    found = {info.type.tensor_type.elem_type for info in graph.input}
    found |= {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            found |= {attribute.t.data_type, attribute.i if attribute.name in ("to", "dtype") else 0}
            if attribute.HasField("g") and _has_float16(attribute.g):
                return True
    return TensorProto.FLOAT16 in found


def _type(text: str) -> Any:
    """onnxruntime's name of a type, such as "seq(tensor(float))", as a TypeProto."""
    from onnx import TensorProto, TypeProto

    names = {"float": "FLOAT", "double": "DOUBLE"}
    result = TypeProto()
    inner = result
    while not text.startswith("tensor("):
        outer, _, rest = text.partition("(")
        if outer not in ("seq", "optional"):
            raise ValueError(f"onnxruntime gives a {text}, which cannot be passed on")
        inner = inner.sequence_type.elem_type if outer == "seq" else inner.optional_type.elem_type
        text = rest
    name = text.removeprefix("tensor(").rstrip(")")
    inner.tensor_type.elem_type = TensorProto.DataType.Value(names.get(name, name.upper()))
    return result


def tensor_type(dtype: Any, shape: Sequence[int | None]) -> Any:
    """A TypeProto; None is a size that is free."""
    from onnx import helper

    code = helper.np_dtype_to_tensor_dtype(dtype)
    return helper.make_tensor_type_proto(code, list(shape))
