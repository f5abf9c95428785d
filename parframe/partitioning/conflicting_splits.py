"""Check of the user's splits: a mesh axis splits one dimension of a tensor only."""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import combinations

from parframe.dims import Dimensions
from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.layout import Segments, TensorDim, dims_of
from parframe.partitioning.cuts import Cut
from parframe.strategy import STAGES, Placing


def check_splits(
    graph: OperatorGraph, dimensions: Dimensions, placing: Placing, cuts: tuple[Cut, ...]
) -> None:
    """Raise an error if splits put one mesh axis on two dimensions of one weight or input.

    Only splits that the user gives himself contradict each other; of those that strategies offer,
    the first one wins.
    """
    given = [cut for cut in cuts if placing.splits[cut.split].required]
    pairs = [
        (left, right)
        for left, right in combinations(given, 2)
        if left.split != right.split and set(left.axes) & set(right.axes)
    ]
    for name in (*graph.inputs, *graph.parameters) if pairs else ():
        axes = dimensions.outer[name]
        factors = tuple(factor for axis in axes for factor in axis)
        for left, right in pairs:
            if _in_one_tensor(factors, set(left.chain), set(right.chain)):
                here = [cut for cut in given if set(cut.chain) & dims_of(factors)]
                raise _contradiction(name, axes, placing, (left, right), here)


def _in_one_tensor(axis: TensorDim, one: Set[str], other: Set[str]) -> bool:
    """Tell whether two factors of a dim, or of one of its segments, have one dimension each."""
    borne = [dims_of((factor,)) for factor in axis]
    if any(
        (left & one and right & other) or (left & other and right & one)
        for left, right in combinations(borne, 2)
    ):
        return True
    segments = (part for factor in axis if isinstance(factor, Segments) for part in factor.parts)
    return any(_in_one_tensor(part, one, other) for part in segments)


def _contradiction(
    name: str, axes: tuple[TensorDim, ...], placing: Placing, pair: tuple[Cut, Cut], here: list[Cut]
) -> ParframeError:
    left, right = (placing.splits[cut.split].name for cut in pair)
    both = [axis for axis in pair[0].axes if axis in pair[1].axes]
    taken = {axis for cut in here for axis in cut.axes} | set(placing.axes(STAGES))
    free = [axis for axis, degree in placing.mesh.axes if degree > 1 and axis not in taken]
    hint = f"split only one of {left} and {right} over {', '.join(both)}"
    if free:
        hint += f", or one over an axis that is free here: {', '.join(free)}"
    names = {dim: placing.splits[cut.split].name for cut in here for dim in cut.chain}
    shown = " x ".join(_shown(axis, names) for axis in axes)
    return ParframeError(
        "partition",
        f"splits.{right}",
        f"{name} is {shown}, and splits put axis {', '.join(both)} on both {left} and {right}",
        hint,
    )


def _shown(axis: TensorDim, names: Mapping[str, str]) -> str:
    """Describe a dim by the names that the user splits, or else by its dimensions."""
    shown = dict.fromkeys(names.get(dim, dim) for dim in sorted(dims_of(axis)))
    return " * ".join(shown) or "1"
