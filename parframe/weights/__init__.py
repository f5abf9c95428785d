"""Weights of a plan's ranks: read slice by slice, drawn at random, written as one file a rank."""

from parframe.weights.origin import Random
from parframe.weights.read import read
from parframe.weights.shards import write_shards
from parframe.weights.state import state

__all__ = ["Random", "read", "state", "write_shards"]
