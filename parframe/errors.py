"""Error that parframe raises for mistakes of its users, its kinds and their exit codes."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

KINDS: dict[str, tuple[int, str]] = {
    "usage": (2, "the command line is incomplete or contradicts itself"),
    "internal": (3, "a bug in parframe"),
    "install": (4, "an optional package is not installed"),
    "spec": (10, "the spec cannot be read or has an illegal key or value"),
    "composite": (11, "a composite such as TP4DP2 is malformed"),
    "mesh": (12, "a mesh, one of its axes or a rank is wrong"),
    "strategy": (13, "strategies are unknown, clash or cannot be placed"),
    "plugin": (14, "an installed plugin cannot be used"),
    "hardware": (15, "a device or a node is unknown, or its description is wrong"),
    "load": (20, "a model cannot be loaded or exported"),
    "weights": (21, "weights are missing or do not match the model"),
    "graph": (22, "an operator graph is not legal"),
    "rule": (23, "an operator has no rule, or its rule does not match the call"),
    "input": (24, "the inputs do not match the model"),
    "partition": (30, "the model cannot be split as asked"),
    "plan": (31, "a plan cannot be read or is not legal"),
    "check": (32, "a plan did not pass its checks"),
    "memory": (33, "a device needs more memory than its budget"),
    "verify": (34, "a plan does not compute what the model computes"),
    "run": (35, "a plan could not be executed"),
    "choice": (36, "no composite is left to choose from, or the request contradicts itself"),
    "output": (40, "a result cannot be written"),
}
"""Every kind of error: its exit code and what it means."""

EXTRAS: dict[str, str] = {
    "torch": "torch",
    "safetensors": "torch",
    "tokenizers": "hf",
    "transformers": "hf",
}
"""Extra of the distribution that installs each optional package."""


class ParframeError(Exception):
    """Mistake that its reader can correct, printed as one line.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    where : str
        Place: a file with line and key, an operator, a rank.
    what : str
        Statement of what is wrong there.
    hint : str
        Action that corrects it, in the imperative.

    Raises
    ------
    ValueError
        If the kind is not in `KINDS`.

    Examples
    --------
    >>> print(ParframeError("mesh", "rank 9", "the mesh has 8 ranks", "give a rank from 0 to 7"))
    error[mesh] rank 9: the mesh has 8 ranks; give a rank from 0 to 7
    """

    def __init__(self, kind: str, where: str, what: str, hint: str) -> None:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of error {kind!r}{did_you_mean(kind, KINDS)}")
        super().__init__(kind, where, what, hint)
        self.kind = kind
        self.where = where
        self.what = what
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends with this error."""
        return KINDS[self.kind][0]

    def __str__(self) -> str:
        return f"error[{self.kind}] {self.where}: {self.what}; {self.hint}"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice nearest to a word.

    Parameters
    ----------
    word : str
        Word that is no choice.
    choices : iterable of str
        Legal words.

    Returns
    -------
    str or None
        The closest choice whatever its case, or None if none is close.
    """
    by_folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(word[:100].casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return the nearest choice as the end of a sentence.

    Parameters
    ----------
    word : str
        Word that is no choice.
    choices : iterable of str
        Legal words.

    Returns
    -------
    str
        For example ` (did you mean 'output'?)`; empty if no choice is close.
    """
    choice = nearest(word, choices)
    return f" (did you mean {choice!r}?)" if choice else ""


@contextmanager
def optional_packages(extra: str | None = None) -> Iterator[None]:
    """Turn a failed import of an optional package into an error that names its extra.

    Parameters
    ----------
    extra : str, optional
        Extra that the operation needs, if it is more than the one of the package.

    Raises
    ------
    ParframeError
        Of kind ``install``, if a package of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as fault:
        package = (fault.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise ParframeError(
            "install",
            package,
            "this operation needs it, and it is not installed",
            f"run pip install 'parframe[{extra or EXTRAS[package]}]'",
        ) from fault
