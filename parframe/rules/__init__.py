"""Rules of operators: their kinds, and which dims of their tensors are the same dimension."""

from parframe.rules.kinds import Attention, Experts, Kind, Lookup, Pointwise, Product, View
from parframe.rules.notation import bind, parse
from parframe.rules.rule import (
    DeviceOperator,
    DistributedForm,
    Local,
    PricedCollective,
    Rule,
    Site,
    without_addend,
)
from parframe.rules.signature import Concat, Pattern, Signature

__all__ = [
    "Attention",
    "Concat",
    "DeviceOperator",
    "DistributedForm",
    "Experts",
    "Kind",
    "Local",
    "Lookup",
    "Pattern",
    "Pointwise",
    "PricedCollective",
    "Product",
    "Rule",
    "Signature",
    "Site",
    "View",
    "bind",
    "parse",
    "without_addend",
]
