"""What importing the room costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
before = set(sys.modules)
import polaris.resilience
import polaris.testing
polaris.testing.VirtualClock()
for name in polaris.resilience.__all__:
    getattr(polaris.resilience, name)
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - sys.stdlib_module_names - {"polaris"}))
print(sorted(name for name in sys.modules if name.startswith("polaris.") and name.count(".") == 1))
"""


def test_the_room_needs_the_standard_library_and_the_foundation_only() -> None:
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True)
    foreign, rooms = answer.stdout.splitlines()
    assert foreign == "[]"
    assert set(eval(rooms)) <= {
        "polaris._correlation",
        "polaris._lazy",
        "polaris._redaction",
        "polaris._secret_names",
        "polaris.clock",
        "polaris.exceptions",
        "polaris.resilience",
        "polaris.testing",
    }


def test_every_public_name_is_there() -> None:
    import polaris.resilience
    import polaris.testing

    for room in (polaris.resilience, polaris.testing):
        assert [name for name in room.__all__ if not hasattr(room, name)] == []
    assert set(polaris.resilience._HOMES) == set(polaris.resilience.__all__) <= set(dir(polaris.resilience))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        polaris.resilience.Nonsense  # noqa: B018


def test_a_name_brings_only_its_own_module() -> None:
    program = "import sys; from polaris.resilience import Backoff; print('polaris.resilience._breaker' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert answer.stdout.strip() == "False"
