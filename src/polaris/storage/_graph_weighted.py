"""The cheapest path by a numeric property of the edges."""

from __future__ import annotations

import heapq
import math
from typing import Any

from polaris.exceptions import QueryError
from polaris.storage._filter import Path
from polaris.storage._graph_values import WeightedPath
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import Explorer, Walk, Weighed, check_visited, ends_present

Number = int | float
Hop = tuple[str, Number]
"""A node and the weight of the edge to it."""

FETCHED_AT_ONCE_MAX = 256
"""Nodes whose edges are fetched together: those next in line, because a question for each would cost a trip each."""


def cheapest_path(
    source: str, target: str, weight: Path, cost_max: float | None, view: GraphView
) -> Walk[WeightedPath | None]:
    """A path whose weights sum up to the least, not above `cost_max`.

    Dijkstra's algorithm from both ends at once (Dijkstra 1959; Pohl 1971 for the two ends): always from the end that
    has come less far, until both together have come as far as the best path found.
    """
    if not (yield from ends_present(source, target, view)):
        return None
    if source == target:
        return WeightedPath([source], 0)
    front = _Side(source, Explorer(view), weight)
    rear = _Side(target, Explorer(view.reversed, always=source), weight)
    best: Number | None = None
    middle = source
    while front.queue and rear.queue:
        reached = front.nearest + rear.nearest
        if (best is not None and reached >= best) or (cost_max is not None and reached > cost_max):
            break
        side, other = (front, rear) if front.nearest <= rear.nearest else (rear, front)
        for node in (yield from side.settle()):
            across = other.costs.get(node)
            if across is not None and (best is None or side.costs[node] + across < best):
                best, middle = side.costs[node] + across, node
        check_visited(len(front.costs) + len(rear.costs))
    if best is None:
        return None
    found = _path(front, rear, middle)
    return found if cost_max is None or found.cost <= cost_max else None


def _path(front: _Side, rear: _Side, middle: str) -> WeightedPath:
    nodes, weights = [middle], []
    while (hop := front.parents.get(nodes[-1])) is not None:
        nodes.append(hop[0])
        weights.append(hop[1])
    nodes.reverse()
    weights.reverse()
    while (hop := rear.parents.get(nodes[-1])) is not None:
        nodes.append(hop[0])
        weights.append(hop[1])
    return WeightedPath(nodes, _finite(sum(weights)))


def _finite(cost: Number) -> Number:
    if isinstance(cost, float) and not math.isfinite(cost):
        raise QueryError("the weights along the path sum up to more than a number can hold")
    return cost


class _Side:
    """What is known from one end: the least cost found for each node, and the queue of those not settled."""

    def __init__(self, start: str, explorer: Explorer, weight: Path) -> None:
        self.costs: dict[str, Number] = {start: 0}
        self.parents: dict[str, Hop] = {}
        self.queue: list[tuple[Number, str]] = [(0, start)]
        self._settled: set[str] = set()
        self._explorer = explorer
        self._weight = weight
        self._edges: dict[str, list[Weighed]] = {}
        self._batch = 1

    @property
    def nearest(self) -> Number:
        return self.queue[0][0]

    def settle(self) -> Walk[list[str]]:
        """Settle the nearest node; gives those whose cost became less by that."""
        cost, node = self.queue[0]
        if node not in self._edges:
            yield from self._fetch()
        heapq.heappop(self.queue)
        self._settled.add(node)
        closer = self._relax(node, cost)
        self._drop_settled()
        return closer

    def _relax(self, node: str, cost: Number) -> list[str]:
        closer: list[str] = []
        # In order, so that ties and errors are the same whatever the order in which an engine answers.
        for entry in sorted(self._edges.pop(node), key=lambda entry: (entry[1], entry[2])):
            neighbor, step = entry[1], _weight_of(entry, self._weight)
            through = _finite(cost + step)
            if neighbor not in self.costs or through < self.costs[neighbor]:
                self.costs[neighbor] = through
                self.parents[neighbor] = (node, step)
                heapq.heappush(self.queue, (through, neighbor))
                closer.append(neighbor)
        return closer

    def _drop_settled(self) -> None:
        """Leave no node at the head of the queue that is settled already."""
        while self.queue and self.queue[0][1] in self._settled:
            heapq.heappop(self.queue)

    def _fetch(self) -> Walk[None]:
        """Get the edges of the nearest node, and of some that will probably be the nearest soon: more each time."""
        wanted = dict.fromkeys(node for _, node in self.queue[: self._batch])
        nodes = [node for node in wanted if node not in self._settled and node not in self._edges]
        self._edges.update((node, []) for node in nodes)
        for entry in (yield from self._explorer.weighed(nodes, self._weight)):
            self._edges[entry[0]].append(entry)
        self._batch = min(self._batch * 2, FETCHED_AT_ONCE_MAX)


def _weight_of(entry: Weighed, path: Path) -> Number:
    node, neighbor, kind, value = entry
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return value
    raise QueryError(
        f"weight {'.'.join(path)!r} of the edge between {node!r} and {neighbor!r} of type {kind!r}:"
        f" a number of at least 0, found {_found(value)}",
        {"node": node, "neighbor": neighbor, "relationship_type": kind},
    )


def _found(value: Any) -> str:
    if value is None:
        return "none"
    return repr(value) if isinstance(value, (int, float)) else type(value).__name__
