"""Configuration: layers, and every mistake in one report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.exceptions import ConfigurationError
from polaris.runtime import effective_settings, load_settings, settings_schema


def write(folder: Path, text: str) -> Path:
    path = folder / "polaris.toml"
    path.write_text(text)
    return path


def problems_of(path: Path | None, environment: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environment=environment or {})
    return list(caught.value.problems)


def test_without_anything_the_node_watches_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environment={})
    assert settings.systems["this-machine"].connector == "host"
    assert settings.nats.servers == []
    assert settings.store_path == tmp_path / "polaris-data" / "polaris.db"


def test_flags_win_over_the_environment_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "[http]\nport = 1000\n[telemetry]\nbatch_max = 7\n[actions]\ntimeout_s = 3\n")
    settings = load_settings(
        path,
        environment={"POLARIS_HTTP__PORT": "2000", "POLARIS_TELEMETRY__BATCH_MAX": "8"},
        overrides={"http.port": 3000},
    )
    assert (settings.http.port, settings.telemetry.batch_max, settings.actions.timeout_s) == (3000, 8, 3.0)
    assert settings.node.shutdown_grace_s == 10.0


def test_a_file_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[http]\nport = 1234\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings(environment={}).http.port == 1234


def test_all_mistakes_are_reported_at_once_with_file_key_value_and_hint(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [http]
        port = "abc"
        prot = 3
        [logging]
        level = "inf"
        [systems.web]
        interval_s = 0.0001
        [bogus]
        x = 1
        """,
    )
    problems = problems_of(path, {"POLARIS_HTPP__PORT": "3", "POLARIS_TELEMETRY__BATCH_MAX": "many"})
    text = "\n".join(problems)
    assert f"{path}: http.port = 'abc': expected int" in text
    assert "http.prot = 3: there is no such setting (did you mean http.port?)" in text
    assert "logging.level = 'inf'" in text
    assert "did you mean 'info'?" in text
    assert "systems.web.interval_s = 0.0001: expected float >= 0.05" in text
    assert "systems.web.connector: is required" in text
    assert f"{path}: bogus: there is no such setting" in text
    assert "POLARIS_HTPP__PORT: htpp: there is no such setting (did you mean http?)" in text
    assert "POLARIS_TELEMETRY__BATCH_MAX: telemetry.batch_max = 'many'" in text
    assert len(problems) == 8


def test_secrets_are_shown_neither_in_problems_nor_in_the_effective_settings(tmp_path: Path) -> None:
    path = write(tmp_path, '[nats]\ntoken = ["hunter2"]\n')
    assert "hunter2" not in "".join(problems_of(path))
    settings = load_settings(environment={"POLARIS_NATS__TOKEN": "hunter2"})
    assert "hunter2" not in str(effective_settings(settings))
    assert settings.nats.token == "hunter2"


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hunter2\n")
    settings = load_settings(write(tmp_path, f'[nats]\ntoken_file = "{secret}"\n'), environment={})
    assert settings.nats.token == "hunter2"


@pytest.mark.parametrize("content", [None, ""])
def test_a_secret_file_that_is_missing_or_empty_is_a_mistake(tmp_path: Path, content: str | None) -> None:
    secret = tmp_path / "token"
    if content is not None:
        secret.write_text(content)
    assert len(problems_of(write(tmp_path, f'[nats]\ntoken_file = "{secret}"\n'))) == 1


def test_a_secret_given_twice_is_a_mistake(tmp_path: Path) -> None:
    path = write(tmp_path, '[nats]\ntoken = "a"\ntoken_file = "b"\n')
    assert "both given" in problems_of(path)[0]


def test_text_of_the_environment_becomes_lists_and_booleans() -> None:
    settings = load_settings(
        environment={
            "POLARIS_NATS__SERVERS": "nats://a:1,nats://b:2",
            "POLARIS_HTTP__ENABLED": "false",
            "POLARIS_NATS_SERVER": "/opt/nats-server",
        }
    )
    assert settings.nats.servers == ["nats://a:1", "nats://b:2"]
    assert settings.http.enabled is False


def test_a_variable_reaches_a_system_whose_id_has_dashes(tmp_path: Path) -> None:
    path = write(tmp_path, '[systems.Web-1]\nconnector = "gunicorn"\n')
    settings = load_settings(path, environment={"POLARIS_SYSTEMS__WEB_1__INTERVAL_S": "5"})
    assert settings.systems["Web-1"].interval_s == 5.0


def test_options_of_a_connector_are_kept_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, '[systems.web]\nconnector = "gunicorn"\n[systems.web.options]\npidfile = "x"\nn = [1, 2]\n')
    settings = load_settings(path, environment={"POLARIS_SYSTEMS__WEB__OPTIONS__STATSD_PORT": "8125"})
    assert settings.systems["web"].options == {"pidfile": "x", "n": [1, 2], "statsd_port": 8125}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http = 3", "expected a section"),
        ("[systems]\nweb = 3", "expected a section"),
        ("[http.port]\nx = 1", "expected a value"),
        ("not toml at all", "not valid TOML"),
        ('[nats]\nservers = ["http://h:1"]', "is no address"),
        ('[nats]\nservers = ["nats://h:1"]\nport = 4222', "embedded"),
        ('[nats]\nuser = "u"', "belong together"),
        ("[nats]\nreplicas = 3", "is for a cluster"),
        ("[nats.tls]\nrequired = true", "is for servers of your own"),
        ('[nats]\nservers = ["tls://h"]\n[nats.tls]\ncert_file = "c.pem"', "belong together"),
        ('[http]\nhost = "0.0.0.0"', "http.host"),
        (f'[systems."{"x" * 300}"]\nconnector = "host"', "cannot be an id"),
        ('[store]\nengine = "duckdb"', "store.engine"),
    ],
)
def test_a_wrong_shape_is_named(tmp_path: Path, text: str, expected: str) -> None:
    problems = problems_of(write(tmp_path, text))
    assert len(problems) == 1
    assert expected in problems[0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "there is no such file" in problems_of(tmp_path / "nowhere.toml")[0]
    assert "there is no such file" in problems_of(None, {"POLARIS_CONFIG": str(tmp_path / "nowhere.toml")})[0]


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "polaris.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert len(problems_of(path)) == 1


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read_but_never_crash(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "polaris.toml"
    path.write_bytes(raw)
    try:
        load_settings(path, environment={})
    except ConfigurationError as error:
        assert error.problems


@given(st.dictionaries(st.from_regex(r"POLARIS_[A-Z_]{0,20}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_random_variables_are_refused_or_read_but_never_crash(environment: dict[str, str]) -> None:
    environment.pop("POLARIS_CONFIG", None)
    try:
        load_settings(environment=environment)
    except ConfigurationError as error:
        assert error.problems


def test_editors_get_a_schema_of_every_section() -> None:
    schema = settings_schema()
    sections = schema["$defs"]["Settings"]["properties"]
    known = "node nats store http logging tracing health metrics telemetry actions systems"
    assert set(sections) == set(known.split())


@pytest.mark.parametrize("server", ["nats://joe:hidden@h:99999", "nats://", "nats://h:x", "nats://[::1", "http://h"])
def test_what_is_no_server_address_is_refused_before_anybody_connects(server: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(environment={"POLARIS_NATS__SERVERS": server})
    (problem,) = refused.value.problems
    assert "is no address" in problem
    assert "hidden" not in problem


def test_a_file_nested_beyond_measure_is_one_problem(tmp_path: Path) -> None:
    file = tmp_path / "polaris.toml"
    file.write_text("x = " + "[" * 5000)
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        load_settings(file, environment={})
