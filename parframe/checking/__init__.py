"""Checks of a plan without a device: a plan in, findings out."""

from parframe.checking.check import check
from parframe.checking.findings import KINDS, DeviceMemory, Finding, Report, Traffic
from parframe.checking.memory import MemorySizes, all_device_memory, device_memory, memory_sizes

__all__ = [
    "KINDS",
    "DeviceMemory",
    "Finding",
    "MemorySizes",
    "Report",
    "Traffic",
    "all_device_memory",
    "check",
    "device_memory",
    "memory_sizes",
]
