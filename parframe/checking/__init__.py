"""Checks of a plan without a device: a plan in, what is wrong with it out."""

from parframe.checking.check import check
from parframe.checking.findings import KINDS, DeviceMemory, Finding, Report, Traffic
from parframe.checking.memory import MemorySizes, device_memory, memory_sizes

__all__ = [
    "KINDS",
    "DeviceMemory",
    "Finding",
    "MemorySizes",
    "Report",
    "Traffic",
    "check",
    "device_memory",
    "memory_sizes",
]
