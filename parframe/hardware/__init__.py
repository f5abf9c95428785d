"""GPUs, machines and clusters: published figures as data."""

from parframe.hardware.catalog import Catalog, catalog, cluster, shipped
from parframe.hardware.cluster import Cluster, Span
from parframe.hardware.device import DTYPES, Device
from parframe.hardware.machine import Link, Machine
from parframe.hardware.measurements import MeasuredCollective, Speeds

__all__ = [
    "DTYPES",
    "Catalog",
    "Cluster",
    "Device",
    "Link",
    "Machine",
    "MeasuredCollective",
    "Span",
    "Speeds",
    "catalog",
    "cluster",
    "shipped",
]
