"""Versions of an event's data: how the wire names them, and how older ones are brought up to the current one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.exceptions import MessageDecodeError

if TYPE_CHECKING:
    from polaris.domain._registry import EventType

SCHEMA_PREFIX = "urn:polaris:schema:"
SHOWN_CHARS_MAX = 128

Upcaster = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Turns the data of one version, as JSON gives them, into those of the next."""

_VERSION = re.compile(r"[1-9][0-9]{0,5}")


class OlderVersion(msgspec.Struct, frozen=True):
    """A version that is no longer current, and the function that leads to the next one."""

    name: str
    version: int
    function: Upcaster
    data_type: type[Any] | None = None

    def lift(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The data of the next version. Raises `MessageDecodeError` when they cannot be had, whatever went wrong."""
        try:
            if self.data_type is not None:
                msgspec.convert(data, self.data_type)
            lifted = self.function(dict(data))
        except Exception as error:  # boundary: foreign data, turned by the code of those who registered the type
            reason = f"{type(error).__name__}: {str(error)[:SHOWN_CHARS_MAX]}"
            raise MessageDecodeError(self._failed(reason), self._context()) from error
        if not isinstance(lifted, Mapping):
            reason = f"it gave no mapping, but a {type(lifted).__name__}"
            raise MessageDecodeError(self._failed(reason), self._context())
        return lifted

    def _failed(self, reason: str) -> str:
        return f"upcasting {self.name!r} from version {self.version} failed: {reason}"

    def _context(self) -> dict[str, object]:
        return {"type": self.name, "version": self.version}


def version_of(entry: EventType, dataschema: str | None) -> int:
    """The version of the data of an event, told by its `dataschema`.

    An event that names no schema, or one that is not of POLARIS, has the current version. Raises `MessageDecodeError`
    when it names a schema of another type, or no version.
    """
    if not dataschema or not dataschema.startswith(SCHEMA_PREFIX):
        return entry.version
    name, _, version = dataschema.removeprefix(SCHEMA_PREFIX).rpartition(":")
    if name != entry.name or not _VERSION.fullmatch(version):
        raise MessageDecodeError(
            f"dataschema {dataschema[:SHOWN_CHARS_MAX]!r} names no version of {entry.name!r}", {"type": entry.name}
        )
    return int(version)
