"""The whole example with one command: a node, a web service under load, and the controller that adapts it.

    python examples/01_web_service/demo.py            (or: make run)

This process becomes the node. Service, load and controller live in a second process beside it, and end with the node
however that ends: they watch a pipe that the kernel closes with it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import msgspec
from lifeline import LIFELINE, end_with_parent
from run import FOLDER, STOP_S_MAX, child

COMPANION = "EXAMPLE_COMPANION_OF"
NODE_START_S_MAX = 60.0


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def become_the_node() -> NoReturn:
    """Start the companions, then replace this program by the node. The node's environment tells it of the service."""
    data_dir = Path(os.environ.get("POLARIS_NODE__DATA_DIR", "polaris-data")).absolute()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = {
        "PIDFILE": str(data_dir / "web.pid"),
        "STATSD_PORT": str(free_udp_port()),
        "JOURNAL": str(data_dir / "web-actions.journal"),
    }
    os.environ.update({f"POLARIS_SYSTEMS__WEB__OPTIONS__{key}": value for key, value in options.items()})
    os.environ["POLARIS_NODE__DATA_DIR"] = str(data_dir)
    reading, writing = os.pipe()
    subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, LIFELINE: str(reading), COMPANION: str(os.getpid())},
        pass_fds=[reading],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C goes to the node, which drains first
    )
    os.close(reading)
    os.set_inheritable(writing, True)
    config = FOLDER / "polaris.toml"
    os.execv(sys.executable, [sys.executable, "-m", "polaris", "run", "--config", str(config), *sys.argv[1:]])


def accompany(node_pid: int) -> int:
    """Run the service with its load, and the controller as soon as the node answers."""
    end_with_parent(grace_s=3 * STOP_S_MAX)
    pidfile = os.environ["POLARIS_SYSTEMS__WEB__OPTIONS__PIDFILE"]
    statsd_port = os.environ["POLARIS_SYSTEMS__WEB__OPTIONS__STATSD_PORT"]
    data_dir = Path(os.environ["POLARIS_NODE__DATA_DIR"])
    command = [sys.executable, str(FOLDER / "run.py"), "--pidfile", pidfile, "--statsd-port", statsd_port]
    with child(command):
        if not node_answers(data_dir, node_pid):
            return 1
        from controller import main as control

        return asyncio.run(control(["--data-dir", str(data_dir), "--system", "web"]))


def node_answers(data_dir: Path, node_pid: int) -> bool:
    """Wait until the node has written where it can be reached."""
    deadline_s = time.monotonic() + NODE_START_S_MAX
    while time.monotonic() < deadline_s:
        try:
            if msgspec.json.decode((data_dir / "node.json").read_bytes())["pid"] == node_pid:
                return True
        except (OSError, ValueError, KeyError, msgspec.DecodeError):
            pass  # not yet
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    if COMPANION in os.environ:
        sys.exit(accompany(int(os.environ[COMPANION])))
    become_the_node()
