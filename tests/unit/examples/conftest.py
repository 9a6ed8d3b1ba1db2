"""Makes the files of examples/01_web_service importable, as they are for one another."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples" / "01_web_service"))
