"""The settings of the connection and of the embedded server: refused with all their mistakes, secrets never shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from polaris.exceptions import ConfigurationError
from polaris.messaging.brokers._embedded_config import EmbeddedNATSConfig, obtain_token, render
from polaris.messaging.brokers._nats_config import NATSConfig, TLSConfig, without_secrets


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"servers": ()}, "servers"),
        ({"servers": "nats://a:1"}, "servers"),
        ({"servers": (7,)}, "servers"),
        ({"servers": ("http://a:1",)}, "servers"),
        ({"servers": ("a:4222",)}, "servers"),
        ({"servers": ("nats://",)}, "servers"),
        ({"servers": ("nats://a:0",)}, "servers"),
        ({"servers": ("nats://a:99999",)}, "servers"),
        ({"servers": ("nats://a:x",)}, "servers"),
        ({"servers": ("nats://a:1/path",)}, "servers"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"token": ""}, "token"),
        ({"token": 7}, "token"),
        ({"user": "me"}, "user"),
        ({"password": "p"}, "user"),
        ({"token": "t", "user": "me", "password": "p"}, "user"),
        ({"nkey": "/missing/file"}, "nkey"),
        ({"credentials": "/missing/file"}, "credentials"),
        ({"tls": True}, "tls"),
        ({"connect_timeout_s": 0}, "connect_timeout_s"),
        ({"connect_timeout_s": float("nan")}, "connect_timeout_s"),
        ({"connect_timeout_s": float("inf")}, "connect_timeout_s"),
        ({"connect_timeout_s": "5"}, "connect_timeout_s"),
        ({"ping_interval_s": True}, "ping_interval_s"),
        ({"max_reconnect_attempts": -2}, "max_reconnect_attempts"),
        ({"max_reconnect_attempts": 1.5}, "max_reconnect_attempts"),
        ({"reconnect_time_wait": 2.0, "reconnect_time_wait_max_s": 1.0}, "reconnect_time_wait_max_s"),
        ({"pending_messages_max": 0}, "pending_messages_max"),
        ({"inbox_prefix": "a.*"}, "inbox_prefix"),
        ({"inbox_prefix": "a b"}, "inbox_prefix"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^nats\.{field}: ") as caught:
        NATSConfig(**settings)
    assert len(caught.value.problems) == 1


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        NATSConfig(servers=("http://x",), user="me", ping_interval_s=0, publish_in_flight_max=0)
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    "servers", [("nats://a:4222", "tls://b"), ("nats://[::1]:4222",), ("nats://me:word@a:1",), ["nats://a"]]
)
def test_usual_addresses_are_accepted(servers: Any) -> None:
    assert NATSConfig(servers=servers).servers == tuple(servers)


def test_secrets_do_not_show() -> None:
    config = NATSConfig(servers=("nats://me:hidden-word@a:1", "nats://hidden-word@b:1"), token="hidden-word")
    for shown in (repr(config), str(config), f"{config}", f"{[config]}"):
        assert "hidden-word" not in shown
        assert "a:1" in shown
    with pytest.raises(ConfigurationError) as caught:
        NATSConfig(servers=("nats://me:hidden-word@a:1/path",), password="hidden-word")
    assert "hidden-word" not in f"{caught.value!r} {caught.value.to_dict()}"


def test_an_address_loses_its_secrets_only() -> None:
    assert without_secrets("nats://a:1") == "nats://a:1"
    assert without_secrets("nats://u:p@x@a:1") == "nats://a:1"
    assert without_secrets("u:p@a:1") == "a:1"


def test_a_configuration_is_made_from_plain_data() -> None:
    config = msgspec.convert({"servers": ["tls://a:1"], "tls": {"ca_file": "ca.pem"}}, NATSConfig)
    assert config.tls == TLSConfig(ca_file="ca.pem")
    assert config.max_reconnect_attempts == -1


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"data_dir": "text"}, "data_dir"),
        ({"port": -1}, "port"),
        ({"port": 65_536}, "port"),
        ({"host": "0.0.0.0"}, "host"),
        ({"host": "192.168.1.1"}, "host"),
        ({"token": "short"}, "token"),
        ({"token": 'quote"and\\more'}, "token"),
        ({"token": "$2a$11$looks.like.a.hash"}, "token"),
        ({"server_name": "a b"}, "server_name"),
        ({"payload_bytes_max": 1}, "payload_bytes_max"),
        ({"payload_bytes_max": 65 << 20}, "payload_bytes_max"),
        ({"sync_interval_s": 0}, "sync_interval_s"),
        ({"sync_interval_s": "sometimes"}, "sync_interval_s"),
        ({"stop_grace_s": 0}, "stop_grace_s"),
    ],
)
def test_a_wrong_setting_of_the_embedded_server_is_named(tmp_path: Path, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^nats\.{field}: "):
        EmbeddedNATSConfig(**{"data_dir": tmp_path, **settings})


def test_durations_are_quoted_with_their_unit(tmp_path: Path) -> None:
    for given, wanted in ((1.0, "1000ms"), (0.25, "250ms"), (120, "120000ms"), ("always", "always")):
        config = EmbeddedNATSConfig(data_dir=tmp_path, sync_interval_s=given)  # type: ignore[arg-type]
        written = json.loads(render(config, port=1234, token="a-token-of-mine", run_dir=tmp_path))
        assert written["jetstream"]["sync_interval"] == wanted
        assert written["authorization"]["token"] == "a-token-of-mine"


def test_without_a_token_nobody_is_asked(tmp_path: Path) -> None:
    config = EmbeddedNATSConfig(data_dir=tmp_path, open_access=True)
    assert obtain_token(config) is None
    assert "authorization" not in json.loads(render(config, port=1, token=None, run_dir=tmp_path))


def test_the_token_is_made_once_and_a_damaged_one_anew(tmp_path: Path) -> None:
    config = EmbeddedNATSConfig(data_dir=tmp_path)
    token = obtain_token(config)
    assert token is not None
    assert obtain_token(config) == token
    (tmp_path / "token").write_text('x"\n')
    assert obtain_token(config) not in (token, 'x"')
    assert obtain_token(EmbeddedNATSConfig(data_dir=tmp_path, token="given-by-user")) == "given-by-user"
