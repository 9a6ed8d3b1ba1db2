"""`polaris check`: everything about the configuration that can be known without starting a node."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from polaris.cli import _exit
from polaris.cli._doctor_machine import port
from polaris.cli._output import coloured, print_json, say_next
from polaris.cli._waiting import Doing
from polaris.cli._whereabouts import Mistake, mistakes, unread_variables
from polaris.exceptions import PolarisException
from polaris.runtime import DataFolder, effective_settings

if TYPE_CHECKING:
    from polaris.runtime import Settings

REACH_TIMEOUT_S = 3.0
OFFLINE = "start it, or leave this out with --offline"


def check_configuration(
    settings: Settings, file: Path | None, *, offline: bool, everything: bool, as_json: bool
) -> int:
    """Check variables, and whether what is configured can be reached; show what is in effect.

    For people that is what differs from the defaults, unless `everything` is asked for.
    """
    found = unread_variables(os.environ)
    if not offline:
        found += mistakes(Doing("trying to reach what is configured").run(_unreachable(settings)), file)
    if found:
        return refuse(found, as_json=as_json, settings=effective_settings(settings))
    if as_json:
        print_json({"ok": True, "problems": [], "mistakes": [], "settings": effective_settings(settings)})
    else:
        print(coloured("configuration is fine", "green"))
        _print_effective(settings, everything=everything)
        say_next("polaris run")
    return _exit.OK


def refuse(found: Sequence[Mistake], *, as_json: bool, settings: Mapping[str, Any] | None = None) -> int:
    """Report every mistake; `settings` are None when they could not be read."""
    if as_json:
        texts = [mistake.message for mistake in found]
        print_json({"ok": False, "problems": texts, "mistakes": msgspec.to_builtins(found), "settings": settings})
    else:
        for mistake in found:
            _exit.complain(mistake.message)
    return _exit.MISCONFIGURED


async def _unreachable(settings: Settings) -> list[str]:
    """What does not answer: servers, the database, the port; the systems too, unless a node has them in hand."""
    runs = await asyncio.to_thread(DataFolder(settings.data_dir).running_node) is not None
    tries = [_server(server) for server in settings.nats.servers]
    if settings.store.engine == "postgresql":
        tries.append(_database(settings))
    if not runs:
        tries += [_system(settings, system_id) for system_id, one in settings.systems.items() if one.enabled]
        tries.append(asyncio.to_thread(_port, settings))
    return [text for text in await asyncio.gather(*tries) if text is not None]


async def _server(server: str) -> str | None:
    """A NATS server speaks first: one that takes the connection and says nothing is frozen, or something else."""
    address = urlsplit(server)
    shown = f"{address.scheme}://{address.hostname}:{address.port or 4222}"
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address.hostname, address.port or 4222)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError) as error:
        return f"nats.servers: {shown} does not answer ({type(error).__name__}); {OFFLINE}"
    return None if greeting.startswith(b"INFO ") else f"nats.servers: {shown} is no NATS server"


async def _database(settings: Settings) -> str | None:
    from polaris.runtime._store import open_store

    try:
        async with asyncio.timeout(REACH_TIMEOUT_S), open_store(settings, read_only=True):
            return None
    except (TimeoutError, PolarisException) as error:
        said = error.message if isinstance(error, PolarisException) else f"no answer in {REACH_TIMEOUT_S:g} s"
        return f"store.dsn: the database cannot be used ({said}); {OFFLINE}"


async def _system(settings: Settings, system_id: str) -> str | None:
    """Take one sample as a node would; nothing is changed."""
    from polaris.connectors import ConnectorSpec

    system = settings.systems[system_id]
    connector = ConnectorSpec(system_id=system_id, connector=system.connector, options=system.options).build()
    said = None
    try:
        async with asyncio.timeout(system.timeout_s):
            await connector.connect()
            await connector.collect_metrics()
    except (TimeoutError, PolarisException) as error:
        said = error.message if isinstance(error, PolarisException) else f"no sample in {system.timeout_s:g} s"
    finally:
        await connector.disconnect()
    return None if said is None else f"systems.{system_id}: cannot be read ({said}); {OFFLINE}"


def _port(settings: Settings) -> str | None:
    found = port(settings)
    if found is None or found.grade == "ok":
        return None
    return f"http.port = {settings.http.port}: is in use; choose another, or 0 for any free one"


def _print_effective(settings: Settings, *, everything: bool) -> None:
    usual = dict(_leaves(effective_settings(type(settings)())))
    in_effect = _leaves(effective_settings(settings))
    shown = [
        (name, value)
        for name, value in in_effect
        if everything or usual.get(name, ...) != value or name.startswith("systems.")
    ]
    for name, value in shown:
        print(f"  {name} = {coloured('not set', 'dim') if value is None else json.dumps(value)}")
    if len(shown) < len(in_effect):
        print(f"  {len(in_effect) - len(shown)} more have their defaults; --all shows them")


def _leaves(tree: Mapping[str, Any], path: str = "", depth: int = 2) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value and depth:
            found += _leaves(value, f"{path}{key}.", depth - 1)
        else:
            found.append((f"{path}{key}", value))
    return found
