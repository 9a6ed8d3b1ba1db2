"""Write the reference of all error codes from the classes themselves: docs/reference/error-codes.md.

    python tools/reference_errors.py                 write it
    python tools/reference_errors.py --check         fail unless the committed page says what the classes say

`--page PATH` takes another file.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from polaris import exceptions
from polaris.exceptions import PolarisException

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "error-codes.md"
RETRYABLE = {True: "yes", False: "no", None: "the policy decides"}

HEAD = """\
# Error codes

Every error of POLARIS, in the order of the tree. Written by `tools/reference_errors.py` from the classes in
`polaris.exceptions`; do not edit. [The concepts page](../concepts/exceptions.md) explains what they have in common.

A code is stable across releases and safe to match on; so are the class, its parents and its fields. Titles and
messages are for people and may change. *Retryable* says whether the same call may succeed when it is repeated; status
and title are those of the RFC 9457 problem object that `to_problem()` makes.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference of all error codes.")
    parser.add_argument("--check", action="store_true", help="compare the page with the classes, write nothing")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: docs/reference/error-codes.md)")
    arguments = parser.parse_args()
    text = page()
    if not arguments.check:
        arguments.page.write_text(text, encoding="utf-8")
        print(f"error codes: {sum(1 for _ in classes())} written")
        return 0
    if not arguments.page.is_file() or arguments.page.read_text(encoding="utf-8") != text:
        print(f"{arguments.page} is not what the classes say; run: python tools/reference_errors.py", file=sys.stderr)
        return 1
    print("error codes: the committed page is what the classes say")
    return 0


def classes(root: type[PolarisException] = PolarisException) -> Iterator[type[PolarisException]]:
    """The tree from its root, each class before those below it, siblings as they are written."""
    yield root
    for child in root.__subclasses__():
        # Others, of users and of rooms inside, go by the code of their parent or are documented where they live.
        if child.__module__ == exceptions.__name__:
            yield from classes(child)


def page() -> str:
    """The whole page."""
    tree = list(classes())
    rows = [
        f"| `{cls.code}` | [{cls.__name__}](#{cls.__name__.lower()}) | {RETRYABLE[cls.retryable]} | {cls.http_status} |"
        for cls in tree
    ]
    table = ["| Code | Class | Retryable | Status |", "|---|---|---|---|", *rows, ""]
    return "\n".join([HEAD, *table, *(section(cls) for cls in tree)])


def section(cls: type[PolarisException]) -> str:
    """What is to be said about one class."""
    lines = [
        f"## {cls.__name__}",
        "",
        (inspect.getdoc(cls) or "").splitlines()[0],
        "",
        f"- Code: `{cls.code}`",
        f"- Below: {', '.join(f'`{parent}`' for parent in parents(cls))}",
        f"- Retryable: {RETRYABLE[cls.retryable]}",
        f"- Status and title: {cls.http_status}, {cls.title}",
        f"- Made with: `{signature(cls)}`",
        "",
    ]
    return "\n".join(lines)


def parents(cls: type[PolarisException]) -> list[str]:
    """The classes by which it can be caught, nearest first, up to `Exception`."""
    return [parent.__name__ for parent in cls.__mro__[1:] if parent not in {BaseException, object}]


def signature(cls: type[PolarisException]) -> str:
    """How one is made: the fields of the constructor, as they are written."""
    fields: list[str] = []
    for field in inspect.signature(cls).parameters.values():
        if field.kind is field.KEYWORD_ONLY and "*" not in fields:
            fields.append("*")
        default = "" if field.default is field.empty else f" = {field.default!r}"
        fields.append(f"{field.name}: {field.annotation}{default}")
    return f"{cls.__name__}({', '.join(fields)})"


if __name__ == "__main__":
    sys.exit(main())
