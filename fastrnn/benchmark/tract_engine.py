"""tract, which reads ONNX models. Its Python package computes on one thread and has no setting for more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from . import onnx_model
from .workloads import Workload


def tract_runs(workload: Workload) -> bool:
    """Whether tract can run the workload: lengths must be constants of its model."""
    return not workload.is_ragged


def tract_call(
    workload: Workload, x: NDArray[np.float32], lengths: NDArray[np.int64], num_threads: int
) -> Callable[[], NDArray[np.float32]]:
    """A call as in ``engines.py``; `num_threads` has no effect."""
    import tract

    feed = onnx_model.feed(workload, x, lengths)
    with TemporaryDirectory() as directory:
        path = Path(directory, "model.onnx")
        path.write_bytes(onnx_model.model(workload))
        model = tract.onnx().load(path)
    names = [model.input_name(index) for index in range(model.input_count())]
    for index, name in enumerate(names):
        model.set_input_fact(index, ",".join(map(str, feed[name].shape)) + ",f32")
    for index in range(model.output_count()):
        model.set_output_fact(index, None)  # follows from the inputs' shapes
    session = model.into_model().into_runnable().spawn_state()

    return onnx_model.carry(feed, lambda feed: [y.to_numpy() for y in session.run([feed[name] for name in names])])
