"""Notation of rules: ``"... i, o i, o? -> ... o"``, bound to the shapes of one call.

Tensors are separated by commas, dims by blanks. An dim is a label (any name), a product
``(k g)``, segments ``[q | k]``, or ``1``. ``...`` stands for any number of leading dims, the same
in every tensor. Marks: ``i!`` the dim must be whole; ``i*`` (outputs alone) every element is
computed alike; ``i-`` (inputs alone) dropped, not contracted; a tensor that ends in ``?`` may be
absent. Before the arrow stand inputs, behind it outputs; ``-> max: ...`` names another reduction
than the sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

import attrs

from parframe.errors import ParframeError
from parframe.graph import Tensor
from parframe.rules.rule import Rule, Site
from parframe.rules.signature import Concat, Pattern, Signature, labels_of
from parframe.sizes import Size, divide, product

_TOKEN = re.compile(r"\s*(\.\.\.|[A-Za-z_][A-Za-z_0-9]*[!*-]?|1|[()\[\]|?])")


@attrs.frozen
class Notation:
    """A parsed rule, not yet bound to shapes."""

    inputs: tuple[tuple[Pattern, ...], ...]
    optional: tuple[bool, ...]
    outputs: tuple[tuple[Pattern, ...], ...]
    marks: frozenset[tuple[str, str]]
    reduction: str

    def marked(self, mark: str) -> frozenset[str]:
        """Return the labels that have a mark."""
        return frozenset(label for label, found in self.marks if found == mark)


@cache
def parse(text: str) -> Notation:
    """Read a rule; an error quotes the rule and the place where it cannot be read."""
    left, arrow, right = text.partition("->")
    if not arrow:
        raise _bad(text, "has no '->'")
    head, colon, rest = right.partition(":")
    reduction = head.strip() if colon else "sum"
    marks: set[tuple[str, str]] = set()
    inputs = [_tensor(part, text, marks) for part in left.split(",") if part.strip()]
    outputs = [_tensor(part, text, marks) for part in (rest if colon else right).split(",")]
    return Notation(
        inputs=tuple(dims for dims, _ in inputs),
        optional=tuple(optional for _, optional in inputs),
        outputs=tuple(dims for dims, _ in outputs),
        marks=frozenset(marks),
        reduction=reduction,
    )


def _tensor(part: str, text: str, marks: set[tuple[str, str]]) -> tuple[tuple[Pattern, ...], bool]:
    tokens = _tokens(part, text)
    optional = bool(tokens) and tokens[-1] == "?"
    stream = iter(tokens[:-1] if optional else tokens)
    dims: list[Pattern] = []
    for token in stream:
        dims.append(_axis(token, stream, text, marks))
    return tuple(dims), optional


def _tokens(part: str, text: str) -> list[str]:
    tokens, at = [], 0
    while part[at:].strip():
        match = _TOKEN.match(part, at)
        if match is None:
            raise _bad(text, f"cannot be read at {part[at:].strip()!r}")
        tokens.append(match.group(1))
        at = match.end()
    return tokens


def _axis(token: str, stream: Iterator[str], text: str, marks: set[tuple[str, str]]) -> Pattern:
    if token == "(":
        return tuple(_atoms(stream, ")", text, marks))
    if token == "[":
        return (_concat(stream, text, marks),)
    if token == "1":
        return ()
    if token == "...":
        return ("...",)
    if not token[0].isalpha() and token[0] != "_":
        raise _bad(text, f"has {token!r} out of place")
    return (_label(token, marks),)


def _atoms(
    stream: Iterator[str], end: str, text: str, marks: set[tuple[str, str]]
) -> Iterator[str | Concat]:
    for token in stream:
        if token == end:
            return
        yield from _axis(token, stream, text, marks)
    raise _bad(text, f"lacks a {end!r}")


def _concat(stream: Iterator[str], text: str, marks: set[tuple[str, str]]) -> Concat:
    parts: list[Pattern] = []
    current: list[str | Concat] = []
    for token in stream:
        if token in ("|", "]"):
            parts.append(tuple(current))
            current = []
            if token == "]":
                return Concat(tuple(parts))
        else:
            current.extend(_axis(token, stream, text, marks))
    raise _bad(text, "lacks a ']'")


def _label(token: str, marks: set[tuple[str, str]]) -> str:
    if token[-1] in "!*-":
        marks.add((token[:-1], token[-1]))
        return token[:-1]
    return token


def bind(rule: Rule, site: Site) -> Signature | None:
    """Return the signature of one call under a rule; None where the rule does not cover it."""
    if not isinstance(rule.signature, str):
        return rule.signature(site)
    notation = parse(rule.signature)
    slots = rule.slots.split()
    if slots:
        present = [slot in site.operator.slots for slot in slots]
    else:
        slots = list(site.operator.slots)
        present = [True] * len(notation.inputs)
    if any(
        not here and not optional for here, optional in zip(present, notation.optional, strict=True)
    ):
        return None
    kept = [slot for slot, here in zip(slots, present, strict=True) if here]
    patterns = [dims for dims, here in zip(notation.inputs, present, strict=True) if here]
    if kept != list(site.operator.slots) or len(notation.outputs) != len(site.outputs):
        return None
    tensors = (*site.inputs, *site.outputs)
    expanded = _expand([*patterns, *notation.outputs], tensors)
    if expanded is None:
        return None
    sizes = solve(expanded, tensors)
    if sizes is None:
        return None
    inputs, outputs = expanded[: len(kept)], expanded[len(kept) :]
    used = labels_of(expanded)
    return Signature(
        inputs=inputs,
        outputs=outputs,
        sizes=sizes,
        whole=notation.marked("!") & used,
        free=notation.marked("*") & used,
        dropped=notation.marked("-") & used,
        reduction=notation.reduction,
        linear=groups(rule.linear, kept),
        moves=rule.moves,
        addend=kept.index(rule.addend) if rule.addend in kept else None,
    )


def groups(linear: str, slots: list[str]) -> tuple[frozenset[int], ...]:
    """Return the groups of ``"input | weight"`` as numbers of inputs, without absent slots."""
    found = (
        frozenset(i for i, slot in enumerate(slots) if slot in group.split())
        for group in linear.split("|")
    )
    return tuple(group for group in found if group)


def _expand(
    patterns: list[tuple[Pattern, ...]], tensors: tuple[Tensor, ...]
) -> tuple[tuple[Pattern, ...], ...] | None:
    """Expand ``...`` into labels, from the right, for the numbers of dims."""
    result = []
    for dims, tensor in zip(patterns, tensors, strict=True):
        rank = len(tensor.shape)
        if ("...",) in dims:
            at = dims.index(("...",))
            more = rank - (len(dims) - 1)
            if more < 0:
                return None
            extra = tuple((f"_{more - i}",) for i in range(more))
            dims = dims[:at] + extra + dims[at + 1 :]
        if len(dims) != rank:
            return None
        result.append(dims)
    return tuple(result)


def solve(
    tensors: tuple[tuple[Pattern, ...], ...],
    shapes: tuple[Tensor, ...],
    known: Mapping[str, Size] | None = None,
) -> dict[str, Size] | None:
    """Return the size of every label, from the shapes; None where they contradict the patterns.

    ``known`` has the labels whose sizes no shape tells.
    """
    dims = [
        (pattern, size)
        for patterns, tensor in zip(tensors, shapes, strict=True)
        for pattern, size in zip(patterns, tensor.shape, strict=True)
    ]
    sizes: dict[str, Size] = dict(known or {})
    for pattern, size in dims:
        if len(pattern) == 1 and isinstance(pattern[0], str):
            sizes.setdefault(pattern[0], size)
    for pattern, size in dims:
        unknown = [atom for atom in pattern if isinstance(atom, str) and atom not in sizes]
        if len(unknown) == 1 and all(isinstance(atom, str) for atom in pattern):
            others = product(sizes[str(atom)] for atom in pattern if atom != unknown[0])
            quotient = divide(size, others)
            if quotient is None:
                return None
            sizes[unknown[0]] = quotient
    for pattern, size in dims:
        found = pattern_size(pattern, sizes)
        if found is None or found != size:
            return None
    return sizes


def pattern_size(pattern: Pattern, sizes: dict[str, Size]) -> Size | None:
    """Return the size of a dim with this pattern; None where a label is unknown."""
    total: Size = 1
    for atom in pattern:
        if isinstance(atom, str):
            part = sizes.get(atom)
        else:
            parts = [pattern_size(inner, sizes) for inner in atom.parts]
            part = None if None in parts else sum(inner for inner in parts if inner is not None)
        if part is None:
            return None
        total = product((total, part))
    return total


def _bad(text: str, what: str) -> ParframeError:
    return ParframeError(
        "rule",
        repr(text),
        what,
        "write it like '... i, o i, o? -> ... o'; see docs/writing-a-rule.md",
    )
