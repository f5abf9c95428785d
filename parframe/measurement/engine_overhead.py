"""Overhead of parframe's own engine, from runs of small models of two depths.

The kernels of a small model take very little time, so the time of its steps is the engine's: per
step, per layer, per pipeline stage. A larger model, where kernels take most of the time, gives the
error of predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

import parframe
from parframe.generation import Settings
from parframe.hardware import Cluster, Machine
from parframe.measurement.idle_wait import IdleWait
from parframe.measurement.rank_measurement import DTYPES, MeasurementSettings
from parframe.measurement.samples import Statistic, Times, summarize_times
from parframe.measurement.token_timing import time_batches
from parframe.plan import Plan
from parframe.price.choose.setup import ServingSetup, deploy
from parframe.price.cost.dtypes import Dtypes
from parframe.price.serving.engines import Engine
from parframe.price.serving.step_time import StepBatch
from parframe.price.work.work import Work
from parframe.price.work.work_from_plan import work_from_plan

NAME = "parframe"

SHALLOW_LAYERS, MORE_LAYERS, LARGER_LAYERS = 2, 8, 6
"""Layers of the shallow small model, layers that the deep one has more, layers of the larger."""

PROMPT_TOKENS, NEW_TOKENS = 32, 24

PREFILL_CHUNK = 512
"""Tokens of a prompt that are computed in one step."""

_VOCABULARY = 64


@attrs.frozen
class ModelRun:
    """Times of one run of a model."""

    work: Work
    layers: int
    dtype: str
    tpot: Times  # time per output token
    ttft: Times  # time to first token


ModelPair = tuple[ModelRun, ModelRun]
"""Runs of the small models: the shallow one and the deep one."""


@attrs.frozen
class ModelRuns:
    """Runs of all models, in tensor parallelism and in pipeline parallelism over all ranks."""

    tensor: ModelPair
    pipeline: ModelPair | None  # None on one rank
    larger: tuple[ModelRun, ...]  # the larger model in both ways


@attrs.frozen
class _Baseline:
    """Machine, engine with the overheads known so far, and statistic, to compare runs with."""

    machine: Machine
    engine: Engine
    statistic: Statistic

    def with_constants(self, constants: Mapping[str, float]) -> _Baseline:
        """Return a baseline with other overheads of the engine."""
        return attrs.evolve(self, engine=self.engine.with_constants(constants))

    def excess(self, run: ModelRun) -> tuple[float, float]:
        """Return the seconds of TPOT and TTFT in excess of the prediction."""
        tpot, ttft = predict_latency(run, self.machine, self.engine)
        return run.tpot.get(self.statistic) - tpot, run.ttft.get(self.statistic) - ttft

    def log_errors(self, run: ModelRun) -> tuple[float, float]:
        """Return the logarithms of measured over predicted TPOT and TTFT."""
        tpot, ttft = predict_latency(run, self.machine, self.engine)
        measured_tpot, measured_ttft = run.tpot.get(self.statistic), run.ttft.get(self.statistic)
        return math.log(measured_tpot / tpot), math.log(measured_ttft / ttft)


def run_models(settings: MeasurementSettings, report: Callable[[str], None]) -> ModelRuns:
    """Run all models, and report a description of each run as it begins."""
    ranks = settings.ranks
    small, larger = _small_config(ranks), _larger_config(ranks)

    def run(config: Mapping[str, Any], layers: int, composite: str) -> ModelRun:
        batches = settings.batches if config is small else max(settings.batches // 4, 2)
        report(f"{layers} layers, {composite}")
        graph = parframe.load({**config, "num_hidden_layers": layers}, positions=True)
        return _time_plan(parframe.partition(graph, composite), layers, settings, batches)

    def run_pair(composite: str) -> ModelPair:
        shallow = max(SHALLOW_LAYERS, ranks)
        return run(small, shallow, composite), run(small, shallow + MORE_LAYERS, composite)

    composites = [f"TP{ranks}", *([f"PP{ranks}"] if ranks > 1 else [])]
    pairs = [run_pair(composite) for composite in composites]
    layers = max(LARGER_LAYERS, ranks)
    larger_runs = tuple(run(larger, layers, composite) for composite in composites)
    return ModelRuns(pairs[0], pairs[1] if len(pairs) > 1 else None, larger_runs)


def add_engine(
    machine: Machine, runs: ModelRuns, resident_bytes: int, statistic: Statistic
) -> Machine:
    """Return a machine with the overheads of parframe's engine on it.

    `resident_bytes` is the memory of a rank before it has weights.
    """
    fixed: dict[str, Any] = {
        "step_overhead": 0.0, "reserved_bytes": float(resident_bytes), "cache_fraction": 1.0,
        "max_batched_tokens": PREFILL_CHUNK, "sliding_window": False, "static_batching": True,
        "all_logits": True,
    }  # fmt: skip
    baseline = _Baseline(machine, Engine(NAME, **fixed), statistic)
    overheads = _fit_overheads(runs, baseline)
    fitted = baseline.with_constants(overheads)
    errors = [fitted.log_errors(run) for run in runs.larger]
    kernel_error = machine.device.measured["product"][runs.tensor[0].dtype].log_std
    residual = {
        kind: math.hypot(kernel_error, math.hypot(*values) / math.sqrt(len(values)))
        for kind, values in zip(("tpot", "ttft"), zip(*errors, strict=True), strict=True)
    }
    return attrs.evolve(machine, engines={NAME: {**fixed, **overheads, "residual": residual}})


def _fit_overheads(runs: ModelRuns, baseline: _Baseline) -> dict[str, float]:
    """Fit the engine's overheads in seconds, one after the other, from models of two depths.

    Pipeline stages hardly communicate, so what a deeper pipeline takes longer is the overhead of
    layers. What deeper tensor parallelism takes longer than that is communication, and the
    remainder is the overhead of the step.
    """
    pair = runs.pipeline or runs.tensor
    (shallow, shallow_ttft), (deep, deep_ttft) = (baseline.excess(run) for run in pair)
    layers = pair[1].layers - pair[0].layers
    overheads = {"layer_overhead": max((deep - shallow) / layers, 0.0)}
    prefill = (deep_ttft - shallow_ttft) / layers - overheads["layer_overhead"]
    overheads["prefill_overhead"] = max(prefill, 0.0)
    if runs.pipeline is not None:
        overheads["communication"] = _fit_communication(
            runs.tensor, baseline.with_constants(overheads)
        )
    step = baseline.with_constants(overheads).excess(runs.tensor[0])[0]
    overheads["step_overhead"] = max(step, 0.0)
    if runs.pipeline is not None:
        run = runs.pipeline[0]
        stages = baseline.with_constants(overheads).excess(run)[0]
        overheads["stage_overhead"] = max(stages / (len(run.work.stages) - 1), 0.0)
    request = baseline.with_constants(overheads).excess(pair[0])[1]
    overheads["request_overhead"] = max(request, 0.0)
    return overheads


def _fit_communication(pair: ModelPair, baseline: _Baseline) -> float:
    """Return the factor by which collectives take longer in a run than when timed alone."""
    without = baseline.with_constants({"communication": 0.0})
    excess = [without.excess(run)[0] for run in pair]
    alone = [
        predict_latency(run, baseline.machine, baseline.engine)[0]
        - predict_latency(run, without.machine, without.engine)[0]
        for run in pair
    ]
    return max((excess[1] - excess[0]) / (alone[1] - alone[0]), 0.0)


def predict_latency(run: ModelRun, machine: Machine, engine: Engine) -> tuple[float, float]:
    """Predict the TPOT and the TTFT of a run, in seconds."""
    cluster = Cluster(machine, machine.per_node)
    dtypes = Dtypes(run.dtype, run.dtype)
    setup = ServingSetup(cluster, dtypes, engine)
    deployment = deploy(run.work, setup)
    tpot = deployment.step_time(StepBatch(1, PROMPT_TOKENS + NEW_TOKENS / 2))
    ttft = deployment.step_time(StepBatch(prefills=1, prefill_tokens=PROMPT_TOKENS))
    return tpot.value, ttft.value + engine.request_overhead


def _time_plan(plan: Plan, layers: int, settings: MeasurementSettings, batches: int) -> ModelRun:
    """Run a plan and return its latencies."""
    run_settings = Settings(
        dtype=settings.dtypes[0],
        device=settings.device,
        compiled=True,
        batch_size=1,
        prefill_chunk=PREFILL_CHUNK,
        bind_cpus=True,
        timeout=settings.timeout,
    )
    prompt = tuple(number % _VOCABULARY for number in range(PROMPT_TOKENS))
    idle = IdleWait(settings.patience / 20)
    times = time_batches(plan, [prompt], NEW_TOKENS, run_settings, batches, idle.wait)
    return ModelRun(
        work_from_plan(plan),
        layers,
        DTYPES[settings.dtypes[0]],
        tpot=summarize_times([seconds for batch in times for seconds in batch.window_means()]),
        ttft=summarize_times([batch.ttft for batch in times]),
    )


def _small_config(ranks: int) -> dict[str, Any]:
    heads = ranks * math.ceil(4 / ranks)
    return {**_LLAMA, "hidden_size": 16 * heads, "intermediate_size": 32 * heads, "head_dim": 16,
            "num_attention_heads": heads, "num_key_value_heads": heads,
            "vocab_size": _VOCABULARY * ranks}  # fmt: skip


def _larger_config(ranks: int) -> dict[str, Any]:
    heads = ranks * math.ceil(8 / ranks)
    return {**_LLAMA, "hidden_size": 64 * heads, "intermediate_size": 192 * heads, "head_dim": 64,
            "num_attention_heads": heads, "num_key_value_heads": heads,
            "vocab_size": 4096 * math.ceil(2 / ranks) * ranks}  # fmt: skip


_LLAMA: Mapping[str, Any] = {
    "model_type": "llama", "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
