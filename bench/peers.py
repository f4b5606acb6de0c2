"""fastrnn and the engines it is compared with, each as a function that builds a call.

Every builder takes ``(workload, x, lengths, num_threads)``, x (B, T, I) float32 and lengths (B,) int64, and returns a
call without arguments that runs the workload and returns the outputs (B, T, D*H). In the group "stream" each call
takes one more step with the same input, the state carried. Weights are the same everywhere. Inputs are laid out as
the engine wants them before any call, so that no engine pays for another's layout.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from workloads import Workload, build_layer, draw_weights

import fastrnn

Call = Callable[[], NDArray[np.float32]]
Builder = Callable[[Workload, NDArray[np.float32], NDArray[np.int64], int], Call]

TOLERANCE = 2e-5
GATE_ORDER = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}  # where ONNX's gates stand in PyTorch's weights
STATE_PARTS = {"lstm": "hc", "gru": "h", "rnn": "h"}
OPSET, IR_VERSION = 17, 9  # old enough for every runtime of the last years


def fastrnn_call(workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int) -> Call:
    fastrnn.set_num_threads(num_threads)
    layer = build_layer(workload)
    if workload.group == "stream":
        stream, step = layer.stream(workload.batch), x[:, 0]
        return lambda: stream.step(step)[:, None]
    if workload.lengths == "full":
        return lambda: layer(x)[0]
    return lambda: layer(x, lengths=lengths)[0]


def torch_call(workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int) -> Call:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.set_num_threads(num_threads)
    module = getattr(torch.nn, workload.cell.upper())(
        workload.input_size,
        workload.hidden_size,
        workload.num_layers,
        bidirectional=workload.num_directions == 2,
        batch_first=True,
    ).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in draw_weights(workload).items()})
    inputs, sizes, state = torch.from_numpy(x), torch.from_numpy(lengths), None

    @torch.inference_mode()
    def carry() -> NDArray[np.float32]:
        nonlocal state
        y, state = module(inputs, state)
        return y.numpy()

    @torch.inference_mode()
    def whole() -> NDArray[np.float32]:
        return module(inputs)[0].numpy()

    @torch.inference_mode()
    def packed() -> NDArray[np.float32]:
        y, _ = module(pack_padded_sequence(inputs, sizes, batch_first=True, enforce_sorted=False))
        return pad_packed_sequence(y, batch_first=True, total_length=workload.steps)[0].numpy()

    return carry if workload.group == "stream" else whole if workload.lengths == "full" else packed


def onnxruntime_call(workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    session = onnxruntime.InferenceSession(onnx_graph(workload), options, providers=["CPUExecutionProvider"])
    return onnx_call(onnx_feed(workload, x, lengths), lambda feed: session.run(None, feed))


def openvino_call(workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int) -> Call:
    import openvino

    feed = onnx_feed(workload, x, lengths)
    core = openvino.Core()
    model = core.read_model(io.BytesIO(onnx_graph(workload)))
    model.reshape({name: list(array.shape) for name, array in feed.items()})
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": num_threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    return onnx_call(feed, lambda feed: list(request.infer(feed, share_inputs=True).values()))


def onnx_call(feed: dict[str, np.ndarray], run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> Call:
    """A call that runs a graph of `onnx_graph` on `feed` and feeds the states that it returns to the next call."""
    states = [name for name in feed if name.startswith("state")]

    def call() -> np.ndarray:
        y, *after = run(feed)
        feed.update(zip(states, after, strict=True))
        return y.swapaxes(0, 1)

    return call


def onnx_feed(workload: Workload, x: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of `onnx_graph`: x (T, B, I), sizes (B,) if ragged, states (D, B, H) if streamed."""
    feed = {"x": np.ascontiguousarray(x.swapaxes(0, 1))}
    if workload.lengths != "full":
        feed["sizes"] = lengths.astype(np.int32)
    for name in state_names(workload):
        feed[name] = np.zeros((workload.num_directions, workload.batch, workload.hidden_size), np.float32)
    return feed


def state_names(workload: Workload) -> list[str]:
    """The names of the state inputs, a layer after the other; only streams have any."""
    layers = range(workload.num_layers) if workload.group == "stream" else ()
    return [f"state_{part}{layer}" for layer in layers for part in STATE_PARTS[workload.cell]]


def onnx_graph(workload: Workload) -> bytes:
    """The workload's ONNX model, time-major; its outputs are y (T, B, D*H) and the new states."""
    from onnx import TensorProto, helper, numpy_helper

    cell, D, H = workload.cell, workload.num_directions, workload.hidden_size
    weights, states = draw_weights(workload), state_names(workload)
    # Y is (T, D, B, H): a lone direction is squeezed away without a copy, two are merged into (T, B, D*H).
    constants = {"axis": np.array([1])} if D == 1 else {"merged": np.array([0, 0, -1])}
    nodes, source = [], "x"

    def in_onnx_order(name: str) -> np.ndarray:
        gates = weights[name].reshape(len(GATE_ORDER[cell]), H, -1)[GATE_ORDER[cell]]
        return gates.reshape(weights[name].shape)

    for layer in range(workload.num_layers):
        ends = [f"l{layer}{direction}" for direction in ("", "_reverse")[:D]]
        constants[f"W{layer}"] = np.stack([in_onnx_order(f"weight_ih_{end}") for end in ends])
        constants[f"R{layer}"] = np.stack([in_onnx_order(f"weight_hh_{end}") for end in ends])
        biases = [[in_onnx_order(f"bias_{part}_{end}") for part in ("ih", "hh")] for end in ends]
        constants[f"B{layer}"] = np.stack([np.concatenate(pair) for pair in biases])
        own = states[layer * len(states) // workload.num_layers :][: len(states) // workload.num_layers]
        sizes = "sizes" if workload.lengths != "full" else ""
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
    if workload.lengths != "full":
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT32, ["B"]))
    outputs = [floats(source, "T", "B", D * H), *(floats(f"new_{name}", D, "B", H) for name in states)]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "layer", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


ENGINES: dict[str, Builder] = {
    "fastrnn": fastrnn_call,
    "torch": torch_call,
    "onnxruntime": onnxruntime_call,
    "openvino": openvino_call,
}


def missing_packages(engine: str) -> list[str]:
    """The packages that `engine` needs and that aren't installed."""
    needed = [engine, "onnx"] if engine in ("onnxruntime", "openvino") else [engine]
    return [package for package in needed if find_spec(package) is None]


def answers(workload: Workload, call: Call) -> NDArray[np.float32]:
    """The outputs of a new call, to be compared; of several steps if streamed, so that a state not carried shows."""
    return np.stack([call() for _ in range(5 if workload.group == "stream" else 1)])
