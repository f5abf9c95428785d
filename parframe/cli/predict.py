"""`parframe predict`: a table of rows in; what each would measure, with its interval, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from parframe.cli.answer import Answer, answers
from parframe.report.screen import table

_MOST = 12


@answers("predict")
@click.argument("rows", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, metavar="CSV", type=click.Path(path_type=Path),
    help="Where to write the rows with what is predicted.",
)  # fmt: skip
@click.option(
    "--hardware",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file of TOML with devices and machines of your own; may be repeated.",
)
def command(rows: Path, output: Path, hardware: tuple[Path, ...]) -> Answer:
    """Predict what rows of a table would measure, each with an 80 % interval.

    ROWS is a CSV file with the columns model, weight_dtype, kv_dtype, gpu, n_gpus, tp, pp, ep, dp,
    batch, concurrency, isl, osl, metric, unit and framework; unknown ones may be empty. The columns
    predicted, low, high and why are added; a row without a basis keeps the first three empty.
    """
    from parframe.price.predict.csv_tables import read_rows, write_rows
    from parframe.price.predict.predictions import predict_rows
    from parframe.price.predict.query_resolution import Basis
    from parframe.price.predict.shipped_models import model
    from parframe.price.serving.hardware_lookup import known

    columns, lines = read_rows(rows)
    basis = Basis(model, known("", hardware))
    answered = list(predict_rows(lines, basis))
    write_rows(output, columns, answered)
    missing = Counter(found.why for _, found in answered if found.value is None)
    facts = {
        "rows": len(answered),
        "predicted": len(answered) - missing.total(),
        "no_basis": dict(missing.most_common()),
        "output": str(output),
    }
    return Answer(facts, partial(_draw, facts))


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield f"{facts['predicted']} of {facts['rows']} rows are predicted, in {facts['output']}."
    reasons = list(facts["no_basis"].items())
    if reasons:
        shown = [(str(count), why) for why, count in reasons[:_MOST]]
        yield table(("rows", "no basis because"), shown)
        if len(reasons) > _MOST:
            yield f"and {len(reasons) - _MOST} other reasons, in the column why."
