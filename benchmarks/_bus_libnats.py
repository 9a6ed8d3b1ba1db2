"""The C library as a contender: compiled when it is needed, into a folder that goes away."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("libnats_raw.c")
APT = "On Debian: apt-get install gcc libc6-dev libnats-dev"


class Libnats(NamedTuple):
    """The program, or why there is none."""

    path: str | None
    why: str = ""

    @classmethod
    def build(cls, folder: str) -> Libnats:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            return cls(None, "not here: no C compiler")
        program = str(Path(folder) / "libnats_raw")
        command = [compiler, "-O2", "-o", program, str(SOURCE), "-lnats"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            header = "nats.h" in done.stderr or "-lnats" in done.stderr
            return cls(None, "not here: header or library is missing" if header else "not here: it does not compile")
        return cls(program)
