"""Models of ONNX, read with the package onnx after checks of our own: sizes, names, order, tensors in other files."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..importers.pytorch import PREFIXED_NAME
from ..onnx.constants import Constants
from ..onnx.graph import DOMAINS, MOST_REASONS, RANDOM, Graph, Node, Tensor, refuse
from ..onnx.recurrent import OPERATORS, choose, is_recurrent
from ..onnx.session import evaluate
from ..spec import LayerSpec
from . import protobuf, state_dict
from . import tensors as named

#: What Protocol Buffers can hold.
MOST_BYTES = (1 << 31) - 1

#: All tensors in other files together may be so many times as large as these files.
MOST_SHARING = 4


def read(path: str, *, prefix: str | None = None, batch_first: bool | None = None) -> Graph | LayerSpec:
    """Read a model, or one of its recurrent nodes.

    Parameters
    ----------
    path : the file
    prefix : the name of one recurrent node, or of its first output; None for the whole model
        In a graph without recurrent nodes, what the names of a cell's weights begin with, as in a PyTorch file.
    batch_first : of one node, whether x and y are (B, T, .) or (T, B, .); None is as the node's attribute `layout` says

    Raises
    ------
    ValueError
        The file is damaged, or has no such node, or the node cannot be read; the message lists every reason.
    TypeError, OSError, ModuleNotFoundError
        As of :func:`read_graph`, and where an argument is of another type.
    """
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"prefix is {prefix!r}, wanted a str")
    if batch_first is not None and not isinstance(batch_first, bool):
        raise TypeError(f"batch_first is {batch_first!r}, wanted True or False")
    if prefix is None:
        if batch_first is not None:
            raise ValueError(
                f"batch_first is given, but {path} is loaded as a graph, whose inputs have axes of its own"
            )
        return read_whole(path)
    graph = read_graph(path)
    if weights := _weights_of_cells(graph):
        return state_dict.spec_from_tensors(path, weights, prefix=prefix, batch_first=batch_first)
    return choose(graph, Constants(graph, evaluate), prefix, batch_first)


def read_whole(path: str) -> Graph:
    """Read a model that is to run as a whole.

    Raises
    ------
    ValueError, OSError, ModuleNotFoundError
        As of :func:`read_graph`; or it has only the steps of cells, and their weights.
    """
    graph = read_graph(path)
    if weights := _weights_of_cells(graph):
        groups = state_dict.groups_of(weights).values()
        cells = "; ".join(f"prefix={group.prefix!r}: {group.text}" for group in groups)
        raise ValueError(
            f"{path}: it has no LSTM, GRU or RNN node, but single steps that a loop over cells was unrolled to; its "
            f"weights can be loaded as a layer: {cells}"
        )
    return graph


def _weights_of_cells(graph: Graph) -> dict[str, named.Tensor]:
    """The constants with PyTorch's names, as they are left where a loop over cells is unrolled to single steps.

    Empty where the graph has recurrent nodes. Equal constants may be one, and Identity gives the others.
    """
    if any(is_recurrent(node) or node.inner for node in graph.nodes):
        return {}
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if node.op == "Identity" and node.domain in DOMAINS and node.inputs[:1] and node.inputs[0] in tensors:
            tensors[node.outputs[0]] = tensors[node.inputs[0]]
    found = {}
    for name, tensor in tensors.items():
        if PREFIXED_NAME.fullmatch(name):
            dtype = dtype_of(tensor.proto().data_type)
            found[name] = named.Tensor(tensor.shape, "no plain numbers" if dtype is None else dtype.name, tensor.read)
    return found


def read_graph(path: str) -> Graph:
    """Read and check a model; its tensors are checked, but not yet read.

    Raises
    ------
    ValueError
        The file is damaged or hostile; the message lists every reason.
    OSError
        The file, or one that it refers to, cannot be read.
    ModuleNotFoundError
        The package onnx is not installed.
    """
    extras.require(["onnx"], "reading a model of ONNX", "onnx")
    import onnx
    from google.protobuf.message import DecodeError

    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise ValueError(f"{path} has {size} bytes, wanted at most {MOST_BYTES}: the weights in another file")
        data = file.read(size)
    protobuf.check(path, memoryview(data), onnx.ModelProto.DESCRIPTOR)
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    del data
    return _Reader(path, model, size).graph()


@dataclass
class _Reader:
    path: str
    model: Any
    size: int
    faults: list[str] = field(default_factory=list)
    external: dict[str, int] = field(default_factory=dict)
    external_bytes: int = 0

    def graph(self) -> Graph:
        model, graph = self.model, self.model.graph
        opset = self._opset()
        tensors = self._tensors(graph.initializer)
        self._inline(_parts(*graph.sparse_initializer))
        for sparse in graph.sparse_initializer:
            tensors[sparse.values.name] = Tensor((), 0, _refuse_sparse, partial(_same, sparse))
        known = {proto.name for proto in graph.initializer}
        known |= {sparse.values.name for sparse in graph.sparse_initializer}
        if len(known) < len(graph.initializer) + len(graph.sparse_initializer):
            self.faults.append("constants have the same name")
        inputs = {info.name: info for info in graph.input if info.name not in known}
        known |= inputs.keys()
        functions = {(function.domain, function.name): function for function in model.functions}
        self._inline(_inner_tensors(graph.node))
        for function in model.functions:
            if function.domain in DOMAINS:
                self.faults.append(f"function {function.name!r} takes the place of an operator of ONNX")
            self._inline(_inner_tensors(function.node))
        nodes, producers = [], {}
        for proto in graph.node:
            node = _node(proto, functions)
            if lost := [name for name in node.reads if name not in known]:
                self.faults.append(f"{node.title} takes {lost[0]!r}, which nothing before it gives")
            for name in filter(None, node.outputs):
                if name in known:
                    self.faults.append(f"{node.title} gives {name!r}, which is there already")
                known.add(name)
                producers[name] = node
            nodes.append(node)
            if len(self.faults) > MOST_REASONS:
                break
        outputs = {info.name: info for info in graph.output}
        self.faults += [f"output {name!r} is given by nothing" for name in outputs if name not in known]
        if not outputs:
            self.faults.append("the graph has no outputs")
        refuse(self.path, self.faults)
        header = type(model)(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
        return Graph(
            self.path,
            inputs,
            outputs,
            tuple(nodes),
            tensors,
            producers,
            opset,
            header,
            self.size + sum(self.external.values()),
            self.read_tensor,
        )

    def _opset(self) -> int:
        from onnx import defs

        versions = [item.version for item in self.model.opset_import if item.domain in DOMAINS]
        if len(versions) != 1:
            self.faults.append(f"it names {len(versions)} versions of ONNX's operators, wanted one")
            return 0
        if versions[0] > defs.onnx_opset_version():
            self.faults.append(
                f"it has opset {versions[0]}, but the installed package onnx ends at {defs.onnx_opset_version()}: "
                "wanted a newer one"
            )
        return int(versions[0])

    # Tensors

    def _tensors(self, protos: Iterable[Any]) -> dict[str, Tensor]:
        found = {}
        for proto in protos:
            try:
                found[proto.name] = self.tensor(proto)
            except (ValueError, OSError) as error:
                self.faults.append(f"tensor {proto.name!r} {error}")
        return found

    def _inline(self, tensors: Iterable[Any]) -> None:
        """Put the values of tensors that are not constants of the graph inside, where they are in another file."""
        from onnx import TensorProto

        for proto in tensors:
            if proto.data_location == TensorProto.EXTERNAL:
                try:
                    proto.CopyFrom(self.tensor(proto).proto())
                except (ValueError, OSError) as error:
                    self.faults.append(f"tensor {proto.name!r} in a node {error}")

    def read_tensor(self, proto: Any) -> NDArray[Any]:
        """The array of an attribute that must be a TensorProto."""
        from onnx import TensorProto

        if not isinstance(proto, TensorProto):
            raise ValueError(f"a tensor is {proto!r:.60}")
        return self.tensor(proto).read()

    def tensor(self, proto: Any) -> Tensor:
        """Check a tensor; its values are not read.

        Raises
        ------
        ValueError, OSError
            It does not fit its own description, or is in a file that is not read.
        """
        from onnx import TensorProto

        shape = tuple(map(int, proto.dims))
        if len(shape) > 64 or not all(size >= 0 for size in shape):
            raise ValueError(f"has shape {shape[:64]}, wanted up to 64 sizes of at least 0")
        dtype = dtype_of(proto.data_type)
        if proto.data_location == TensorProto.EXTERNAL:
            return self._external_tensor(proto, shape, dtype)
        if dtype is None:
            return Tensor(shape, len(proto.raw_data), partial(_refuse_type, proto.data_type), partial(_same, proto))
        count = math.prod(shape)
        if proto.HasField("raw_data"):
            found, wanted, unit = len(proto.raw_data), count * dtype.itemsize, "bytes"
        else:
            found, wanted, unit = len(_typed_data(proto)), count, "values"
        if found != wanted:
            raise ValueError(f"has {found} {unit}, but {dtype} of shape {shape} has {wanted}")
        return Tensor(shape, count * dtype.itemsize, partial(_read, proto, shape), partial(_same, proto))

    def _external_tensor(self, proto: Any, shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> Tensor:
        given = {item.key: item.value for item in proto.external_data}
        location = given.get("location", "")
        target = _inside(self.path, location)
        offset, length = (_integer(given, key) for key in ("offset", "length"))
        with _open(target, location) as file:
            end = os.fstat(file.fileno()).st_size
        begin = offset or 0
        nbytes = length if length is not None else end - begin
        if nbytes < 0 or begin + nbytes > end:
            raise ValueError(f"has bytes {begin} to {begin + nbytes} of {location!r}, which has {end}")
        if dtype is not None and nbytes != math.prod(shape) * dtype.itemsize:
            wanted = math.prod(shape) * dtype.itemsize
            raise ValueError(f"has {nbytes} bytes in {location!r}, but {dtype} of shape {shape} has {wanted}")
        self.external[target] = end
        self.external_bytes += nbytes
        if self.external_bytes > MOST_SHARING * sum(self.external.values()):
            raise ValueError(f"and others share the bytes of other files more than {MOST_SHARING} times")
        values = cache(partial(_read_file, target, location, begin, nbytes))

        def with_values() -> Any:
            return type(proto)(name=proto.name, data_type=proto.data_type, dims=proto.dims, raw_data=values())

        def array() -> NDArray[Any]:
            return _refuse_type(proto.data_type) if dtype is None else _read(with_values(), shape)

        return Tensor(shape, nbytes, array, with_values)


def dtype_of(code: int) -> np.dtype[Any] | None:
    """NumPy's type for a TensorProto.DataType, None where it has no whole bytes, or is no number."""
    from onnx import TensorProto, helper

    floats = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
    integers = ("BOOL", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)))
    if code not in {getattr(TensorProto, name) for name in (*floats, *integers)}:
        return None
    dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(code))
    return dtype


def _typed_data(proto: Any) -> Any:
    from onnx import helper

    return getattr(proto, helper.tensor_dtype_to_field(proto.data_type))


def _read(proto: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(proto)).reshape(shape)


def _refuse_type(code: int) -> NDArray[Any]:
    from onnx import TensorProto

    names = {number: name for name, number in TensorProto.DataType.items()}
    raise ValueError(f"is of type {names.get(code, code)}, wanted plain numbers")


def _refuse_sparse() -> NDArray[Any]:
    raise ValueError("is sparse, wanted all of its values")


def _same(proto: Any) -> Any:
    return proto


def _integer(given: dict[str, str], key: str) -> int | None:
    text = given.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError(f"has {key} {text!r} in another file, wanted a number of at least 0")
    return int(text)


# Tensors in other files


def _inside(path: str, location: str) -> str:
    """Where a tensor's file really is, which must be in the folder of the model or below."""
    if not location or "\0" in location:
        raise ValueError(f"is in the file {location!r}, wanted a name")
    folder = os.path.realpath(os.path.dirname(path) or ".")
    target = os.path.realpath(os.path.join(folder, location))
    if os.path.isabs(location) or os.path.commonpath([folder, target]) != folder or target == folder:
        raise ValueError(f"is in {location!r}, wanted a file in the folder of the model: it leads to {target}")
    return target


def _open(target: str, location: str) -> Any:
    """Open a file that must be no link, pipe or device by now."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(target, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"is in {location!r}, which is no regular file")
    return file


def _read_file(target: str, location: str, begin: int, nbytes: int) -> bytes:
    with _open(target, location) as file:
        file.seek(begin)
        data: bytes = file.read(nbytes)
    if len(data) != nbytes:
        raise ValueError(f"{target} has become shorter while it was read")
    return data


# Nodes


def _node(proto: Any, functions: dict[tuple[str, str], Any]) -> Node:
    inputs, outputs = tuple(proto.input), tuple(proto.output)
    name = proto.name or next(filter(None, outputs), "")
    bodies = list(_bodies(proto))
    captures: set[str] = set()
    function = functions.get((proto.domain, proto.op_type))
    inner = [] if function is None else _recurrent_operators(function.node)
    is_random = _is_random([proto]) or (function is not None and _is_random(function.node))
    for body in bodies:
        captures |= _captures(body)
        inner += _recurrent_operators(body.node)
    return Node(proto.op_type, proto.domain, name, inputs, outputs, frozenset(captures), tuple(inner), is_random, proto)


def _bodies(proto: Any) -> Iterable[Any]:
    """The graphs among a node's attributes."""
    for attribute in proto.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _captures(graph: Any) -> set[str]:
    """The names that a body uses and does not define."""
    known = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    found: set[str] = set()
    for proto in graph.node:
        found |= {name for name in proto.input if name and name not in known}
        for body in _bodies(proto):
            found |= _captures(body) - known
        known |= set(proto.output)
    return found | {info.name for info in graph.output if info.name not in known}


def _inner_tensors(nodes: Iterable[Any]) -> Iterable[Any]:
    """The tensors in the attributes and bodies of nodes."""
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            yield from _parts(attribute.sparse_tensor, *attribute.sparse_tensors)
        for body in _bodies(node):
            yield from body.initializer
            yield from _parts(*body.sparse_initializer)
            yield from _inner_tensors(body.node)


def _parts(*sparse: Any) -> Iterable[Any]:
    """The tensors that sparse tensors are made of."""
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _is_random(protos: Iterable[Any]) -> bool:
    """Whether nodes, or those in their bodies, may draw numbers; a Dropout does in training."""
    for proto in protos:
        if proto.op_type in RANDOM or (proto.op_type == "Dropout" and len(proto.input) > 2):
            return True
        if any(_is_random(body.node) for body in _bodies(proto)):
            return True
    return False


def _recurrent_operators(protos: Iterable[Any]) -> list[str]:
    """The recurrent operators among nodes and in their bodies."""
    found = []
    for proto in protos:
        if proto.op_type in OPERATORS and proto.domain in DOMAINS:
            found.append(proto.op_type)
        for body in _bodies(proto):
            found += _recurrent_operators(body.node)
    return found
