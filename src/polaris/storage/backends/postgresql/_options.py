"""What can be set on the engine of a server."""

from __future__ import annotations

import msgspec

from polaris.exceptions import InvalidValueError

HOUR_US = 3_600_000_000


class PostgresOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one store on a server. Times are in seconds.

    `pool_max`: connections at most open for operations and transactions; one more is used for changes of the schema,
    one for waiting; those that nobody needed for five minutes are closed. An aggregate of very many points takes up to
    four, each as long as less than half of them are in use. `acquire_timeout_s`: how long to wait for a
    free connection. `connect_timeout_s`: how long one may take to be made. `statement_timeout_s`: how long the server
    works on one statement; a server that does not answer is given up two seconds later. `lock_timeout_s`: how long a
    statement waits for a lock. `schema_timeout_s`: how long a migration or the making of an index may take, and how
    long a node waits for another one's. `idle_timeout_s`: how long a transaction may stand idle before the server ends
    it; those of one aggregate may wait for each other besides. `partition_hours`: the time that a partition of a new
    collection of time series spans. `synchronous_commit`: what the server must have done when a commit is
    acknowledged, None for its own setting.
    """

    pool_max: int = 10
    acquire_timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    statement_timeout_s: float = 30.0
    lock_timeout_s: float = 10.0
    schema_timeout_s: float = 600.0
    idle_timeout_s: float = 60.0
    partition_hours: int = 168
    synchronous_commit: str | None = None

    def __post_init__(self) -> None:
        for name, least, most in (("pool_max", 1, 100), ("partition_hours", 1, 87_600)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise InvalidValueError(name, f"an integer from {least} to {most}", value)
        for name in ("acquire", "connect", "statement", "lock", "schema", "idle"):
            value = getattr(self, f"{name}_timeout_s")
            if type(value) not in (int, float) or not 0.01 <= value <= 86_400:
                raise InvalidValueError(f"{name}_timeout_s", "seconds from 0.01 to 86 400", value)
        if self.synchronous_commit not in (None, "on", "off", "local", "remote_write", "remote_apply"):
            raise InvalidValueError(
                "synchronous_commit", "on, off, local, remote_write, remote_apply or None", self.synchronous_commit
            )

    @property
    def partition_us(self) -> int:
        return self.partition_hours * HOUR_US

    @property
    def command_timeout_s(self) -> float:
        """How long the client waits for the answer to one statement: longer than the server may work on it."""
        return self.statement_timeout_s + 2.0

    def server_settings(self, schema: str, *, read_only: bool) -> dict[str, str]:
        """The settings that each connection asks for."""
        settings = {
            "application_name": "polaris",
            "search_path": schema,
            "timezone": "UTC",
            "jit": "off",
            "statement_timeout": _ms(self.statement_timeout_s),
            "lock_timeout": _ms(self.lock_timeout_s),
            "idle_in_transaction_session_timeout": _ms(self.idle_timeout_s),
        }
        if read_only:
            settings["default_transaction_read_only"] = "on"
        if self.synchronous_commit is not None:
            settings["synchronous_commit"] = self.synchronous_commit
        return settings


def _ms(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
