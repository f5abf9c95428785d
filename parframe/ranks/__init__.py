"""The module of one device: its program as an fx graph, its cache, its process groups."""

from parframe.ranks.cache import Cache
from parframe.ranks.hosted import device_module
from parframe.ranks.module import RankModule

__all__ = ["Cache", "RankModule", "device_module"]
