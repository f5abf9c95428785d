"""What a rank does alike in all steps of as many tokens: worked out once for each width."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.generation.replicas import Replica, places
from parframe.layout import Span
from parframe.plan import Part
from parframe.runtime.rank_module import RankModule
from parframe.simulation.regions import Regions, evaluate_regions


@attrs.frozen
class Width:
    """What follows from the number of tokens of a step.

    Parameters
    ----------
    sizes
        The sizes of the rank's tensors by the names of their symbols.
    given
        Those that the module must be given.
    inputs
        Each of the rank's parts of the inputs, and where it lies in what its rows are given.
    kept
        Where the tokens that the rank keeps lie in these, one region within the other.
    columns
        In its part of the logits, the column of each token whose logits it has.
    """

    sizes: Mapping[str, int]
    given: Mapping[str, int]
    inputs: tuple[tuple[Part, Regions], ...]
    kept: tuple[Regions, ...]
    columns: Mapping[int, int]


def width_of(
    module: RankModule, replica: Replica, rows: int, own: int, tokens: int, logits: Part | None
) -> Width:
    """Work out what follows from a number of tokens.

    Parameters
    ----------
    module, replica
        The rank's module, and the ranks that work together.
    rows, own
        The rows of the replica's batch, and those of the rank.
    tokens
        How many tokens of a row a step has.
    logits
        The rank's part of the logits, if it has one.
    """
    sizes = replica.sizes(module.rank, rows, tokens)
    every = ((Span(own, 0, own),),)
    keeping = module.cached_program.token_regions if module.cached_program is not None else ()
    here = places(logits, sizes, 1, tokens) if logits is not None else ()
    return Width(
        sizes,
        {name: sizes[name] for name in module.symbols},
        tuple((part, (*every, evaluate_regions(part.region, sizes)[1])) for part in module.inputs),
        tuple((*every, evaluate_regions(region, sizes)[1]) for region in keeping),
        {place: number for number, place in enumerate(here)},
    )
