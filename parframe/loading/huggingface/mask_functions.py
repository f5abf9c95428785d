"""What a mask function of transformers means: causal or not, and how wide its window is."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import attrs

_FAR = 1 << 24
_BASES = tuple(_FAR + offset for offset in (0, 1, 63, 1000, 4097, 77_777))


class UnreadableMaskError(Exception):
    """A mask that is more than causal order and a window."""


@attrs.frozen
class Mask:
    """What a query sees, by distance alone; models hand it on as their attention mask."""

    causal: bool
    window: int | None


class _Index:
    """A position, or a truth, that mask functions take for a tensor of one element."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.device = None

    def new_ones(self, *_: Any, **__: Any) -> _Index:
        return _Index(1)

    def new_zeros(self, *_: Any, **__: Any) -> _Index:
        return _Index(0)

    def to(self, *_: Any, **__: Any) -> _Index:
        return self

    def __abs__(self) -> _Index:
        return _Index(abs(self.value))

    def __bool__(self) -> bool:
        return bool(self.value)


def _number(value: Any) -> int:
    if isinstance(value, _Index):
        return value.value
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"a mask that looks at a {type(value).__name__}")


def _forward(compute: Callable[[int, int], int]) -> Callable[[_Index, Any], _Index]:
    return lambda left, right: _Index(int(compute(left.value, _number(right))))


def _backward(compute: Callable[[int, int], int]) -> Callable[[_Index, Any], _Index]:
    return lambda right, left: _Index(int(compute(_number(left), right.value)))


for _name in ("add", "sub", "mul", "floordiv", "mod", "and", "or", "xor"):
    _compute = getattr(operator, f"__{_name}__")
    setattr(_Index, f"__{_name}__", _forward(_compute))
    setattr(_Index, f"__r{_name}__", _backward(_compute))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(_Index, f"__{_name}__", _forward(getattr(operator, f"__{_name}__")))


def read_mask(function: Callable[..., Any]) -> Mask:
    """Find out what a mask function means by asking it.

    Parameters
    ----------
    function
        Of batch, head, query and key indices; true where the query sees the key.

    Raises
    ------
    UnreadableMaskError
        If the function is not one of distance, or looks at anything but the indices.
    """
    reaches = {(_reach(function, base, -1), _reach(function, base, 1)) for base in _BASES}
    if len(reaches) != 1:
        raise UnreadableMaskError("a mask that is not a matter of distance")
    back, ahead = reaches.pop()
    if ahead == 0:
        return Mask(True, None if back >= _FAR - 1 else back + 1)
    if back == ahead or min(back, ahead) >= _FAR - 1:
        return Mask(False, None if back >= _FAR - 1 else back + 1)
    raise UnreadableMaskError("a mask that reaches another distance back than ahead")


def _reach(function: Callable[..., Any], query: int, direction: int) -> int:
    """How far a query sees in one direction, itself not counted."""
    if not _sees(function, query, query):
        raise UnreadableMaskError("a mask under which a token does not see itself")
    low, high = 0, _FAR
    if _sees(function, query, query + direction * (_FAR - 1)):
        low = _FAR - 1
    while high - low > 1:
        middle = (low + high) // 2
        if _sees(function, query, query + direction * middle):
            low = middle
        else:
            high = middle
    for distance in {*range(1, 65), *(1 << n for n in range(24)), low - 1, low + 1}:
        if 0 < distance < _FAR and _sees(function, query, query + direction * distance) != (
            distance <= low
        ):
            raise UnreadableMaskError("a mask with holes")
    return low


def _sees(function: Callable[..., Any], query: int, key: int) -> bool:
    try:
        answer = function(_Index(0), _Index(0), _Index(query), _Index(key))
        return bool(_number(answer))
    except (AttributeError, TypeError, IndexError, RuntimeError, ArithmeticError) as error:
        raise UnreadableMaskError("a mask that is not a function of positions") from error
