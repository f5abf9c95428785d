"""What a mask function of transformers means: causal or not, and how wide its window is."""

from __future__ import annotations

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


class _Index(int):
    """A position that mask functions take for a tensor of one element."""

    def new_ones(self, *_: Any, **__: Any) -> bool:
        return True

    def new_zeros(self, *_: Any, **__: Any) -> bool:
        return False


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
    except (AttributeError, TypeError, IndexError, RuntimeError) as error:
        raise UnreadableMaskError("a mask that is not a function of positions") from error
    if not isinstance(answer, bool):
        raise UnreadableMaskError("a mask that looks at tensors")
    return answer
