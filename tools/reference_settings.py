"""Write the reference of all settings from the sections themselves: docs/reference/settings.md.

    python tools/reference_settings.py                 write it
    python tools/reference_settings.py --check         fail unless the committed page says what the sections say

`--page PATH` takes another file.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "settings.md"
SOURCE = ROOT / "src" / "polaris" / "runtime" / "_settings.py"

HEAD = """\
# Settings

Every key of `polaris.toml`. Written by `tools/reference_settings.py` from the sections in `polaris.runtime`; do not
edit.

The file is `--config`, `POLARIS_CONFIG`, or `polaris.toml` in the working directory. `POLARIS_*` variables go over it,
a double underscore nests (`POLARIS_STORE__LIMITS__SERIES_MAX=5000`), and flags go over both. All mistakes are reported
at once, with the exit code 78.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference of all settings.")
    parser.add_argument("--check", action="store_true", help="compare the page with the sections, write nothing")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: docs/reference/settings.md)")
    arguments = parser.parse_args()
    text = page()
    if not arguments.check:
        arguments.page.write_text(text, encoding="utf-8")
        return 0
    if not arguments.page.is_file() or arguments.page.read_text(encoding="utf-8") != text:
        print(
            f"{arguments.page} is not what the sections say; run: python tools/reference_settings.py", file=sys.stderr
        )
        return 1
    return 0


def page() -> str:
    """The whole page: the sections as they are written, but the one that holds them."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    aliases = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    sections = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return "\n".join([HEAD, *(section(node, aliases) for node in sections if node.name not in ("Section", "Settings"))])


def section(node: ast.ClassDef, aliases: dict[str, ast.expr]) -> str:
    title, _, rest = (ast.get_docstring(node) or "").partition(": ")
    lines = [f"## {title}", "", f"{rest[:1].upper()}{rest[1:]}", ""]
    lines += ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *rows(node, aliases), ""])


def rows(node: ast.ClassDef, aliases: dict[str, ast.expr]) -> Iterator[str]:
    for place, field in enumerate(node.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        value = kind(field.annotation, aliases)
        if "Settings" in ast.unparse(field.annotation):
            continue  # a section of its own
        following = node.body[place + 1] if place + 1 < len(node.body) else None
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = " ".join(str(following.value.value).split())
        cells = [f"`{field.target.id}`", value, default(field.value), meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def default(node: ast.expr | None) -> str:
    if node is None:
        return "required"
    if isinstance(node, ast.Call):
        return "this machine's name"
    text = ast.unparse(node)
    told = {"None": "none", "DATA_DIR_DEFAULT": "`'polaris-data'`", "True": "`true`", "False": "`false`"}
    return told.get(text, f"`{text}`")


def kind(node: ast.expr, aliases: dict[str, ast.expr]) -> str:
    """What may stand there, in words."""
    if isinstance(node, ast.Name):
        return kind(aliases[node.id], aliases) if node.id in aliases else WORDS.get(node.id, node.id)
    if isinstance(node, ast.BinOp):
        return kind(node.left, aliases)
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value)
        inner = node.slice
        if name == "Annotated" and isinstance(inner, ast.Tuple):
            bounds = inner.elts[1]
            told = [
                f"{LIMITS[one.arg]} {ast.unparse(one.value)}"
                for one in getattr(bounds, "keywords", [])
                if one.arg in LIMITS
            ]
            return ", ".join([kind(inner.elts[0], aliases), *told])
        if name == "Literal":
            choices = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return " or ".join(f"`{ast.unparse(choice)}`" for choice in choices)
        if name == "list":
            return f"list of {kind(inner, aliases)}"
        if name == "dict":
            return "table"
    return ast.unparse(node)


WORDS = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}
LIMITS = {
    "ge": "at least",
    "gt": "over",
    "le": "at most",
    "min_length": "characters: at least",
    "max_length": "at most",
    "pattern": "of the form",
}

if __name__ == "__main__":
    sys.exit(main())
