"""A child that works and tells each step in a line, until it is killed in the midst of it."""

from __future__ import annotations

import asyncio
import sys

LINE_WITHIN_S = 60.0


async def run_and_kill(*arguments: object, after_lines: int) -> list[str]:
    """Run a Python program with these arguments and `kill -9` it after so many lines; everything it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *(str(argument) for argument in arguments), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        while len(lines) <= after_lines:
            line = await asyncio.wait_for(process.stdout.readline(), LINE_WITHIN_S)
            assert line, "the child ended by itself"
            lines.append(line.decode().strip())
    finally:
        process.kill()
        rest = await process.stdout.read()
        await process.wait()
    return [*lines, *rest.decode().split("\n")[:-1]]
