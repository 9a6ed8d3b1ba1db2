"""Starts the example's web service and its load, and ends both, whatever happens.

    python examples/01_web_service/run.py --pidfile web.pid --statsd-port 8125 --duration 60

It runs until its duration is over, until SIGTERM or Ctrl-C, or until a child ends by itself. Even when this program is
killed without a chance to clean up, the children end: they watch a pipe that the kernel closes with it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from types import FrameType, TracebackType
from typing import NoReturn, Self

from app import CONTEXT_TOKENS_PER_ROUNDS
from lifeline import LIFELINE, end_with_parent
from load import TRACE, read_trace

FOLDER = Path(__file__).resolve().parent
START_S_MAX = 20.0
STOP_S_MAX = 10.0
UTILIZATION = 0.85


def rounds_per_token(trace: Path, speed: float, utilization: float) -> int:
    """How much work a token shall be, so that the trace keeps one worker busy for `utilization` of the time.

    Machines differ in speed by a factor of ten; measuring this one makes the example show the same on all of them.
    """
    arrivals = list(read_trace(trace))
    tokens = sum(arrival.generated + arrival.context / CONTEXT_TOKENS_PER_ROUNDS for arrival in arrivals)
    tokens_per_s = tokens / max(arrivals[-1].at_s, 1.0) * speed

    def time_of(rounds: int) -> float:
        measured = []
        for _ in range(15):
            start_s = time.perf_counter()
            for _ in range(50):
                hashlib.pbkdf2_hmac("sha256", b"measure", b"token", rounds)
            measured.append((time.perf_counter() - start_s) / 50)
        return median(measured)  # not the fastest: what else runs on the machine counts too

    low_s, high_s = time_of(10), time_of(510)
    round_s = max((high_s - low_s) / 500, 1e-9)
    call_s = max(0.0, low_s - 10 * round_s)
    return max(1, int((utilization / tokens_per_s - call_s) / round_s))


class WebService:
    """The application under gunicorn on a loopback port, as a child process. A context manager: leaving it ends it.

    `port` 0 takes a free one. `statsd_port` is where gunicorn reports to; None for nowhere.
    """

    def __init__(self, *, pidfile: Path, statsd_port: int | None, rounds: int, port: int = 0, workers: int = 1) -> None:
        self._pidfile = pidfile
        self._environment = {
            "ROUNDS_PER_TOKEN": str(rounds),
            "WORKERS": str(workers),
            **({} if statsd_port is None else {"STATSD_PORT": str(statsd_port)}),
        }
        self._asked_port = port
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Bound here, so that nobody can take the port in between; gunicorn inherits the socket.
            listener = socket.create_server(("127.0.0.1", self._asked_port), backlog=2048)
            with listener:
                self.port = listener.getsockname()[1]
                command = [sys.executable, "-m", "gunicorn", "--config", str(FOLDER / "gunicorn_conf.py")]
                command += ["--bind", f"fd://{listener.fileno()}", "--pid", str(self._pidfile), "app:application"]
                self.process = stack.enter_context(child(command, self._environment, descriptors=[listener.fileno()]))
            self._wait_until_it_answers()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _wait_until_it_answers(self) -> None:
        deadline_s = time.monotonic() + START_S_MAX
        while True:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError("gunicorn ended while it started; see its messages above")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=1.0) as answer:
                    if answer.status == 200 and self._pidfile.exists():
                        return
            except OSError:
                pass  # not yet
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the service did not answer within {START_S_MAX:g} s")
            time.sleep(0.05)


@contextlib.contextmanager
def child(
    command: Sequence[str],
    environment: dict[str, str] | None = None,
    *,
    descriptors: Sequence[int] = (),
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that ends with the `with` block, or with this process however that ends."""
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            cwd=FOLDER,
            env={**os.environ, **(environment or {}), LIFELINE: str(reading)},
            pass_fds=[reading, *descriptors],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            start_new_session=True,  # Ctrl-C goes to this process, which ends its children in order
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            os.close(writing)


def load_command(
    url: str, *, trace: Path, speed: float, loop: bool, duration_s: float | None, results: Path | None = None
) -> list[str]:
    """The command that puts the trace's load on the service."""
    command = [sys.executable, str(FOLDER / "load.py"), "--url", url, "--trace", str(trace), "--speed", str(speed)]
    command += ["--loop"] if loop else []
    command += [] if duration_s is None else ["--duration", str(duration_s)]
    return command + ([] if results is None else ["--results", str(results)])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the example's web service and its load.")
    parser.add_argument("--pidfile", type=Path, help="where gunicorn writes its pid; default: a temporary folder")
    parser.add_argument("--port", type=int, default=0, help="HTTP port on 127.0.0.1; default: a free one")
    parser.add_argument("--statsd-port", type=int, default=8125, help="where gunicorn reports to; default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="workers to begin with")
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--speed", type=float, default=4.0, help="how many times faster than the trace")
    parser.add_argument(
        "--utilization",
        type=float,
        default=float(os.environ.get("EXAMPLE_UTILIZATION", UTILIZATION)),
        help="of one worker; chooses the work a token",
    )
    parser.add_argument("--duration", type=float, help="seconds; default: for ever")
    parser.add_argument("--controller", type=Path, metavar="DATA_DIR", help="start the controller too, on this node")
    parser.add_argument("--system", default="web", help="the id of the service there; default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    end_with_parent(grace_s=2 * STOP_S_MAX + 2.0)
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="polaris-example-")))
        pidfile = (options.pidfile or temporary / "web.pid").absolute()
        rounds = rounds_per_token(options.trace, options.speed, options.utilization)
        service = WebService(
            pidfile=pidfile, statsd_port=options.statsd_port, rounds=rounds, port=options.port, workers=options.workers
        )
        stack.enter_context(service)
        print(
            f"web service on {service.url}/, pidfile {pidfile}, statsd to 127.0.0.1:{options.statsd_port}", flush=True
        )
        command = load_command(
            service.url, trace=options.trace.absolute(), speed=options.speed, loop=True, duration_s=options.duration
        )
        # Beside a node the page shows how the load fares; the summary would come after the prompt.
        quiet = subprocess.DEVNULL if options.controller is not None else None
        load = stack.enter_context(child(command, stdout=quiet))
        if options.controller is not None:
            folder = options.controller.absolute()
            controller = [sys.executable, str(FOLDER / "controller.py"), "--data-dir", str(folder)]
            stack.enter_context(child([*controller, "--system", options.system]))
        while load.poll() is None:
            if service.process is None or service.process.poll() is not None:
                print("gunicorn ended by itself", file=sys.stderr)
                return 1
            time.sleep(0.2)
        return load.returncode


if __name__ == "__main__":
    sys.exit(main())
