"""How to reach NATS: the settings of a connection, refused as a whole when anything in them is wrong."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import force_setattr

from polaris.exceptions import ConfigurationError

SCHEMES = ("nats", "tls")
_NAME_CHARS_MAX = 128
_SUBJECT_PREFIX = re.compile(r"[^\s.*>\x00-\x1f\x7f]+(\.[^\s.*>\x00-\x1f\x7f]+)*")


class TLSConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Encryption of the connection. With it set, a server that offers no TLS is refused before any secret is sent."""

    ca_file: str | None = None
    """Certificate authorities to trust instead of the system's."""
    cert_file: str | None = None
    """The client's own certificate chain, for servers that ask for one; needs `key_file`."""
    key_file: str | None = None
    hostname: str | None = None
    """The name to verify when it is not the host of the server's address."""
    handshake_first: bool = False
    """Encrypt before the server's greeting; the server must be set to the same."""

    def context(self) -> ssl.SSLContext:
        """A verifying client context. Raises `ConfigurationError` when a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ValueError) as error:
            raise ConfigurationError(problems=[f"tls: the certificate files cannot be used: {error}"]) from error
        return context


class NATSConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `NATSMessageBroker`. Immutable; a wrong one raises `ConfigurationError` naming all mistakes.

    At most one way to prove who is there: `token`, `user` with `password`, `nkey` or `credentials`. Secrets never show
    in the `repr`. Durations are seconds.
    """

    servers: Sequence[str] = ("nats://127.0.0.1:4222",)
    """`nats://host:port` or `tls://host:port`; the client learns the other members of a cluster by itself."""
    name: str = "polaris"
    """Shown in the server's list of connections."""
    token: str | None = None
    user: str | None = None
    password: str | None = None
    nkey: str | None = None
    """Path of a file with an nkey seed. Needs the extra `nkeys`."""
    credentials: str | None = None
    """Path of a `.creds` file (user JWT and seed). Needs the extra `nkeys`."""
    tls: TLSConfig | None = None
    connect_timeout_s: float = 5.0
    """How long `connect` tries in all; a refusal of the credentials ends it at once."""
    attempt_timeout_s: float = 2.0
    """How long one attempt at one server may take, at first and at every reconnect."""
    reconnect_time_wait: float = 0.05
    """Seconds before the servers are tried a second time (the first is at once); doubles up to the next setting."""
    reconnect_time_wait_max_s: float = 0.2
    """The longest wait between two rounds through all servers, and so the longest that a client is late when one is
    back. Each is drawn from its upper half: clients do not come in step. A client costs the network five to ten refused
    attempts a second per server; for a fleet of thousands that all come back at once, take some seconds."""
    max_reconnect_attempts: int = -1
    """Per server; -1: for ever, 0: never."""
    lame_duck_leave_within_s: float = 1.0
    """A server that says it will end is left for another one at a random moment within this; keep it well below the
    server's `lame_duck_grace_period` (10 s), and longer for a fleet of thousands."""
    ping_interval_s: float = 5.0
    """A server that is silent is given up after one to two of these."""
    drain_timeout_s: float = 10.0
    """How long `drain` and `disconnect` wait for handlers, confirmations and the last bytes."""
    inbox_prefix: str = "_INBOX"
    """Where replies arrive; to be set when the user may not subscribe to `_INBOX.>`."""
    send_buffer_bytes_max: int = 2 * 1024 * 1024
    """Bytes that wait for the socket before publishers are made to wait."""
    pending_messages_max: int = 65_536
    """Of a core subscription: messages that wait for its handler; more are dropped and counted."""
    pending_bytes_max: int = 64 * 1024 * 1024
    """Of a core subscription: bytes that wait for its handler; more are dropped and counted."""
    publish_in_flight_max: int = 4096
    """Stored publishes that wait for their confirmation; further ones wait for a place."""
    api_timeout_s: float = 5.0
    """How long the administration of streams and consumers waits for an answer."""

    def __post_init__(self) -> None:
        problems = [*self._address_problems(), *self._secret_problems(), *self._number_problems()]
        if problems:
            raise ConfigurationError(problems=[f"nats.{problem}" for problem in problems])
        # The caller may go on with his list; the configuration is immutable.
        force_setattr(self, "servers", tuple(self.servers))

    def __repr__(self) -> str:
        shown = [f"servers={tuple(without_secrets(server) for server in self.servers)!r}", f"name={self.name!r}"]
        shown += [f"{field}='[redacted]'" for field in ("token", "password") if getattr(self, field) is not None]
        for field in ("user", "nkey", "credentials", "tls"):
            if getattr(self, field) is not None:
                shown.append(f"{field}={getattr(self, field)!r}")
        return f"NATSConfig({', '.join(shown)})"

    def _address_problems(self) -> list[str]:
        if isinstance(self.servers, str) or not isinstance(self.servers, Sequence) or not self.servers:
            return [f"servers: expected a list of at least one address, got {type(self.servers).__name__}"]
        problems = []
        for server in self.servers:
            problem = _address_problem(server)
            if problem is not None:
                problems.append(f"servers: {problem}")
        if not isinstance(self.name, str) or not self.name.isprintable() or not 0 < len(self.name) <= _NAME_CHARS_MAX:
            problems.append(f"name: expected 1 to {_NAME_CHARS_MAX} printable characters")
        if not isinstance(self.inbox_prefix, str) or _SUBJECT_PREFIX.fullmatch(self.inbox_prefix) is None:
            problems.append("inbox_prefix: expected subject tokens without wildcards")
        if self.tls is not None and not isinstance(self.tls, TLSConfig):
            problems.append(f"tls: expected a TLSConfig, got {type(self.tls).__name__}")
        return problems

    def _secret_problems(self) -> list[str]:
        problems = []
        for field in ("token", "user", "password", "nkey", "credentials"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, str) or not value):
                problems.append(f"{field}: expected a non-empty text, got {type(value).__name__}")
        if (self.user is None) != (self.password is None):
            problems.append("user: expected together with password, or neither")
        ways = [field for field in ("token", "user", "nkey", "credentials") if getattr(self, field) is not None]
        if len(ways) > 1:
            problems.append(f"{ways[1]}: expected at most one way to authenticate, got {' and '.join(ways)}")
        for field in ("nkey", "credentials"):
            path = getattr(self, field)
            if isinstance(path, str) and path and not Path(path).is_file():
                problems.append(f"{field}: there is no such file")
        return problems

    def _number_problems(self) -> list[str]:
        problems = []
        for field, low, high in _BOUNDS:
            value: Any = getattr(self, field)
            kind = int if isinstance(low, int) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                problems.append(f"{field}: expected a number from {low} to {high}, got {value!r}")
        if not problems and self.reconnect_time_wait_max_s < self.reconnect_time_wait:
            problems.append("reconnect_time_wait_max_s: expected not less than reconnect_time_wait")
        return problems


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("connect_timeout_s", 0.05, 3600.0),
    ("attempt_timeout_s", 0.05, 60.0),
    ("reconnect_time_wait", 0.001, 60.0),
    ("reconnect_time_wait_max_s", 0.001, 600.0),
    ("max_reconnect_attempts", -1, 1_000_000),
    ("lame_duck_leave_within_s", 0.0, 600.0),
    ("ping_interval_s", 0.05, 600.0),
    ("drain_timeout_s", 0.05, 600.0),
    ("send_buffer_bytes_max", 64 * 1024, 1 << 30),
    ("pending_messages_max", 1, 10_000_000),
    ("pending_bytes_max", 1024, 1 << 34),
    ("publish_in_flight_max", 1, 1_000_000),
    ("api_timeout_s", 0.05, 600.0),
)


def without_secrets(address: str) -> str:
    """The address of a server without user, password or token."""
    scheme, mark, rest = address.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else address.rpartition("@")[2]


def _address_problem(address: object) -> str | None:
    if not isinstance(address, str):
        return f"expected nats://host:port, got {type(address).__name__}"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return f"expected nats://host:port, got {without_secrets(address)!r}"
    if parts.scheme not in SCHEMES or not parts.hostname or parts.path not in ("", "/") or parts.query or port == 0:
        return f"expected nats://host:port or tls://host:port, got {without_secrets(address)!r}"
    return None
