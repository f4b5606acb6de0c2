"""Models of ONNX: recurrent nodes run here, the rest in onnxruntime. ``fastrnn.load`` makes them."""

from __future__ import annotations

from ..spec import WeightDtype
from .analysis import Part, analyse
from .graph import Graph
from .model import Model
from .runner import Port
from .sequential import Sequential

__all__ = ["Model", "Part", "Port", "Sequential"]


def build(graph: Graph, *, isa: str | None, weight_dtype: WeightDtype | None = None) -> Sequential | Model:
    """Make what ``fastrnn.load`` returns: a Sequential where the graph is a plain chain, else a Model.

    Raises
    ------
    ValueError, ModuleNotFoundError
        As of ``fastrnn.load``.
    """
    analysis = analyse(graph, weight_dtype)
    if analysis.why_not_sequential:
        return Model(analysis, isa=isa)
    return Sequential.from_analysis(analysis, isa=isa)
