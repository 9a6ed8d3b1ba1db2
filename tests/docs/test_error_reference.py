"""The reference of the error codes, the drawing of the tree and the classes themselves say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from polaris import exceptions
from polaris.exceptions import PolarisException

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "error-codes.md"

CLASSES = [
    value
    for value in vars(exceptions).values()
    if isinstance(value, type) and issubclass(value, PolarisException) and value.__module__ == exceptions.__name__
]


def generator(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "reference_errors.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_committed_page_is_what_the_classes_say(tmp_path: Path) -> None:
    fresh = tmp_path / "error-codes.md"
    written = generator("--page", str(fresh))
    assert written.returncode == 0, written.stderr
    assert fresh.read_text() == PAGE.read_text(), "run: python tools/reference_errors.py"
    checked = generator("--check")
    assert checked.returncode == 0, checked.stderr


def test_a_page_that_says_something_else_is_found_out_and_left_alone(tmp_path: Path) -> None:
    stale = tmp_path / "error-codes.md"
    stale.write_text(PAGE.read_text().replace("polaris.store.full", "polaris.store.sated"))
    before = stale.read_text()
    for page in (stale, tmp_path / "missing.md"):
        checked = generator("--check", "--page", str(page))
        assert checked.returncode == 1
        assert "python tools/reference_errors.py" in checked.stderr
    assert stale.read_text() == before


def test_the_page_names_every_class_once_with_its_code_status_and_title() -> None:
    page = PAGE.read_text()
    assert len(CLASSES) >= 40
    for cls in CLASSES:
        assert page.count(f"\n| `{cls.code}` | [{cls.__name__}](#{cls.__name__.lower()}) |") == 1
        (section,) = re.findall(rf"^## {cls.__name__}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert f"- Code: `{cls.code}`\n" in section
        assert f"- Status and title: {cls.http_status}, {cls.title}\n" in section
        assert (cls.__doc__ or "").strip().splitlines()[0] in section
    assert len(re.findall(r"^## ", page, re.MULTILINE)) == len(CLASSES)


def test_a_code_begins_with_that_of_its_family() -> None:
    families = [cls for cls in CLASSES if PolarisException in cls.__bases__]
    assert len(families) > 10
    for family in families:
        for cls in CLASSES:
            if issubclass(cls, family) and cls is not family:
                assert cls.code.startswith(f"{family.code}."), cls
            elif not issubclass(cls, family):
                assert not cls.code.startswith(f"{family.code}."), cls


# The codes are a promise to whoever matches on them, and to dead letters and stores that hold them already: one may be
# added here, but none of these may change or go.
PUBLISHED = """
    adaptation bulkhead bulkhead.rejected bus bus.connection bus.decode bus.invalid_topic bus.payload_too_large
    bus.publish bus.publish_unconfirmed bus.request_failed bus.request_timeout bus.subscription bus.unknown_event_type
    circuit_breaker circuit_breaker.open configuration connector connector.action_not_supported deadline_exceeded di
    di.not_registered di.resolution error rate_limit.exceeded request request.host request.method request.not_found
    retry.exhausted store store.conflict store.connection store.corrupt store.full store.locked store.migration
    store.query store.unit_of_work value.invalid
"""


def test_a_published_code_stays() -> None:
    assert {f"polaris.{code}" for code in PUBLISHED.split()} <= {cls.code for cls in CLASSES}


LINE = re.compile(
    r"^    (?P<lines>[│ ]*)(?:[├└]── )?(?P<name>\w+)(?: \((?P<also>[\w, ]+)\))? {2,}(?P<code>[a-z_.]+)(?: .*)?$"
)


def drawn() -> list[tuple[str, str | None, tuple[str, ...], str]]:
    """Class, parent, further bases and code, as the drawing at the top of the module shows them."""
    found: list[tuple[str, str | None, tuple[str, ...], str]] = []
    above: list[str] = []
    picture = (exceptions.__doc__ or "").split("\n\n")[1]
    for line in picture.splitlines():
        match = LINE.match(line)
        assert match is not None, f"a line of the drawing cannot be read: {line!r}"
        depth = len(match["lines"]) // 4 + ("── " in line)
        del above[depth:]
        also = tuple(match["also"].split(", ")) if match["also"] else ()
        found.append((match["name"], above[-1] if above else None, also, match["code"]))
        above.append(match["name"])
    return found


def test_the_drawing_shows_the_classes_as_they_are() -> None:
    real = []
    for cls in CLASSES:
        ours = [base.__name__ for base in cls.__bases__ if issubclass(base, PolarisException)]
        others = tuple(base.__name__ for base in cls.__bases__ if base.__name__ not in {*ours, "Exception"})
        assert len(ours) <= 1
        real.append((cls.__name__, ours[0] if ours else None, others, cls.code))
    assert sorted(drawn()) == sorted(real)
