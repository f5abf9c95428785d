"""Weights of a plan's ranks: read slice by slice, drawn at random, written as one file a rank."""

from parframe.weights.origin import Random
from parframe.weights.read import Opened, open_weights, read
from parframe.weights.shards import Written, write_shards
from parframe.weights.state import state

__all__ = ["Opened", "Random", "Written", "open_weights", "read", "state", "write_shards"]
