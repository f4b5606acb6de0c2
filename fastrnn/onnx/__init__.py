"""Models of ONNX: recurrent nodes run here, the rest in onnxruntime. ``fastrnn.load`` makes them."""

from __future__ import annotations

from .axes import NotAChain
from .chain import find_chain
from .graph import Graph
from .model import Model, Part, lengths_input, survey
from .runner import Port
from .sequential import Sequential

__all__ = ["Model", "Part", "Port", "Sequential"]


def build(graph: Graph, *, isa: str | None) -> Sequential | Model:
    """Make what ``fastrnn.load`` returns.

    Raises
    ------
    ValueError, ModuleNotFoundError
        As of ``fastrnn.load``.
    """
    constants, recurrent = survey(graph)
    chain, why = None, ""
    try:
        chain = find_chain(graph, constants, recurrent, lengths_input(graph, recurrent))
    except NotAChain as error:
        why = str(error)
    if chain is not None and chain.is_plain:
        return Sequential.from_chain(graph, constants, chain, isa)
    why = why or "it has initial or final states as inputs or outputs"
    return Model(graph, constants, recurrent, chain=chain, why_not_sequential=why, isa=isa)
