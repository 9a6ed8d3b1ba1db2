"""`polaris check`: everything about the configuration that can be known without starting a node."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from polaris.cli import _exit
from polaris.cli._output import coloured, print_json
from polaris.runtime import effective_settings

if TYPE_CHECKING:
    from polaris.runtime import Settings

REACH_TIMEOUT_S = 3.0


def check_configuration(settings: Settings, *, offline: bool, as_json: bool) -> int:
    """Check whether configured servers answer and ports are free; show what is in effect."""
    problems = [] if offline else [*asyncio.run(_unreachable(settings.nats.servers)), *_port_in_use(settings)]
    if problems:
        return refuse(problems, as_json=as_json, settings=effective_settings(settings))
    if as_json:
        print_json({"ok": True, "problems": [], "settings": effective_settings(settings)})
    else:
        print(coloured("configuration is fine", "green"))
        _print_effective(settings)
    return _exit.OK


def refuse(problems: Sequence[str], *, as_json: bool, settings: Mapping[str, Any] | None = None) -> int:
    """Report every problem; `settings` are None when they could not be read."""
    if as_json:
        print_json({"ok": False, "problems": list(problems), "settings": settings})
    else:
        for problem in problems:
            _exit.complain(problem)
    return _exit.MISCONFIGURED


async def _unreachable(servers: list[str]) -> list[str]:
    async def problem(server: str) -> str | None:
        address = urlsplit(server)
        try:
            async with asyncio.timeout(REACH_TIMEOUT_S):
                _, writer = await asyncio.open_connection(address.hostname, address.port or 4222)
                writer.close()
        except (OSError, ValueError) as error:
            shown = f"{address.scheme}://{address.hostname}:{address.port or 4222}"
            return f"nats.servers: {shown} does not answer ({type(error).__name__}); start it or use --offline"
        return None

    return [text for text in await asyncio.gather(*map(problem, servers)) if text is not None]


def _port_in_use(settings: Settings) -> list[str]:
    from polaris.runtime import DataFolder

    if not settings.http.enabled or not settings.http.port or DataFolder(settings.data_dir).running_node() is not None:
        return []
    host = settings.http.host
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, settings.http.port))
        except OSError:
            return [f"http.port = {settings.http.port}: is in use; choose another, or 0 for any free one"]
    return []


def _print_effective(settings: Settings) -> None:
    for section, values in effective_settings(settings).items():
        for key, value in values.items():
            inner = value.items() if isinstance(value, dict) else ()
            rows = [(f"{section}.{key}.{name}", item) for name, item in inner] or [(f"{section}.{key}", value)]
            for name, item in rows:
                print(f"  {name} = {coloured('not set', 'dim') if item is None else json.dumps(item)}")
