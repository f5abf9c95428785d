"""What a model is used for: lengths, requests in flight, limits on waiting."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import attrs

from parframe.errors import ParframeError, did_you_mean

MOST = 1e9
"""No figure of a use is larger."""

FIGURES = {
    "prompt": "tokens of a prompt",
    "output": "tokens of an answer",
    "concurrency": "requests in flight",
    "first": "limit of the first token, in seconds",
    "token": "limit of later tokens, in seconds",
}
"""What each figure is, in errors."""


@attrs.frozen
class UseCase:
    """A use, by which deployments are compared.

    Parameters
    ----------
    name, title
        Its name, and what it is.
    prompt, output
        Tokens of a prompt and of an answer.
    concurrency
        Requests in flight over the whole deployment.
    first, token
        Seconds that the first and every later token may take; None for any.
    source
        Where the figures come from.

    Raises
    ------
    ParframeError
        Of kind ``choice``, if a figure is none.
    """

    name: str
    title: str
    prompt: float
    output: float
    concurrency: float
    first: float | None = None
    token: float | None = None
    source: str = ""

    def __attrs_post_init__(self) -> None:
        for name, what in FIGURES.items():
            value = getattr(self, name)
            if value is not None and not 0 < value <= MOST:
                raise ParframeError(
                    "choice", what, f"{value:g} is not possible", f"give above zero, to {MOST:g}"
                )
        if self.first is not None and self.token is not None and self.token > self.first:
            raise ParframeError(
                "choice",
                f"limits of {self.first * 1e3:g} ms to the first token and "
                f"{self.token * 1e3:g} ms for later ones",
                "contradict each other: a step that reads a prompt takes longer than one that does "
                "not",
                "give the first token at least as long as the others",
            )


@cache
def use_cases() -> dict[str, UseCase]:
    """Give the use cases that ship, by their names."""
    text = resources.files("parframe.price").joinpath("data", "use_cases.toml").read_text("utf-8")
    return {name: UseCase(name, **entry) for name, entry in tomllib.loads(text).items()}


def use_case(name: str) -> UseCase:
    """Give a use case.

    Raises
    ------
    ParframeError
        Of kind ``choice``, if there is none of that name.
    """
    known = use_cases()
    if name not in known:
        raise ParframeError(
            "choice",
            f"use case {name!r}",
            f"is not known{did_you_mean(name, known)}",
            f"use one of {', '.join(known)}, and give lengths and limits of your own",
        )
    return known[name]
