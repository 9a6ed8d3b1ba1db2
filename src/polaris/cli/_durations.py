"""Durations and instants as people type them: `90s`, `15m`, `1h`, `7d`, and RFC 3339 times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)?")


def parse_duration(text: str, option: str) -> timedelta:
    """`90`, `90s`, `1.5h` ... as a positive duration; without a unit it is seconds. `option` is named in the error."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0 < seconds < 1e10:
        message = f"{text!r} is no duration; write for example 90s, 15m, 1h or 7d"
        raise click.BadParameter(message, param_hint=option)
    return timedelta(seconds=seconds)


def parse_instant(text: str, option: str) -> datetime:
    """An RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z; without an offset it is refused."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        message = f"{text!r} is no time; write for example 2026-01-31T12:00:00Z"
        raise click.BadParameter(message, param_hint=option) from error
    if moment.tzinfo is None:
        message = f"{text!r} has no offset from UTC; write for example {text}Z"
        raise click.BadParameter(message, param_hint=option)
    return moment.astimezone(UTC)


def parse_moment(text: str, option: str) -> datetime:
    """A duration back from now, or an RFC 3339 time."""
    if re.match(r"\s*\d{4}-", text):
        return parse_instant(text, option)
    return datetime.now(UTC) - parse_duration(text, option)
