"""Prompts as token ids, and token ids as text that is given as soon as it is final."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from parframe.errors import ParframeError
from parframe.json_input import read_json, read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@attrs.frozen
class Text:
    """The tokenizer of a model's folder.

    Parameters
    ----------
    tokenizer
        Of the library ``tokenizers``; it neither fills up nor cuts off.
    """

    tokenizer: Tokenizer

    def encode(self, prompt: str) -> tuple[int, ...]:
        """The tokens of a prompt, with the special tokens that the model expects."""
        return tuple(self.tokenizer.encode(prompt).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    @property
    def silent(self) -> frozenset[int]:
        """The special tokens, which give no text."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(token for token, content in added.items() if content.special)


def read_tokenizer(folder: Path) -> Text:
    """The tokenizer of a model's folder.

    Parameters
    ----------
    folder
        A folder with ``tokenizer.json``, which says all, special tokens included; as with
        transformers, ``add_bos_token`` of ``tokenizer_config.json`` does not count beside it.

    Raises
    ------
    ParframeError
        Of kind ``load``, if there is none or it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ParframeError(
            "load",
            str(folder),
            "has no tokenizer.json, which turns text into token ids and back",
            "write one with AutoTokenizer.from_pretrained(...).save_pretrained(folder) of "
            "transformers, or give token ids",
        )
    tokenizer = _parsed(read_text(path, "load"), path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return Text(tokenizer)


def stop_tokens(folder: Path) -> tuple[int, ...]:
    """The tokens that end a text, as a model's ``generation_config.json`` or ``config.json`` says.

    Raises
    ------
    ParframeError
        Of kind ``load``, if they are no token ids.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        found = _object(path).get("eos_token_id")
        if found is None:
            continue
        tokens = found if isinstance(found, list) else [found]
        if not all(isinstance(t, int) and not isinstance(t, bool) and t >= 0 for t in tokens):
            raise ParframeError(
                "load",
                f"{path}, eos_token_id",
                f"{str(found)[:60]} is no token id",
                "give a number or a list of numbers",
            )
        return tuple(tokens)
    return ()


def _parsed(text: str, path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ParframeError(
            "load",
            "tokenizers",
            "text is turned into token ids by tokenizers, which is not installed",
            "pip install 'parframe[hf]', or give token ids",
        ) from error
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise ParframeError(
            "load", str(path), f"is not a tokenizer ({error})"[:200], "download it again"
        ) from error


def _object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; an empty one if there is no such file."""
    if not path.is_file():
        return {}
    content = read_json(path, "load")
    if not isinstance(content, dict):
        raise ParframeError("load", str(path), "is not a JSON object", "download it again")
    return content


def decoders_of(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """What a tokenizer does to make text of tokens, step by step."""
    decoder: dict[str, Any] | None = json.loads(tokenizer.to_str()).get("decoder")
    if decoder is None:
        return []
    steps: list[dict[str, Any]] = decoder.get("decoders", [decoder])
    return steps
