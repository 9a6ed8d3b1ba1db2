"""Which cycles a directed graph has, each once."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from polaris.storage._graph_values import CycleList
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import PAUSE_STEPS, Walk, pause
from polaris.storage._graph_whole import WholeGraph, strong_components, whole_graph

STEPS_MAX = 5_000_000
"""Steps after the first cycle: seconds."""


def find_cycles(limit: int, view: GraphView) -> Walk[CycleList]:
    """Up to `limit` cycles, in order of their nodes.

    Johnson's algorithm (1975): of each part in which everything leads to everything, all cycles through its first node,
    then the same for what is left without that node. At least one cycle is found where there is one.
    """
    graph = yield from whole_graph(view)
    members = list(range(len(graph.names)))
    waiting = [tuple(part) for part in (yield from strong_components(members, graph.leads_to))]
    heapq.heapify(waiting)
    found: list[list[int]] = []
    steps = 0
    while waiting:
        if len(found) == limit:
            return _told(graph, found, truncated=True)
        part = heapq.heappop(waiting)
        for cycle in _cycles_through_first(part, graph.leads_to):
            if cycle is not None:
                if len(found) == limit:
                    return _told(graph, found, truncated=True)
                found.append(cycle)
            steps += 1
            if steps % PAUSE_STEPS == 0:
                yield pause
            if steps > STEPS_MAX and found:
                return _told(graph, found, truncated=True)
        for rest in (yield from strong_components(list(part[1:]), graph.leads_to)):
            heapq.heappush(waiting, tuple(rest))
        steps += len(part)
    return _told(graph, found, truncated=False)


def _told(graph: WholeGraph, cycles: list[list[int]], *, truncated: bool) -> CycleList:
    return CycleList([[graph.names[number] for number in cycle] for cycle in cycles], truncated)


def _cycles_through_first(part: tuple[int, ...], leads_to: list[list[int]]) -> Iterator[list[int] | None]:
    """The cycles within the part through its first node, in order, and None for every other step of the search."""
    search = _Search(part, leads_to)
    first = part[0]
    while search.branches:
        node = next(search.branches[-1], None)
        if node is None:
            search.leave()
        elif node == first:
            search.closed[-1] = True
            yield search.path.copy()
            continue
        elif node in search.inside and node not in search.blocked:
            search.enter(node)
        yield None


class _Search:
    """A depth-first search that does not enter again what was found to lead nowhere until that has changed."""

    def __init__(self, part: tuple[int, ...], leads_to: list[list[int]]) -> None:
        self.inside = set(part)
        self.path: list[int] = []
        self.branches: list[Iterator[int]] = []
        self.closed: list[bool] = []
        """For each node of the path whether a cycle was closed behind it."""
        self.blocked: set[int] = set()
        self._waiting_for: dict[int, set[int]] = {}
        self._leads_to = leads_to
        self.enter(part[0])

    def enter(self, node: int) -> None:
        self.path.append(node)
        self.blocked.add(node)
        self.branches.append(iter(self._leads_to[node]))
        self.closed.append(False)

    def leave(self) -> None:
        self.branches.pop()
        node = self.path.pop()
        if self.closed.pop():
            self._unblock(node)
            if self.closed:
                self.closed[-1] = True
        else:
            for following in self._leads_to[node]:
                if following in self.inside:
                    self._waiting_for.setdefault(following, set()).add(node)

    def _unblock(self, node: int) -> None:
        freed = [node]
        while freed:
            node = freed.pop()
            if node in self.blocked:
                self.blocked.discard(node)
                freed.extend(self._waiting_for.pop(node, ()))
