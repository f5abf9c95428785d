"""Measurement of a machine in rounds, and the description that all rounds give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from parframe.hardware import Machine
from parframe.measurement.engine_overhead import (
    ModelPair,
    ModelRun,
    ModelRuns,
    add_engine,
    run_models,
)
from parframe.measurement.machine import build_machine
from parframe.measurement.rank_measurement import (
    MeasurementSettings,
    RankMeasurements,
    measure_ranks,
)
from parframe.measurement.samples import Statistic, merge_rounds


@attrs.frozen
class Round:
    """Measurements of one round: times of kernels and collectives, runs of small models."""

    ranks: RankMeasurements
    models: ModelRuns


def measure_round(settings: MeasurementSettings, report: Callable[[str], None]) -> Round:
    """Measure everything once; ``report`` is called with a description of each part."""
    report(f"kernels and collectives of {settings.ranks} ranks")
    return Round(measure_ranks(settings), run_models(settings, report))


def combine_rounds(
    settings: MeasurementSettings, rounds: Sequence[Round], statistic: Statistic
) -> Machine:
    """Build the description of a machine from one or more rounds of measurements."""
    measurements = RankMeasurements()
    for measured in rounds:
        measurements.extend(measured.ranks)
    machine = build_machine(settings, measurements, statistic)
    models = _merge_models([measured.models for measured in rounds])
    return add_engine(machine, models, measurements.resident_bytes, statistic)


def _merge_models(rounds: Sequence[ModelRuns]) -> ModelRuns:
    pipelines = [runs.pipeline for runs in rounds if runs.pipeline is not None]
    return ModelRuns(
        _merge_pairs([runs.tensor for runs in rounds]),
        _merge_pairs(pipelines) if pipelines else None,
        tuple(_merge_runs(runs) for runs in zip(*(r.larger for r in rounds), strict=True)),
    )


def _merge_pairs(pairs: Sequence[ModelPair]) -> ModelPair:
    return _merge_runs([shallow for shallow, _ in pairs]), _merge_runs([deep for _, deep in pairs])


def _merge_runs(runs: Sequence[ModelRun]) -> ModelRun:
    return attrs.evolve(
        runs[0],
        tpot=merge_rounds([run.tpot for run in runs]),
        ttft=merge_rounds([run.ttft for run in runs]),
    )
