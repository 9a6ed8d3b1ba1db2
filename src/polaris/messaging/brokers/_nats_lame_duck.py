"""A server in lame duck mode says that it will end: its client moves to another one before it hangs up.

nats-server sends an INFO with `"ldm": true` to its clients when it takes no new ones any more, and lists in it where
the other members of the cluster are. It then waits for `lame_duck_grace_period` (10 s), closes what is left over the
rest of `lame_duck_duration` (2 min), and ends. Source: NATS server documentation, "Lame Duck Mode".
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Collection
from typing import Protocol

import msgspec
from nats.aio.client import Srv

from polaris.exceptions import ConfigurationError
from polaris.messaging.brokers._nats_config import NATSConfig
from polaris.resilience import Backoff

_log = logging.getLogger(__name__)

LOOK_AGAIN = Backoff(0.25, 2.0, jitter="equal")
"""Between two looks for a server that takes clients."""
GREETING_BYTES_MAX = 64 * 1024
_INFO = b"INFO "


class _Greeting(msgspec.Struct):
    """What of an INFO matters here."""

    ldm: bool = False


_decode = msgspec.json.Decoder(_Greeting).decode


class Leaver(Protocol):
    """What of a client takes part."""

    def others(self, announced: Collection[str]) -> list[Srv]:
        """The servers that are not the present one, under any of its names."""
        ...

    async def move_to(self, server: Srv) -> None:
        """Give the connection up for one to `server`."""
        ...


async def leave(client: Leaver, announced: Collection[str], address: str, config: NATSConfig) -> None:
    """Move to another server after a random wait; cancelled when the connection is lost before.

    It is not left for one that does not greet as a server does, or that will end too: with no other there it serves as
    long as it can, and others may come back meanwhile. `announced` are the addresses in its INFO, `address` is its own,
    for the log. The wait is drawn from 0 to `lame_duck_leave_within_s`, so that its clients do not come in step.
    """
    if not client.others(announced):
        _log.warning("the NATS server %s will end, and no other is known: this client stays until it hangs up", address)
        return
    await asyncio.sleep(random.uniform(0.0, config.lame_duck_leave_within_s))  # noqa: S311
    looks = 0
    while True:
        servers = client.others(announced)
        random.shuffle(servers)
        for server in servers:
            if await _takes_clients(server, config):
                _log.info("the NATS server %s will end: this client moves to %s", address, address_of(server))
                await client.move_to(server)
                return
        looks += 1
        if looks == 1:
            _log.warning("the NATS server %s will end, and no other answers: this client stays for now", address)
        await asyncio.sleep(LOOK_AGAIN.delay_s(looks))


def address_of(server: Srv) -> str:
    """Host and port, without secrets."""
    return f"{server.uri.hostname}:{server.uri.port}"


async def _takes_clients(server: Srv, config: NATSConfig) -> bool:
    """Whether it greets a client, within the time and the bytes that a greeting may take, and does not end itself."""
    writer = None
    try:
        async with asyncio.timeout(config.attempt_timeout_s):
            context, name = _encryption(server, config)
            reader, writer = await asyncio.open_connection(
                server.uri.hostname, server.uri.port, limit=GREETING_BYTES_MAX, ssl=context, server_hostname=name
            )
            line = await reader.readline()
        return line.startswith(_INFO) and not _decode(line.removeprefix(_INFO)).ldm
    except (OSError, TimeoutError, ValueError, RecursionError, msgspec.DecodeError, ConfigurationError) as error:
        _log.debug("the NATS server %s takes no clients: %s", address_of(server), error)
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


def _encryption(server: Srv, config: NATSConfig) -> tuple[ssl.SSLContext | None, str | None]:
    """How the greeting is encrypted, and under which name the server must be known: mostly it is in the clear."""
    if config.tls is None or not config.tls.handshake_first:
        return None, None
    return config.tls.context(), config.tls.hostname or server.tls_name or server.uri.hostname
