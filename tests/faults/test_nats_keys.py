"""Clients that prove who they are by a key: nkey and credentials files, right, wrong, broken and renewed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.awake import within
from tests.nats_cluster import start_server

from polaris.exceptions import BusConnectionError, ConfigurationError
from polaris.messaging import (
    ConnectionState,
    DeliveryClass,
    NATSConfig,
    NATSMessageBroker,
    OutgoingMessage,
    StreamSpec,
)
from polaris.messaging.brokers._embedded_process import ServerProcess

# Of the extra of that name; it has no types.
nkeys: Any = import_module("nkeys")

QUICK_S = 10.0
PATIENT_S = 30.0
"""What the clients would wait for a server: a refusal must not take as long."""

RunServer = Callable[[dict[str, Any]], Awaitable[str]]


class Key:
    """An nkey pair."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), prefix)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def token(self, subject: Key, kind: str, more: dict[str, Any], **claims: Any) -> str:
        """A JWT by this key on another one, in version 2 of NATS' format."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {
            "jti": os.urandom(8).hex(),
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "name": kind,
            "nats": {"type": kind, "version": 2, **more},
            **claims,
        }
        text = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(body).encode())}"
        return f"{text}.{_encoded(self._pair.sign(text.encode()))}"


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Authority:
    """An operator and an account: whom a server believes."""

    def __init__(self) -> None:
        self.operator = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self.account = Key(nkeys.PREFIX_BYTE_ACCOUNT)
        unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        self.settings = {
            "operator": self.operator.token(self.operator, "operator", {}),
            "resolver": "MEMORY",
            "resolver_preload": {
                self.account.public: self.operator.token(
                    self.account, "account", {"limits": {**unlimited, "wildcards": True}}
                )
            },
        }

    def credentials(self, **claims: Any) -> str:
        """The text of a credentials file for a new user of the account."""
        user = Key(nkeys.PREFIX_BYTE_USER)
        token = self.account.token(user, "user", {"subs": -1, "data": -1, "payload": -1}, **claims)
        return credentials(token, user.seed.decode())


def credentials(token: str, seed: str) -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


@pytest.fixture
async def run_server(tmp_path: Path) -> AsyncIterator[RunServer]:
    """Runs servers with settings of the test's own; returns their addresses."""
    processes: list[ServerProcess] = []

    async def run(settings: dict[str, Any]) -> str:
        folder = tmp_path / f"server-{len(processes)}"
        processes.append(await start_server(folder, {"host": "127.0.0.1", "port": -1, **settings}))
        (ports,) = folder.glob("*.ports")
        return str(json.loads(ports.read_text())["nats"][0])

    yield run
    for process in processes:
        await process.stop(5.0)


def file_of(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


async def refused(config: NATSConfig, error: type[Exception]) -> str:
    """Connect in vain, quickly; what the error says."""
    broker = NATSMessageBroker(config)
    async with within(QUICK_S):
        with pytest.raises(error) as caught:
            await broker.connect()
    assert broker.state is ConnectionState.DISCONNECTED
    return str(caught.value)


async def until(broker: NATSMessageBroker, state: ConnectionState, *, within_s: float) -> None:
    async with within(within_s):
        while broker.state is not state:
            await asyncio.sleep(0.01)


async def test_an_nkey_opens_the_server_that_knows_it_and_no_other_key_does(
    run_server: RunServer, tmp_path: Path
) -> None:
    known, unknown = Key(nkeys.PREFIX_BYTE_USER), Key(nkeys.PREFIX_BYTE_USER)
    address = await run_server(
        {"authorization": {"users": [{"nkey": known.public}]}, "jetstream": {"store_dir": str(tmp_path / "store")}}
    )
    right = NATSConfig(servers=(address,), nkey=file_of(tmp_path / "right.nk", known.seed + b"\n"))
    broker = NATSMessageBroker(right)
    await broker.connect()
    await broker.ensure_stream(StreamSpec(name="S", subjects=("a.>",)))
    receipt = await broker.publish(OutgoingMessage("a.b", b"x", "1"), delivery=DeliveryClass.AT_LEAST_ONCE)
    assert receipt.sequence == 1
    await broker.disconnect()
    wrong = file_of(tmp_path / "wrong.nk", unknown.seed)
    config = NATSConfig(servers=(address,), nkey=wrong, connect_timeout_s=PATIENT_S)
    assert "Authorization" in await refused(config, BusConnectionError)


async def test_a_credentials_file_opens_the_server_that_believes_its_signer_and_no_other(
    run_server: RunServer, tmp_path: Path
) -> None:
    ours, theirs = Authority(), Authority()
    address = await run_server(ours.settings)
    broker = NATSMessageBroker(
        NATSConfig(servers=(address,), credentials=file_of(tmp_path / "right.creds", ours.credentials()))
    )
    await broker.connect()
    assert broker.state is ConnectionState.CONNECTED
    await broker.disconnect()
    # A user of a stranger, a right token with the key of somebody else, and one that is over.
    token = ours.credentials().splitlines()[1]
    stolen = credentials(token, Key(nkeys.PREFIX_BYTE_USER).seed.decode())
    for text in (theirs.credentials(), stolen, ours.credentials(exp=int(time.time()) - 60)):
        wrong = file_of(tmp_path / "wrong.creds", text)
        config = NATSConfig(servers=(address,), credentials=wrong, connect_timeout_s=PATIENT_S)
        assert "Authorization" in await refused(config, BusConnectionError)


BROKEN_SEEDS = {
    "nothing": b"",
    "a word": b"seed",
    "a seed cut short": b"SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4",
    "bytes": bytes(range(256)),
    "very many bytes": b"S" * 10_000_000,
}


@pytest.mark.parametrize("kind", BROKEN_SEEDS)
async def test_a_file_that_holds_no_key_is_named_at_once_and_not_shown(
    run_server: RunServer, tmp_path: Path, kind: str
) -> None:
    address = await run_server({"authorization": {"users": [{"nkey": Key(nkeys.PREFIX_BYTE_USER).public}]}})
    seed = BROKEN_SEEDS[kind]
    file = file_of(tmp_path / "user.nk", seed)
    config = NATSConfig(servers=(address,), nkey=file, connect_timeout_s=PATIENT_S)
    text = await refused(config, ConfigurationError)
    assert "nats.nkey names a file that " in text
    assert not seed or str(seed[:20]) not in text
    # The parts of a credentials file: neither, each alone, and a broken seed after a sound token.
    right = Authority().credentials()
    at = right.index("-----BEGIN USER NKEY SEED-----")
    broken = credentials("a.b.c", "").encode().replace(b"SEED-----\n", b"SEED-----\n" + seed[:4096])
    for content in (seed, right[:at].encode(), right[at:].encode(), broken):
        config = NATSConfig(
            servers=(address,), credentials=file_of(tmp_path / "c", content), connect_timeout_s=PATIENT_S
        )
        assert "nats.credentials names a file that " in await refused(config, ConfigurationError)


async def test_a_renewed_credentials_file_is_used_when_the_former_token_ends(
    run_server: RunServer, tmp_path: Path
) -> None:
    authority = Authority()
    address = await run_server(authority.settings)
    file = tmp_path / "user.creds"
    file_of(file, authority.credentials(exp=int(time.time()) + 4))
    broker = NATSMessageBroker(NATSConfig(servers=(address,), credentials=str(file), reconnect_time_wait_max_s=0.1))
    await broker.connect()
    # Not written yet when the server hangs up: nothing to connect with, and nothing that would end the attempts.
    file_of(file, "")
    await until(broker, ConnectionState.RECONNECTING, within_s=PATIENT_S)
    await asyncio.sleep(0.3)
    assert broker.state is ConnectionState.RECONNECTING
    file_of(file, authority.credentials())
    await until(broker, ConnectionState.CONNECTED, within_s=QUICK_S)
    await broker.publish(OutgoingMessage("a.b", b"x"))
    await broker.disconnect()
