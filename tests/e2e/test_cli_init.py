"""A newcomer's first minutes: what `polaris init` writes works as it stands, and nothing is ever overwritten."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import msgspec
import pytest
from tests.commands import ROOT, Polaris
from tests.nodes import NodeUnderTest, eventually_true

from polaris.cli._init import contents
from polaris.cli._settings_text import commented_settings
from polaris.runtime import Settings
from polaris.runtime._settings import Section
from polaris.runtime._settings_said import descriptions


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    return Polaris(tmp_path)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250, check=False)


async def test_what_it_writes_passes_its_test_and_the_check_and_shows_its_system(
    polaris: Polaris, tmp_path: Path
) -> None:
    begun = polaris("init", "plant", "--name", "boiler-1")
    assert (begun.code, begun.complaint) == (0, "")
    plant = tmp_path / "plant"
    assert begun.lines == [
        "wrote plant/polaris.toml",
        "wrote plant/polaris.schema.json",
        "wrote plant/boiler_1.py",
        "wrote plant/test_boiler_1.py",
        "wrote plant/pytest.ini",
        "next:",
        "  cd plant",
        "  python -m pytest test_boiler_1.py",
        "  polaris check",
        "  polaris run",
    ]
    without = ("-p", "no:cacheprovider", "-p", "no:schemathesis")
    tested = run(plant, sys.executable, "-m", "pytest", "-q", *without, "test_boiler_1.py")
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"\d\d passed", tested.stdout)
    assert (tested.stderr, "warning" in tested.stdout) == ("", False), tested
    checked = Polaris(plant)("check")
    assert (checked.code, checked.lines[0]) == (0, "configuration is fine"), checked
    written = (plant / "polaris.toml").read_text()
    node = NodeUnderTest(plant, {})
    node.config.write_text(re.sub(r"# port = \S+  # not set", "port = 0", written))
    node.data.path = plant / "polaris-data"
    try:
        await node.start()

        async def shown() -> bool:
            return bool([row for row in Polaris(plant)("systems").rows if row[:2] == ["boiler-1", "healthy"]])

        await eventually_true(shown, "the system is shown")
        acted = Polaris(plant)("act", "boiler-1", "set_target", "--param", "target=25")
        assert acted.code == 0, acted
    finally:
        await node.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_connector_it_writes_is_typed_and_tidy(tmp_path: Path) -> None:
    for name, text in contents("boiler-1").items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("boiler_1.py", "test_boiler_1.py")]
    # From here, where mypy knows the package already.
    typed = run(ROOT, sys.executable, "-m", "mypy", "--strict", *files)
    assert typed.returncode == 0, typed.stdout
    assert "no issues found in 2 source files" in typed.stdout
    rules = ("--config", str(ROOT / "pyproject.toml"), "--ignore", "S,INP,I")
    tidy = run(tmp_path, sys.executable, "-m", "ruff", "check", *rules, *files)
    assert tidy.returncode == 0, tidy.stdout


def test_nothing_is_overwritten_and_nothing_is_half_written(polaris: Polaris, tmp_path: Path) -> None:
    (tmp_path / "polaris.toml").write_text("mine")
    refused = polaris("init")
    assert (refused.code, refused.output) == (1, "")
    assert "holds polaris.toml already; nothing was written" in refused.complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["polaris.toml"]
    assert (tmp_path / "polaris.toml").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "test_my_system.py").symlink_to("nowhere")
    assert polaris("init", "other").code == 1
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["test_my_system.py"]


def test_a_folder_that_configures_pytest_keeps_its_own_word(polaris: Polaris, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    begun = polaris("init")
    assert begun.code == 0
    assert not (tmp_path / "pytest.ini").exists()
    assert "pytest.ini" not in begun.output


@pytest.mark.parametrize("name", ["", "9lives", "a b", "../x", "class", "ä", "x" * 65])
def test_a_name_that_no_module_can_have_is_refused(polaris: Polaris, tmp_path: Path, name: str) -> None:
    ended = polaris("init", "there", "--name", name)
    assert (ended.code, ended.output) == (2, "")
    assert "--name" in ended.complaint
    assert not (tmp_path / "there").exists()


def test_a_folder_that_cannot_be_made_is_named(polaris: Polaris, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = polaris("init", "file/folder")
    assert (ended.code, ended.output) == (2, "")
    assert "file/folder" in ended.complaint


def test_as_json_it_tells_files_and_next_steps(polaris: Polaris) -> None:
    told = polaris("init", "--json").json
    assert told["files"] == ["polaris.toml", "polaris.schema.json", "my_system.py", "test_my_system.py", "pytest.ini"]
    assert told["next"] == ["python -m pytest test_my_system.py", "polaris check", "polaris run"]


def test_the_comments_are_the_defaults_and_the_words_of_the_settings() -> None:
    text = commented_settings('[systems.web]\nconnector = "host"')
    assert text.startswith("#:schema ./polaris.schema.json\n")
    assert list(tomllib.loads(text)["systems"]) == ["web"]
    set_all = re.sub(r"^# (\w+ = (?!.*# not set).*)$", r"\1", text, flags=re.MULTILINE)
    settings = msgspec.convert(tomllib.loads(set_all), Settings)
    assert msgspec.structs.replace(settings, systems=Settings().systems) == Settings()
    # Those without a default are valid as they stand, too, but for the rules that several make together.
    set_even_these = re.sub(r"^# (\w+ = .*)$", r"\1", text, flags=re.MULTILINE)
    msgspec.convert(tomllib.loads(set_even_these), Settings)
    words = " ".join(re.sub(r"^# ", "", text, flags=re.MULTILINE).split())
    told = [
        said.replace("`", "")
        for section, fields in descriptions().items()
        for field, said in fields.items()
        if field and section in tables()
    ]
    assert len(told) > 20
    assert [said for said in told if said not in words] == []


def tables(section: type[Section] = Settings) -> set[str]:
    """The sections that are tables of the file."""
    inner = [field.type for field in msgspec.structs.fields(section) if isinstance(field.type, type)]
    sections = [one for one in inner if issubclass(one, Section)]
    return {one.__name__ for one in sections}.union(*(tables(one) for one in sections))


def test_the_file_it_writes_keeps_to_its_schema() -> None:
    files = contents("boiler-1")
    schema = json.loads(files["polaris.schema.json"])
    jsonschema.Draft202012Validator(schema).validate(tomllib.loads(files["polaris.toml"]))
