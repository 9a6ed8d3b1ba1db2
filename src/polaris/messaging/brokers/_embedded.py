"""The NATS server that a node brings along: started, watched, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from polaris.exceptions import BusConnectionError, ConfigurationError, PolarisException
from polaris.messaging.brokers._embedded_config import (
    EmbeddedNATSConfig,
    find_binary,
    obtain_token,
    render,
    write_private,
)
from polaris.messaging.brokers._embedded_process import FolderLock, ServerProcess
from polaris.messaging.brokers._embedded_room import ROOM_BYTES, is_full, require_room
from polaris.messaging.brokers._nats_config import NATSConfig

_log = logging.getLogger(__name__)

LOG_TAIL_LINES = 12
RECONNECT_WAIT_MAX_S = 0.2
"""The server is on this machine, and back within milliseconds: its clients look often."""
_PORTS = range(20_000, 32_000)
"""Below the range from which systems pick the ports of outgoing connections: while the server is away, no client can be
given its port, nor connect to itself."""
_PORT_TRIES = 8
_PORT_IN_USE = "address already in use"
_SIGNALLED = 128


class ServerExit(msgspec.Struct, frozen=True, kw_only=True):
    """How a run of the server ended."""

    code: int
    """As of a shell: 128 + n when signal n killed it."""
    expected: bool
    """It was asked to stop."""
    log_tail: str
    """The last lines it had to say, without the token."""

    @property
    def description(self) -> str:
        """The end in words. The log has a reason only for an end of the server's own: who is killed says nothing."""
        if self.code <= _SIGNALLED:
            return f"ended with code {self.code}: {_reason(self.log_tail)}"
        try:
            name = signal.Signals(self.code - _SIGNALLED).name
        except ValueError:
            return f"ended with code {self.code}"
        return f"was killed by a signal ({name})"


OnExit = Callable[[ServerExit], None]


class EmbeddedNATSServer:
    """A `nats-server` with JetStream on loopback, as a child of this process.

    It keeps its port over `restart`, and over `stop` and `start`, so clients find it again; the token and the store
    stay in the data folder. When this process ends, even by `kill -9`, the server stops, and a next start on the same
    folder waits for that. It does not restart by itself: `wait` and `on_exit` say when it ended, a supervisor decides.

    Use from one event loop. `stop` must be awaited before the loop closes.
    """

    def __init__(self, config: EmbeddedNATSConfig) -> None:
        self.config = config
        self._lock = FolderLock(config.data_dir)
        self._lifecycle = asyncio.Lock()
        self._process: ServerProcess | None = None
        self._watcher: asyncio.Task[ServerExit] | None = None
        self._stopping = False
        self._listeners: list[OnExit] = []
        self._port: int | None = None
        self._token: str | None = None

    @property
    def running(self) -> bool:
        """The server answers, as far as is known."""
        return self._process is not None and self._process.exit_code is None

    @property
    def port(self) -> int:
        """Where it listens; kept after it ended. Raises `BusConnectionError` before the first start."""
        if self._port is None:
            raise BusConnectionError("the embedded NATS server was not started yet")
        return self._port

    @property
    def url(self) -> str:
        """The address without the token."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"nats://{host}:{self.port}"

    @property
    def token(self) -> str | None:
        """What clients must show; None with `open_access` and before the first start."""
        return self._token

    @property
    def pid(self) -> int | None:
        """The process id of the server itself; None when it does not run."""
        return self._process.server_pid if self._process is not None and self.running else None

    def client_config(self, name: str = "polaris", **settings: Any) -> NATSConfig:
        """The settings of a client of this server; `settings` replaces others of `NATSConfig`."""
        defaults = {"reconnect_time_wait": 0.02, "reconnect_time_wait_max_s": RECONNECT_WAIT_MAX_S}
        return NATSConfig(servers=(self.url,), name=name, token=self._token, **{**defaults, **settings})

    def on_exit(self, listener: OnExit) -> None:
        """Call `listener` whenever a run ends, expected or not; one that raises is reported and changes nothing."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Start the server and wait until it accepts clients. Idempotent while it runs.

        Raises `ConfigurationError` (no binary, port in use, folder not usable), `StoreLockedError` (folder in use by
        another node) or `BusConnectionError` (the disk is full; the server failed or took too long, then the end of its
        log is shown). Nothing is left running then, nor when it is cancelled.
        """
        async with self._lifecycle:
            if not self.running:
                await self._start()

    async def stop(self) -> None:
        """Stop the server, by force after the grace period, and give the folder up. Idempotent."""
        async with self._lifecycle:
            await self._end_run()
            self._lock.release()

    async def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port and store. Raises as `start` does."""
        async with self._lifecycle:
            await self._end_run()
            await self._start()

    async def wait(self) -> ServerExit:
        """Wait until the current run ends; cancelling changes nothing. `BusConnectionError` before the first start."""
        if self._watcher is None:
            raise BusConnectionError("the embedded NATS server was not started yet")
        return await asyncio.shield(self._watcher)

    async def _start(self) -> None:
        binary = find_binary()
        run_dir = self._prepare_folder()
        self._lock.acquire()
        try:
            # A server without room starts, and then waits in vain for what it cannot write.
            await asyncio.to_thread(require_room, self.config.data_dir)
            self._token = obtain_token(self.config)
            for attempt in range(_PORT_TRIES):
                port = self._choose_port(attempt)
                try:
                    await self._run_on(binary, port, run_dir)
                    break
                except ConfigurationError as error:
                    # A port of our own choice may be taken between the choice and the start.
                    if self.config.port or attempt == _PORT_TRIES - 1 or _PORT_IN_USE not in error.message:
                        raise
        except OSError as error:
            self._lock.release()
            raise self._unusable_folder(error) from error
        except BaseException:  # boundary: undone, then raised again
            self._lock.release()
            raise

    async def _run_on(self, binary: Path, port: int, run_dir: Path) -> None:
        config_file = self.config.data_dir / "server.conf"
        write_private(config_file, render(self.config, port=port, token=self._token, run_dir=run_dir))
        for old in _ports_files(run_dir):
            old.unlink(missing_ok=True)
        # The log of a former run says nothing about this one.
        with contextlib.suppress(FileNotFoundError):
            (self.config.data_dir / "server.log").replace(self.config.data_dir / "server.log.former")
        lock = await self._lock.server_gone(self.config.stop_grace_s + 2.0)
        try:
            process = ServerProcess.spawn(
                [str(binary), "-c", str(config_file)],
                lock=lock,
                errors=self.config.data_dir / "server.err",
                grace_s=self.config.stop_grace_s,
            )
        finally:
            os.close(lock)
        try:
            await self._await_address(process, run_dir, port)
        except BaseException:  # boundary: undone, then raised again
            await process.stop(self.config.stop_grace_s)
            raise
        self._process, self._port, self._stopping = process, port, False
        write_private(self.config.data_dir / "port", str(port))
        self._watcher = asyncio.create_task(self._watch(process), name="nats-server-watch")

    async def _await_address(self, process: ServerProcess, run_dir: Path, port: int) -> None:
        """Wait for the file in which the server says where it listens: it writes it when it accepts clients."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            for file in _ports_files(run_dir):
                with contextlib.suppress(ValueError, OSError):
                    json.loads(file.read_text(encoding="utf-8"))  # half written as long as this fails
                    process.server_pid = int(file.stem.rpartition("_")[2])
                    return
            waited_s = loop.time() - began_s
            if process.exit_code is not None:
                raise self._failed(f"ended with code {process.exit_code}", port)
            if waited_s > self.config.start_timeout_s:
                raise self._failed(f"did not open its port within {self.config.start_timeout_s:g} s", port)
            await asyncio.sleep(0.001 if waited_s < 0.1 else 0.02)

    async def _watch(self, process: ServerProcess) -> ServerExit:
        code = await process.wait()
        end = ServerExit(code=code, expected=self._stopping, log_tail=self._log_tail())
        if not end.expected:
            _log.error("the embedded NATS server %s", end.description)
        for listener in self._listeners:
            try:
                listener(end)
            except Exception:  # boundary: a listener is foreign code
                _log.exception("a listener for the end of the NATS server failed")
        return end

    async def _end_run(self) -> None:
        process, watcher = self._process, self._watcher
        if process is not None:
            self._stopping = True
            await process.stop(self.config.stop_grace_s)
            self._process = None
        if watcher is not None:
            await asyncio.wait([watcher])

    def _prepare_folder(self) -> Path:
        run_dir = self.config.data_dir / "run"
        try:
            self.config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (run_dir, self.config.data_dir / "store"):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._unusable_folder(error) from error
        return run_dir

    def _choose_port(self, attempt: int) -> int:
        if self.config.port:
            return self.config.port
        candidates = [] if attempt else [self._port or self._former_port()]
        candidates += random.sample(_PORTS, 64)
        for port in candidates:
            if port and _is_free(self.config.host, port):
                return port
        raise ConfigurationError(problems=[f"nats.port: no free port on {self.config.host}"])

    def _former_port(self) -> int:
        try:
            return int((self.config.data_dir / "port").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def _failed(self, what: str, port: int) -> PolarisException:
        tail = self._log_tail()
        if _PORT_IN_USE in tail:
            return ConfigurationError(problems=[f"nats.port: {port} on {self.config.host}: {_PORT_IN_USE}"])
        return BusConnectionError(
            f"the embedded NATS server {what}: {_reason(tail)}; its last words:\n{tail}",
            {"data_dir": str(self.config.data_dir), "port": port},
        )

    def _unusable_folder(self, error: OSError) -> PolarisException:
        reason = error.strerror or str(error)
        if is_full(error):
            return BusConnectionError(
                f"the embedded NATS server is not started, {self.config.data_dir} cannot be written: {reason}; make "
                f"room on its disk, {ROOM_BYTES >> 10} KiB at the very least",
                {"data_dir": str(self.config.data_dir)},
            )
        return ConfigurationError(problems=[f"nats.data_dir: {self.config.data_dir} cannot be used: {reason}"])

    def _log_tail(self) -> str:
        lines: list[str] = []
        for name in ("server.err", "server.log"):
            with contextlib.suppress(OSError), (self.config.data_dir / name).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 16_384))
                lines += file.read().decode("utf-8", "replace").splitlines()
        text = "\n".join(lines[-LOG_TAIL_LINES:])
        return text if self._token is None else text.replace(self._token, "[redacted]")


def _reason(tail: str) -> str:
    """The last line that says what is wrong, without its time stamp."""
    lines = tail.splitlines()
    for line in reversed(lines):
        for mark in ("[FTL] ", "[ERR] "):
            if mark in line:
                return line.partition(mark)[2]
    return lines[-1] if lines else "no reason given"


def _ports_files(run_dir: Path) -> list[Path]:
    return list(run_dir.glob("*.ports"))


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
