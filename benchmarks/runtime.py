"""The command line and a whole node: how soon they are there, and what they hold.

    python benchmarks/runtime.py [--rounds 7] [--memory-after 30]

Start: from spawning `polaris run` (embedded NATS, SQLite store, `host` connector, HTTP) to the first moment at which
`/healthz` and `/readyz` both answer 200, asked every 2 ms; in a new data folder, and in one that a node has used.
Stop: from SIGINT to the exit. Help: `polaris --help`, its output thrown away. Beside them, in the same rounds, the bare
interpreter. Memory: node and nats-server together (RSS counts shared pages twice, PSS does not), after some seconds of
sampling this machine every second and one look at every resource of the API.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from _harness import median, print_table

POLARIS = Path(sys.executable).parent / "polaris"
PATIENCE_S = 60.0
START_S_TARGET = 1.0
HELP_S_TARGET = 0.2
MEMORY_MIB_TARGET = 120
MIB = 1 << 20
PAGES = ("/", "/metrics", "/openapi.json", "/api/v1/node", "/api/v1/systems", "/api/v1/components", "/api/v1/actions")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except OSError:
        return False
    finally:
        connection.close()
    return answer.status == 200


def await_health(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    for path in ("/healthz", "/readyz"):
        while not answers(port, path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the node did not answer {path}; it ended with {process.poll()}")
            time.sleep(0.002)


@contextmanager
def node(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    """A healthy node in `folder`: its process, its port, and the seconds it took."""
    port = free_port()
    arguments = ["run", "--data-dir", str(folder / "data"), "--port", str(port)]
    with (folder / "log").open("ab") as log:
        begun = time.perf_counter()
        process = subprocess.Popen([POLARIS, *arguments], cwd=folder, stdout=log, stderr=log)
    try:
        await_health(process, port)
        yield process, port, time.perf_counter() - begun
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)


def start_and_stop(folder: Path) -> tuple[float, float, float]:
    """Seconds to healthy, the processor's seconds of node and server until then, and from SIGINT to the exit."""
    with node(folder) as (process, _, started_s):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        processor_s = sum(one.cpu_times().user + one.cpu_times().system for one in family)
        time.sleep(0.3)
        begun = time.perf_counter()
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
        return started_s, processor_s, time.perf_counter() - begun


def timed(*command: str | Path) -> tuple[float, float]:
    """Seconds of a command, and the processor's seconds of it."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begun, os.times()
    spent_s = after.children_user - before.children_user + after.children_system - before.children_system
    return seconds, spent_s


LABELS = {
    "new": ("`polaris run` to healthy, new data folder", START_S_TARGET),
    "again": ("`polaris run` to healthy, used data folder", START_S_TARGET),
    "stop": ("SIGINT to the exit of the node", None),
    "help": ("`polaris --help`", HELP_S_TARGET),
    "version": ("`polaris --version`", HELP_S_TARGET),
    "bare": ("`python -c pass`", None),
}


def measure_times(rounds: int) -> None:
    """Print the table of times."""
    seconds: dict[str, list[float]] = {name: [] for name in LABELS}
    processor_s: dict[str, list[float]] = {name: [] for name in LABELS}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("new", "again"):
                started_s, spent_s, stopped_s = start_and_stop(Path(folder))
                seconds[name].append(started_s)
                processor_s[name].append(spent_s)
                seconds["stop"].append(stopped_s)
        for _ in range(3):
            for name, command in (
                ("help", (POLARIS, "--help")),
                ("version", (POLARIS, "--version")),
                ("bare", (sys.executable, "-c", "pass")),
            ):
                command_s, spent_s = timed(*command)
                seconds[name].append(command_s)
                processor_s[name].append(spent_s)
    bare = median(seconds["bare"])

    def row(name: str) -> tuple[str, ...]:
        label, target = LABELS[name]
        middle, spent = median(seconds[name]), processor_s[name]
        return (
            label,
            *(f"{value:.2f}" for value in (middle, min(seconds[name]), max(seconds[name]))),
            f"{median(spent):.2f}" if spent else "-",
            "-" if target is None else f"<= {target:g}",
            f"{middle / bare:.0f}",
        )

    headings = ("what", "s, median", "least", "most", "processor s", "target s", "x bare interpreter")
    print_table(f"Times ({rounds} rounds)", headings, [row(name) for name in LABELS])


def memory_of(process: psutil.Process) -> tuple[float, float]:
    """RSS and PSS in MiB; where the system does not know PSS, it is RSS."""
    facts = process.memory_full_info()
    return facts.rss / MIB, getattr(facts, "pss", facts.rss) / MIB


def measure_memory(after_s: float) -> None:
    """Print the table of memory."""
    with tempfile.TemporaryDirectory() as folder, node(Path(folder)) as (process, port, _):
        time.sleep(after_s / 2)
        for page in PAGES:
            if not answers(port, page):
                raise SystemExit(f"{page} does not answer")
        time.sleep(after_s / 2)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        rows = [(" ".join(one.name().split()), *memory_of(one)) for one in family]
    total = ("together", sum(row[1] for row in rows), sum(row[2] for row in rows))
    print_table(
        f"Memory after {after_s:g} s, MiB (target: together <= {MEMORY_MIB_TARGET})",
        ("process", "RSS", "PSS"),
        [(name, f"{rss:.0f}", f"{pss:.0f}") for name, rss, pss in (*rows, total)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-after", type=float, default=30.0)
    options = parser.parse_args()
    measure_times(options.rounds)
    measure_memory(options.memory_after)


if __name__ == "__main__":
    main()
