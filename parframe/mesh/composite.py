"""Grammar of the composites that describe a mesh.

A composite is a product of strategies with their degrees, after this grammar::

    composite = part , { part } ;               at least one part has a degree
    part      = code , [ degree ] ;             each code once
    code      = letter , { other } , "P" ;      2 to 8 characters: the first P ends it
    letter    = "A" | "B" | ... | "Z" ;
    other     = any letter but "P" ;
    degree    = "1" | ... | "9" , { digit } ;   at most 65536

A code without a degree shares the mesh axis of another one: in `TP4SP`, SP works on the axis
that TP gave 4 devices.
"""

import re

from parframe.errors import ParframeError
from parframe.mesh.axes import MAX_DEVICES

GRAMMAR = "code [degree] ...; a code is uppercase and ends in P, as in PP4TP4SPDP2"
"""Grammar of composites in one line, for error messages."""

Composite = tuple[tuple[str, int | None], ...]
"""Parts of a composite: each code with its degree, or None where it shares an axis."""

_CODE = re.compile(r"[A-Z][A-OQ-Z]{0,6}P")
_DEGREE = re.compile(r"[0-9]+")
_MAX_LENGTH = 200


def parse_composite(text: str) -> Composite:
    """Read a composite such as `PP4TP4DP2`: each code with its degree, or None without one.

    Raises
    ------
    ParframeError
        Of kind `composite`, with a caret under the first wrong character and the grammar.

    Examples
    --------
    >>> parse_composite("TP4SPDP2")
    (('TP', 4), ('SP', None), ('DP', 2))
    """
    if len(text) > _MAX_LENGTH:
        raise _malformed(text, _MAX_LENGTH, f"longer than {_MAX_LENGTH} characters", "shorten it")
    parts: dict[str, int | None] = {}
    at = 0
    while at < len(text):
        code = _CODE.match(text, at)
        if code is None:
            raise _no_code(text, at)
        if code[0] in parts:
            raise _malformed(text, at, f"{code[0]} is given twice", "give each code once")
        at = code.end()
        degree = _DEGREE.match(text, at)
        parts[code[0]] = _read_degree(text, code[0], degree) if degree else None
        at = degree.end() if degree else at
    if not any(parts.values()):
        raise _malformed(text, at, "no code has a degree", "write a degree, as in TP4")
    return tuple(parts.items())


def format_composite(composite: Composite) -> str:
    """Format the parts of a composite as the text that `parse_composite` reads."""
    return "".join(f"{code}{degree or ''}" for code, degree in composite)


def composite_degrees(text: str) -> dict[str, int]:
    """Return the degrees of a composite by their codes; 1 for a code that shares an axis."""
    return {code: degree or 1 for code, degree in parse_composite(text)}


def is_code(text: str) -> bool:
    """Tell whether a text such as `TP` can be the code of a strategy."""
    return _CODE.fullmatch(text) is not None


def _read_degree(text: str, code: str, digits: re.Match[str]) -> int:
    if digits[0].startswith("0"):
        what = f"the degree of {code} begins with 0"
        raise _malformed(text, digits.start(), what, f"give at least 1, as in {code}2")
    degree = int(digits[0])
    if degree > MAX_DEVICES:
        what = f"the degree of {code} is larger than {MAX_DEVICES}"
        raise _malformed(text, digits.start(), what, "give a smaller one")
    return degree


def _no_code(text: str, at: int) -> ParframeError:
    """Return the error for a position where no code begins."""
    capitals, joined = text.upper(), "".join(text.split()) or "TP4"
    if text[at].isspace():
        return _malformed(text, at, "a space", f"write {joined!r}")
    if text[at] == "-":
        return _malformed(text, at, "a sign", "degrees are whole numbers from 1, as in TP2")
    if text[at].isnumeric() and not text[at].isascii():
        return _malformed(text, at, "not a plain digit", "write degrees with 0 to 9, as in TP2")
    if text[at].isdigit():
        return _malformed(text, at, "a degree before any code", "write the code first, as in TP4")
    if capitals != text and re.fullmatch(rf"(?:{_CODE.pattern}[0-9]*)+", capitals):
        return _malformed(text, at, "a code in lower case", f"write {capitals}")
    return _malformed(text, at, "no code begins here", "a code ends in P, as TP and DP do")


def _malformed(text: str, at: int, what: str, hint: str) -> ParframeError:
    start = max(0, at - 60)
    shown = "".join(c if c.isprintable() else "?" for c in text[start : at + 12])
    picture = f"\n    {shown}\n    {' ' * (at - start)}^\n  grammar: {GRAMMAR}"
    return ParframeError("composite", f"column {at + 1}", what, hint + picture)
