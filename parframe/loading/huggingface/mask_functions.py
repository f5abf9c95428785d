"""Mask functions of transformers, converted to a mask pattern: causal or not, and its window."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import attrs

_FAR = 1 << 24
_BASES = tuple(_FAR + offset for offset in (0, 1, 63, 1000, 4097, 77_777))


class UnreadableMaskError(Exception):
    """Mask that a causal order and a window do not describe."""


@attrs.frozen
class MaskPattern:
    """Keys that a query attends to, by distance; models pass it on as their attention mask."""

    causal: bool  # whether a query attends only to keys at its own and earlier positions
    window: int | None  # the number of positions back, its own included; None for all


class _Index:
    """Number or truth value that mask functions use as a tensor of one element."""

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
    raise TypeError(f"a mask that depends on a {type(value).__name__}")


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


def read_mask(function: Callable[..., Any]) -> MaskPattern:
    """Convert a mask function to a mask pattern, by evaluating it at sampled positions.

    The function takes batch, head, query and key indices; it is true where the query attends to the
    key.

    Raises
    ------
    UnreadableMaskError
        If the function depends on anything but the distance of query and key.
    """
    reaches = {(_reach(function, base, -1), _reach(function, base, 1)) for base in _BASES}
    if len(reaches) != 1:
        raise UnreadableMaskError("a mask that does not depend on the distance only")
    back, ahead = reaches.pop()
    if ahead == 0:
        return MaskPattern(True, None if back >= _FAR - 1 else back + 1)
    if back == ahead or min(back, ahead) >= _FAR - 1:
        return MaskPattern(False, None if back >= _FAR - 1 else back + 1)
    raise UnreadableMaskError("a mask whose window has another size back than ahead")


def _reach(function: Callable[..., Any], query: int, direction: int) -> int:
    """Return the largest distance at which a query attends to keys in one direction."""
    if not _attends(function, query, query):
        raise UnreadableMaskError("a mask under which a token does not attend to itself")
    low, high = 0, _FAR
    if _attends(function, query, query + direction * (_FAR - 1)):
        low = _FAR - 1
    while high - low > 1:
        middle = (low + high) // 2
        reaches = _attends(function, query, query + direction * middle)
        low, high = (middle, high) if reaches else (low, middle)
    for distance in {*range(1, 65), *(1 << n for n in range(24)), low - 1, low + 1}:
        if 0 < distance < _FAR and _attends(function, query, query + direction * distance) != (
            distance <= low
        ):
            raise UnreadableMaskError("a mask with gaps")
    return low


def _attends(function: Callable[..., Any], query: int, key: int) -> bool:
    try:
        answer = function(_Index(0), _Index(0), _Index(query), _Index(key))
        return bool(_number(answer))
    except (AttributeError, TypeError, IndexError, RuntimeError, ArithmeticError) as error:
        raise UnreadableMaskError("a mask that is not a function of positions") from error
