"""GPUs, the machines they are in, and clusters of them: published figures as data."""

from parframe.hardware.catalogue import Catalogue, catalogue, cluster, shipped
from parframe.hardware.cluster import Cluster, Span
from parframe.hardware.device import DTYPES, Device
from parframe.hardware.machine import Link, Machine
from parframe.hardware.measurements import Exchanged, Speeds

__all__ = [
    "DTYPES",
    "Catalogue",
    "Cluster",
    "Device",
    "Exchanged",
    "Link",
    "Machine",
    "Span",
    "Speeds",
    "catalogue",
    "cluster",
    "shipped",
]
