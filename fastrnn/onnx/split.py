"""The division of a graph: recurrent nodes run here, and all that is between them becomes graphs for onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .constants import Constants
from .graph import Graph, Node
from .recurrent import Recurrent, key


@dataclass(frozen=True)
class Segment:
    """A part of the graph without recurrent nodes.

    Attributes
    ----------
    nodes : in the graph's order, those that give constants included
    reads : names that come from outside
    gives : names that other parts, or the caller, use
    """

    nodes: tuple[Node, ...]
    reads: tuple[str, ...]
    gives: tuple[str, ...]


def split(graph: Graph, constants: Constants, recurrent: Mapping[str, Recurrent]) -> list[Segment | Recurrent]:
    """Divide a graph into parts, each behind those whose names it reads.

    A node's level is the largest number of recurrent nodes on a way to it. The nodes of a level are one segment, and
    the recurrent nodes that read from it come next. Nodes that give constants belong to every segment that uses them.
    Nodes that no output needs are in no part.
    """

    def reads(node: Node) -> Iterable[str]:
        return (name for name in reads_of(node, recurrent) if name not in constants)

    levels = dict.fromkeys(graph.inputs, 0)
    nodes: dict[int, list[Node]] = {}
    calls: dict[int, list[Recurrent]] = {}
    segment_of: dict[str, int] = {}
    used: dict[int, dict[str, None]] = {}  # by level, in order
    given: dict[int, dict[str, None]] = {}

    def pass_on(names: Iterable[str], to: int | None) -> None:
        for name in names:
            before = segment_of.get(name)
            if before is None or before != to:
                if before is not None:
                    given[before][name] = None
                if to is not None:
                    used[to][name] = None

    for node in needed_nodes(graph, recurrent):
        names = [name for name in node.outputs if name]
        level = max((levels[name] for name in reads(node)), default=0)
        call = recurrent.get(key(node))
        if call is not None:
            calls.setdefault(level, []).append(call)
            pass_on(reads(node), None)
        elif not all(name in constants for name in names):
            nodes.setdefault(level, []).append(node)
            used.setdefault(level, {})
            given.setdefault(level, {})
            pass_on(reads(node), level)
            segment_of.update(dict.fromkeys(names, level))
        levels.update(dict.fromkeys(names, level + (call is not None)))
    pass_on(graph.outputs, None)
    positions = {id(node): position for position, node in enumerate(graph.nodes)}
    parts: list[Segment | Recurrent] = []
    for level in sorted({*nodes, *calls}):
        if level in nodes:
            fixed = behind(graph, {name for node in nodes[level] for name in node.reads if name in constants})
            whole = sorted([*nodes[level], *fixed], key=lambda node: positions[id(node)])
            parts.append(Segment(tuple(whole), tuple(used[level]), tuple(given[level])))
        parts += calls.get(level, [])
    return parts


def reads_of(node: Node, recurrent: Mapping[str, Recurrent]) -> Iterable[str]:
    """The names that a node needs; of a recurrent one those that come with each call."""
    call = recurrent.get(key(node))
    return node.reads if call is None else call.names.values()


def needed_nodes(graph: Graph, recurrent: Mapping[str, Recurrent]) -> list[Node]:
    """The nodes that the outputs depend on, in the graph's order."""
    needed: set[str] = set(graph.outputs)
    found = []
    for node in reversed(graph.nodes):
        if needed.intersection(filter(None, node.outputs)):
            needed.update(reads_of(node, recurrent))
            found.append(node)
    return found[::-1]


def behind(graph: Graph, names: Iterable[str]) -> list[Node]:
    """The nodes that compute names from what is before them, each once."""
    found: dict[int, Node] = {}
    waiting = [*names]
    while waiting:
        node = graph.producers.get(waiting.pop())
        if node is not None and id(node) not in found:
            found[id(node)] = node
            waiting += node.reads
    return list(found.values())
