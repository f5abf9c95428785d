"""The table of rules, by operator."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from parframe.rules import (
    attention,
    convolution,
    creation,
    experts,
    indexing,
    joining,
    matmul,
    normalization,
    permuting,
    pointwise,
    recurrence,
    reductions,
    repeating,
    slicing,
    views,
)
from parframe.rules.signature import Exchange, Rule

_MODULES: tuple[ModuleType, ...] = (
    attention,
    convolution,
    creation,
    experts,
    indexing,
    joining,
    matmul,
    normalization,
    permuting,
    pointwise,
    recurrence,
    reductions,
    repeating,
    slicing,
    views,
)

RULES: Mapping[str, Rule] = {rule.target: rule for module in _MODULES for rule in module.RULES}
"""Every built-in rule."""

EXCHANGES: Mapping[str, Exchange] = {
    exchange.target: exchange for rule in RULES.values() for exchange in rule.exchanges
}
"""The communication operators by which devices exchange a letter of an operator."""


def rule_for(target: str, extra: Mapping[str, Rule] | None = None) -> Rule | None:
    """The rule of an operator, one of ``extra`` before a built-in one."""
    return (extra or {}).get(target) or RULES.get(target)
