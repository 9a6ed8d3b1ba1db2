"""All simple paths between two nodes, the shortest first."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from polaris.storage._graph_values import PathList
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import PAUSE_STEPS, Explorer, Walk, check_visited, ends_present, parts, pause

STEPS_MAX = 2_000_000
"""Partial paths that are looked at: seconds. There can be exponentially many, of which few get to the target."""

Adjacency = dict[str, list[str]]


def simple_paths(source: str, target: str, depth_max: int, limit: int, view: GraphView) -> Walk[PathList]:
    """Up to `limit` paths of at most `depth_max` hops that visit no node twice.

    What is around the source is fetched once; then depth-first for each length in turn, never so far from the target
    that the hops left could not lead there.
    """
    if not (yield from ends_present(source, target, view)):
        return PathList([], truncated=False)
    if source == target:
        return PathList([[source]][:limit], truncated=limit == 0)
    neighbors = yield from _surroundings(source, depth_max, view)
    left = _hops_left(neighbors, target, depth_max)
    found: list[list[str]] = []
    steps = 0
    for length in range(left.get(source, depth_max + 1), depth_max + 1):
        for path in _paths_of(source, target, length, neighbors, left):
            if path is not None:
                if len(found) == limit:
                    return PathList(found, truncated=True)
                found.append(path)
            steps += 1
            if steps > STEPS_MAX:
                return PathList(found, truncated=True)
            if steps % PAUSE_STEPS == 0:
                yield pause
    return PathList(found, truncated=False)


def _surroundings(source: str, depth_max: int, view: GraphView) -> Walk[Adjacency]:
    """Every node within fewer than `depth_max` hops with its neighbours, each once and in order."""
    neighbors: Adjacency = {}
    known = {source}
    frontier = [source]
    explorer = Explorer(view)
    for _ in range(depth_max):
        level: set[str] = set()
        for part in parts(frontier):
            found: defaultdict[str, set[str]] = defaultdict(set)
            for node, neighbor in (yield from explorer.neighbors(part)):
                found[node].add(neighbor)
                if neighbor not in known:
                    level.add(neighbor)
            neighbors.update((node, sorted(around)) for node, around in found.items())
            check_visited(len(known) + len(level))
        known |= level
        frontier = sorted(level)
    return neighbors


def _hops_left(neighbors: Adjacency, target: str, depth_max: int) -> dict[str, int]:
    """How many hops each of the nodes is away from the target at least; those too far are left out."""
    before: defaultdict[str, list[str]] = defaultdict(list)
    for node, around in neighbors.items():
        for neighbor in around:
            before[neighbor].append(node)
    left = {target: 0}
    queue = deque([target])
    while queue:
        node = queue.popleft()
        if left[node] == depth_max:
            break
        for nearer in before[node]:
            if nearer not in left:
                left[nearer] = left[node] + 1
                queue.append(nearer)
    return left


def _paths_of(
    source: str, target: str, length: int, neighbors: Adjacency, left: dict[str, int]
) -> Iterator[list[str] | None]:
    """The paths of exactly so many hops, in order of their nodes, and None for every other step of the search."""
    path = [source]
    visited = {source}
    branches = [iter(neighbors.get(source, ()))]
    while branches:
        node = next(branches[-1], None)
        if node is None:
            branches.pop()
            visited.discard(path.pop())
        elif node == target:
            yield [*path, target] if len(path) == length else None
        elif node not in visited and len(path) + left.get(node, length) <= length:
            path.append(node)
            visited.add(node)
            branches.append(iter(neighbors.get(node, ())))
            yield None
        else:
            yield None
