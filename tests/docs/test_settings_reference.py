"""The reference of the settings says what the sections say, and names every key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from polaris.runtime._settings import Section, ServerSettings, Settings, StoreSettings, SystemSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "settings.md"


def generator(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "reference_settings.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_committed_page_is_what_the_sections_say(tmp_path: Path) -> None:
    checked = generator("--check")
    assert checked.returncode == 0, checked.stderr
    stale = tmp_path / "settings.md"
    stale.write_text(PAGE.read_text().replace("series_max", "series_most"))
    assert generator("--check", "--page", str(stale)).returncode == 1


def test_every_key_has_its_row() -> None:
    page = PAGE.read_text()

    def check(section: type[Section]) -> None:
        for field in msgspec.structs.fields(section):
            if isinstance(field.type, type) and issubclass(field.type, Section):
                check(field.type)
            elif field.name not in ("systems", "rollups", "servers"):
                assert f"| `{field.encode_name}` | " in page, field.name

    for section in (Settings, StoreSettings, SystemSettings, ServerSettings):
        check(section)
    assert "| `collection_series_max` | integer, at least 1, at most 1 << 40 | `250000` | " in page
