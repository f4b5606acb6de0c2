"""What the commands that compare with TensorFlow 1 share: importing its interface, and making a session."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray


def import_tensorflow() -> tuple[Any, Any]:
    """TensorFlow 1's interface, and the module of its cells, which has no public name any more."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no messages at import among a command's output
    from tensorflow.compat import v1
    from tensorflow.python.ops import rnn_cell_impl

    v1.logging.set_verbosity(v1.logging.ERROR)  # it warns that everything of TensorFlow 1 is deprecated
    return v1, rnn_cell_impl


def open_session(
    v1: Any, cells: Sequence[Any], variables: Sequence[Mapping[str, NDArray[Any]]], num_threads: int
) -> Any:
    """Open a session on the current graph, on the CPU only, and load each cell's ``kernel`` and ``bias``."""
    config = v1.ConfigProto(
        intra_op_parallelism_threads=num_threads, inter_op_parallelism_threads=num_threads, device_count={"GPU": 0}
    )
    session = v1.Session(config=config)
    for cell, arrays in zip(cells, variables, strict=True):
        for variable in cell.variables:
            variable.load(arrays[variable.op.name.rsplit("/", 1)[-1]], session)
    return session
