"""What `polaris doctor` looks at on the machine: Python, extras, secrets, data folder, disk, port, clock."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from polaris.cli._findings import Finding, fine, note, problem, warning
from polaris.cli._output import value_text

if TYPE_CHECKING:
    from polaris.runtime import Settings

PYTHON_MIN = (3, 11)
FREE_BYTES_MIN, FREE_BYTES_SCARCE = 256 << 20, 2 << 30
FREE_SHARE_SCARCE = 0.05
CLOCK_TOLERANCE = timedelta(minutes=5)
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
EXTRAS = {
    "nkeys": ("nkeys", "authentication by nkey or credentials file"),
    "export": ("pyarrow", "exports to Parquet and Arrow"),
    "duckdb": ("duckdb", "queries of exported Parquet"),
}


class Disk(NamedTuple):
    """Room on a file system, in bytes."""

    total: int
    free: int


def python_version(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Whether the interpreter is one that POLARIS runs on."""
    shown = ".".join(map(str, version))
    if version[:2] < PYTHON_MIN:
        return problem("python", f"{shown} is too old", "install Python 3.11 or newer and POLARIS into it")
    return fine("python", shown)


def extras(settings: Settings) -> Iterator[Finding]:
    """Optional parts that are not installed; a problem only where the configuration needs one."""
    needed = {"nkeys"} if settings.nats.nkey_file or settings.nats.credentials_file else set()
    for name, (module, purpose) in EXTRAS.items():
        if find_spec(module) is not None:
            continue
        install = f"pip install 'polaris-infrastructure[{name}]'"
        if name in needed:
            yield problem(f"extra {name}", f"not installed, but configured: {purpose}", install)
        else:
            yield note(f"extra {name}", f"not installed: {purpose}", install)


def secret_files(settings: Settings) -> Iterator[Finding]:
    """Files with secrets that cannot be read, or that others may read."""
    for section in ("nats", "store", "http"):
        values = getattr(settings, section)
        for key in values.__struct_fields__:
            name = getattr(values, key)
            if key in SECRET_FILES and name:
                yield _secret_file(f"{section}.{key}", Path(name).expanduser())
    if settings.nats.tls.key_file:
        yield _secret_file("nats.tls.key_file", Path(settings.nats.tls.key_file).expanduser())


SECRET_FILES = frozenset({"token_file", "password_file", "credentials_file", "nkey_file", "dsn_file"})


def _secret_file(key: str, file: Path) -> Finding:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
    except OSError as error:
        return problem(key, f"{file} cannot be read: {error.strerror}", f"make it readable for {_user(os.geteuid())}")
    if mode & 0o077:
        return warning(key, f"{file} can be read by other users", f"chmod 600 {file}")
    return fine(key, f"{file} can be read, by its owner only")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def data_folder(path: Path, *, user: int | None = None) -> Finding:
    """Whether the folder is this user's and can be written. A folder that is not there yet can be made."""
    me = os.geteuid() if user is None else user
    there = next((one for one in (path, *path.parents) if one.exists()), path)
    owner = there.stat().st_uid
    if path.exists() and owner != me:
        return problem(
            "data folder",
            f"{path} belongs to {_user(owner)}, you are {_user(me)}",
            f"run as {_user(owner)}, chown it, or choose another node.data_dir",
        )
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return problem("data folder", f"{there} cannot be written", "make it writable, or choose another node.data_dir")
    return fine("data folder", str(path) if path.exists() else f"{path} (made at the first start)")


def disk(path: Path, room: Disk | None = None) -> Finding:
    """Whether there is room where the data is kept."""
    if room is None:
        there = next(one for one in (path, *path.parents) if one.exists())
        usage = shutil.disk_usage(there)
        room = Disk(usage.total, usage.free)
    what = f"{value_text(room.free, 'By')} of {value_text(room.total, 'By')} free"
    do = "free some, set store.retention, or move node.data_dir"
    if room.free < FREE_BYTES_MIN:
        return problem("disk", f"nearly full: {what}", do)
    if room.free < FREE_BYTES_SCARCE and room.free < room.total * FREE_SHARE_SCARCE:
        return warning("disk", f"getting full: {what}", do)
    return fine("disk", what)


def port(settings: Settings) -> Finding | None:
    """Whether the configured port is free, of a node that does not run; None when any port will do."""
    if not settings.http.enabled or not settings.http.port:
        return None
    host, number = settings.http.host, settings.http.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            what = f"{number} cannot be taken{_holder(number)}: {error.strerror}"
            return problem("port", what, "end that program, or choose another http.port (0 takes any free one)")
    return fine("port", f"{number} is free")


def _holder(number: int) -> str:
    """Who has the port, as far as this user may know."""
    import psutil

    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == number and one.pid:
                return f", {psutil.Process(one.pid).name()} (pid {one.pid}) has it"
    except (psutil.Error, OSError):
        pass
    return ""


def clock(now: datetime | None = None, *, newest_sample: datetime | None = None) -> Finding:
    """Whether this machine's clock can be right: within bounds, after the installation, not behind what is stored."""
    moment = now or datetime.now(UTC)
    do = "set the clock and let it follow NTP: timedatectl set-ntp true"
    shown = moment.isoformat(timespec="seconds")
    if not EARLIEST < moment < LATEST:
        return problem("clock", f"{shown} cannot be the time", do)
    installed = _installed_at()
    if installed is not None and moment < installed - CLOCK_TOLERANCE:
        return problem("clock", f"{shown} is before POLARIS was installed", do)
    if newest_sample is not None and newest_sample > moment + CLOCK_TOLERANCE:
        ahead = newest_sample.isoformat(timespec="seconds")
        return warning("clock", f"{shown}, but a sample is of {ahead}: this clock or that of a system is wrong", do)
    return fine("clock", shown)


def _installed_at() -> datetime | None:
    located = distribution("polaris-infrastructure").locate_file("polaris_infrastructure-none")
    try:
        return datetime.fromtimestamp(Path(str(located)).parent.stat().st_mtime, UTC)
    except OSError:
        return None
