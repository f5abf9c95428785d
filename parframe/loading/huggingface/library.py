"""The transformers library, without types, and the texts of its errors."""

from __future__ import annotations

import importlib
from typing import Any

transformers: Any = importlib.import_module("transformers")


def first_line(error: Exception) -> str:
    """Return the type and the first line of an error of transformers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}"
