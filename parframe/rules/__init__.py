"""Operators' rules: which axes of an operator's tensors are the same dimension."""

from parframe.rules.notation import bind, parse
from parframe.rules.signature import (
    Concat,
    Exchange,
    Local,
    Pattern,
    Rule,
    Signature,
    Site,
    without_addend,
)

__all__ = [
    "Concat",
    "Exchange",
    "Local",
    "Pattern",
    "Rule",
    "Signature",
    "Site",
    "bind",
    "parse",
    "without_addend",
]
