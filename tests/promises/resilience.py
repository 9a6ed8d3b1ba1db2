"""The promises of `polaris.resilience`, each with the edit that breaks it and the tests that notice."""

from __future__ import annotations

from tests.promises._break import Break

BREAKS: tuple[Break, ...] = ()
