"""`polaris check`: everything about the configuration that can be known without starting a node."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from polaris.cli import _exit
from polaris.cli._output import coloured, print_json
from polaris.exceptions import ConfigurationError
from polaris.runtime import effective_settings

if TYPE_CHECKING:
    from polaris.runtime import Settings

REACH_TIMEOUT_S = 3.0


def check_configuration(settings: Settings, *, offline: bool, as_json: bool) -> int:
    """Check connectors and their options, and whether configured servers answer; show what is in effect."""
    problems = connector_problems(settings)
    if not offline:
        problems += asyncio.run(_unreachable(settings.nats.servers))
        problems += _port_in_use(settings)
    if as_json:
        print_json({"ok": not problems, "problems": problems, "settings": effective_settings(settings)})
    else:
        for problem in problems:
            _exit.complain(problem)
        if not problems:
            print(coloured("configuration is fine", "green"))
            _print_effective(settings)
    return _exit.MISCONFIGURED if problems else _exit.OK


def connector_problems(settings: Settings) -> list[str]:
    """What the connectors say of the options they were given; systems that are turned off are not asked."""
    from polaris.connectors import ConnectorSpec

    problems: list[str] = []
    for system_id, system in settings.systems.items():
        if not system.enabled:
            continue
        try:
            ConnectorSpec(system_id=system_id, connector=system.connector, options=system.options).build()
        except ConfigurationError as error:
            problems += [f"systems.{system_id}: {problem}" for problem in error.problems or (error.message,)]
    return problems


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
