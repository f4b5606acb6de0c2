"""Trained recurrent networks (LSTM, GRU, RNN) on CPUs, fast: ragged batches, live streams, small machines."""

from ._core import __version__
from .layers import GRU, LSTM, RNN, State, Unrolled
from .packed import Packed, pack, unpack
from .runtime import get_num_threads, info, set_num_threads
from .streams import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Packed",
    "State",
    "Stream",
    "Unrolled",
    "__version__",
    "get_num_threads",
    "info",
    "pack",
    "set_num_threads",
    "unpack",
]


def __getattr__(name: str) -> object:
    """Faces of other frameworks are imported when they are used."""
    if name == "nn":
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
