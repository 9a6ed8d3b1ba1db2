"""Whatever ids, types and properties: networkx reads what was exported, and mermaid's labels cannot be left."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import networkx as nx  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.faults.sizes import size

from polaris.storage._graph_export import GraphFormat, export_pieces
from polaris.storage._graph_values import GraphEdge, GraphNode, Subgraph

HOSTILE = [
    '"',
    "'",
    "<",
    ">",
    "&",
    "]]>",
    "&amp;",
    "\\u0000",
    "%",
    "`x`",
    "#quot;",
    "|",
    '"]',
    "--> n1",
    "🦉",
    "\ufffe",
    " ",
]
IDS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1))
TEXTS = st.one_of(st.sampled_from([*HOSTILE, "", "\0", "\t\r\n", " x "]), st.text(st.characters(codec="utf-8")))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2))
PROPERTIES = st.dictionaries(st.sampled_from(["a", "b", "id", "key", "relationship_type", "<&\"'", "x\ny"]), VALUES)


@st.composite
def subgraphs(draw: st.DrawFn) -> Subgraph:
    names = sorted(draw(st.sets(IDS, min_size=1, max_size=5)))
    ends = st.sampled_from(names)
    keys = sorted(draw(st.sets(st.tuples(ends, ends, IDS), max_size=6)))
    return Subgraph(
        [GraphNode(name, draw(PROPERTIES)) for name in names], [GraphEdge(*key, draw(PROPERTIES)) for key in keys]
    )


def text_of(graph: Subgraph, graph_format: GraphFormat) -> str:
    return "".join(export_pieces(graph, graph_format))


@settings(max_examples=size(100, 1200), deadline=None)
@given(subgraphs())
def test_nothing_is_lost_as_node_link_data(graph: Subgraph) -> None:
    read = nx.node_link_graph(json.loads(text_of(graph, "json")), edges="edges")
    assert read.is_directed()
    assert read.is_multigraph()
    assert dict(read.nodes(data="properties")) == {node.node_id: node.properties for node in graph.nodes}
    assert sorted((*edge[:3], json.dumps(edge[3])) for edge in read.edges(keys=True, data="properties")) == sorted(
        (edge.source, edge.target, edge.relationship_type, json.dumps(edge.properties)) for edge in graph.edges
    )


def in_xml(text: str) -> str:
    r"""Text as XML 1.0 can hold it: what it cannot hold is written as \uXXXX."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", lambda match: f"\\u{ord(match[0]):04x}", text)


@settings(max_examples=size(100, 1200), deadline=None)
@given(subgraphs())
def test_graphml_is_read_by_networkx_with_its_types(graph: Subgraph) -> None:
    read = nx.read_graphml(io.BytesIO(text_of(graph, "graphml").encode()), force_multigraph=True)
    assert read.is_directed()
    assert len(read) == len(graph.nodes)
    assert read.number_of_edges() == len(graph.edges)
    names = dict(zip((node.node_id for node in graph.nodes), read, strict=True))
    assert all(name == node or in_xml(node) != node for node, name in names.items())
    told = sorted((one, other, properties["relationship_type"]) for one, other, properties in read.edges(data=True))
    assert told == sorted(
        (names[edge.source], names[edge.target], in_xml(edge.relationship_type)) for edge in graph.edges
    )
    for key in ("a", "<&\"'", "x\ny"):
        values = {node.node_id: node.properties[key] for node in graph.nodes if key in node.properties}
        kinds = {type(value) for value in values.values()}
        for node, value in values.items():
            found = read.nodes[names[node]][key]
            if kinds == {str}:
                assert found == in_xml(value)
            elif kinds in ({bool}, {int}, {float}, {int, float}):
                assert found == value
                assert type(found) is (float if float in kinds else type(value))
            else:
                assert json.loads(found) == value


@settings(max_examples=size(100, 1200), deadline=None)
@given(subgraphs())
def test_mermaid_has_a_line_for_each_node_and_edge_and_labels_that_say_what_was_meant(graph: Subgraph) -> None:
    head, *lines = text_of(graph, "mermaid").removesuffix("\n").split("\n")
    assert head == "flowchart LR"
    boxes = [re.fullmatch(r'    n(\d+)\["([^"`<>&\[\]|]*)"\]', line) for line in lines[: len(graph.nodes)]]
    arrows = [re.fullmatch(r'    n(\d+) -->\|"([^"`<>&\[\]|]*)"\| n(\d+)', line) for line in lines[len(graph.nodes) :]]
    assert [box and (int(box[1]), shown(box[2])) for box in boxes] == [
        (place, node.node_id) for place, node in enumerate(graph.nodes, 1)
    ]
    names: list[Any] = [None, *(node.node_id for node in graph.nodes)]
    assert [arrow and (names[int(arrow[1])], names[int(arrow[3])], shown(arrow[2])) for arrow in arrows] == [
        (edge.source, edge.target, edge.relationship_type) for edge in graph.edges
    ]


def shown(label: str) -> str:
    """A label as mermaid shows it."""
    return re.sub(r"#(\d+);", lambda match: chr(int(match[1])), label)


def test_ids_that_xml_cannot_tell_apart_stay_apart() -> None:
    graph = Subgraph([GraphNode("\\ufffe"), GraphNode("\ufffe")], [GraphEdge("\\ufffe", "\ufffe", "x")])
    read = nx.read_graphml(io.BytesIO(text_of(graph, "graphml").encode()))
    assert list(read.edges) == [("\\ufffe", "\\ufffe'")]
