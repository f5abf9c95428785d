"""Layout of a step on one rank: symbol sizes and token regions for steps of one width."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.generation.replicas import Replica, find_indices
from parframe.layout import Span
from parframe.plan import Part
from parframe.runtime.rank_module import RankModule
from parframe.simulation.regions import Regions, evaluate_regions


@attrs.frozen
class StepLayout:
    """Sizes and regions of one rank for steps with a given number of tokens a row.

    Parameters
    ----------
    sizes
        Sizes of the rank's tensors by the names of their symbols.
    module_sizes
        The sizes that the module takes as arguments.
    inputs
        The rank's parts of the inputs, each with its regions within the rows of the rank.
    cached
        Regions of the tokens that the rank caches, each within the region before it.
    logits_columns
        Column in the rank's part of the logits of each token whose logits the rank has.
    """

    sizes: Mapping[str, int]
    module_sizes: Mapping[str, int]
    inputs: tuple[tuple[Part, Regions], ...]
    cached: tuple[Regions, ...]
    logits_columns: Mapping[int, int]


def compute_step_layout(
    module: RankModule,
    replica: Replica,
    rows: int,
    rank_rows: int,
    tokens: int,
    logits: Part | None,
) -> StepLayout:
    """Compute the layout of steps with a given number of tokens a row."""
    sizes = replica.sizes(module.rank, rows, tokens)
    all_rows = ((Span(rank_rows, 0, rank_rows),),)
    cached = module.cached_program.token_regions if module.cached_program is not None else ()
    logits_tokens = find_indices(logits, sizes, 1, tokens) if logits is not None else ()
    return StepLayout(
        sizes,
        {name: sizes[name] for name in module.symbols},
        tuple(
            (part, (*all_rows, evaluate_regions(part.region, sizes)[1])) for part in module.inputs
        ),
        tuple((*all_rows, evaluate_regions(region, sizes)[1]) for region in cached),
        {token: column for column, token in enumerate(logits_tokens)},
    )
