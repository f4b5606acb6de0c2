"""A file of ONNX in onnxruntime, for comparison: the whole graph, or one of its recurrent nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..files import onnx_file
from ..importers.onnx import INPUTS, OUTPUTS, QUANTIZATION, WEIGHTS
from ..layers.layer import Layer
from ..onnx import Model, Sequential
from ..onnx.recurrent import is_quantized, node_named
from ..onnx.session import evaluate
from ..runtime import get_num_threads
from .torch_witness import PlainRun

#: Sizes that free axes get by turns, and the one that all get where onnxruntime takes no others.
SIZES = (6, 5, 4, 7, 3)
SAME_SIZE = 6

#: Sizes of other inputs that free axes get, where none of these are taken, are at most so large.
MOST_SIZE = 64

Feed = dict[str, NDArray[Any]]


def _session(model: str | bytes) -> tuple[str, Any]:
    """The name and version of onnxruntime, and a session of a file or a model."""
    extras.require(["onnxruntime"], "verify", "onnx")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = get_num_threads()
    options.log_severity_level = 4  # errors come as exceptions
    witness = f"onnxruntime {onnxruntime.__version__}"
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # of classes of its own
        raise ValueError(f"{witness} does not take the model, so nothing is compared: {error}") from None
    return witness, session


def from_file(path: str, model: Model | Sequential, rng: np.random.Generator) -> tuple[str, Feed, list[Any]]:
    """Run a whole file.

    Returns
    -------
    The name and version of onnxruntime; inputs that it takes; its outputs.

    Raises
    ------
    ValueError
        It refuses the model, or all inputs that can be drawn.
    """
    witness, session = _session(path)
    reason = ""
    fixed = {size for port in model.inputs for size in port.shape or () if isinstance(size, int) and size <= MOST_SIZE}
    for sizes in (SIZES, (SAME_SIZE,), *((size,) for size in sorted(fixed))):  # such as the rows of initial states
        feed = dict(_draw(model, sizes, rng))
        try:
            found = list(session.run(None, feed))
            if not any(map(np.any, found)):  # integers that are lengths were 0
                feed |= {
                    name: np.full_like(array, min(sizes)) for name, array in feed.items() if _may_be_lengths(array)
                }
                found = list(session.run(None, feed))
            return witness, feed, found
        except Exception as error:  # sizes that have to be equal, and have no names that say so
            reason = " ".join(str(error).split())
    raise ValueError(f"{witness} cannot run the model, so nothing is compared: {reason}")


def _may_be_lengths(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iu" and array.ndim == 1


def _draw(model: Model | Sequential, sizes: tuple[int, ...], rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """An array for each input. Axes of the same name have the same size."""
    known: dict[str, int] = {}
    for number, port in enumerate(model.inputs):
        if port.dtype is None or port.shape is None or port.dtype.kind not in "fiubV":
            raise ValueError(f"input {port.name!r} is {port.dtype} of shape {port.shape}: no numbers can be drawn")
        shape = [
            size
            if isinstance(size, int)
            else known.setdefault(size or f"{number} {axis}", sizes[len(known) % len(sizes)])
            for axis, size in enumerate(port.shape)
        ]
        yield port.name, _numbers(model, port.name, shape, port.dtype, sizes, rng)


def _numbers(
    model: Model | Sequential,
    name: str,
    shape: list[int],
    dtype: np.dtype[Any],
    sizes: tuple[int, ...],
    rng: np.random.Generator,
) -> NDArray[Any]:
    if name == model.lengths_input:
        lengths = rng.integers(1, min(sizes) + 1, shape)
        lengths.flat[0] = min(sizes)
        return lengths.astype(dtype)
    if dtype.kind in "iub":  # ids, mostly; other tables than a Sequential's have at least two rows
        return rng.integers(0, getattr(model, "num_ids", 0) or 2, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def is_rounded(path: str, name: str | None) -> bool:
    """Whether onnxruntime rounds inputs and states of recurrent nodes to 8 bits: of the one with a name, or of any."""
    graph = onnx_file.read_graph(path)
    return any(map(is_quantized, graph.nodes if name is None else [node_named(graph, name)]))


def from_node(path: str, name: str, layer: Layer[Any]) -> tuple[str, PlainRun]:
    """A node of a file with its weights, in a model of its own.

    The weights are those of the file: where nodes compute them, onnxruntime does. A row without steps keeps its initial
    state, which onnxruntime would set to zero.

    Raises
    ------
    ValueError
        onnxruntime refuses the node.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = onnx_file.read_graph(path)
    node = node_named(graph, name)
    given = dict(zip((*INPUTS, *QUANTIZATION), node.inputs, strict=False))
    weights = {
        part: graph.tensors[given[part]].read() if given[part] in graph.tensors else evaluate(graph, given[part])
        for part in (*WEIGHTS, *QUANTIZATION)
        if given.get(part)
    }
    states = ["initial_h", "initial_c"] if layer.kind == "lstm" else ["initial_h"]
    inputs = ["X", *(part if part in weights else "" for part in ("W", "R", "B")), "sequence_lens", *states]
    inputs += ["P"] if "P" in weights else [""] if is_quantized(node) else []
    inputs += QUANTIZATION if is_quantized(node) else ()
    outputs = list(OUTPUTS[: 1 + len(states)])
    kind = helper.np_dtype_to_tensor_dtype(layer.dtype)
    proto = helper.make_node(node.op, inputs, outputs, domain=node.domain)
    proto.attribute.extend(a for a in node.proto.attribute if a.name not in ("layout", "hidden_size"))
    proto.attribute.append(helper.make_attribute("hidden_size", layer.hidden_size))
    ports = [helper.make_tensor_value_info(part, kind, None) for part in ("X", *states)]
    ports.append(helper.make_tensor_value_info("sequence_lens", TensorProto.INT32, None))
    results = [helper.make_tensor_value_info(part, kind, None) for part in outputs]
    tensors = [
        numpy_helper.from_array(array if is_quantized(node) else array.astype(layer.dtype), part)
        for part, array in weights.items()
    ]
    made = helper.make_graph([proto], "node", ports, results, tensors)
    header = type(graph.header)(ir_version=graph.header.ir_version, opset_import=graph.header.opset_import)
    header.graph.CopyFrom(made)
    witness, session = _session(header.SerializeToString())

    def run(
        x: NDArray[Any], lengths: NDArray[Any], state: tuple[NDArray[Any], NDArray[Any] | None]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
        feed: Mapping[str, Any] = {
            "X": x.swapaxes(0, 1),
            "sequence_lens": lengths.astype(np.int32),
            **dict(zip(states, state, strict=False)),
        }
        y, *final = session.run(None, feed)
        for part, initial in zip(final, state, strict=False):
            if initial is not None:
                part[:, lengths == 0] = initial[:, lengths == 0]
        h, c = (*final, None)[:2]
        return y.transpose(2, 0, 1, 3), h, c

    return witness, run
