"""The page on middlewares is a program that prints what it says, and its table is that of the classes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from polaris.messaging import MessageMiddleware, middleware

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "write-a-middleware.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (any|\d+) \| (.*?) \| (.*?) ?\|$", re.MULTILINE)


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE.read_text()) if found == kind]


def test_the_blocks_of_the_page_run_one_after_the_other_and_print_what_it_says(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks("python"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "".join(blocks("text"))
    assert len(blocks("text")) == 3


def test_ones_own_middleware_has_fifteen_lines() -> None:
    (own,) = (node for node in ast.walk(ast.parse(blocks("python")[0])) if isinstance(node, ast.ClassDef))
    source = ast.get_source_segment(blocks("python")[0], own) or ""
    assert own.name == "AgeMiddleware"
    assert len([line for line in source.splitlines() if line.strip()]) <= 15


def test_the_table_of_the_order_is_that_of_the_classes() -> None:
    declared: dict[str, tuple[str, str]] = {}
    for name in middleware.__all__:
        kind = getattr(middleware, name)
        if isinstance(kind, type) and issubclass(kind, MessageMiddleware):
            declared[name] = ("any" if kind.order is None else str(kind.order), kind.order_reason)
    shown: dict[str, tuple[str, str]] = {}
    for order, names, reason in ROW.findall(PAGE.read_text()):
        shown.update(dict.fromkeys(re.findall(r"`(\w+Middleware)`", names), (order, reason)))
    assert {name: order for name, (order, _) in shown.items()} == {name: order for name, (order, _) in declared.items()}
    together = {"LoggingMiddleware", "MetricsMiddleware", "CompressionMiddleware"}
    for name in shown.keys() - together:
        assert shown[name] == declared[name]
    assert [int(order) for order, _, _ in ROW.findall(PAGE.read_text()) if order != "any"] == sorted(
        {int(order) for order, _ in declared.values() if order != "any"}
    )
