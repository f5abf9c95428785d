"""Models that ship with parframe: their configurations, and their operator graphs."""

from parframe.models.catalog import ShippedModel, find_model, lookup_model, shipped_models

__all__ = ["ShippedModel", "find_model", "lookup_model", "shipped_models"]
