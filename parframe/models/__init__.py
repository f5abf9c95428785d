"""Models known without a download: their configurations, and their graphs exported before."""

from parframe.models.catalog import Shipped, find, known, shipped

__all__ = ["Shipped", "find", "known", "shipped"]
