"""A process that loads pytest once; every run of tests is a child of its own, which starts in a fraction of the time.

Reads a JSON list of arguments for pytest from each line, and answers with `[exit code, output]`. It never loads the
package under test: a child finds it as it is when the child begins.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO

import pytest

RUN_S_MAX = 100
# What most tests load besides the package.
LOADED_BEFORE = (
    "asyncio",
    "difflib",
    "email.message",
    "hypothesis",
    "msgspec",
    "multiprocessing.pool",
    "nats.aio.client",
    "pdb",
    "platformdirs",
    "prometheus_client",
    "pygments.lexers",
    "structlog",
    "tomllib",
    "unittest.mock",
    "uuid",
    "wsgiref.simple_server",
    "xml.sax.saxutils",
)
# The others take longer to load than most of the tests.
PLUGINS = ("-ppytest_asyncio.plugin", "-ppytest_timeout", "-pno:cacheprovider")


class Nursery:
    """The process, as the one who asks holds it."""

    def __init__(self, root: Path, package_folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(package_folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        # The compiled files of the copy save the time of compiling it for every run.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "tests.promises._nursery"]
        self._process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: list[str]) -> tuple[int, str]:
        """Run pytest in a new child: its exit code, negative when a signal ended it, and what it wrote."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(arguments) + "\n")
        stdin.flush()
        code, output = json.loads(stdout.readline())
        return code, output

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    with tempfile.TemporaryFile() as nothing:
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(nothing.fileno(), 1)
        for name in LOADED_BEFORE:
            importlib.import_module(name)
        # Loads all of pytest and its plugins, in its own way.
        pytest.main(["--help", "--noconftest", *PLUGINS])
        assert "polaris" not in sys.modules
        # The children leave alone what is loaded now: looking at it for garbage would copy all of it.
        gc.collect()
        gc.freeze()
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def answer(arguments: list[str]) -> tuple[int, str]:
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            live(arguments, output)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode(errors="backslashreplace")


def live(arguments: list[str], output: IO[bytes]) -> None:
    """The child: never returns."""
    code = 3
    try:
        signal.alarm(RUN_S_MAX)
        for standard in (1, 2):
            os.dup2(output.fileno(), standard)
        code = int(pytest.main([*PLUGINS, *arguments]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
