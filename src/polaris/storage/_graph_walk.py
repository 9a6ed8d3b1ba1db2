"""How a walk over a graph and the engine that holds it work together: the walk asks, the engine answers.

A walk is a generator that yields questions and gets the answers, so it is written once for all engines, whether these
answer at once or must be awaited. It decides everything that is visible (order, ties, errors): an engine only looks up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from inspect import isawaitable
from typing import Any, Protocol, TypeVar

from polaris.exceptions import QueryError
from polaris.storage._filter import EVERYTHING, Filter, Path
from polaris.storage._graph_values import GraphEdge, GraphNode
from polaris.storage._graph_view import GraphView
from polaris.storage._limits import EDGES_VISITED_MAX, NODES_VISITED_MAX

T = TypeVar("T")

ASKED_AT_ONCE = 1_000
"""Nodes that one question is about at most."""
PAUSE_STEPS = 5_000
"""Steps of plain computing between two pauses: a few milliseconds."""

Weighed = tuple[str, str, str, Any]
"""A node, its neighbour, the type of the edge between them, and the value found where the weight should be."""


class GraphReader(Protocol):
    """What a walk may ask: lookups for up to 1 000 nodes. Lists are in any order and may name an entry twice."""

    def expand(self, nodes: Sequence[str], view: GraphView) -> list[tuple[str, str]]:
        """Each of the nodes with each neighbour over edges of the view; which nodes it sees is not looked at."""
        ...

    def weigh(self, nodes: Sequence[str], view: GraphView, weight: Path) -> list[Weighed]:
        """As `expand`, an entry for every edge, with its property at the path; None where there is none."""
        ...

    def present(self, nodes: Sequence[str], term: Filter) -> list[str]:
        """Those of the nodes that are there and match."""
        ...

    def node_page(self, term: Filter, after: str | None, count: int) -> list[str]:
        """The ids of the nodes that match, in order, behind `after`, at most `count`."""
        ...

    def node_rows(self, nodes: Sequence[str]) -> list[GraphNode]:
        """Those of the nodes that are there."""
        ...

    def edge_rows(self, nodes: Sequence[str], view: GraphView) -> list[GraphEdge]:
        """The edges of the view that lead out of the nodes, whatever its direction."""
        ...

    def pause(self) -> None:
        """Nothing: a chance to stop a walk that nobody waits for any more."""
        ...


Question = Callable[[GraphReader], Any]
Walk = Generator[Question, Any, T]


def drive(walk: Walk[T], reader: GraphReader) -> T:
    """The result of the walk over what the reader answers at once."""
    answer: Any = None
    while True:
        try:
            question = walk.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = question(reader)


async def drive_awaiting(walk: Walk[T], reader: Any) -> T:
    """The result of the walk; answers may be awaitable, and between any two of them other tasks have had a turn."""
    answer: Any = None
    while True:
        try:
            question = walk.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = question(reader)
        if isawaitable(answer):
            answer = await answer
        else:
            await asyncio.sleep(0)


def pause(reader: GraphReader) -> None:
    """The question that only gives others a turn."""
    reader.pause()


def parts(nodes: Sequence[str]) -> list[Sequence[str]]:
    """The nodes in portions that one question may be about."""
    if len(nodes) <= ASKED_AT_ONCE:
        return [nodes]
    return [nodes[start : start + ASKED_AT_ONCE] for start in range(0, len(nodes), ASKED_AT_ONCE)]


def present(nodes: Sequence[str], term: Filter) -> Walk[set[str]]:
    """Those of the nodes, at most 1 000, that are there and match."""
    found = yield lambda reader: reader.present(nodes, term)
    return set(found)


def node_rows(nodes: Sequence[str]) -> Walk[list[GraphNode]]:
    """Those of the nodes, at most 1 000, that are there, in order."""
    rows: list[GraphNode] = yield lambda reader: reader.node_rows(nodes)
    return sorted(rows, key=lambda node: node.node_id)


def edge_rows(nodes: Sequence[str], view: GraphView) -> Walk[list[GraphEdge]]:
    """The edges of the view that lead out of the nodes, at most 1 000, in order of source, target and type."""
    rows: list[GraphEdge] = yield lambda reader: reader.edge_rows(nodes, view)
    return sorted(rows, key=lambda edge: (edge.source, edge.target, edge.relationship_type))


def all_nodes(view: GraphView) -> Walk[list[str]]:
    """The ids of all nodes that the view sees, in order."""
    found: list[str] = []
    while True:
        page = yield from _node_page(view.nodes, found[-1] if found else None)
        found += page
        check_visited(len(found))
        if len(page) < ASKED_AT_ONCE:
            return found


def _node_page(term: Filter, after: str | None) -> Walk[list[str]]:
    page: list[str] = yield lambda reader: reader.node_page(term, after, ASKED_AT_ONCE)
    return page


def ends_present(source: str, target: str, view: GraphView) -> Walk[bool]:
    """Whether both ends are there and the walk may enter the target."""
    found = yield from present([source, target], EVERYTHING)
    if source not in found or target not in found:
        return False
    return source == target or view.sees_all_nodes or bool((yield from present([target], view.nodes)))


class Explorer:
    """Looks around on behalf of one walk: knows which nodes it may not enter, and counts what it has met."""

    def __init__(self, view: GraphView, *, always: str | None = None) -> None:
        self.view = view
        self._entered: set[str] = set() if always is None else {always}
        self._refused: set[str] = set()
        self._edges = 0

    def neighbors(self, nodes: Sequence[str]) -> Walk[list[tuple[str, str]]]:
        """The nodes, at most 1 000, each with each neighbour that the view lets the walk enter."""
        pairs: list[tuple[str, str]] = yield lambda reader: reader.expand(nodes, self.view)
        self._count(len(pairs))
        if self.view.sees_all_nodes:
            return pairs
        yield from self._admit([neighbor for _, neighbor in pairs])
        return [pair for pair in pairs if pair[1] in self._entered]

    def weighed(self, nodes: Sequence[str], weight: Path) -> Walk[list[Weighed]]:
        """The same with what stands where each edge's weight should be."""
        entries: list[Weighed] = yield lambda reader: reader.weigh(nodes, self.view, weight)
        self._count(len(entries))
        if self.view.sees_all_nodes:
            return entries
        yield from self._admit([entry[1] for entry in entries])
        return [entry for entry in entries if entry[1] in self._entered]

    def _admit(self, nodes: list[str]) -> Walk[None]:
        new = sorted(set(nodes) - self._entered - self._refused)
        for part in parts(new):
            admitted = yield from present(part, self.view.nodes)
            self._entered |= admitted
            self._refused.update(node for node in part if node not in admitted)

    def _count(self, edges: int) -> None:
        self._edges += edges
        if self._edges > EDGES_VISITED_MAX:
            raise QueryError(f"the walk meets more than {EDGES_VISITED_MAX} edges; ask for less of the graph")


def check_visited(count: int) -> None:
    """Refuse to go on when a walk has visited too many nodes."""
    if count > NODES_VISITED_MAX:
        raise QueryError(f"the walk visits more than {NODES_VISITED_MAX} nodes; ask for less of the graph")
