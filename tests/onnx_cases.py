"""Graphs of ONNX for tests: built in memory, written to files, and run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import fastrnn

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

#: Unsorted, with ties, ones, zeros and the full length.
LENGTHS = (3, 0, 7, 1, 3, 7, 0, 1, 5)

node = helper.make_node


def port(name: str, shape: Sequence[Any] | None, dtype: Any = np.float32) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def weights(rng: np.random.Generator, op: str, inputs: int, hidden: int, directions: int = 1) -> dict[str, np.ndarray]:
    """W, R and B of a node."""
    rows = GATES[op] * hidden
    shapes = {"W": (directions, rows, inputs), "R": (directions, rows, hidden), "B": (directions, 2 * rows)}
    return {name: rng.uniform(-0.6, 0.6, shape).astype(np.float32) for name, shape in shapes.items()}


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str | onnx.ValueInfoProto],
    tensors: Mapping[str, np.ndarray],
    opset: int = 17,
    **options: Any,
) -> onnx.ModelProto:
    """A model; an output that is a name is of float32."""
    gives = [port(item, None) if isinstance(item, str) else item for item in outputs]
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "graph", inputs, gives, constants)
    domains = options.pop("domains", {})
    imports = [helper.make_opsetid(*item) for item in ({"": opset} | domains).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **options)


def load(folder: Path, made: onnx.ModelProto | bytes, **options: Any) -> Any:
    path = folder / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return fastrnn.load(path, **options)


def theirs(made: onnx.ModelProto, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> list[Any]:
    """onnxruntime's outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(names, dict(feed))


def agree(here: Sequence[Any], there: Sequence[Any], tolerance: float = 2e-6) -> None:
    assert len(here) == len(there)
    for left, right in zip(here, there, strict=True):
        assert left.shape == right.shape and left.dtype == right.dtype
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)
