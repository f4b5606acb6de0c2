"""MNN, which runs ONNX models that its own converter has translated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import onnx_model
from .workloads import Workload

# In a process of its own, because it prints, and the extension module alone: MNN.tools.mnnconvert, which wraps it,
# installs a package and reports its use to a server.
CONVERTER = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def mnn_runs(workload: Workload) -> bool:
    """Whether MNN can run the workload: its converter ignores lengths."""
    return not workload.is_ragged


def mnn_call(
    workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int
) -> Callable[[], NDArray[np.float32]]:
    """A call as in ``engines.py``."""
    import MNN

    feed = onnx_model.feed(workload, x, lengths)
    with TemporaryDirectory() as directory:
        source, target = Path(directory, "model.onnx"), Path(directory, "model.mnn")
        source.write_bytes(onnx_model.model(workload))
        _convert(source, target)
        net = MNN.Interpreter(str(target))
    # A session, not a module of MNN.nn, whose calls take 50 to 100 us longer.
    session = net.createSession({"backend": "CPU", "numThread": num_threads})
    inputs = {name: net.getSessionInput(session, name) for name in feed}
    for name, array in feed.items():
        net.resizeTensor(inputs[name], array.shape)
    net.resizeSession(session)
    outputs = [net.getSessionOutput(session, name) for name in onnx_model.output_names(workload)]

    def tensor(array: NDArray[Any]) -> Any:
        return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)

    def fetch(output: Any) -> NDArray[Any]:
        host = tensor(np.empty(output.getShape(), np.float32))
        output.copyToHostTensor(host)
        return np.array(host.getNumpyData())  # a copy: the memory is the tensor's

    def run(feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        for name, array in feed.items():
            inputs[name].copyFrom(tensor(array))
        net.runSession(session)
        return [fetch(output) for output in outputs]

    return onnx_model.carry(feed, run)


def _convert(source: Path, target: Path) -> None:
    """Translate an ONNX file.

    Raises
    ------
    ValueError
        The converter made no model; the message has the end of what it printed.
    """
    files = ["--modelFile", str(source), "--MNNModel", str(target)]
    # By default version 3.6.1 makes loops of LSTMs of more than one step, and crashes.
    options = ["-f", "ONNX", "--bizCode", "fastrnn", "--useOriginRNNImpl"]
    done = subprocess.run([sys.executable, "-c", CONVERTER, *files, *options], capture_output=True, text=True)
    if not target.exists():
        raise ValueError(f"MNN cannot convert {source.name}: {(done.stdout + done.stderr)[-300:]}")
