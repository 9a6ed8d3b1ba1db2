"""The graph of the store beside networkx in memory, SQLite and PostgreSQL driven by hand: 100 000 nodes, 500 000 edges.

    python benchmarks/_store_graph.py [--nodes 100000] [--edges 500000]

The store is asked through the public asynchronous API, one question after the other; the peers answer on this thread:
networkx from dictionaries, SQLite by one recursive statement (closure) or one lookup (neighbours) over the same file,
asyncpg by the same statements over a table of its own, ladybug (an embedded graph database, the successor of Kuzu) by
Cypher over a file of its own. The edges are of four types.
Source, target and start are random for each question. Milliseconds, median and 95th percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import networkx as nx  # type: ignore[import-untyped]
from _harness import print_table
from _store_servers import DSN, emptied, postgresql, postgresql_store

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


Answers = dict[str, Times]
QUESTIONS = {
    "neighbours of one type": 2_000,
    "path": 1_000,
    "closure of depth 3": 1_000,
    "cheapest path": 100,
    "all paths of 4 hops": 200,
    "first 100 nodes by a property": 100,
    "nodes counted by a property": 10,
}
"""How often each is asked."""


async def in_store(store: Any, made: list[Any], nodes: int) -> tuple[float, Answers]:
    """The seconds of loading the graph, and of each question."""
    from polaris.storage import GraphNode

    graph = store.graph
    begun = time.perf_counter()
    for start in range(0, nodes, BATCH):
        await graph.add_nodes([GraphNode(f"n{n}", {"tier": n % 5}) for n in range(start, min(start + BATCH, nodes))])
    for start in range(0, len(made), BATCH):
        await graph.add_edges(made[start : start + BATCH])
    loaded_s = time.perf_counter() - begun
    questions: dict[str, Callable[[str, str], Awaitable[object]]] = {
        "neighbours of one type": lambda one, _: graph.get_neighbors(one, "out", "t1"),
        "path": lambda one, other: graph.find_path(one, other),
        "closure of depth 3": lambda one, _: graph.closure(one, max_depth=3),
        "cheapest path": lambda one, other: graph.find_cheapest_path(one, other, "w"),
        "all paths of 4 hops": lambda one, other: graph.find_paths(one, other, 4),
        "first 100 nodes by a property": lambda *_: graph.find_nodes({"tier": 1}, limit=100),
        "nodes counted by a property": lambda *_: graph.count_nodes({"tier": 1}),
    }
    return loaded_s, {name: await awaited(questions[name], pairs(nodes, times)) for name, times in QUESTIONS.items()}


def by_hand(path: Path, nodes: int) -> Answers:
    import apsw

    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    questions: dict[str, Question] = {
        "neighbours of one type": lambda one, _: connection.execute(NEIGHBORS, (one, "t1")).fetchall(),
        "closure of depth 3": lambda one, _: connection.execute(CLOSURE, (one,)).fetchall(),
    }
    found = {name: answered(ask, pairs(nodes, QUESTIONS[name])) for name, ask in questions.items()}
    connection.close()
    return found


async def by_asyncpg(nodes: int, made: list[Any]) -> Answers:
    """The same tables and statements, in PostgreSQL."""
    import asyncpg  # type: ignore[import-untyped]

    connection = await asyncpg.connect(os.environ[DSN])
    await connection.execute("DROP TABLE IF EXISTS graph_edges")
    await connection.execute(
        "CREATE TABLE graph_edges (source text, type text, target text, PRIMARY KEY (source, type, target))"
    )
    records = sorted({(edge.source, edge.relationship_type, edge.target) for edge in made})
    await connection.copy_records_to_table("graph_edges", records=records)
    await connection.execute("ANALYZE graph_edges")
    neighbors = NEIGHBORS.replace("?", "$1", 1).replace("?", "$2", 1)
    closure = CLOSURE.replace("SELECT ?, 0", "SELECT $1::text, 0")
    found = {
        "neighbours of one type": await awaited(
            lambda one, _: connection.fetch(neighbors, one, "t1"), pairs(nodes, QUESTIONS["neighbours of one type"])
        ),
        "closure of depth 3": await awaited(
            lambda one, _: connection.fetch(closure, one), pairs(nodes, QUESTIONS["closure of depth 3"] // 10)
        ),
    }
    await connection.execute("DROP TABLE graph_edges")
    await connection.close()
    return found


def in_ladybug(folder: Path, nodes: int, edges: list[Any]) -> tuple[float, Answers]:
    """The same graph in a database made for graphs: the seconds of loading it from files, and of each question."""
    import ladybug

    connection = ladybug.Connection(ladybug.Database(str(folder / "graph.lbug")))
    connection.execute("CREATE NODE TABLE N(id STRING PRIMARY KEY, tier INT64)")
    connection.execute("CREATE REL TABLE E(FROM N TO N, type STRING, w DOUBLE)")
    names, links = folder / "nodes.csv", folder / "edges.csv"
    names.write_text("".join(f"n{number},{number % 5}\n" for number in range(nodes)))
    kept = {(edge.source, edge.target, edge.relationship_type): edge.properties["w"] for edge in edges}
    links.write_text("".join(f"{source},{target},{kind},{w}\n" for (source, target, kind), w in kept.items()))
    begun = time.perf_counter()
    connection.execute(f"COPY N FROM '{names}'")
    connection.execute(f"COPY E FROM '{links}'")
    loaded_s = time.perf_counter() - begun

    def asked(query: str, **values: str) -> list[Any]:
        result = connection.execute(query, values)
        assert isinstance(result, ladybug.QueryResult)
        return [result.get_next() for _ in range(result.get_num_tuples())]

    start = "MATCH (a:N {id: $a})"
    questions: dict[str, Question] = {
        "neighbours of one type": lambda one, _: asked(
            f"{start}-[e:E]->(b:N) WHERE e.type = 't1' RETURN DISTINCT b.id ORDER BY b.id", a=one
        ),
        "path": lambda one, other: asked(
            f"{start}-[e:E* SHORTEST 1..5]->(b:N {{id: $b}}) RETURN properties(nodes(e), 'id')", a=one, b=other
        ),
        "closure of depth 3": lambda one, _: asked(
            f"{start}-[e:E* SHORTEST 1..3]->(b:N) RETURN b.id, length(e)", a=one
        ),
        "first 100 nodes by a property": lambda *_: asked("MATCH (a:N) WHERE a.tier = 1 RETURN a.id, a.tier LIMIT 100"),
        "nodes counted by a property": lambda *_: asked("MATCH (a:N) WHERE a.tier = 1 RETURN count(*)"),
    }
    found = {name: answered(ask, pairs(nodes, min(QUESTIONS[name], 200))) for name, ask in questions.items()}
    connection.close()
    return loaded_s, found


async def measure(folder: Path, nodes: int, edges: int) -> None:
    from polaris.storage import PolarisDataStore

    made = drawn(nodes, edges)
    path = folder / "graph.db"
    columns: dict[str, Answers] = {}
    async with PolarisDataStore.sqlite(path) as store:
        loaded_s, columns["POLARIS, SQLite"] = await in_store(store, made, nodes)
    loaded = f"loaded into SQLite in {loaded_s:.1f} s"
    columns["SQLite by hand"] = by_hand(path, nodes)
    loaded_s, columns["ladybug"] = in_ladybug(folder, nodes, made)
    loaded += f", into ladybug in {loaded_s:.1f} s"
    if DSN in os.environ:
        await emptied("graph")
        async with postgresql_store("graph") as store:
            loaded_s, columns["POLARIS, PostgreSQL"] = await in_store(store, made, nodes)
        loaded += f", into PostgreSQL in {loaded_s:.1f} s"
        columns["asyncpg by hand"] = await by_asyncpg(nodes, made)
    questions = in_networkx(nodes, made)
    columns["networkx in memory"] = {
        name: answered(ask, pairs(nodes, QUESTIONS[name])) for name, ask in questions.items()
    }
    print_table(
        f"Graph of {nodes:,} nodes and {edges:,} edges, ms (p50 / p95); {loaded}",
        ("question", *columns),
        [(name, *(cell(answers.get(name)) for answers in columns.values())) for name in QUESTIONS],
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
    with postgresql():
        measure_graph(options.nodes, options.edges)


if __name__ == "__main__":
    main()
