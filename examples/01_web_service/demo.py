"""The whole example with one command: a node, a web service under load, and the controller that adapts it.

    python examples/01_web_service/demo.py            (or: make run)

This process becomes the node. Service, load and controller live in processes beside it and end with the node, however
that ends: they watch a pipe that the kernel closes with it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from lifeline import LIFELINE
from run import FOLDER


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> NoReturn:
    """Start what stands beside the node, then replace this program by the node, whose environment tells it of them."""
    data_dir = Path(os.environ.get("POLARIS_NODE__DATA_DIR", "polaris-data")).absolute()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    pidfile, statsd_port = str(data_dir / "web.pid"), str(free_udp_port())
    reading, writing = os.pipe()
    command = [sys.executable, str(FOLDER / "run.py"), "--pidfile", pidfile, "--statsd-port", statsd_port]
    subprocess.Popen(
        [*command, "--controller", str(data_dir)],
        env={**os.environ, LIFELINE: str(reading)},
        pass_fds=[reading],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C goes to the node, which drains first
    )
    os.close(reading)
    os.set_inheritable(writing, True)
    options = {
        "PIDFILE": pidfile,
        "STATSD_PORT": statsd_port,
        "JOURNAL": str(data_dir / "web-actions.jsonl"),
    }
    os.environ.update({f"POLARIS_SYSTEMS__WEB__OPTIONS__{key}": value for key, value in options.items()})
    os.environ.setdefault("POLARIS_LOGGING__CONSOLE_LEVEL", "warning")
    os.environ["POLARIS_NODE__DATA_DIR"] = str(data_dir)
    config = ["--config", str(FOLDER / "polaris.toml")]
    os.execv(sys.executable, [sys.executable, "-m", "polaris", "run", *config, *sys.argv[1:]])


if __name__ == "__main__":
    main()
