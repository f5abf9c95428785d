"""Incremental detokenization, and stop strings.

Tokens cannot be decoded one by one: a character may need several tokens, and the first token of a
text loses its space. So a window is decoded that has the tokens emitted last and those not yet
emitted. The text of the window beyond that of its first part is new. It is final unless it ends
within a character: with U+FFFD, which stands for invalid bytes, or with a token of a single byte,
since decoders treat a run of such tokens as a whole. With the few decoders that change earlier
text, all text is emitted at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from parframe.errors import ParframeError
from parframe.generation.tokenization import ModelTokenizer, list_decoders

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_APPENDING = frozenset(
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
"""Decoders whose text only grows with more tokens, except for runs of bytes."""


class Detokenizer:
    """Incremental detokenizer: it emits text as soon as it is final.

    All emitted text together is the text of the prompt and the tokens, decoded as one, without that
    of the prompt.
    """

    def __init__(self, tokenizer: ModelTokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._special_tokens = tokenizer.special_tokens
        steps = list_decoders(tokenizer.tokenizer)
        kinds = {step["type"] for step in steps}
        self._appends = kinds <= _APPENDING and not any(step.get("stop") for step in steps)
        self._bytes = "ByteFallback" in kinds
        self._window = [token for token in prompt if self._has_text(token)]
        self._emitted = len(self._window)
        self._prefix = tokenizer.decode(self._window)

    def push(self, token: int) -> str:
        """Add a token, and return the text that has become final."""
        if not self._has_text(token):
            return ""
        self._window.append(token)
        if not self._appends or self._is_byte(token):
            return ""
        whole = self._tokenizer.decode(self._window)
        if len(whole) <= len(self._prefix) or whole.endswith(_UNKNOWN):
            return ""
        return self._emit(whole)

    def finish(self) -> str:
        """Return the remaining text after the last token."""
        return self._emit(self._tokenizer.decode(self._window))

    def _emit(self, whole: str) -> str:
        new = whole[len(self._prefix) :]
        self._window = self._window[self._emitted :]
        self._emitted = len(self._window)
        self._prefix = self._tokenizer.decode(self._window)
        return new

    def _has_text(self, token: int) -> bool:
        """Return whether a token has text; a model may have more tokens than its tokenizer."""
        known = self._tokenizer.tokenizer.id_to_token(token) is not None
        return known and token not in self._special_tokens

    def _is_byte(self, token: int) -> bool:
        content = self._tokenizer.tokenizer.id_to_token(token) if self._bytes else None
        return content is not None and _BYTE.fullmatch(content) is not None


@attrs.define
class StopStrings:
    """Stop strings: text ends before the first that is complete.

    Parameters
    ----------
    stops
        The stop strings.

    Raises
    ------
    ParframeError
        Of kind ``input``, if a stop string is empty.
    """

    stops: tuple[str, ...]
    matched: str | None = attrs.field(default=None, init=False)
    _withheld: str = attrs.field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        if "" in self.stops:
            raise ParframeError("input", "stop string", "is empty", "use at least one character")

    def push(self, text: str) -> str:
        """Add text, and return the text that cannot belong to a stop string."""
        if self.matched is not None:
            return ""
        self._withheld += text
        ends = [
            (self._withheld.index(stop) + len(stop), -len(stop), stop)
            for stop in self.stops
            if stop in self._withheld
        ]
        if ends:
            end, less, self.matched = min(ends)
            return self._withheld[: end + less]
        keep = max((_find_overlap(self._withheld, stop) for stop in self.stops), default=0)
        final = self._withheld[: len(self._withheld) - keep]
        self._withheld = self._withheld[len(final) :]
        return final

    def finish(self) -> str:
        """Return the text withheld as a possible beginning of a stop string."""
        return "" if self.matched is not None else self._withheld


def _find_overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of a text that begins a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)


class TextStream:
    """Text of one request, piece by piece."""

    def __init__(
        self, tokenizer: ModelTokenizer, prompt: Sequence[int] = (), stops: Sequence[str] = ()
    ) -> None:
        self._tokens = Detokenizer(tokenizer, prompt)
        self._stops = StopStrings(tuple(stops))

    @property
    def stopped(self) -> bool:
        """True once a stop string was found."""
        return self._stops.matched is not None

    def push(self, token: int) -> str:
        """Add a token, and return the text that has become final."""
        return self._stops.push(self._tokens.push(token))

    def finish(self) -> str:
        """Return the remaining text after the last token."""
        return self._stops.push(self._tokens.finish()) + self._stops.finish()
