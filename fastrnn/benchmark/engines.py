"""fastrnn and the engines it is compared with, each as a function that builds a call.

Every builder takes ``(workload, x, lengths, num_threads)``, x (B, T, I) float32 and lengths (B,) int64, and returns a
call without arguments that runs the workload and returns the outputs (B, T, D*H). If the workload is a stream, each
call takes one more step with the same input and keeps the state. All engines get the same weights. Inputs are converted
to the layout of the engine before any call, so that no conversion is timed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn import extras
from fastrnn.runtime import set_num_threads
from fastrnn.spec import WeightDtype

from . import onnx_model
from .mnn_engine import mnn_call, mnn_runs
from .ncnn_engine import ncnn_call
from .tensorflow_engine import tensorflow_call, tensorflow_runs
from .tract_engine import tract_call, tract_runs
from .workloads import Workload, build_layer, draw_weights

Call = Callable[[], NDArray[np.float32]]
Builder = Callable[[Workload, NDArray[np.float32], NDArray[np.int64], int], Call]

#: The type of an engine's weights, and how far its outputs, of magnitude 1, may be from fastrnn's of float32 weights.
TOLERANCES: dict[WeightDtype, float] = {"float32": 2e-5, "float16": 5e-3, "int8": 5e-2}


class Engine(NamedTuple):
    """How to build an engine's calls, the packages it needs, which workloads it can run, and its type of weights."""

    build: Builder
    packages: tuple[str, ...] = ()
    runs: Callable[[Workload], bool] = lambda workload: True
    weights: WeightDtype = "float32"


def fastrnn_call(
    workload: Workload,
    x: NDArray[np.float32],
    lengths: NDArray[np.int64],
    num_threads: int,
    weight_dtype: WeightDtype = "float32",
) -> Call:
    set_num_threads(num_threads)
    layer = build_layer(workload, weight_dtype)
    if workload.is_stream:
        stream, step = layer.stream(workload.batch), np.ascontiguousarray(x[:, 0])
        return lambda: stream.step(step)[:, None]
    sizes = lengths if workload.is_ragged else None

    def call() -> NDArray[np.float32]:
        y: NDArray[np.float32] = layer(x, lengths=sizes)[0]
        return y

    return call


def torch_module(workload: Workload, cell: bool = False) -> Any:
    """The workload's module of PyTorch, or the cell of its first layer."""
    import torch

    name, weights = workload.cell.upper(), draw_weights(workload)
    sizes = workload.input_size, workload.hidden_size
    if cell:
        module = getattr(torch.nn, f"{name}Cell")(*sizes)
        weights = {part.removesuffix("_l0"): array for part, array in weights.items() if part.endswith("_l0")}
    else:
        bidirectional = workload.num_directions == 2
        module = getattr(torch.nn, name)(*sizes, workload.num_layers, bidirectional=bidirectional, batch_first=True)
    module.load_state_dict({part: torch.from_numpy(array) for part, array in weights.items()})
    return module.eval()


def torch_call(workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int) -> Call:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.set_num_threads(num_threads)
    module = torch_module(workload)
    inputs, sizes, state = torch.from_numpy(x), torch.from_numpy(lengths), None

    def run() -> Any:
        nonlocal state
        if workload.is_stream:
            y, state = module(inputs, state)
            return y
        if not workload.is_ragged:
            return module(inputs)[0]
        y, _ = module(pack_padded_sequence(inputs, sizes, batch_first=True, enforce_sorted=False))
        return pad_packed_sequence(y, batch_first=True, total_length=workload.steps)[0]

    def call() -> NDArray[np.float32]:
        with torch.inference_mode():
            y: NDArray[np.float32] = run().numpy()
        return y

    return call


def onnxruntime_call(
    workload: Workload,
    x: NDArray[np.float32],
    lengths: NDArray[np.int64],
    num_threads: int,
    change: Callable[[bytes], bytes] = lambda model: model,
) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    model = change(onnx_model.model(workload))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx_model.carry(onnx_model.feed(workload, x, lengths), lambda feed: session.run(None, feed))


def openvino_call(workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int) -> Call:
    import openvino

    feed = onnx_model.feed(workload, x, lengths)
    core = openvino.Core()
    model = core.read_model(io.BytesIO(onnx_model.model(workload)))
    model.reshape({name: list(array.shape) for name, array in feed.items()})
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": num_threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    return onnx_model.carry(feed, lambda feed: list(request.infer(feed, share_inputs=True).values()))


ENGINES = {
    "fastrnn": Engine(fastrnn_call),
    "torch": Engine(torch_call, ("torch",)),
    "onnxruntime": Engine(onnxruntime_call, ("onnxruntime", "onnx")),
    "onnxruntime-int8": Engine(
        partial(onnxruntime_call, change=onnx_model.quantized),
        ("onnxruntime", "onnx"),
        lambda workload: workload.cell == "lstm",  # it has no other cells of int8
        "int8",
    ),
    "openvino": Engine(openvino_call, ("openvino", "onnx")),
    "mnn": Engine(mnn_call, ("MNN", "onnx"), mnn_runs),
    "tract": Engine(tract_call, ("tract", "onnx"), tract_runs),
    "ncnn-int8": Engine(ncnn_call, ("ncnn",), weights="int8"),
    "tensorflow-static": Engine(
        partial(tensorflow_call, static=True), ("tensorflow",), partial(tensorflow_runs, static=True)
    ),
    "tensorflow-dynamic": Engine(
        partial(tensorflow_call, static=False), ("tensorflow",), partial(tensorflow_runs, static=False)
    ),
}


def missing_packages(engine: str) -> list[str]:
    """The packages that `engine` needs and that aren't installed."""
    return extras.missing(ENGINES[engine].packages)


def choose(names: Iterable[str] | None) -> list[str]:
    """Return the named engines and fastrnn, which is always first; for None, all installed engines.

    Raises
    ------
    ValueError
        There is no such engine.
    ModuleNotFoundError
        An engine is named whose packages aren't installed.
    """
    if names is None:
        return [engine for engine in ENGINES if not missing_packages(engine)]
    names = list(names)
    if unknown := [name for name in names if name not in ENGINES]:
        raise ValueError(f"no engine {', '.join(map(repr, unknown))}: the engines are {', '.join(ENGINES)}")
    for name in names:
        packages = ENGINES[name].packages
        extras.require(packages, f"the engine {name}", "tensorflow" if "tensorflow" in packages else "peers")
    return [engine for engine in ENGINES if engine == "fastrnn" or engine in names]


def answers(workload: Workload, call: Call) -> NDArray[np.float32]:
    """The outputs of a new call, to be compared; of a stream several steps, which differ if the state is not kept."""
    return np.stack([call() for _ in range(5 if workload.is_stream else 1)])
