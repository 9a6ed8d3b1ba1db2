"""A subgraph as text for others: node-link JSON, GraphML, a mermaid flowchart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

from polaris.exceptions import QueryError
from polaris.storage._graph_values import GraphEdge, GraphNode, Subgraph

GraphFormat = Literal["json", "graphml", "mermaid"]

_encode = msgspec.json.Encoder().encode


def check_format(graph_format: object) -> None:
    """Refuse what is none of the formats. Raises `QueryError`."""
    if not isinstance(graph_format, str) or graph_format not in _WRITERS:
        raise QueryError(f"graph_format: {', '.join(_WRITERS)}, got {graph_format!r}")


def export_pieces(graph: Subgraph, graph_format: GraphFormat) -> Iterator[str]:
    """The text in pieces, one for each node and edge and a few more."""
    return _WRITERS[graph_format](graph)


def _json(value: object) -> str:
    return _encode(value).decode()


# Node-link JSON


def _node_link(graph: Subgraph) -> Iterator[str]:
    yield '{"directed":true,"multigraph":true,"graph":{},"nodes":['
    for place, node in enumerate(graph.nodes):
        yield _separator(place) + _json({"id": node.node_id, "properties": node.properties})
    yield '],"edges":['
    for place, edge in enumerate(graph.edges):
        fields = {"source": edge.source, "target": edge.target, "key": edge.relationship_type}
        yield _separator(place) + _json({**fields, "properties": edge.properties})
    yield "]}\n"


def _separator(place: int) -> str:
    return ",\n" if place else "\n"


# GraphML

_GRAPHML_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">\n'
)
_TYPE_NAME = "relationship_type"
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_ENTITIES = {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord('"'): "&quot;",
    # A parser would make spaces or line feeds of these.
    ord("\t"): "&#9;",
    ord("\n"): "&#10;",
    ord("\r"): "&#13;",
}


def xml_text(text: str) -> str:
    r"""Text for XML 1.0, inside and outside of quotes; characters that XML cannot hold are written as \uXXXX."""
    return _expressible(text).translate(_ENTITIES)


def _expressible(text: str) -> str:
    return _NOT_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _graphml(graph: Subgraph) -> Iterator[str]:
    names = _xml_ids(graph.nodes)
    of_nodes = _Attributes("node", "n", (node.properties for node in graph.nodes))
    of_edges = _Attributes("edge", "e", (edge.properties for edge in graph.edges), taken=_TYPE_NAME)
    yield _GRAPHML_HEAD
    yield f'<key id="t" for="edge" attr.name="{_TYPE_NAME}" attr.type="string"/>\n'
    yield from of_nodes.keys()
    yield from of_edges.keys()
    yield '<graph edgedefault="directed">\n'
    for node in graph.nodes:
        yield f'<node id="{names(node.node_id)}">{of_nodes.data(node.properties)}</node>\n'
    for place, edge in enumerate(graph.edges, 1):
        # With an id of its own, no property named as a key can stand for it and make two edges one.
        yield (
            f'<edge id="e{place}" source="{names(edge.source)}" target="{names(edge.target)}">'
            f'<data key="t">{xml_text(edge.relationship_type)}</data>{of_edges.data(edge.properties)}</edge>\n'
        )
    yield "</graph>\n</graphml>\n"


def _xml_ids(nodes: list[GraphNode]) -> Callable[[str], str]:
    """Ids as XML can hold them, still different for different nodes."""
    altered = [node.node_id for node in nodes if _NOT_XML.search(node.node_id)]
    taken = {node.node_id for node in nodes} if altered else set()
    names: dict[str, str] = {}
    for node_id in altered:
        name = _expressible(node_id)
        while name in taken:
            name += "'"
        taken.add(name)
        names[node_id] = name
    return lambda node_id: xml_text(names.get(node_id, node_id))


class _Attributes:
    """The properties of all nodes, or of all edges, as typed attributes of GraphML."""

    def __init__(self, domain: str, prefix: str, properties: Iterable[dict[str, Any]], *, taken: str = "") -> None:
        kinds: dict[str, str] = {}
        for one in properties:
            for name, value in one.items():
                kinds[name] = _joined(kinds.get(name), value)
        self._domain = domain
        self._taken = taken
        self._kinds = kinds
        self._ids = {name: f"{prefix}{number}" for number, name in enumerate(sorted(kinds))}

    def keys(self) -> Iterator[str]:
        """The declarations; an attribute in the way of our own gets a prefix."""
        for name, key in self._ids.items():
            kind = self._kinds[name]
            shown = name
            while shown == self._taken or (shown != name and shown in self._kinds):
                shown = f"properties.{shown}"
            head = f'<key id="{key}" for="{self._domain}" attr.name="{xml_text(shown)}" attr.type="'
            yield head + ('string"><desc>JSON</desc></key>\n' if kind == "json" else f'{kind}"/>\n')

    def data(self, properties: dict[str, Any]) -> str:
        """The values of one node or edge."""
        return "".join(
            f'<data key="{self._ids[name]}">{xml_text(self._text(name, value))}</data>'
            for name, value in sorted(properties.items())
        )

    def _text(self, name: str, value: Any) -> str:
        return str(value) if self._kinds[name] == "string" else _json(value)


def _joined(kind: str | None, value: Any) -> str:
    """The kind of an attribute of this kind so far that has this value too."""
    if isinstance(value, bool):
        own = "boolean"
    elif isinstance(value, int):
        own = "long"
    elif isinstance(value, float):
        own = "double"
    elif isinstance(value, str):
        own = "string"
    else:
        own = "json"
    if kind is None or kind == own:
        return own
    return "double" if {kind, own} == {"long", "double"} else "json"


# Mermaid

_MARKUP = re.compile(r"[&\"<>#`\\;{}\[\]()|]")


def _mermaid(graph: Subgraph) -> Iterator[str]:
    yield "flowchart LR\n"
    places = {node.node_id: f"n{number}" for number, node in enumerate(graph.nodes, 1)}
    for node in graph.nodes:
        yield f'    {places[node.node_id]}["{mermaid_text(node.node_id)}"]\n'
    for edge in graph.edges:
        yield _arrow(places, edge)


def _arrow(places: dict[str, str], edge: GraphEdge) -> str:
    kind = mermaid_text(edge.relationship_type)
    return f'    {places[edge.source]} -->|"{kind}"| {places[edge.target]}\n'


def mermaid_text(text: str) -> str:
    """Text for a quoted label: whatever could end it or be read as markup by its number, as mermaid shows it."""
    return _MARKUP.sub(lambda match: f"#{ord(match[0])};", text)


_WRITERS: dict[str, Callable[[Subgraph], Iterator[str]]] = {
    "json": _node_link,
    "graphml": _graphml,
    "mermaid": _mermaid,
}
