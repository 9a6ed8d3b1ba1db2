"""Which field names alone tell of a secret."""

from __future__ import annotations

import pytest

from polaris._redaction import is_secret_key

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
