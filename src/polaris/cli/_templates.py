"""The files that are shipped to be written out: rules, units, and what `polaris init` begins with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

# Dollars, braces and plain at signs belong to the formats of others.
_PLACE = re.compile(r"@\{(\w+)\}")


def template(name: str, values: Mapping[str, str] | None = None) -> str:
    """The text of a template; with `values`, each `@{name}` in it replaced. A name without value is a `KeyError`."""
    text = files("polaris.cli").joinpath("templates", name).read_text(encoding="utf-8")
    return text if values is None else _PLACE.sub(lambda place: values[place[1]], text)
