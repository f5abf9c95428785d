"""Fusion of pointwise operators into kernels, as in serving engines."""

from __future__ import annotations

from itertools import pairwise

from parframe.price.work.dataflow import Flow


def fuse_pointwise(flow: Flow) -> dict[int, int]:
    """Return, for every pointwise operator, the first operator of its fused kernel."""
    level: dict[str, int] = {}
    height: list[int] = []
    parent: dict[int, int] = {}

    def find(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(one: int, other: int) -> None:
        low, high = sorted((find(one), find(other)))
        parent[high] = low

    for number, operator in enumerate(flow.operators):
        own = max((level.get(name, 0) for name in operator.inputs), default=0)
        kind = flow.kinds[number]
        height.append(own)
        made = {flow.producer.get(flow.source(name), -1) for name in operator.inputs}
        near = [n for n in made if n in parent and height[n] == own]
        if kind == "pointwise":
            parent[number] = number
            for other in near:
                join(number, other)
        elif kind not in ("view", "free"):
            for one, other in pairwise(near):
                join(one, other)  # what one kernel takes is made by one
        heavy = kind not in ("view", "free", "pointwise")
        level.update(dict.fromkeys(operator.outputs, own + heavy))
    return {number: find(number) for number in parent}
