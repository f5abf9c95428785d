"""Weights of a plan's ranks: read slice by slice, random, or written as one file for each rank."""

from parframe.weights.random_weights import RandomWeights
from parframe.weights.rank_weights import OpenedWeights, open_weights, read_state_dict, read_weights
from parframe.weights.shard_writer import WrittenShards, write_shards

__all__ = [
    "OpenedWeights",
    "RandomWeights",
    "WrittenShards",
    "open_weights",
    "read_state_dict",
    "read_weights",
    "write_shards",
]
