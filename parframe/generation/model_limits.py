"""How many tokens a language model knows, and for how many positions it was made."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.simulation.trial_inputs import find_index_limits


@attrs.frozen
class Limits:
    """What a language model takes.

    Parameters
    ----------
    vocabulary
        How many tokens it knows.
    positions
        How many tokens a text may have; None where nothing limits it.
    """

    vocabulary: int
    positions: int | None


def limits_of(graph: OperatorGraph) -> Limits:
    """What a language model takes: from its tables, its inputs and its configuration.

    Raises
    ------
    ParframeError
        Of kind ``input``, if it takes no tokens.
    """
    rows = find_index_limits(graph, {})
    tokens = [
        rows[name] for name, given in graph.inputs.items() if name in rows and not given.counted
    ]
    if not tokens:
        raise ParframeError(
            "input",
            graph.source or "the model",
            "takes no tokens: none of its inputs numbers the rows of a table",
            "give a language model",
        )
    return Limits(min(tokens), min(_positions(graph, rows), default=None))


def _positions(graph: OperatorGraph, rows: dict[str, int]) -> Iterator[int]:
    """Every limit there is for the positions of a text."""
    for name, given in graph.inputs.items():
        if given.counted and name in rows:
            yield rows[name]
        for axis, most in zip(given.axes, given.most, strict=False):
            if axis == "sequence" and most is not None:
                yield most
    text = graph.config.get("text_config")
    for config in (graph.config, text if isinstance(text, dict) else {}):
        most = config.get("max_position_embeddings")
        if isinstance(most, int) and most > 0:
            yield most
