"""Weights of a plan's ranks: read slice by slice, drawn at random, written as one file a rank."""

from parframe.weights.rank_weights import OpenedWeights, open_weights, read_weights
from parframe.weights.shard_writer import WrittenShards, write_shards
from parframe.weights.sources import RandomWeights
from parframe.weights.state_dict import read_state_dict

__all__ = [
    "OpenedWeights",
    "RandomWeights",
    "WrittenShards",
    "open_weights",
    "read_state_dict",
    "read_weights",
    "write_shards",
]
