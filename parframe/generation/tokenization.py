"""Tokenization of prompts, and decoding of tokens."""

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
class ModelTokenizer:
    """Tokenizer of a model."""

    tokenizer: Tokenizer

    def encode(self, prompt: str) -> tuple[int, ...]:
        """Return the token IDs of a prompt, with the special tokens that the model expects."""
        return tuple(self.tokenizer.encode(prompt).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special tokens."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    @property
    def special_tokens(self) -> frozenset[int]:
        """IDs of the special tokens, which have no text."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(token for token, content in added.items() if content.special)


def read_tokenizer(folder: Path) -> ModelTokenizer:
    """Read the tokenizer of a model's folder.

    Parameters
    ----------
    folder
        Folder with ``tokenizer.json``, which also gives the special tokens of a prompt. As in
        transformers, it takes precedence over ``add_bos_token`` of ``tokenizer_config.json``.

    Raises
    ------
    ParframeError
        Of kind ``load``, if the file is missing or cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ParframeError(
            "load",
            str(folder),
            "has no tokenizer.json, which converts between text and token IDs",
            "save one with transformers (AutoTokenizer.from_pretrained, save_pretrained), "
            "or give token IDs",
        )
    tokenizer = _parse_tokenizer(read_text(path, "load"), path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return ModelTokenizer(tokenizer)


def read_stop_tokens(folder: Path) -> tuple[int, ...]:
    """Read the stop tokens of a model from ``generation_config.json`` or ``config.json``.

    Raises
    ------
    ParframeError
        Of kind ``load``, if they are not token IDs.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        found = _read_json_object(path).get("eos_token_id")
        if found is None:
            continue
        tokens = found if isinstance(found, list) else [found]
        if not all(isinstance(t, int) and not isinstance(t, bool) and t >= 0 for t in tokens):
            raise ParframeError(
                "load",
                f"{path}, eos_token_id",
                f"{str(found)[:60]} is not a token ID",
                "use a number or a list of numbers",
            )
        return tuple(tokens)
    return ()


def _parse_tokenizer(text: str, path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ParframeError(
            "load",
            "tokenizers",
            "is not installed, and is needed to convert text to token IDs",
            "install parframe[hf], or give token IDs",
        ) from error
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise ParframeError(
            "load", str(path), f"is not a tokenizer ({error})"[:200], "download it again"
        ) from error


def _read_json_object(path: Path) -> dict[str, Any]:
    """Read the JSON object of a file; return an empty one if the file does not exist."""
    if not path.is_file():
        return {}
    content = read_json(path, "load")
    if not isinstance(content, dict):
        raise ParframeError("load", str(path), "is not a JSON object", "download it again")
    return content


def list_decoders(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return the decoding steps of a tokenizer."""
    decoder: dict[str, Any] | None = json.loads(tokenizer.to_str()).get("decoder")
    if decoder is None:
        return []
    steps: list[dict[str, Any]] = decoder.get("decoders", [decoder])
    return steps
