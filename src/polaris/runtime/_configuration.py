"""Reads `polaris.toml` and `POLARIS_*`, and reports every mistake at once: where, which key, what value, what to do."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from polaris._redaction import REDACTED, redact_text
from polaris._secret_names import is_secret_key
from polaris.exceptions import ConfigurationError
from polaris.runtime._consistency import check_whole
from polaris.runtime._settings import Section, Settings, SystemSettings
from polaris.runtime._settings_walk import Origin, Origination, Source, every_setting
from polaris.runtime._settings_walk import Path as KeyPath

CONFIG_FILE_DEFAULT = "polaris.toml"
PREFIX = "POLARIS_"
# Variables with the prefix that are no settings.
OTHER_VARIABLES = frozenset({"POLARIS_CONFIG", "POLARIS_NATS_SERVER", "POLARIS_CHROMIUM"})
FILE_BYTES_MAX = 1 << 20


class _Value(msgspec.Struct, frozen=True):
    """One configured value and where it came from. Text from the environment may stand for a number or a list."""

    raw: Any
    origin: str
    source: Source = Source.FILE

    @property
    def is_text(self) -> bool:
        return self.source is Source.ENVIRONMENT


_Tree = dict[str, Any]  # nested; the leaves are _Value


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What was read: the settings, and what came whence."""

    settings: Settings
    origination: Origination


def load_settings(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    check_connectors: bool = False,
) -> Settings:
    """The effective settings, see `read_configuration`."""
    return read_configuration(
        path, environment=environment, overrides=overrides, check_connectors=check_connectors
    ).settings


def read_configuration(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    check_connectors: bool = False,
) -> Configuration:
    """Defaults, then the file, then `POLARIS_*`, then `overrides` (dotted keys, from flags), and what came whence.

    Without `path` the file is `POLARIS_CONFIG`, or `polaris.toml` in the working directory when there is one. A double
    underscore in a variable nests: `POLARIS_HTTP__PORT=8080`. Values of `*_file` keys for secrets are read here.
    `check_connectors` also asks the connectors what they say of their options, which loads their modules.

    Raises `ConfigurationError` with `problems`: all mistakes, one text each with origin, key, value and hint.
    """
    variables = os.environ if environment is None else environment
    problems: list[str] = []
    tree: _Tree = {}
    chosen = _choose_file(path, variables, problems)
    if chosen is not None:
        _merge(tree, _read_file(chosen, problems))
    _merge_environment(tree, variables, problems)
    for key, raw in (overrides or {}).items():
        _place(tree, key.split("."), _Value(raw, "command line", Source.COMMAND_LINE))
    values = _read_section(Settings, tree, "", problems)
    origins = dict(_origins(tree, ()))
    _read_secret_files(values, origins, problems)
    if check_connectors:
        _ask_connectors(values.get("systems", {}), tree, problems)
    if problems:
        raise ConfigurationError(problems=problems)
    settings = msgspec.convert(values, Settings)
    check_whole(settings, problems)
    if problems:
        raise ConfigurationError(problems=problems)
    return Configuration(
        settings=settings, origination=Origination(origins=origins, file=None if chosen is None else str(chosen))
    )


def _origins(tree: _Tree, path: KeyPath) -> Iterator[tuple[KeyPath, Origin]]:
    for key, node in tree.items():
        if isinstance(node, dict):
            yield from _origins(node, (*path, key))
        elif node.source is not Source.DEFAULT:
            yield (*path, key), Origin(node.source, node.origin)


def _choose_file(path: Path | None, variables: Mapping[str, str], problems: list[str]) -> Path | None:
    named = path if path is not None else Path(variables["POLARIS_CONFIG"]) if variables.get("POLARIS_CONFIG") else None
    if named is None:
        default = Path(CONFIG_FILE_DEFAULT)
        return default if default.is_file() else None
    if not named.is_file():
        problems.append(f"{named}: there is no such file")
        return None
    return named


def _read_file(path: Path, problems: list[str]) -> _Tree:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            problems.append(f"{path}: larger than {FILE_BYTES_MAX} bytes")
            return {}
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: not valid TOML: {error}")
        return {}
    except RecursionError:
        problems.append(f"{path}: nested too deeply")
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read: {error}")
        return {}
    return {key: _leaves(value, str(path)) for key, value in document.items()}


def _leaves(value: Any, origin: str) -> Any:
    if isinstance(value, dict):
        return {key: _leaves(item, origin) for key, item in value.items()}
    return _Value(value, origin)


def _merge(tree: _Tree, other: _Tree) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _merge_environment(tree: _Tree, variables: Mapping[str, str], problems: list[str]) -> None:
    for name in sorted(variables):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        keys = name[len(PREFIX) :].lower().split("__")
        if not all(keys):
            problems.append(f"{name}: a double underscore nests; write POLARIS_SECTION__KEY")
            continue
        if keys[0] == "systems" and len(keys) > 2:
            tree.setdefault("systems", {"this-machine": {"connector": _Value("host", "default", Source.DEFAULT)}})
            keys[1] = _known_system(keys[1], tree)
        if not _place(tree, keys, _Value(variables[name], name, Source.ENVIRONMENT)):
            problems.append(f"{name}: {'.'.join(keys)} is a section in the file, not a value")


def _known_system(token: str, tree: _Tree) -> str:
    """The id in the file that the variable means: variables know neither dashes nor upper case."""
    systems = tree.get("systems")
    for system_id in systems if isinstance(systems, dict) else ():
        if system_id.lower().replace("-", "_").replace(".", "_") == token:
            return str(system_id)
    return token


def _place(tree: _Tree, keys: list[str], value: _Value) -> bool:
    node = tree
    for key in keys[:-1]:
        inner = node.setdefault(key, {})
        if not isinstance(inner, dict):
            inner = node[key] = {}
        node = inner
    if isinstance(node.get(keys[-1]), dict) and node[keys[-1]]:
        return False
    node[keys[-1]] = value
    return True


def _read_section(section: type[Section], tree: _Tree, path: str, problems: list[str]) -> dict[str, Any]:
    """The tree's values converted field by field, so that one mistake does not hide the next."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(section)}
    values: dict[str, Any] = {}
    for key, node in tree.items():
        where = f"{path}{key}"
        field = fields.get(key)
        if field is None:
            problems.append(_unknown(where, key, node, fields))
            continue
        if isinstance(field.type, type) and issubclass(field.type, Section):
            inner = _expect_table(where, node, problems)
            values[key] = _read_section(field.type, inner, f"{where}.", problems)
        elif (entry := _entry_of(field.type)) is not None:
            values[key] = _read_entries(entry, where, _expect_table(where, node, problems), problems)
        elif isinstance(node, dict):
            _read_free_table(where, key, node, field.type, values, problems)
        else:
            _read_value(where, key, node, field.type, values, problems)
    missing = [name for name, field in fields.items() if field.required and name not in tree]
    problems.extend(f"{_origin(tree)}: {path}{name}: is required" for name in missing)
    return values


def _entry_of(wanted: Any) -> type[Section] | None:
    """The section that each entry of a table is, when it is a table of sections by names of one's own."""
    inner = get_args(wanted)[1:] if get_origin(wanted) is dict else ()
    return inner[0] if inner and isinstance(inner[0], type) and issubclass(inner[0], Section) else None


def _read_entries(section: type[Section], where: str, tree: _Tree, problems: list[str]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, node in tree.items():
        inner = _expect_table(f"{where}.{name}", node, problems)
        if inner or isinstance(node, dict):
            entries[name] = _read_section(section, inner, f"{where}.{name}.", problems)
    return entries


def _ask_connectors(systems: Mapping[str, Any], tree: _Tree, problems: list[str]) -> None:
    """What the connectors of those systems say that are right so far; systems that are turned off are not asked."""
    from polaris.connectors import ConnectorSpec

    for system_id, values in systems.items():
        try:
            system = msgspec.convert(values, SystemSettings)
            if system.enabled:
                ConnectorSpec(system_id=system_id, connector=system.connector, options=system.options).build()
        except msgspec.ValidationError:
            continue  # reported already
        except ConfigurationError as error:
            origin = _origin(tree["systems"][system_id])
            problems += [f"{origin}: systems.{system_id}: {text}" for text in error.problems or (error.message,)]


def _expect_table(where: str, node: Any, problems: list[str]) -> _Tree:
    if isinstance(node, dict):
        return node
    problems.append(f"{node.origin}: {where} = {_shown(where, node.raw)}: expected a section, write [{where}]")
    return {}


def _read_free_table(
    where: str, key: str, node: _Tree, wanted: Any, values: dict[str, Any], problems: list[str]
) -> None:
    if get_origin(wanted) is not dict:
        problems.append(f"{_origin(node)}: {where}: expected a value, found a section")
        return
    try:
        values[key] = msgspec.convert(_plain(node), wanted)
    except msgspec.ValidationError as error:
        problems.append(f"{_origin(node)}: {where}: {_lower(str(error))}")


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _plain(item) for key, item in node.items()}
    if node.is_text:
        return _from_text(node.raw)
    return node.raw


def _from_text(text: str) -> Any:
    """Text of a variable for a place without a known type: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_value(where: str, key: str, node: _Value, wanted: Any, values: dict[str, Any], problems: list[str]) -> None:
    raw = node.raw
    if node.is_text and get_origin(wanted) is list:
        raw = _from_text(raw) if raw.lstrip().startswith("[") else [item for item in raw.split(",") if item]
    try:
        values[key] = msgspec.convert(raw, wanted, strict=not node.is_text)
    except msgspec.ValidationError as error:
        hint = _hint(wanted, raw)
        problems.append(f"{node.origin}: {where} = {_shown(where, node.raw)}: {_lower(str(error))}{hint}")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].replace("`", "")


def _hint(wanted: Any, raw: Any) -> str:
    choices = [str(choice) for part in (wanted, *get_args(wanted)) for choice in _literals(part)]
    if not choices:
        return ""
    near = difflib.get_close_matches(str(raw), choices, n=1)
    return f" (did you mean {near[0]!r}?)" if near else f" (one of: {', '.join(choices)})"


def _literals(wanted: Any) -> tuple[Any, ...]:
    from typing import Literal

    return get_args(wanted) if get_origin(wanted) is Literal else ()


def _unknown(where: str, key: str, node: Any, fields: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key, fields, n=1)
    hint = f"did you mean {where.removesuffix(key)}{near[0]}?" if near else f"known here: {', '.join(fields)}"
    value = "" if isinstance(node, dict) else f" = {_shown(where, node.raw)}"
    return f"{_origin(node)}: {where}{value}: there is no such setting ({hint})"


def _origin(node: Any) -> str:
    if isinstance(node, dict):
        return next((_origin(item) for item in node.values()), "configuration")
    return str(node.origin)


def _shown(where: str, raw: Any) -> str:
    return REDACTED if is_secret_key(where.rsplit(".", 1)[-1]) else redact_text(repr(raw), chars_max=120)


def _read_secret_files(values: dict[str, Any], origins: dict[KeyPath, Origin], problems: list[str]) -> None:
    """Put the content of files such as `token_file` in place of the secret they stand for."""
    places: list[tuple[KeyPath, dict[str, Any]]] = [((key,), values.get(key, {})) for key in ("nats", "store", "http")]
    servers = values.get("store", {}).get("routing", {}).get("servers", {})
    places += [(("store", "routing", "servers", name), server) for name, server in servers.items()]
    for section, tree, secret in ((*place, secret) for place in places for secret in ("token", "password", "dsn")):
        key, name = ".".join((*section, secret)), tree.get(f"{secret}_file")
        if not name:
            continue
        if tree.get(secret):
            problems.append(f"{key} and {key}_file are both given; keep one")
            continue
        try:
            tree[secret] = Path(name).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{key}_file = {name!r}: cannot be read: {type(error).__name__}")
            continue
        origins[(*section, secret)] = Origin(Source.SECRET_FILE, name)
        if not tree[secret]:
            problems.append(f"{key}_file = {name!r}: is empty")


def effective_settings(settings: Settings) -> dict[str, Any]:
    """The settings as a JSON tree with the secrets masked, for showing."""
    tree: dict[str, Any] = {}
    for setting in every_setting(settings):
        *sections, key = setting.path
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = setting.value
    return tree


def settings_schema() -> dict[str, Any]:
    """The JSON Schema of `polaris.toml`, for editors."""
    return msgspec.json.schema(Settings)
