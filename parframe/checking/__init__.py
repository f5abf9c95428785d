"""Checks of a plan without a device: a plan in, what is wrong with it out."""

from parframe.checking.check import check
from parframe.checking.findings import KINDS, Finding, Memory, Report, Traffic
from parframe.checking.memory import Sizing, memory, sizing

__all__ = [
    "KINDS",
    "Finding",
    "Memory",
    "Report",
    "Sizing",
    "Traffic",
    "check",
    "memory",
    "sizing",
]
