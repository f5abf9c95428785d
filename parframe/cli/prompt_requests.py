"""Requests made of prompts, with the tokenizer and the stop tokens of their model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from parframe.cli.prompts import Prompt
from parframe.generation import Request, Sampling
from parframe.generation.tokenization import ModelTokenizer, read_stop_tokens, read_tokenizer

DEFAULT_NEW_TOKENS = 128
"""Default number of new tokens of a prompt, if so many fit."""


def find_tokenizer(
    prompts: Sequence[Prompt], stops: Sequence[str], given: Path | None, folders: Sequence[Path]
) -> ModelTokenizer | None:
    """Read the tokenizer; return None if it is missing and not needed."""
    with_tokenizer = [folder for folder in folders if (folder / "tokenizer.json").is_file()]
    folder = given or next(iter(with_tokenizer), None)
    if folder is None and not stops and all(prompt.text is None for prompt in prompts):
        return None
    return read_tokenizer(folder or next(iter(folders), Path()))


def find_stop_tokens(folders: Sequence[Path]) -> tuple[int, ...]:
    """Return the stop tokens of the first folder that has any."""
    return next((tokens for folder in folders if (tokens := read_stop_tokens(folder))), ())


def create_requests(
    prompts: Sequence[Prompt],
    sampling: Sampling,
    tokenizer: ModelTokenizer | None,
    positions: int | None,
) -> tuple[Request, ...]:
    """Create the requests of prompts; a number of positions limits the new tokens, if given."""
    requests = []
    for number, prompt in enumerate(prompts):
        tokens = prompt.tokens
        if prompt.text is not None and tokenizer is not None:
            tokens = tokenizer.encode(prompt.text)
        own = sampling
        if positions is not None:
            fitting = max(1, min(DEFAULT_NEW_TOKENS, positions - len(tokens) + 1))
            own = attrs.evolve(own, max_new_tokens=fitting)
        requests.append(Request(number, tokens, attrs.evolve(own, **prompt.sampling)))
    return tuple(requests)
