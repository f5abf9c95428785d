"""`parframe predict`: predictions with intervals for the rows of a CSV table."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from parframe.cli.answer import Answer, answers
from parframe.cli.deployment_options import hardware_option


@answers("predict")
@click.argument("rows", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, metavar="CSV", type=click.Path(path_type=Path),
    help="File to write the rows with their predictions to.",
)  # fmt: skip
@hardware_option
def command(rows: Path, output: Path, hardware: tuple[Path, ...]) -> Answer:
    """Predict the metric of each row of a table, with an 80 % interval.

    ROWS is a CSV file with the columns model, weight_dtype, kv_dtype, gpu, n_gpus, tp, pp, ep, dp,
    batch, concurrency, isl, osl, metric, unit and framework; unknown cells may be empty. The
    columns predicted, low, high and why are added. If a row cannot be predicted, the first three
    stay empty and why has the reason.
    """
    from parframe.price.predict.csv_tables import read_rows, write_rows
    from parframe.price.predict.predictions import predict_row
    from parframe.price.predict.query_resolution import Registry
    from parframe.price.predict.shipped_models import servable_model
    from parframe.price.serving.hardware_lookup import load_catalog
    from parframe.report.predict import draw_predictions, prediction_facts

    columns, lines = read_rows(rows)
    registry = Registry(servable_model, load_catalog("", hardware))
    predictions = [(row, predict_row(row, registry)) for row in lines]
    write_rows(output, columns, predictions)
    facts = prediction_facts([prediction for _, prediction in predictions], str(output))
    return Answer(facts, partial(draw_predictions, facts))
