"""Fast CPU inference of trained recurrent networks (LSTM, GRU, RNN): ragged batches and live streams."""

import importlib
from typing import TYPE_CHECKING, Any

try:
    from ._core import __version__
except ModuleNotFoundError as error:
    if error.name != f"{__name__}._core":
        raise
    raise ImportError(
        f"the source folder {__path__[0]} has no compiled module: "
        "run 'pip install -e .' in the clone, or start Python in another folder to use an installed fastrnn"
    ) from None

from . import runtime, thread_limits
from .comparison import Comparison, Difference, compare
from .files.load import load
from .layers import GRU, LSTM, RNN, State, Unrolled
from .models.ops import (
    BatchNorm,
    Conv1d,
    Embedding,
    Final,
    First,
    Last,
    LayerNorm,
    Linear,
    LogSoftmax,
    Max,
    Mean,
    Reverse,
    Scale,
    Softmax,
)
from .models.sequential import Sequential
from .models.spec import ModelSpec
from .models.streams import ModelStream
from .packed import Packed, pack, pack_sequence, pad_sequence, unpack, unpack_sequence
from .runtime import get_include, get_library, get_num_threads, info, set_num_threads
from .spec import Activation, CellSpec, LayerSpec
from .stream_pool import PoolFull, Session, StreamPool
from .streams import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "BatchNorm",
    "CellSpec",
    "Comparison",
    "Conv1d",
    "Difference",
    "Embedding",
    "Final",
    "First",
    "Last",
    "LayerNorm",
    "LayerSpec",
    "Linear",
    "LogSoftmax",
    "Max",
    "Mean",
    "ModelSpec",
    "ModelStream",
    "Packed",
    "PoolFull",
    "Reverse",
    "Scale",
    "Sequential",
    "Session",
    "Softmax",
    "State",
    "Stream",
    "StreamPool",
    "Unrolled",
    "__version__",
    "compare",
    "get_include",
    "get_library",
    "get_num_threads",
    "info",
    "load",
    "pack",
    "pack_sequence",
    "pad_sequence",
    "set_num_threads",
    "unpack",
    "unpack_sequence",
]

#: Subpackages that are imported when they are first asked for.
_LAZY = ("keras", "nn", "ray", "serve", "torch")

if TYPE_CHECKING:
    from . import keras as keras
    from . import nn as nn
    from . import ray as ray
    from . import serve as serve
    from . import torch as torch
else:

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


set_num_threads(runtime.first_num_threads())
thread_limits.register()
