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
    from MNN import expr, nn

    feed = onnx_model.feed(workload, x, lengths)
    inputs, outputs = [*feed], onnx_model.output_names(workload)
    with TemporaryDirectory() as directory:
        source, target = Path(directory, "model.onnx"), Path(directory, "model.mnn")
        source.write_bytes(onnx_model.model(workload))
        _convert(source, target)
        module = nn.load_module_from_file(
            str(target),
            inputs,
            outputs,
            shape_mutable=False,
            precision_mode=expr.PrecisionMode.High,  # float32
            thread_num=num_threads,
        )

    def variable(array: NDArray[Any]) -> Any:
        return expr.const(array, [*array.shape], expr.data_format.NCHW, expr.dtype.float)

    def run(feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        found = module.forward([variable(array) for array in feed.values()])
        return [y.read().copy() for y in found]  # read() returns a view of memory that MNN reuses

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
