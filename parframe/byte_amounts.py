"""Amounts of bytes as text."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(size: float) -> str:
    """Return bytes as text, in the unit in which the number has up to four digits.

    Examples
    --------
    >>> format_bytes(1000), format_bytes(1536), format_bytes(80 * 1024**3)
    ('1000 B', '1.50 KiB', '80.0 GiB')
    """
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    digits = 0 if unit == 0 or value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {_UNITS[unit]}"
