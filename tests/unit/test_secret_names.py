"""Which field names alone tell of a secret."""

from __future__ import annotations

import pytest

from polaris._redaction import redact_fields, redact_text
from polaris._secret_names import asks_for_secret, holds_secret, is_secret_key, names_secret

SECRET = [
    "token",
    "bus_token",
    "accessToken",
    "ACCESS_TOKEN",
    "auth.token",
    "authtoken",
    "password",
    "passwords",
    "db_password",
    "passwd",
    "passphrase",
    "dbpass",
    "pass",
    "secret",
    "client_secret",
    "secrets",
    "credential",
    "credentials",
    "api_key",
    "api-key",
    "apikey",
    "x-api-key",
    "private_key",
    "authorization",
    "cookie",
    "set-cookie",
    "session_id",
    "nkey",
    "jwt",
    "bearer_value",
    "dsn",
    "api_token_value",
    "passcode",
]
PLAIN = [
    "tokens",
    "max_tokens",
    "token_count",
    "ContextTokens",
    "GeneratedTokens",
    "random_seed",
    "seed",
    "passed",
    "passenger_count",
    "compass_heading",
    "bypass",
    "key",
    "keys",
    "monkey_count",
    "user",
    "name",
    "session",
    "sessions",
    "signature_count",
    "value",
]


@pytest.mark.parametrize("name", SECRET)
def test_a_telling_name_is_a_secret(name: str) -> None:
    assert is_secret_key(name)
    assert is_secret_key(name.upper())


@pytest.mark.parametrize("name", PLAIN)
def test_a_name_that_only_sounds_like_it_is_none(name: str) -> None:
    assert not is_secret_key(name)


@pytest.mark.parametrize("name", ["pwd", "auth", "basic_auth", "x-auth", "sig", "tokens", "auth_tokens", "PWD"])
def test_a_doubtful_name_is_a_secret_with_a_text_and_none_with_a_count_a_switch_or_a_folder(name: str) -> None:
    for secret in ("hunter2", ["hunter2"], {"a": "hunter2"}):
        assert holds_secret(name, secret)
    for plain in (7, 1.5, True, None, "/home/me", [1, 2], {"input": 3, "output": 4}, []):
        assert not holds_secret(name, plain)
    assert not holds_secret(f"{name}ority", "hunter2")


def test_a_variable_in_a_list_is_a_secret_by_what_it_is_called() -> None:
    assert names_secret({"name": "DB_PASSWORD", "value": "/hunter2"})
    assert names_secret({"key": "authorization", "value": ["hunter2"]})
    assert not names_secret({"name": "PATH", "value": "hunter2"})
    assert not names_secret({"name": "token", "value": 3.0}), "a metric may have any name"
    assert not names_secret({"value": "hunter2"})


def test_a_flag_asks_for_a_secret_unless_it_names_a_file() -> None:
    assert all(map(asks_for_secret, ("--password", "--api-key", "-token", "--auth")))
    assert not any(map(asks_for_secret, ("--token-file", "--name", "password", "--password=x", 3, None, "-")))


SECRET_TEXTS = [
    "mysql --password hunter2 -u me",
    "--token='hunter2'",
    "['curl', '--token', 'hunter2']",
    "Server=h;Uid=u;Pwd=hunter2;",
    "Authorization: hunter2",
    "Authorization: Token hunter2",
    "Cookie: a=1; b=hunter2",
    'Set-Cookie: a="hunter2"',
    "https://h/?sig=hunter2&x=1",
    "u:hunter2@h:5432/db",
    "//u:hunter2@h/x",
    "u:hunter2@db.example.org/name",
    '{"cookie": "hunter2"',
    '{"dsn": "hunter2"',
    '{"db_pass": "hunter2"',
    '{"pwd": "hunter2", "a"',
    '{"tokens": "hunter2", "a"',
    '{"session_id": "hunter2", "a"',
    '{"jwt": "hunter2", "a"',
    r'"{\"password\": \"hunter2\"}"',
]
PLAIN_TEXTS = [
    "give --token or --token-file",
    "--token is given twice: see --token-file /etc/token",
    "the author: me; significant: yes; passed: 3; pass=3 fail=2",
    "auth: ok, tls: off",
    "PWD=/home/me",
    "write to someone@example.org: at 12:30",
    "image repo:1.2@sha256:0123456789abcdef",
    "at 10:15 web@3 answered",
    "design: a=1",
    "authorization failed",
]


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_a_text_loses_what_its_words_tell_of(text: str) -> None:
    shown = redact_text(text)
    assert "hunter2" not in shown
    assert "[redacted]" in shown


@pytest.mark.parametrize("text", PLAIN_TEXTS)
def test_a_text_that_only_sounds_like_it_stays(text: str) -> None:
    assert redact_text(text) == text


def test_lists_and_records_lose_what_their_neighbours_tell_of() -> None:
    record = {
        "argv": ["run", "--password", "hunter2", "--name", "web"],
        "env": [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "PATH", "value": "/bin"}],
        "auth": {"user": "hunter2"},
        "tokens": 7,
    }
    assert redact_fields(record) == {
        "argv": ["run", "--password", "[redacted]", "--name", "web"],
        "env": [{"name": "DB_PASSWORD", "value": "[redacted]"}, {"name": "PATH", "value": "/bin"}],
        "auth": "[redacted]",
        "tokens": 7,
    }
    assert redact_fields({"name": "DB_PASSWORD", "value": "hunter2"})["value"] == "[redacted]"
    assert redact_fields({"pwd": "hunter2", "auth": True}) == {"pwd": "[redacted]", "auth": True}
