"""Named dimensions: a graph and rules in, the named dimensions of every tensor dim out."""

from parframe.dims.dimensions import BoundOperator, Dimension, Dimensions
from parframe.dims.naming import name_dimensions

__all__ = ["BoundOperator", "Dimension", "Dimensions", "name_dimensions"]
