"""A workload as an ONNX model, for the engines that read one, and the calls of such an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.importers.gate_orders import reorder_gates

from .workloads import Workload, draw_weights

STATE_PARTS = {"lstm": "hc", "gru": "h", "rnn": "h"}
OPSET, IR_VERSION = 17, 9  # supported by every runtime of the last years


def feed(workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The inputs of :func:`model`: x (T, B, I), sizes (B,) if ragged, states (D, B, H) if streamed."""
    inputs: dict[str, NDArray[Any]] = {"x": np.ascontiguousarray(x.swapaxes(0, 1))}
    if workload.is_ragged:
        inputs["sizes"] = lengths.astype(np.int32)
    for name in state_names(workload):
        inputs[name] = np.zeros((workload.num_directions, workload.batch, workload.hidden_size), np.float32)
    return inputs


def state_names(workload: Workload) -> list[str]:
    """The names of the state inputs, layer by layer; only streams have any."""
    layers = range(workload.num_layers) if workload.is_stream else ()
    return [f"state_{part}{layer}" for layer in layers for part in STATE_PARTS[workload.cell]]


def output_names(workload: Workload) -> list[str]:
    """The names of the outputs of :func:`model`: y and the new states."""
    return [f"y{workload.num_layers - 1}", *(f"new_{name}" for name in state_names(workload))]


def model(workload: Workload) -> bytes:
    """The workload's ONNX model, time-major; its outputs are y (T, B, D*H) and the new states."""
    from onnx import TensorProto, helper, numpy_helper

    cell, D, H = workload.cell, workload.num_directions, workload.hidden_size
    weights, states = draw_weights(workload), state_names(workload)
    # Y is (T, D, B, H): one direction is squeezed without a copy, two are merged into (T, B, D*H).
    constants: dict[str, NDArray[Any]] = {"axis": np.array([1])} if D == 1 else {"merged": np.array([0, 0, -1])}
    nodes: list[Any] = []
    source = "x"

    def in_onnx_order(name: str) -> NDArray[np.float32]:
        return reorder_gates(weights[name], cell, target="onnx")

    for layer in range(workload.num_layers):
        ends = [f"l{layer}{direction}" for direction in ("", "_reverse")[:D]]
        constants[f"W{layer}"] = np.stack([in_onnx_order(f"weight_ih_{end}") for end in ends])
        constants[f"R{layer}"] = np.stack([in_onnx_order(f"weight_hh_{end}") for end in ends])
        biases = [[in_onnx_order(f"bias_{part}_{end}") for part in ("ih", "hh")] for end in ends]
        constants[f"B{layer}"] = np.stack([np.concatenate(pair) for pair in biases])
        own = states[layer * len(states) // workload.num_layers :][: len(states) // workload.num_layers]
        sizes = "sizes" if workload.is_ragged else ""
        attributes: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional" if D == 2 else "forward"}
        if cell == "gru":
            attributes["linear_before_reset"] = 1
        reads = [source, f"W{layer}", f"R{layer}", f"B{layer}", sizes, *own]
        writes = [f"Y{layer}", *(f"new_{name}" for name in own)]
        nodes.append(helper.make_node(cell.upper(), reads, writes, **attributes))
        source = f"y{layer}"
        if D == 1:
            nodes.append(helper.make_node("Squeeze", [f"Y{layer}", "axis"], [source]))
        else:
            nodes.append(helper.make_node("Transpose", [f"Y{layer}"], [f"Yt{layer}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"Yt{layer}", "merged"], [source]))

    def floats(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [floats("x", "T", "B", workload.input_size), *(floats(name, D, "B", H) for name in states)]
    if workload.is_ragged:
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT32, ["B"]))
    y, *after = output_names(workload)
    outputs = [floats(y, "T", "B", D * H), *(floats(name, D, "B", H) for name in after)]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "layer", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(made.SerializeToString())


def quantized(model: bytes) -> bytes:
    """An ONNX model of LSTMs with int8 weights, as onnxruntime makes it; it quantizes inputs and states while it runs.

    The weights have 7 bits: with 8, sums of two products saturate on processors without VNNI.
    """
    import logging
    import tempfile
    from pathlib import Path

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # onnxruntime advises to prepare the model in ways that change nothing here
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "int8.onnx")
            quantize_dynamic(onnx.load_from_string(model), path, weight_type=QuantType.QInt8, reduce_range=True)
            return path.read_bytes()
    finally:
        logging.disable(before)


def carry(
    feed: dict[str, NDArray[Any]], run: Callable[[dict[str, NDArray[Any]]], list[NDArray[Any]]]
) -> Callable[[], NDArray[np.float32]]:
    """A call that runs an ONNX model on `feed` and feeds the states that it returns to the next call."""
    states = [name for name in feed if name.startswith("state")]

    def call() -> NDArray[np.float32]:
        y, *after = run(feed)
        feed.update(zip(states, after, strict=True))
        return y.swapaxes(0, 1)

    return call
