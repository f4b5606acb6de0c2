"""Models of ONNX: recurrent nodes run here, the rest in onnxruntime. ``fastrnn.load`` makes them."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike

from ..layers.engine import Backend
from .graph import Graph
from .model import Model, Part, Port

__all__ = ["Model", "Part", "Port"]


def build(graph: Graph, *, backend: Backend, dtype: DTypeLike | None, isa: str | None) -> Any:
    """Make what ``fastrnn.load`` returns.

    Raises
    ------
    ValueError, TypeError, ModuleNotFoundError
        As of ``fastrnn.load``.
    """
    if dtype is not None:
        raise ValueError(f"dtype is given, but {graph.path} is loaded as a graph, which has types of its own")
    return Model(graph, backend=backend, isa=isa)
