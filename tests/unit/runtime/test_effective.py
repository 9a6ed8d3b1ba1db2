"""The settings in effect: where each comes from, and no secret in them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from polaris.api import ConfigurationView, SettingView
from polaris.runtime import Settings, effective_settings
from polaris.runtime._configuration import Configuration, read_configuration
from polaris.runtime._effective import OF_A_PROGRAM, configuration_of
from polaris.runtime._settings import HttpSettings

SECRET = "hunter2-Pl4nted"
FILE = f"""
[node]
name = "atlas"
[nats]
servers = ["nats://user:{SECRET}@example:4222"]
user = "polaris"
password = "{SECRET}"
token_file = "TOKEN"
[store]
engine = "postgresql"
[store.routing.servers.east]
dsn = "postgresql://polaris:{SECRET}@east/polaris"
[http]
token = "{SECRET}{SECRET}"
[systems.web]
connector = "gunicorn"
timeout_s = 2.5
options = {{ pidfile = "web.pid", api_key = "{SECRET}", credentials = {{ a = "{SECRET}", b = ["{SECRET}"] }}, \
args = ["--password", "{SECRET}"], env = [{{ name = "DB_PASSWORD", value = "{SECRET}" }}], \
pwd = "{SECRET}", tokens = 3 }}
[systems."a.b"]
connector = "host"
"""


def read(tmp_path: Path, text: str = FILE, **environment: str) -> Configuration:
    (tmp_path / "token").write_text(SECRET + "\n")
    path = tmp_path / "polaris.toml"
    path.write_text(text.replace("TOKEN", str(tmp_path / "token")))
    return read_configuration(path, environment=environment, overrides={"http.port": 0})


def view(configuration: Configuration) -> ConfigurationView:
    return configuration_of(configuration.settings, configuration.origination)


def by_key(view: ConfigurationView) -> dict[str, SettingView]:
    return {one.key: one for one in view.settings}


def test_every_value_names_its_file_its_variable_the_flag_or_that_it_is_a_default(tmp_path: Path) -> None:
    told = view(read(tmp_path, POLARIS_LOGGING__LEVEL="debug", POLARIS_SYSTEMS__WEB__INTERVAL_S="0.5"))
    file = str(tmp_path / "polaris.toml")
    assert told.file == file
    found = {key: (one.value, one.source, one.origin) for key, one in by_key(told).items()}
    assert found["node.name"] == ("atlas", "file", file)
    assert found["logging.level"] == ("debug", "environment", "POLARIS_LOGGING__LEVEL")
    assert found["http.port"] == (0, "command line", "command line")
    assert found["telemetry.batch_max"] == (500, "default", "")
    assert found["nats.token"] == ("[redacted]", "secret file", str(tmp_path / "token"))
    assert found["nats.token_file"] == (str(tmp_path / "token"), "file", file)
    assert found["nats.nkey_file"] == (None, "default", "")
    assert found["systems.web.interval_s"] == (0.5, "environment", "POLARIS_SYSTEMS__WEB__INTERVAL_S")
    assert found["systems.web.options.pidfile"] == ("web.pid", "file", file)
    assert found['systems."a.b".connector'] == ("host", "file", file)
    assert found['systems."a.b".options'] == ({}, "default", "")


def test_no_planted_secret_is_in_what_is_shown(tmp_path: Path) -> None:
    configuration = read(tmp_path)
    told = view(configuration)
    for shown in (msgspec.json.encode(told).decode(), str(effective_settings(configuration.settings))):
        assert SECRET not in shown
    secrets = {key for key, one in by_key(told).items() if one.is_secret and one.value == "[redacted]"}
    assert secrets == {
        "nats.password",
        "nats.token",
        "store.routing.servers.east.dsn",
        "http.token",
        "systems.web.options.api_key",
        "systems.web.options.credentials.a",
        "systems.web.options.pwd",
    }
    assert by_key(told)["systems.web.options.credentials.b"].value == ["[redacted]"]
    assert by_key(told)["systems.web.options.args"].value == ["--password", "[redacted]"]
    assert by_key(told)["systems.web.options.env"].value == [{"name": "DB_PASSWORD", "value": "[redacted]"}]
    assert by_key(told)["systems.web.options.tokens"].value == 3


def test_a_secret_in_the_environment_is_known_by_the_name_of_its_variable_alone(tmp_path: Path) -> None:
    told = by_key(view(read(tmp_path, "", POLARIS_NATS__TOKEN=SECRET)))["nats.token"]
    assert (told.value, told.source, told.origin) == ("[redacted]", "environment", "POLARIS_NATS__TOKEN")


def test_the_settings_of_a_program_are_told_from_the_defaults() -> None:
    found = by_key(configuration_of(Settings(http=HttpSettings(port=8080)), OF_A_PROGRAM))
    assert {key for key, one in found.items() if one.source != "default"} == {"http.port"}
    assert (found["http.port"].source, found["http.port"].value) == ("program", 8080)


def test_every_setting_of_the_package_has_its_words_and_default() -> None:
    told = configuration_of(Settings(), OF_A_PROGRAM)
    assert by_key(told)["actions.attempts_max"].description.startswith("Attempts in all")
    assert by_key(told)["actions.attempts_max"].default == 3
    assert (told.left_out, told.facts["bus server"]) == (0, "embedded in this node")
