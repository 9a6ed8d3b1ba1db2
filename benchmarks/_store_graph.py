"""The graph of the store beside networkx in memory and SQLite driven by hand: 100 000 nodes, 500 000 edges of 4 types.

    python benchmarks/_store_graph.py [--nodes 100000] [--edges 500000]

The store is asked through the public asynchronous API, one question after the other; the peers answer on this thread:
networkx from dictionaries, SQLite by one recursive statement (closure) or one lookup (neighbours) over the same file.
Source, target and start are random for each question. Milliseconds, median and 95th percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import networkx as nx  # type: ignore[import-untyped]
from _harness import print_table

BATCH = 100_000
TYPES = 4
CLOSURE = (
    "WITH RECURSIVE reached (node, depth) AS (SELECT ?, 0 UNION SELECT target, depth + 1 FROM reached"
    " JOIN graph_edges ON source = node WHERE depth < 3) SELECT node, min(depth) FROM reached GROUP BY node"
)
NEIGHBORS = "SELECT target FROM graph_edges WHERE source = ? AND type = ? ORDER BY target"

Question = Callable[[str, str], Any]
Times = list[float]


def drawn(nodes: int, edges: int) -> list[Any]:
    """Random edges with a type and a weight."""
    from polaris.storage import GraphEdge

    chance = random.Random(1)
    return [
        GraphEdge(
            f"n{chance.randrange(nodes)}",
            f"n{chance.randrange(nodes)}",
            f"t{chance.randrange(TYPES)}",
            {"w": round(chance.random(), 3)},
        )
        for _ in range(edges)
    ]


def pairs(nodes: int, times: int) -> Iterable[tuple[str, str]]:
    chance = random.Random(2)
    return [(f"n{chance.randrange(nodes)}", f"n{chance.randrange(nodes)}") for _ in range(times)]


async def awaited(question: Callable[[str, str], Awaitable[object]], asked: Iterable[tuple[str, str]]) -> Times:
    times = []
    for one, other in asked:
        begun = time.perf_counter()
        await question(one, other)
        times.append(time.perf_counter() - begun)
    return times


def answered(question: Question, asked: Iterable[tuple[str, str]]) -> Times:
    times = []
    for one, other in asked:
        begun = time.perf_counter()
        question(one, other)
        times.append(time.perf_counter() - begun)
    return times


def cell(times: Times | None) -> str:
    if times is None:
        return "-"
    ordered = sorted(times)
    return f"{ordered[len(ordered) // 2] * 1e3:.3f} / {ordered[len(ordered) * 95 // 100] * 1e3:.3f}"


def in_networkx(nodes: int, edges: list[Any]) -> dict[str, Question]:
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(f"n{number}" for number in range(nodes))
    graph.add_edges_from((edge.source, edge.target, edge.relationship_type, edge.properties) for edge in edges)

    def quietly(search: Question) -> Question:
        def asked(one: str, other: str) -> Any:
            try:
                return search(one, other)
            except nx.NetworkXNoPath:
                return None

        return asked

    return {
        "neighbours of one type": lambda one, _: [other for other, kinds in graph[one].items() if "t1" in kinds],
        "path": quietly(lambda one, other: nx.bidirectional_shortest_path(graph, one, other)),
        "closure of depth 3": lambda one, _: dict(nx.single_source_shortest_path_length(graph, one, 3)),
        "cheapest path": quietly(lambda one, other: nx.bidirectional_dijkstra(graph, one, other, "w")),
    }


async def measure(folder: Path, nodes: int, edges: int) -> None:
    import apsw

    from polaris.storage import GraphNode, PolarisDataStore

    made = drawn(nodes, edges)
    path = folder / "graph.db"
    async with PolarisDataStore.sqlite(path) as store:
        graph = store.graph
        begun = time.perf_counter()
        for start in range(0, nodes, BATCH):
            await graph.add_nodes(
                [GraphNode(f"n{n}", {"tier": n % 5}) for n in range(start, min(start + BATCH, nodes))]
            )
        for start in range(0, edges, BATCH):
            await graph.add_edges(made[start : start + BATCH])
        loaded_s = time.perf_counter() - begun
        questions: list[tuple[str, int, Callable[[str, str], Awaitable[object]]]] = [
            ("neighbours of one type", 2_000, lambda one, _: graph.get_neighbors(one, "out", "t1")),
            ("path", 1_000, lambda one, other: graph.find_path(one, other)),
            ("closure of depth 3", 1_000, lambda one, _: graph.closure(one, max_depth=3)),
            ("cheapest path", 100, lambda one, other: graph.find_cheapest_path(one, other, "w")),
            ("all paths of 4 hops", 200, lambda one, other: graph.find_paths(one, other, 4)),
        ]
        in_store = {name: await awaited(question, pairs(nodes, times)) for name, times, question in questions}
        nodes_found = [
            await awaited(lambda *_: graph.find_nodes({"tier": 1}, limit=100), pairs(nodes, 100)),
            await awaited(lambda *_: graph.count_nodes({"tier": 1}), pairs(nodes, 10)),
        ]
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    by_hand: dict[str, Question] = {
        "neighbours of one type": lambda one, _: connection.execute(NEIGHBORS, (one, "t1")).fetchall(),
        "closure of depth 3": lambda one, _: connection.execute(CLOSURE, (one,)).fetchall(),
    }
    in_memory = in_networkx(nodes, made)
    rows = []
    for name, times, _ in questions:
        peers = []
        for contender in (by_hand, in_memory):
            asked = contender.get(name)
            peers.append(None if asked is None else answered(asked, pairs(nodes, times)))
        rows.append((name, cell(in_store[name]), *map(cell, peers)))
    rows.append(("first 100 nodes by a property", cell(nodes_found[0]), "-", "-"))
    rows.append(("nodes counted by a property", cell(nodes_found[1]), "-", "-"))
    connection.close()
    print_table(
        f"Graph of {nodes:,} nodes and {edges:,} edges, ms (p50 / p95); loaded in {loaded_s:.1f} s",
        ("question", "POLARIS, SQLite", "SQLite by hand", "networkx in memory"),
        rows,
    )


def measure_graph(nodes: int = 100_000, edges: int = 500_000) -> None:
    """Print the table of the graph."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), nodes, edges))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--edges", type=int, default=500_000)
    options = parser.parse_args()
    measure_graph(options.nodes, options.edges)


if __name__ == "__main__":
    main()
