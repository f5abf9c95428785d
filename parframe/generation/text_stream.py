"""Text of tokens that come one by one: given as soon as it is final, and never a stop text.

Tokens cannot be decoded one by one: a character may need several, and the first of a text loses
its space. So a window is decoded, of the tokens given last and those not yet given; what the whole
window has beyond the text of its first part is new. It is final unless it ends within a character:
with the character U+FFFD, which stands for bytes that are none, or with a token that is a single
byte, because decoders judge a run of such tokens as a whole. Of the few decoders that change what
lies further back, all is given at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from parframe.errors import ParframeError
from parframe.generation.tokenization import Text, decoders_of

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_STEADY = frozenset(
    {
        "BPEDecoder",
        "ByteFallback",
        "ByteLevel",
        "Fuse",
        "Metaspace",
        "Replace",
        "Strip",
        "WordPiece",
    }
)
"""The decoders whose text only grows with further tokens, apart from runs of bytes."""


class Detokenizer:
    """The text of tokens that come one by one.

    All that is given is together what the prompt and the tokens, decoded as one, have beyond the
    prompt alone.

    Parameters
    ----------
    text
        The tokenizer.
    prompt
        The tokens before the first, whose text is not given.
    """

    def __init__(self, text: Text, prompt: Sequence[int] = ()) -> None:
        self._text = text
        self._silent = text.silent
        steps = decoders_of(text.tokenizer)
        kinds = {step["type"] for step in steps}
        self._steady = kinds <= _STEADY and not any(step.get("stop") for step in steps)
        self._bytes = "ByteFallback" in kinds
        self._window = [token for token in prompt if self._speaks(token)]
        self._given = len(self._window)
        self._before = text.decode(self._window)

    def push(self, token: int) -> str:
        """Take a token; what became final with it, often nothing."""
        if not self._speaks(token):
            return ""
        self._window.append(token)
        if not self._steady or self._within_bytes(token):
            return ""
        whole = self._text.decode(self._window)
        if len(whole) <= len(self._before) or whole.endswith(_UNKNOWN):
            return ""
        return self._give(whole)

    def finish(self) -> str:
        """What is left once no token follows."""
        return self._give(self._text.decode(self._window))

    def _give(self, whole: str) -> str:
        new = whole[len(self._before) :]
        self._window = self._window[self._given :]
        self._given = len(self._window)
        self._before = self._text.decode(self._window)
        return new

    def _speaks(self, token: int) -> bool:
        """Whether a token has a text; a model may know more tokens than its tokenizer."""
        known = self._text.tokenizer.id_to_token(token) is not None
        return known and token not in self._silent

    def _within_bytes(self, token: int) -> bool:
        content = self._text.tokenizer.id_to_token(token) if self._bytes else None
        return content is not None and _BYTE.fullmatch(content) is not None


@attrs.define
class StopTexts:
    """Ends a text before the stop text that is complete first, and gives no part of it.

    Parameters
    ----------
    stops
        The stop texts.

    Raises
    ------
    ParframeError
        Of kind ``input``, if one is empty.
    """

    stops: tuple[str, ...]
    found: str | None = attrs.field(default=None, init=False)
    _held: str = attrs.field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        if "" in self.stops:
            raise ParframeError("input", "stop text", "is empty", "give at least one character")

    def push(self, text: str) -> str:
        """Take a piece of text; what of it and of the text held back is no part of a stop text."""
        if self.found is not None:
            return ""
        self._held += text
        ends = [
            (self._held.index(stop) + len(stop), -len(stop), stop)
            for stop in self.stops
            if stop in self._held
        ]
        if ends:
            end, less, self.found = min(ends)
            return self._held[: end + less]
        keep = max((_overlap(self._held, stop) for stop in self.stops), default=0)
        final = self._held[: len(self._held) - keep]
        self._held = self._held[len(final) :]
        return final

    def finish(self) -> str:
        """The text held back, once none follows: it was the beginning of a stop text only."""
        return "" if self.found is not None else self._held


def _overlap(text: str, stop: str) -> int:
    """How long the longest end of a text is with which a stop text begins."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)


class TextStream:
    """The text of one request, piece by piece.

    Parameters
    ----------
    text
        The tokenizer.
    prompt
        The tokens of the prompt.
    stops
        The texts before which it ends.
    """

    def __init__(self, text: Text, prompt: Sequence[int] = (), stops: Sequence[str] = ()) -> None:
        self._tokens = Detokenizer(text, prompt)
        self._stops = StopTexts(tuple(stops))

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found: nothing more is given."""
        return self._stops.found is not None

    def push(self, token: int) -> str:
        """Take a token; the text that became final with it."""
        return self._stops.push(self._tokens.push(token))

    def finish(self) -> str:
        """What is left once no token follows."""
        return self._stops.push(self._tokens.finish()) + self._stops.finish()
