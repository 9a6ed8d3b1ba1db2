"""`polaris init`: a folder to begin with: commented settings, a connector of one's own, and its test."""

from __future__ import annotations

import contextlib
import json
import keyword
import re
import shlex
from pathlib import Path

import msgspec

from polaris.cli import _exit
from polaris.cli._output import print_json
from polaris.cli._settings_text import SCHEMA_FILE, commented_settings, described_schema
from polaris.cli._templates import template
from polaris.exceptions import InvalidValueError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
PYTEST_INI = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
CONFIGURES_PYTEST = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")


def begin(folder: Path, system_id: str, *, as_json: bool) -> int:
    """Write the files; nothing is written when one of them is there already.

    Raises `InvalidValueError` for a name that no module can have, and for a folder that cannot be written.
    """
    files = contents(system_id)
    if any((folder / name).exists() for name in CONFIGURES_PYTEST):
        del files["pytest.ini"]
    there = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        _exit.complain(f"{folder} holds {', '.join(there)} already; nothing was written")
        return _exit.FAILED
    _write(folder, files)
    steps = next_steps(folder, files)
    if as_json:
        print_json({"folder": str(folder.absolute()), "files": list(files), "next": steps})
        return _exit.OK
    for name in files:
        print(f"wrote {folder / name}")
    print("next:")
    for step in steps:
        print(f"  {step}")
    return _exit.OK


def next_steps(folder: Path, files: dict[str, str]) -> list[str]:
    """The commands that lead to a system on the page."""
    test = next(name for name in files if name.startswith("test_"))
    enter = [] if folder.resolve() == Path.cwd().resolve() else [f"cd {shlex.quote(str(folder))}"]
    return [*enter, f"python -m pytest {test}", "polaris check", "polaris run"]


def contents(system_id: str) -> dict[str, str]:
    """The files by their names."""
    module = system_id.lower().replace("-", "_")
    if NAME.fullmatch(system_id) is None or keyword.iskeyword(module):
        raise InvalidValueError("--name", "a letter, then letters, digits, - and _ (64 at most)", system_id)
    class_name = "".join(part.capitalize() for part in module.split("_"))
    values = {"system": system_id, "module": module, "class_name": class_name}
    live = (
        "# The systems of this node, each with its connector. This machine comes along, to have something to see.\n"
        f"[systems.{system_id}]\n"
        f'connector = "{module}:{class_name}Connector"\n'
        "interval_s = 1.0\n"
        "options = { target = 21.0 }\n\n"
        "[systems.this-machine]\n"
        'connector = "host"'
    )
    return {
        "polaris.toml": commented_settings(live),
        SCHEMA_FILE: json.dumps(msgspec.to_builtins(described_schema()), indent=2) + "\n",
        f"{module}.py": template("connector.py.txt", values),
        f"test_{module}.py": template("test_connector.py.txt", values),
        "pytest.ini": PYTEST_INI,
    }


def _write(folder: Path, files: dict[str, str]) -> None:
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            # "x": a file that came in between is not overwritten either.
            with (folder / name).open("x", encoding="utf-8") as file:
                written.append(folder / name)
                file.write(text)
    except OSError as error:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        expected = f"a folder that can be written ({folder}: {error.strerror or error})"
        raise InvalidValueError("DIR", expected, str(folder)) from error
