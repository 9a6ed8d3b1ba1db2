"""Addresses of servers: checked before they are used, shown without their secrets."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from polaris.exceptions import ConfigurationError

_SCHEMES = ("postgresql", "postgres")
_SECRETS = frozenset({"password", "sslpassword", "passfile"})
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")
HIDDEN = "***"
SESSION_ATTRIBUTES = frozenset({"any", "read-write", "read-only", "primary", "standby", "prefer-standby"})


class Dsn:
    """The address of one database: `postgresql://user:password@host1:5432,host2:5432/name?option=value`.

    Several hosts are tried in turn until one is what `target_session_attrs` asks for (`read-write` unless the address
    says otherwise), so the primary of a replicated pair is found wherever it is. `str` and `repr` never show secrets.
    Raises `ConfigurationError` that does not repeat them either.
    """

    __slots__ = ("_text", "hosts", "session_attributes")

    def __init__(self, text: object) -> None:
        if not isinstance(text, str):
            raise ConfigurationError(problems=[f"dsn: a string, got {type(text).__name__}"])
        try:
            parts = urlsplit(text)
            problems = _problems(parts)
        except ValueError:
            problems = ["dsn: it cannot be taken apart"]
        if problems:
            raise ConfigurationError(problems=problems)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        attributes = options.get("target_session_attrs")
        if attributes is not None and attributes not in SESSION_ATTRIBUTES:
            raise ConfigurationError(
                problems=["dsn: target_session_attrs is one of " + ", ".join(sorted(SESSION_ATTRIBUTES))]
            )
        self.session_attributes = attributes
        self.hosts: tuple[str, ...] = _hosts(parts.netloc, options)
        self._text = text

    def reveal(self) -> str:
        """The address with its secrets: for the driver only."""
        return self._text

    def addresses(self) -> list[str]:
        """The addresses of the single hosts, with their secrets: for the driver only."""
        if len(self.hosts) == 1:
            return [self._text]
        parts = urlsplit(self._text)
        login, at, places = parts.netloc.rpartition("@")
        options = parse_qsl(parts.query, keep_blank_values=True)
        given = dict(options)
        rest = [(key, value) for key, value in options if key not in ("host", "port")]
        ports = given.get("port", "").split(",")
        found = []
        for number, (host, port) in enumerate(zip(self.hosts, ports * (len(self.hosts) // len(ports)), strict=True)):
            own = [*rest, *([("port", port)] if port else []), *([] if places else [("host", host)])]
            netloc = f"{login}{at}{places.split(',')[number]}" if places else parts.netloc
            query = f"?{urlencode(own, quote_via=quote)}" if own else ""
            found.append(f"{parts.scheme}://{netloc}{parts.path}{query}")
        return found

    def __str__(self) -> str:
        parts = urlsplit(self._text)
        login, at, places = parts.netloc.rpartition("@")
        user, colon, _ = login.partition(":")
        options = [(key, HIDDEN if key in _SECRETS else value) for key, value in parse_qsl(parts.query)]
        query = f"?{urlencode(options, safe='*/,', quote_via=quote)}" if options else ""
        return f"{parts.scheme}://{user}{colon and ':' + HIDDEN}{at}{places}{parts.path}{query}"

    def __repr__(self) -> str:
        return f"Dsn({str(self)!r})"


def _problems(parts: SplitResult) -> list[str]:
    problems = []
    if parts.scheme not in _SCHEMES:
        problems.append("dsn: it begins with postgresql://")
    if len(parts.path) < 2 or "/" in parts.path[1:]:
        problems.append("dsn: it names one database, as in postgresql://host/database")
    if parts.netloc.count("@") > 1 or "@" in parts.path or parts.fragment:
        # Taken apart wrongly, a part of the password would be shown as a host or a database.
        problems.append("dsn: '@', '/', '?' and '#' in a user or password are written as %40, %2F, %3F and %23")
    places = parts.netloc.rpartition("@")[2]
    for place in places.split(","):
        host, _, port = place.rpartition(":") if re.search(r":\d*$", place) else (place, "", "")
        if port and not 0 < int(port) < 65_536:
            problems.append("dsn: a port is a number from 1 to 65535")
        if not host and places.count(","):
            problems.append("dsn: one of several hosts is empty")
    options = dict(parse_qsl(parts.query))
    hosts, ports = (places or options.get("host", "")).split(","), options.get("port", "").split(",")
    if not all(re.fullmatch(r"\d{1,5}", port) for port in ports if port):
        problems.append("dsn: a port is a number from 1 to 65535")
    if len(ports) not in (1, len(hosts)):
        problems.append("dsn: as many ports as hosts, or one for all")
    return problems


def _hosts(netloc: str, options: dict[str, str]) -> tuple[str, ...]:
    places = netloc.rpartition("@")[2] or options.get("host", "") or "localhost"
    return tuple(unquote(place) for place in places.split(","))


def check_schema_name(schema: object) -> str:
    """The name itself: 1 to 48 lower-case letters, digits and `_`, not beginning with a digit or `pg_`.

    Raises `ConfigurationError`.
    """
    if not isinstance(schema, str) or not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise ConfigurationError(
            problems=["schema: 1 to 48 lower-case letters, digits and '_', not beginning with a digit or 'pg_'"]
        )
    return schema
