"""ncnn with int8 weights, quantized as its own tools do it (``ncnn2table``, ``ncnn2int8``).

Each row of a weight matrix has a scale, 127 over its largest magnitude. ncnn quantizes inputs and states while it runs,
with one scale for each step. It has no batches: the rows run one after the other, each with its own length and states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.importers.gate_orders import reorder_gates
from fastrnn.spec import NUM_GATES

from .onnx_model import state_names
from .workloads import Workload, draw_weights

LAYER_TYPES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
MAGIC = 7767517  # the first line of a .param file
FLOAT32, INT8 = 0, 0x000D4B38  # tags before an array of a .bin file, from ncnn's modelbin.cpp
BIDIRECTIONAL, INT8_SCALES = "2=2", "8=2"  # parameters of a layer


def ncnn_call(
    workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int
) -> Callable[[], NDArray[np.float32]]:
    """A call as in ``engines.py``."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = num_threads
    net.load_param_mem(_structure(workload))
    net.load_model_mem(_weights(workload))
    B, T, width = workload.batch, workload.steps, workload.num_directions * workload.hidden_size
    # A Mat refers to the memory of its array, so each is a copy that owns its own.
    rows = [ncnn.Mat(np.ascontiguousarray(row[:length])).clone() for row, length in zip(x, lengths, strict=True)]
    zeros = np.zeros((1, workload.hidden_size), np.float32)
    states = [{name: ncnn.Mat(zeros).clone() for name in state_names(workload)} for _ in rows]
    output = f"y{workload.num_layers - 1}"

    def run(row: Any, own: dict[str, Any]) -> NDArray[np.float32]:
        extractor = net.create_extractor()
        extractor.input("x", row)
        for name, state in own.items():
            extractor.input(name, state)
        _, y = extractor.extract(output)
        for name in own:
            _, own[name] = extractor.extract(f"new_{name}")
        return np.array(y)

    def call() -> NDArray[np.float32]:
        y = np.zeros((B, T, width), np.float32)
        for index, row in enumerate(rows):
            y[index, : lengths[index]] = run(row, states[index])
        return y

    return call


def _structure(workload: Workload) -> str:
    """The model's .param file: a line for each input and layer."""
    states, L = state_names(workload), workload.num_layers
    units, D = NUM_GATES[workload.cell] * workload.hidden_size, workload.num_directions
    lines = [f"Input {name} 0 1 {name}" for name in ("x", *states)]
    source = "x"
    for layer, width in enumerate(workload.input_sizes()):
        own = states[layer * len(states) // L : (layer + 1) * len(states) // L]
        blobs = [source, *own, f"y{layer}", *(f"new_{name}" for name in own)]
        options = [f"0={workload.hidden_size}", f"1={D * units * width}", *([BIDIRECTIONAL] if D == 2 else [])]
        count = 1 + len(own)
        words = [LAYER_TYPES[workload.cell], f"layer{layer}", count, count, *blobs, *options, INT8_SCALES]
        lines.append(" ".join(map(str, words)))
        source = f"y{layer}"
    num_blobs = 1 + 2 * len(states) + L
    return "\n".join([str(MAGIC), f"{len(lines)} {num_blobs}", *lines, ""])


def _weights(workload: Workload) -> bytes:
    """The model's .bin file."""
    weights, kind, D = draw_weights(workload), workload.cell, workload.num_directions
    parts: list[bytes] = []
    for layer in range(workload.num_layers):
        ends = [f"l{layer}{direction}" for direction in ("", "_reverse")[:D]]
        W, R, bias_ih, bias_hh = (
            np.stack([reorder_gates(weights[f"{name}_{end}"], kind, target="ncnn") for end in ends])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        bias = bias_ih + bias_hh
        if kind == "gru":  # the candidate's two biases stay apart: the reset gate multiplies the second
            gates = 2 * workload.hidden_size
            bias = np.concatenate([bias[:, :gates], bias_ih[:, gates:], bias_hh[:, gates:]], 1)
        (W, W_scales), (R, R_scales) = quantize(W), quantize(R)
        parts += [_tagged(INT8, W), _tagged(FLOAT32, bias), _tagged(INT8, R), W_scales.tobytes(), R_scales.tobytes()]
    return b"".join(parts)


def quantize(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round (..., rows, columns) to int8, and return the scale of each row (..., rows), too: 127 over its largest.

    Examples
    --------
    >>> from fastrnn.benchmark.ncnn_engine import quantize
    >>> quantize(np.array([[0.5, -0.25], [0, 0]], np.float32))
    (array([[127, -64],
           [  0,   0]], dtype=int8), array([254.,   1.], dtype=float32))
    """
    largest = np.abs(weights).max(-1)
    scales = np.where(largest > 0, np.float32(127) / np.where(largest > 0, largest, 1), 1).astype(np.float32)
    return np.rint(weights * scales[..., None]).astype(np.int8), scales


def _tagged(tag: int, array: NDArray[Any]) -> bytes:
    data = array.tobytes()
    return tag.to_bytes(4, "little") + data + bytes(-len(data) % 4)
