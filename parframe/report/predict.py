"""Summary of the predictions of a table: how many rows, and reasons for those left empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from parframe.price.predict.predictions import Prediction
from parframe.report.formatting import counted
from parframe.report.screen import lines, table

SHOWN = 12
"""Number of reasons in the table."""


def prediction_facts(predictions: Sequence[Prediction], output: str) -> dict[str, Any]:
    """Return the summary as facts for JSON."""
    reasons = Counter(prediction.why for prediction in predictions if prediction.value is None)
    return {
        "rows": len(predictions),
        "predicted": len(predictions) - reasons.total(),
        "not_predicted": dict(reasons.most_common()),
        "output": output,
    }


def draw_predictions(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Draw the number of predicted rows, and the most frequent reasons for the others."""
    yield f"Predicted {facts['predicted']:,} of {counted(facts['rows'], 'row')}: {facts['output']}"
    reasons = list(facts["not_predicted"].items())
    if reasons:
        shown = [(f"{count:,}", reason) for reason, count in reasons[:SHOWN]]
        yield table(("rows", "not predicted because"), shown, right=("rows",))
        if len(reasons) > SHOWN:
            yield lines([f"{len(reasons) - SHOWN} more reasons: see the column `why`"])
