"""What a graph is: its constants, recurrent nodes and lengths, the chain that it may be, and what runs where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..spec import WeightDtype
from .axes import NotAChain
from .chain import Chain, find_chain
from .constants import Constants
from .graph import DOMAINS, Graph, refuse
from .recurrent import OTHERS, Recurrent, find, key
from .session import evaluate
from .split import Segment, needed_nodes, split
from .values import MOST_BETWEEN, SAME_LENGTHS


@dataclass(frozen=True)
class Part:
    """What runs in one place.

    Attributes
    ----------
    engine : "fastrnn" or "onnxruntime"
    nodes : what messages call its nodes, such as "LSTM node 'encoder'"
    reads, gives : the names that it takes and gives
    """

    engine: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """A graph that can be run.

    Attributes
    ----------
    graph : the graph
    constants : its constants
    recurrent : its recurrent nodes that run here, by their first outputs
    lengths : the input that is the sequence_lens of all nodes that have one; None where there is none
    chain : the graph as a chain; None where it is none
    why_not_sequential : what keeps it from being a Sequential; empty where nothing does
    elsewhere : the recurrent nodes that are left to onnxruntime, and why
    """

    graph: Graph
    constants: Constants
    recurrent: dict[str, Recurrent]
    lengths: str | None
    chain: Chain | None
    why_not_sequential: str
    elsewhere: tuple[str, ...]

    @property
    def runs_as_chain(self) -> bool:
        """Whether it runs here as a whole; recurrent nodes alone are faster one by one if they have states."""
        if self.chain is None:
            return False
        nodes = needed_nodes(self.graph, self.recurrent)
        return self.chain.is_plain or any(key(node) not in self.recurrent for node in nodes)

    @cached_property
    def divided(self) -> list[Segment | Recurrent]:
        """The parts of a graph that does not run as a whole."""
        return split(self.graph, self.constants, self.recurrent)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What runs where, in order."""
        if self.chain is not None and self.runs_as_chain:
            titles = tuple(node.title for node in self.graph.nodes if key(node) not in self.constants)
            return (Part("fastrnn", titles, self.chain.reads, tuple(self.chain.outputs)),)
        return tuple(self._part(part) for part in self.divided)

    def _part(self, part: Segment | Recurrent) -> Part:
        if isinstance(part, Segment):
            titles = tuple(node.title for node in part.nodes if key(node) not in self.constants)
            return Part("onnxruntime", titles, part.reads, part.gives)
        return Part("fastrnn", (part.node.title,), tuple(part.names.values()), tuple(part.outputs.values()))


def analyse(graph: Graph, weight_dtype: WeightDtype | None = None) -> Analysis:
    """Find out what a graph is; onnxruntime computes constants alone, where NumPy does not here.

    Parameters
    ----------
    weight_dtype : as of the layers, for all recurrent nodes

    Raises
    ------
    ValueError
        It has no recurrent node that runs here, or one that cannot be read; the message lists every reason.
    """
    faults: list[str] = []
    constants = Constants(graph, evaluate)
    recurrent = find(graph, constants, faults, weight_dtype)
    elsewhere = _elsewhere(graph)
    if not recurrent and not faults:
        faults = [*elsewhere] or ["it has no LSTM, GRU or RNN node"]
    refuse(graph.path, faults)
    lengths = _lengths(graph, recurrent)
    chain, why = None, ""
    try:
        chain = find_chain(graph, constants, recurrent, lengths)
    except NotAChain as error:
        why = str(error)
    if chain is not None and not chain.is_plain:
        why = "it has initial or final states as inputs or outputs"
    return Analysis(graph, constants, recurrent, lengths, chain, why, elsewhere)


def _elsewhere(graph: Graph) -> tuple[str, ...]:
    found = []
    for node in graph.nodes:
        if node.inner:
            names = sorted({*node.inner})
            runs = "do not run" if len(names) > 1 else "does not run"
            found.append(f"{' and '.join(names)} inside the {node.title} {runs} here")
        if (node.domain, node.op) in OTHERS:
            found.append(f"the {node.title} of {node.domain} does not run here")
    return tuple(found)


def _lengths(graph: Graph, recurrent: Mapping[str, Recurrent]) -> str | None:
    found = set()
    for call in recurrent.values():
        name = call.names.get("sequence_lens")
        if name is None:
            continue
        for _ in range(MOST_BETWEEN):
            node = graph.producers.get(name)
            if node is None or node.domain not in DOMAINS or node.op not in SAME_LENGTHS or not node.inputs:
                break
            name = node.inputs[0]
        if name not in graph.inputs:
            return None
        found.add(name)
    return found.pop() if len(found) == 1 else None
