"""A process that has loaded the command line once; every command is a child of it, which starts in a tenth of the time.

A child is a whole process: its own folder, environment, input and output, and an end of its own. What it does not show
is how the command line loads; tests of that start `python -m polaris` themselves.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

LOADED_BEFORE = ("polaris.cli", "polaris.runtime", "polaris.messaging", "polaris.storage")


class Request(NamedTuple):
    """A command and its surroundings; the last three are files."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    stdin: str
    stdout: str
    stderr: str


class WarmCommands:
    """The process, as the one who asks holds it; it ends with this one, whatever ends that."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_commands", str(theirs.fileno())],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._socket = ours
        self._heard = b""
        atexit.register(self.close)

    def run(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], stdin: str, patience_s: float
    ) -> tuple[int, str, str]:
        """The code that `polaris ARGUMENTS` ended with, negative for a signal, its output and its complaint.

        Raises `TimeoutError` when it does not end in time; it is ended then.
        """
        with tempfile.TemporaryDirectory() as place:
            said = Path(place, "stdin"), Path(place, "stdout"), Path(place, "stderr")
            said[0].write_bytes(stdin.encode())
            request = Request(list(arguments), str(folder), dict(environment), *map(str, said))
            code = self.carry_out(request, patience_s)
            return code, said[1].read_text("utf-8"), said[2].read_text("utf-8")

    def carry_out(self, request: Request, patience_s: float) -> int:
        """The code that the command ended with. Raises as `run` does."""
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        pid = self._answer(patience_s)
        try:
            return self._answer(patience_s)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self._answer(patience_s)
            raise

    def _answer(self, patience_s: float) -> int:
        self._socket.settimeout(patience_s)
        while b"\n" not in self._heard:
            more = self._socket.recv(64)
            assert more, "the process that runs commands has ended"
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return int(line)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def serve(connection: socket.socket) -> Request:
    """Answer requests for ever; returns in a child, with what it is to do."""
    questions = connection.makefile("r", encoding="utf-8")
    for line in questions:
        request = Request(*json.loads(line))
        pid = os.fork()
        if not pid:
            questions.detach()
            return request
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    raise SystemExit


def live(request: Request) -> NoReturn:
    """Become the command."""
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    for number, (path, mode) in enumerate([(request.stdin, "rb"), (request.stdout, "wb"), (request.stderr, "wb")]):
        opened: IO[bytes]
        with open(path, mode) as opened:  # noqa: PTH123 - a mode that is not known before
            os.dup2(opened.fileno(), number)
    # As a new interpreter has it: line by line where somebody watches.
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    sys.path[0] = request.folder
    sys.argv = [str(Path(sys.modules["polaris"].__path__[0], "__main__.py")), *request.arguments]
    from polaris.cli import main

    code: object = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    # What an interpreter does at its end, but for taking down all that was loaded: that costs more than the rest.
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def load() -> None:
    for name in LOADED_BEFORE:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__, f"{name}."):
            importlib.import_module(module.name)


if __name__ == "__main__":
    load()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        wanted = serve(asking)
    live(wanted)
