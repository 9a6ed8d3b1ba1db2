"""The options of the host connector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from polaris.connectors._connector import ConnectorOptions

Share = Annotated[float, Meta(gt=0.0, le=1.0)]
Text = Annotated[str, Meta(min_length=1, max_length=200)]


class HostOptions(ConnectorOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is read from the machine, and from which shares on its health is `warning` and `critical`.

    `processes`: each a pid, the path of a pidfile (anything with a slash), or a process name; a listed process that
    does not run makes the machine `critical`. A threshold of 1.0 is never exceeded, which turns it off.
    """

    filesystems: Annotated[tuple[Text, ...], Meta(max_length=64)] = ("/",)
    processes: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    cpu_warning: Share = 0.90
    cpu_critical: Share = 0.98
    memory_warning: Share = 0.90
    memory_critical: Share = 0.97
    filesystem_warning: Share = 0.90
    filesystem_critical: Share = 0.97

    def problems(self) -> Sequence[str]:
        return [
            f"{kind}_warning: expected at most {kind}_critical ({critical:g}), got {warning:g}"
            for kind, warning, critical in (
                ("cpu", self.cpu_warning, self.cpu_critical),
                ("memory", self.memory_warning, self.memory_critical),
                ("filesystem", self.filesystem_warning, self.filesystem_critical),
            )
            if warning > critical
        ]
