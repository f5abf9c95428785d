"""Limits of a language model: the size of its vocabulary and its number of positions."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from parframe.errors import ParframeError
from parframe.graph import OperatorGraph
from parframe.simulation.trial_inputs import find_index_limits


@attrs.frozen
class ModelLimits:
    """Limits of a language model.

    Parameters
    ----------
    vocabulary
        Number of tokens in the vocabulary.
    positions
        Largest number of tokens of a text; None without a limit.
    """

    vocabulary: int
    positions: int | None


def find_model_limits(graph: OperatorGraph) -> ModelLimits:
    """Find the limits of a language model in its tables, its inputs and its configuration.

    Raises
    ------
    ParframeError
        Of kind ``input``, if the model takes no tokens.
    """
    rows = find_index_limits(graph, {})
    tokens = [
        rows[name]
        for name, declared in graph.inputs.items()
        if name in rows and not declared.counted
    ]
    if not tokens:
        raise ParframeError(
            "input",
            graph.source or "the model",
            "takes no tokens: no input selects rows of an embedding table",
            "use a language model",
        )
    return ModelLimits(min(tokens), min(_positions(graph, rows), default=None))


def _positions(graph: OperatorGraph, rows: dict[str, int]) -> Iterator[int]:
    """Yield every limit for the positions of a text."""
    for name, declared in graph.inputs.items():
        if declared.counted and name in rows:
            yield rows[name]
        for axis, most in zip(declared.axes, declared.most, strict=False):
            if axis == "sequence" and most is not None:
                yield most
    text = graph.config.get("text_config")
    for config in (graph.config, text if isinstance(text, dict) else {}):
        most = config.get("max_position_embeddings")
        if isinstance(most, int) and most > 0:
            yield most
