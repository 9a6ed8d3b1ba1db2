"""How large the fault tests are: small enough for every day, or as large as was asked for; see docs/faults.md."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

FULL = os.environ.get("FAULTS_SIZE", "usual") == "full"


def size(usual: T, full: T) -> T:
    """The size of a test: `full` with FAULTS_SIZE=full in the environment, `usual` otherwise."""
    return full if FULL else usual
