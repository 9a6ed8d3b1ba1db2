"""The house rules that a script can check."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "polaris"

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
# A file or function over the limit wants a reason: here it is.
LONG_FILES = {
    "exceptions.py": "the specification asks for the whole tree of errors in one file",
}
LONG_FUNCTIONS: dict[str, str] = {}


@cache
def tracked_files() -> tuple[Path, ...]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return tuple(path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file())


@cache
def source_files() -> tuple[Path, ...]:
    return tuple(sorted(SOURCE.rglob("*.py")))


@cache
def text_files() -> tuple[tuple[Path, str], ...]:
    texts = []
    for path in tracked_files():
        raw = path.read_bytes()
        if b"\0" not in raw[:8192]:
            texts.append((path, raw.decode("utf-8", "replace")))
    return tuple(texts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def offenders(pattern: str, *, where: str = "", leave_out: tuple[str, ...] = ()) -> list[str]:
    expression = re.compile(pattern)
    return [
        f"{relative(path)}:{number}: {line.strip()[:120]}"
        for path, text in text_files()
        if relative(path).startswith(where) and relative(path) not in leave_out
        for number, line in enumerate(text.splitlines(), 1)
        if expression.search(line)
    ]


def test_every_module_says_its_one_idea_in_its_first_line() -> None:
    bare = [relative(path) for path in source_files() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert bare == []


def test_no_file_holds_more_than_one_idea() -> None:
    long = {
        str(path.relative_to(SOURCE)): lines
        for path in source_files()
        if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX
    }
    assert {name: lines for name, lines in long.items() if name not in LONG_FILES} == {}
    assert set(LONG_FILES) <= set(long), "a reason outlived its file"


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    docstring = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_no_function_outgrows_a_screen() -> None:
    long: dict[str, int] = {}
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and function_lines(node) > FUNCTION_LINES_MAX:
                long[f"{path.relative_to(SOURCE)}:{node.name}"] = function_lines(node)
    assert {name: lines for name, lines in long.items() if name not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) <= set(long), "a reason outlived its function"


def test_a_broad_except_stands_only_at_a_boundary_and_says_why() -> None:
    broad = re.compile(r"^\s*except(\s+\(?.*\b(Base)?Exception\b[^:]*)?:")
    bare = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in source_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if broad.match(line) and "# boundary: " not in line
    ]
    assert bare == []


def test_names_say_what_things_are() -> None:
    vague = re.compile(r"(Manager|Helper|Utils?|Impl)$|^(Base|Abstract)[A-Z]")
    named = [
        f"{relative(path)}:{node.lineno}: {node.name}"
        for path in source_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and vague.search(node.name)
    ]
    assert named == []


def test_nothing_unfinished_is_left_in_the_package() -> None:
    marks = "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error", "not " + "implemented"))
    assert offenders(rf"\b({marks})\b", where="src/") == []


def test_no_path_of_a_developers_machine_is_in_the_tree() -> None:
    assert (
        offenders(r"(^|[^A-Za-z0-9_.])/(work|farm|root|home/[a-z]+)/[A-Za-z.]", leave_out=("tests/test_tidy.py",)) == []
    )


def test_no_package_registry_is_named() -> None:
    registries = (
        r"pypi\.org",
        r"pythonhosted\.org",
        r"registry\.npmjs",
        r"npmjs\.com",
        r"deb\.debian\.org",
        r"yarnpkg\.com",
    )
    assert offenders("|".join(registries), leave_out=("tests/test_tidy.py",)) == []
    assert not (ROOT / "uv.lock").is_file() or "uv.lock" not in {relative(path) for path in tracked_files()}


def test_requirements_are_pinned_hashed_and_without_addresses() -> None:
    for name in ("build", "run", "dev"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        pins = [line for line in text.splitlines() if re.match(r"^[A-Za-z0-9]", line)]
        assert pins, name
        assert all("==" in pin for pin in pins), name
        assert text.count("--hash=sha256:") >= len(pins)
        assert "://" not in text


def test_nothing_evaluates_or_unpickles_foreign_data() -> None:
    forbidden = {"eval", "exec"}
    found = []
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in forbidden:
                found.append(f"{relative(path)}:{node.lineno}: {node.func.id}")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                if any(name.split(".")[0] in {"pickle", "marshal", "shelve"} for name in names):
                    found.append(f"{relative(path)}:{node.lineno}: {names}")
    assert found == []


def test_the_unit_tests_never_sleep() -> None:
    assert offenders(r"\btime\.sleep\(", where="tests/unit") == []


def test_the_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[({re.escape(version)}|Unreleased)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE"]
)
def test_the_papers_of_the_house_are_there(name: str) -> None:
    assert len((ROOT / name).read_text()) > 100


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for path, text in text_files():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                broken.append(f"{relative(path)}: {target}")
    assert broken == []


# A loop that catches, sleeps and goes round again is a retry: it belongs to polaris.resilience, or waits by a Backoff.
PATIENT_LOOPS = {
    "runtime/_supervision.py:_keep_running": "supervision; its waits are those of a Backoff, shown on the board"
}


def is_sleep(node: ast.AST) -> bool:
    """A wait, not the turn that `sleep(0)` gives to others."""
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep"
    return named and not (isinstance(node, ast.Call) and ast.unparse(node.args[0]) == "0")


def waits_by_backoff(call: ast.AST) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr in {"delay_s", "_delay_s"} for node in ast.walk(call))


def goes_on(handler: ast.ExceptHandler) -> bool:
    return not isinstance(handler.body[-1], (ast.Raise, ast.Return, ast.Break))


def test_nobody_writes_a_retry_loop_of_his_own() -> None:
    found: dict[str, int] = {}
    for path in source_files():
        if "resilience" in path.parts or "testing" in path.parts:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for loop in ast.walk(function):
                if not isinstance(loop, (ast.For, ast.While, ast.AsyncFor)):
                    continue
                inside = [node for statement in loop.body for node in ast.walk(statement)]
                catches = any(
                    isinstance(node, ast.Try) and any(goes_on(handler) for handler in node.handlers) for node in inside
                )
                sleeps = [node for node in inside if is_sleep(node) and not waits_by_backoff(node)]
                if catches and sleeps:
                    found[f"{path.relative_to(SOURCE)}:{function.name}"] = loop.lineno
    assert {name: line for name, line in found.items() if name not in PATIENT_LOOPS} == {}
    assert set(PATIENT_LOOPS) <= set(found), "a reason outlived its loop"
