"""Goes through settings one by one, with what is secret masked: for whoever shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from polaris._redaction import REDACTED, redact_text
from polaris._secret_names import asks_for_secret, holds_secret, is_secret_key, names_secret
from polaris.runtime._settings import Section, Settings

Path = tuple[str, ...]
"""The keys that lead to a setting. The name of a system or server is one of them, and may hold dots."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Source(Enum):
    """Where a value comes from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"
    SECRET_FILE = "secret file"  # noqa: S105 - what it is called, not what is in it
    """The file that a `..._file` setting names."""
    PROGRAM = "program"
    """Who made the node made the settings too."""


class Origin(NamedTuple):
    """Where a value comes from, and its name there: the file as it was given, the variable."""

    source: Source
    name: str = ""


class Origination(NamedTuple):
    """Where the values of a configuration come from that are no defaults."""

    origins: Mapping[Path, Origin] | None
    """None: whoever made the node did not say, and what is no default is the program's."""
    file: str | None = None
    """The configuration file as it was given."""


OF_A_PROGRAM = Origination(None)


class Setting(NamedTuple):
    """One setting. `value` is masked and plain enough for JSON; `section` and `field` say whose docstring is its."""

    path: Path
    value: Any
    default: Any
    section: type[Section]
    field: str
    is_secret: bool


def every_setting(settings: Settings) -> Iterator[Setting]:
    """All of them, in the order of the documentation; those of a connector's options one by one."""
    return _of_section(settings, ())


def dotted(path: Path) -> str:
    """The key as TOML writes it."""
    return ".".join(part if _BARE.fullmatch(part) else f'"{part}"' for part in path)


def _of_section(section: Section, path: Path) -> Iterator[Setting]:
    for field in msgspec.structs.fields(section):
        value, here = getattr(section, field.name), (*path, field.encode_name)
        if isinstance(value, Section):
            yield from _of_section(value, here)
        elif isinstance(value, dict) and value:
            for name, item in value.items():
                if isinstance(item, Section):
                    yield from _of_section(item, (*here, name))
                else:
                    yield from _of_table(
                        item, (*here, name), type(section), field.name, secret=holds_secret(name, item)
                    )
        else:
            # The name of a file with a secret is none.
            secret = is_secret_key(field.encode_name) and not field.encode_name.endswith("_file")
            default, plain = _default_of(field), msgspec.to_builtins(value)
            yield Setting(here, masked(plain, secret=secret), default, type(section), field.name, secret)


def _of_table(value: Any, path: Path, section: type[Section], field: str, *, secret: bool) -> Iterator[Setting]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            named = name == "value" and names_secret(value)
            known = secret or named or holds_secret(str(name), item)
            yield from _of_table(item, (*path, str(name)), section, field, secret=known)
    else:
        yield Setting(path, masked(msgspec.to_builtins(value), secret=secret), None, section, field, secret)


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return None if default is msgspec.NODEFAULT else msgspec.to_builtins(default)


def masked(value: Any, *, secret: bool) -> Any:
    """A plain value fit to be shown."""
    if isinstance(value, dict):
        named = names_secret(value)
        return {
            name: masked(item, secret=secret or (named and name == "value") or holds_secret(str(name), item))
            for name, item in value.items()
        }
    if isinstance(value, list):
        # What follows the flag of a command line.
        asked = [False, *map(asks_for_secret, value)]
        return [masked(item, secret=secret or asked[index]) for index, item in enumerate(value)]
    if secret and value is not None:
        return REDACTED
    return redact_text(value) if isinstance(value, str) else value
