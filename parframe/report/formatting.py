"""Bytes, counts and ranks as text for tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from parframe.byte_amounts import format_bytes


def amount(size: float) -> str:
    """Return bytes as text, in the unit in which the number has up to four digits.

    Examples
    --------
    >>> amount(0), amount(1000), amount(1536), amount(80 * 1024**3)
    ('0', '1000 B', '1.50 KiB', '80.0 GiB')
    """
    return format_bytes(size) if size else "0"


def gib(size: float) -> str:
    """Return an amount of memory in GiB, to compare it with others.

    Examples
    --------
    >>> gib(80 * 1024**3), gib(50 * 1024**2), gib(1024)
    ('80.0 GiB', '0.05 GiB', '< 0.01 GiB')
    """
    value = size / 2**30
    if 0 < value < 0.01:
        return "< 0.01 GiB"
    return f"{value:.2f} GiB" if 0 < value < 1 else f"{value:.1f} GiB"


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, plural if need be.

    Examples
    --------
    >>> counted(1, "device"), counted(64, "device")
    ('1 device', '64 devices')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def runs(numbers: Iterable[int], most: int = 4) -> str:
    """Return ascending numbers as text, with runs as ranges, and a long list abridged.

    Examples
    --------
    >>> runs([0, 1, 2, 5]), runs(range(0, 20, 2))
    ('0-2, 5', '0, 2, 4, ..., 18')
    """
    found = list(_runs(numbers))
    if len(found) > most:
        found = [*found[: most - 1], "...", found[-1]]
    return ", ".join(found)


def shortened(text: str, width: int) -> str:
    """Return text of at most a width in characters, without its middle if it is longer.

    Examples
    --------
    >>> shortened("model.layers.0.self_attn.q_proj", 20)
    'model....attn.q_proj'
    """
    if len(text) <= width:
        return text
    front = (width - 3) * 2 // 5
    return f"{text[:front]}...{text[len(text) - (width - 3 - front) :]}"


def printable(text: str) -> str:
    """Return text without characters that control a terminal.

    Examples
    --------
    >>> printable(chr(27) + "[31m")
    '?[31m'
    """
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _runs(numbers: Iterable[int]) -> Iterator[str]:
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = last = number
        elif number == last + 1:
            last = number
        else:
            yield f"{first}-{last}" if last > first else str(first)
            first = last = number
    if first is not None and last is not None:
        yield f"{first}-{last}" if last > first else str(first)
