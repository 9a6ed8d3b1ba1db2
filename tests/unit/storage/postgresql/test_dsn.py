"""Addresses of servers are checked before they are used, and never show their secrets."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import ConfigurationError, InvalidValueError, StoreConnectionError
from polaris.storage import PolarisDataStore
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.storage.backends.postgresql._dsn import Dsn

SECRET = "s3cr%2Ft-word"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://me:{SECRET}@host/db", "postgresql://me:***@host/db"),
        (f"postgres://me:{SECRET}@a:1,b:2/db", "postgres://me:***@a:1,b:2/db"),
        (f"postgresql://host/db?user=me&password={SECRET}", "postgresql://host/db?user=me&password=***"),
        (f"postgresql://me@host/db?sslpassword={SECRET}&sslmode=require", "postgresql://me@host/db?sslpassword=***&sslmode=require"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql:///db", "postgresql:///db"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_secrets(text: str, shown: str) -> None:
    dsn = Dsn(text)
    assert str(dsn) == shown
    assert repr(dsn) == f"Dsn({shown!r})"
    assert dsn.reveal() == text


def test_hosts_are_known_in_their_order() -> None:
    assert Dsn("postgresql://u@one:5432,two/db").hosts == ("one:5432", "two")
    assert Dsn("postgresql:///db?host=three").hosts == ("three",)


def test_each_of_several_hosts_has_an_address_of_its_own() -> None:
    assert Dsn(f"postgresql://me:{SECRET}@one:5432,[::1]:7/db?sslmode=disable").addresses() == [
        f"postgresql://me:{SECRET}@one:5432/db?sslmode=disable",
        f"postgresql://me:{SECRET}@[::1]:7/db?sslmode=disable",
    ]
    assert Dsn("postgresql:///db?host=one,two&port=1,2&user=me").addresses() == [
        "postgresql:///db?user=me&port=1&host=one",
        "postgresql:///db?user=me&port=2&host=two",
    ]
    assert Dsn("postgresql://one,two/db?port=9").addresses() == [
        "postgresql://one/db?port=9",
        "postgresql://two/db?port=9",
    ]
    single = "postgresql:///db?host=%2Frun%2Fpg&user=me"
    assert Dsn(single).addresses() == [single]


def test_what_the_password_says_is_not_taken_for_an_option() -> None:
    assert Dsn("postgresql://me:target_session_attrs@one,two/db").session_attributes is None
    assert Dsn("postgresql://me@one,two/db?target_session_attrs=standby").session_attributes == "standby"


@pytest.mark.parametrize(
    "text",
    [
        7,
        None,
        "",
        "host=a dbname=b",
        f"mysql://me:{SECRET}@host/db",
        f"postgresql://me:{SECRET}@host",
        f"postgresql://me:{SECRET}@host/",
        f"postgresql://me:{SECRET}@host/a/b",
        f"postgresql://me:{SECRET}@host:0/db",
        f"postgresql://me:{SECRET}@host:70000/db",
        f"postgresql://me:{SECRET}@a,,b/db",
        f"postgresql://me:{SECRET}@[::1/db",
        f"postgresql://me:p/{SECRET}@host",
        f"postgresql://me:p@{SECRET}@host/db",
        f"postgresql://me:p#{SECRET}@host/db",
        f"postgresql://me:{SECRET}@host/db?target_session_attrs=primary-ish",
        f"postgresql://me:{SECRET}@a,b,c/db?port=1,2",
        f"postgresql://me:{SECRET}@host/db?port=x",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_repeated(text: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Dsn(text)
    assert SECRET not in str(caught.value) + repr(caught.value.to_dict())
    assert "dsn" in str(caught.value)


@pytest.mark.parametrize("schema", ["", "Polaris", "a-b", "1a", "pg_own", 'a"b', "a" * 49, None, "a b", "ä"])
def test_a_schema_name_that_would_have_to_be_quoted_is_refused(schema: object) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        PostgresEngine("postgresql://host/db", schema=schema)  # type: ignore[arg-type] # what is tested


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pool_max", 0),
        ("pool_max", 101),
        ("pool_max", True),
        ("acquire_timeout_s", 0),
        ("connect_timeout_s", float("nan")),
        ("statement_timeout_s", "5"),
        ("lock_timeout_s", -1.0),
        ("idle_timeout_s", 1e9),
        ("partition_hours", 0),
        ("partition_hours", 1.5),
        ("synchronous_commit", "maybe"),
    ],
)
def test_options_beyond_their_limits_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidValueError, match=name):
        PostgresEngine("postgresql://host/db", **{name: value})


async def test_a_server_that_is_not_there_is_an_error_without_secrets(unused_tcp_port: int) -> None:
    store = PolarisDataStore.postgresql(
        f"postgresql://me:{SECRET}@127.0.0.1:{unused_tcp_port}/db", connect_timeout_s=2.0
    )
    with pytest.raises(StoreConnectionError) as caught:
        await store.connect()
    told = f"{caught.value!r} {caught.value} {caught.value.to_dict()} {caught.value.__cause__!r}"
    assert SECRET not in told
    assert "s3cr/t" not in told
    assert not store.is_connected
    await store.disconnect()


async def test_an_engine_that_is_not_connected_says_so() -> None:
    engine = PostgresEngine("postgresql://host/db")
    with pytest.raises(StoreConnectionError, match="not connected"):
        await engine.graph.add_node("n")
    with pytest.raises(StoreConnectionError, match="not connected"):
        await engine.outbox.wait(timeout_s=0.01)
    async with engine.transaction() as transaction:
        with pytest.raises(StoreConnectionError, match="not connected"):
            await transaction.graph.get_node("n")
    assert (await engine.health()).message == "not connected"
    assert (await engine.stats())["connections"] == 0
    assert SECRET not in repr(engine.dsn)
