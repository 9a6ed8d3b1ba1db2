"""The pages on the libraries inside are programs: every block of Python runs, and prints what the page says it prints.

The blocks of a page run in their order in one fresh interpreter, in an empty folder, with warnings as errors. A block
may use the names of earlier ones and may `await` at its top level: then it runs in the page's event loop, else outside
of it. What a block prints is compared if a block of text follows it with nothing but empty lines between.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [
    "concepts/dependency-injection.md",
    "concepts/resilience.md",
    "concepts/exceptions.md",
    "how-to/subscribe.md",
    "how-to/follow-the-connection.md",
    "how-to/publish.md",
    "how-to/keep-data.md",
    "how-to/read-time-series.md",
    "how-to/find-documents.md",
    "how-to/ask-the-graph.md",
    "how-to/operate-the-store.md",
    "how-to/several-servers.md",
]

BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\s*^```text\n(?P<text>.*?)^```$)?", re.MULTILINE | re.DOTALL)
END_OF_BLOCK = "\x1e"
UNTIDY = ("Exception ignored", "never awaited", "never retrieved", "Task was destroyed")

RUN_BLOCKS = """
import ast, asyncio, inspect, json, sys
def run_blocks(page, blocks):
    with asyncio.Runner() as runner:
        for line, code in blocks:
            # Empty lines before it, so that a traceback shows the line of the page.
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            compiled = compile("\\n" * line + code, page, "exec", flags, dont_inherit=True)
            outcome = eval(compiled, globals())
            if inspect.iscoroutine(outcome):
                runner.run(outcome)
            print(end="\\x1e", flush=True)
run_blocks(sys.argv[1], json.loads(sys.argv[2]))
"""


def wrong_with(page: Path, folder: Path) -> list[str]:
    """Run a page in an empty folder; what is wrong with it, in words."""
    text = page.read_text()
    found = list(BLOCK.finditer(text))
    blocks = [(text.count("\n", 0, one.start("code")), one["code"]) for one in found]
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_BLOCKS, str(page), json.dumps(blocks)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("POLARIS_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    wrong = []
    if not found or len(found) != text.count("```python"):
        wrong.append(f"{page.name} shows nothing that runs, or a block of it is indented or never ends")
    if ended.returncode != 0:
        wrong.append(ended.stderr)
    wrong += [f"{mark}: {ended.stderr}" for mark in UNTIDY if mark in ended.stderr]
    printed = ended.stdout.split(END_OF_BLOCK)
    for (line, _), one, said in zip(blocks, found, printed, strict=False):
        if one["text"] is not None and one["text"] != said:
            wrong.append(f"line {line}: the page says\n{one['text']}and the block says\n{said}")
    return wrong


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_the_page_runs_and_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    wrong = wrong_with(DOCS / name, tmp_path)
    assert wrong == [], "\n".join(wrong)


RIGHT = """
```python
from __future__ import annotations
import asyncio

class Node:
    def __init__(self, next: Node | None = None) -> None:
        self.next = next

async def answer() -> int:
    await asyncio.sleep(0)
    return 42
```

Words.

```python
print("one")
value = await answer()
print(value, Node(Node()).next is not None)
```

```text
one
42 True
```

```python
print(asyncio.run(answer()), value)
```
```text
42 42
```

Words between a block and a text: it is no output.

```python
print(await answer())
```
So.
```text
a picture
```
"""


def test_a_page_that_is_right_passes(tmp_path: Path) -> None:
    page = tmp_path / "right.md"
    page.write_text(RIGHT)
    assert wrong_with(page, tmp_path) == []


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("42 True", "43 True", "the page says\none\n43 True\nand the block says\none\n42 True\n"),
        ("42 42\n", "42 42\n\n", "the page says"),
        ("value = await", "valve = await", r'wrong.md", line 20, in <module>\n *print\(value,'),
        ("print(value,", "import warnings; warnings.warn('old'); print(value,", "UserWarning: old"),
        ("value = await answer()", "value = answer()", "never awaited"),
        ("python", "sh", "nothing that runs"),
        ("```python\nprint(await answer())\n```", "  ```python\n  await 3\n  ```", "indented"),
    ],
    ids=["output", "empty line", "error", "warning", "not awaited", "no program", "indented"],
)
def test_a_page_that_is_wrong_is_found_out(tmp_path: Path, right: str, wrong: str, complaint: str) -> None:
    page = tmp_path / "wrong.md"
    page.write_text(RIGHT.replace(right, wrong))
    assert re.search(complaint, "\n".join(wrong_with(page, tmp_path)))
