"""What the docstrings of the settings say: the words for a commented file, a schema, and the page."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping

from polaris.runtime import _settings as settings_module


def descriptions() -> Mapping[str, Mapping[str, str]]:
    """What the docstrings say, by class and field; the class's own is under the empty name."""
    tree = ast.parse(inspect.getsource(settings_module))
    return {node.name: dict(_said_in(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _said_in(section: ast.ClassDef) -> Iterator[tuple[str, str]]:
    yield "", inspect.cleandoc(ast.get_docstring(section) or "")
    for field, text in zip(section.body, section.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            yield field.target.id, " ".join(str(text.value.value).split())
