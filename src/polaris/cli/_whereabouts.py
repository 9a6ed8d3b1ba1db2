"""Where in the configuration a mistake is: the line of the file, or the variable, and which variable was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import msgspec

from polaris.runtime._configuration import OTHER_VARIABLES, PREFIX
from polaris.runtime._settings import Section, Settings

LIKE_A_VARIABLE = 0.88
"""How much a variable of another prefix must be like one of ours to be taken for it."""
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_HEADER = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]\]?\s*(?:#.*)?$")
_NO_SUCH = "there is no such setting"


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake. `origin` is a file, a variable or `command line`, None when it is about several keys together."""

    message: str
    """All of it in one line, for people."""
    origin: str | None = None
    line: int | None = None
    key: str | None = None


def key_lines(text: str) -> dict[str, int]:
    """The line, from 1 on, of every table and key of a TOML document, by dotted name. Good for broken documents too."""
    found: dict[str, int] = {}
    table, quotes = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        inside = bool(quotes)
        for mark in re.findall(r'"""|\'\'\'', line):
            quotes = mark if not quotes else "" if mark == quotes else quotes
        if inside:
            continue
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None:
            table = _dotted(header[1])
            found.setdefault(table, number)
        elif key is not None:
            found.setdefault(f"{table}.{_dotted(key[1])}".lstrip("."), number)
    return found


def _dotted(name: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(_PART, name))


def mistakes(problems: Sequence[str], file: Path | None) -> list[Mistake]:
    """The problems of a configuration, each with its place as far as it can be told."""
    lines = key_lines(_text(file)) if file is not None else {}
    return [_mistake(problem, file, lines) for problem in problems]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mistake(problem: str, file: Path | None, lines: Mapping[str, int]) -> Mistake:
    origin, _, rest = problem.partition(": ")
    if file is not None and origin == str(file):
        key = _key_of(rest, lines)
        if key is not None:
            return Mistake(message=f"{origin}:{lines[key]}: {rest}", origin=origin, line=lines[key], key=_named(rest))
        at = re.search(r"\(at line (\d+)", rest)
        return Mistake(message=problem, origin=origin, line=int(at[1]) if at else None)
    if origin.startswith(PREFIX):
        return Mistake(message=_meant(origin, problem), origin=origin, key=_named(rest))
    if origin == "command line":
        return Mistake(message=problem, origin=origin, key=_named(rest))
    key = _key_of(problem, lines)
    if key is not None and file is not None:
        return Mistake(
            message=f"{file}:{lines[key]}: {problem}", origin=str(file), line=lines[key], key=_named(problem)
        )
    return Mistake(message=problem)


def _named(rest: str) -> str:
    """The key that a problem names first."""
    return re.split(r": | = ", rest, maxsplit=1)[0]


def _key_of(rest: str, lines: Mapping[str, int]) -> str | None:
    """The longest key of the file that the problem names, else the table that holds the key which is missing."""
    named = _named(rest)
    while named:
        if named in lines:
            return named
        named = named.rpartition(".")[0]
    return None


def variables(section: type[Section] = Settings, prefix: str = PREFIX) -> Iterator[str]:
    """The names of all variables that are settings, but for those of managed systems."""
    for field in msgspec.structs.fields(section):
        name = f"{prefix}{field.encode_name.upper()}"
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield from variables(field.type, f"{name}__")
        elif field.encode_name != "systems":
            yield name


def _meant(name: str, problem: str) -> str:
    if _NO_SUCH not in problem:
        return problem
    near = _near_variable(name, 0.6)
    return problem if near is None else f"{problem.partition(f': {_NO_SUCH}')[0]}: {_NO_SUCH} (did you mean {near}?)"


def _near_variable(name: str, likeness: float) -> str | None:
    # One underscore for two, or none at all, is the commonest slip: it must not count.
    plain = {variable.replace("_", ""): variable for variable in variables()}
    found = get_close_matches(name.upper().replace("_", ""), plain, n=1, cutoff=likeness)
    return plain[found[0]] if found else None


def unread_variables(environment: Mapping[str, str]) -> list[Mistake]:
    """Variables that nobody reads, because their prefix is misspelt: `POLARS_HTTP__PORT`, `polaris_http__port`."""
    return [
        Mistake(message=f"{name}: is read by nobody (did you mean {near}?)", origin=name)
        for name in sorted(environment)
        if not name.startswith(PREFIX) and name not in OTHER_VARIABLES and name[:1].upper() == "P"
        if (near := _near_variable(name, LIKE_A_VARIABLE)) is not None
    ]
