"""A small file system of its own for a program: a tmpfs in a mount namespace that ends with it, whatever happens."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_MOUNTED = 'mount -t tmpfs -o "size=$1,mode=0700" small-disk "$2" && shift 2 && exec "$@"'


def run_on_small_disk(folder: Path, size_bytes: int, program: str, *arguments: str, timeout_s: float) -> str:
    """Run a Python program with the empty folder, which is a disk of so many bytes for it; gives what it says.

    For everybody else the folder stays empty. Fails when the program does. Where this machine allows no mounts the test
    is skipped, or fails when `CI` is true.
    """
    command = [sys.executable, program, str(folder), *arguments]
    ended = subprocess.run(
        [*_namespace(folder), "sh", "-c", _MOUNTED, "sh", str(size_bytes), str(folder), *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    assert not list(folder.iterdir()), "the small disk is mounted outside of the program"
    return ended.stdout


def _namespace(folder: Path) -> list[str]:
    """What gives a program mounts of its own here."""
    found = _way_to_mount(str(folder))
    if found is None:
        reason = (
            "NO SMALL DISK: neither `unshare -m` nor `unshare -rm` may mount a tmpfs here; a full disk is NOT tested"
        )
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(reason)
        pytest.skip(reason)
    return list(found)


@functools.cache
def _way_to_mount(folder: str) -> tuple[str, ...] | None:
    if shutil.which("unshare") is None:
        return None
    for flags in ("-m", "-rm"):
        way = ("unshare", flags)
        tried = subprocess.run(
            [*way, "sh", "-c", _MOUNTED, "sh", "65536", folder, "true"], check=False, capture_output=True, timeout=30
        )
        if tried.returncode == 0:
            return way
    return None
