"""What parframe's own engine takes beside its kernels, from runs of small models of two depths.

A small model's kernels take next to nothing, so that what its steps take is the engine's: for a
step, for a layer, for a further stage. Another model, of which kernels take the most, tells how
far off predictions of the whole are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

import parframe
from parframe.generation import Settings
from parframe.hardware import Cluster, Machine
from parframe.measurement.idle_wait import Calm
from parframe.measurement.machine import DTYPES, Asked
from parframe.measurement.samples import Part, Times, times_of
from parframe.measurement.token_timing import arrivals
from parframe.plan import Plan
from parframe.price.choose.setup import ServingSetup, deploy
from parframe.price.cost.dtypes import Dtypes
from parframe.price.serving.engines import Engine
from parframe.price.serving.step_time import StepBatch
from parframe.price.work.work import Work
from parframe.price.work.work_from_plan import work_from_plan

NAME = "parframe"

SHALLOW, DEEPER, CHECKED = 2, 8, 6
"""Layers of a small model, how many more a deeper one has, and of the one that checks."""

PROMPT, NEW = 32, 24
"""Tokens of a prompt and of an answer."""

CHUNK = 512
"""Tokens of a prompt that are computed at once."""


@attrs.frozen
class Run:
    """One run of a small model.

    Parameters
    ----------
    work
        What its plan asks.
    layers
        Of the model.
    dtype
        What it is computed in.
    token, first
        Of a token, and of the first one.
    """

    work: Work
    layers: int
    dtype: str
    token: Times
    first: Times


Pair = tuple[Run, Run]
"""Runs of the small models: the shallow one and the deep one."""


@attrs.frozen
class Runs:
    """All that is run.

    Parameters
    ----------
    tensor
        The small models in tensor parallelism over all ranks.
    stages
        The same in stages, between which ranks take turns; None on one rank.
    checked
        The larger model, each way.
    """

    tensor: Pair
    stages: Pair | None
    checked: tuple[Run, ...]

    @property
    def dtype(self) -> str:
        """What all are computed in."""
        return self.tensor[0].dtype


def runs(asked: Asked, told: Callable[[str], None]) -> Runs:
    """Run all.

    Parameters
    ----------
    asked
        Ranks and device.
    told
        Is told of what begins.
    """
    tiny, larger = _tiny(asked.ranks), _larger(asked.ranks)

    def run(config: Mapping[str, Any], layers: int, composite: str) -> Run:
        batches = asked.batches if config is tiny else max(asked.batches // 4, 2)
        told(f"{layers} layers, {composite}")
        graph = parframe.load({**config, "num_hidden_layers": layers}, positions=True)
        plan = parframe.partition(graph, composite)
        return _timed(plan, layers, asked, batches)

    def pair(composite: str) -> Pair:
        shallow = max(SHALLOW, asked.ranks)
        return run(tiny, shallow, composite), run(tiny, shallow + DEEPER, composite)

    names = [f"TP{asked.ranks}", *([f"PP{asked.ranks}"] if asked.ranks > 1 else [])]
    both = [pair(name) for name in names]
    layers = max(CHECKED, asked.ranks)
    checked = tuple(run(larger, layers, name) for name in names)
    return Runs(both[0], both[1] if len(both) > 1 else None, checked)


def with_engine(machine: Machine, found: Runs, resident: int, part: Part) -> Machine:
    """Give a machine with what parframe's engine takes on it.

    Parameters
    ----------
    machine
        As measured, without engines.
    found
        The runs.
    resident
        Bytes that a rank holds before it has any weights.
    part
        Which of several times counts.
    """
    bare: dict[str, Any] = {
        "step_overhead": 0.0, "reserved_bytes": float(resident), "cache_fraction": 1.0,
        "max_batched_tokens": CHUNK, "sliding_window": False, "static_batching": True,
        "all_logits": True,
    }  # fmt: skip
    engine = Engine(NAME, **bare)
    own = _beside(found, machine, engine, part)
    known = engine.with_constants(own)
    off = [_off(one, machine, known, part) for one in found.checked]
    scatters = machine.device.measured["product"][found.dtype].log_std
    residual = {
        kind: math.hypot(scatters, math.hypot(*(one[at] for one in off)) / math.sqrt(len(off)))
        for at, kind in enumerate(("tpot", "ttft"))
    }
    return attrs.evolve(machine, engines={NAME: {**bare, **own, "residual": residual}})


def _beside(found: Runs, machine: Machine, engine: Engine, part: Part) -> dict[str, float]:
    """What a step, a layer, a stage, a request and exchanges take, by two depths each way.

    Stages exchange next to nothing: what they take longer when deeper is layers' own. What ranks
    that split layers take longer than that is their exchanges', and what remains is the step's.
    """
    pair = found.stages or found.tensor
    (shallow, first), (deep, deep_first) = (_left(run, machine, engine, part) for run in pair)
    layers = pair[1].layers - pair[0].layers
    own = {"layer_overhead": max((deep - shallow) / layers, 0.0)}
    own["prefill_overhead"] = max((deep_first - first) / layers - own["layer_overhead"], 0.0)
    if found.stages is not None:
        own["communication"] = _exchanges(found.tensor, machine, engine.with_constants(own), part)
    known = engine.with_constants(own)
    own["step_overhead"] = max(_left(found.tensor[0], machine, known, part)[0], 0.0)
    known = engine.with_constants(own)
    if found.stages is not None:
        left = _left(found.stages[0], machine, known, part)[0]
        own["stage_overhead"] = max(left / (len(found.stages[0].work.stages) - 1), 0.0)
    known = engine.with_constants(own)
    own["request_overhead"] = max(_left(pair[0], machine, known, part)[1], 0.0)
    return own


def _exchanges(pair: Pair, machine: Machine, engine: Engine, part: Part) -> float:
    """How many times as long exchanges take in a run as by themselves: what depth adds of them."""
    bare = engine.with_constants({"communication": 0.0})
    left = [_left(run, machine, bare, part)[0] for run in pair]
    alone = [predicted(run, machine, engine)[0] - predicted(run, machine, bare)[0] for run in pair]
    return max((left[1] - left[0]) / (alone[1] - alone[0]), 0.0)


def _left(run: Run, machine: Machine, engine: Engine, part: Part) -> tuple[float, float]:
    """Seconds of a token and of a first one beyond what is predicted."""
    token, first = predicted(run, machine, engine)
    return run.token.part(part) - token, run.first.part(part) - first


def _off(run: Run, machine: Machine, engine: Engine, part: Part) -> tuple[float, float]:
    """Logarithms of what was measured over what is predicted."""
    token, first = predicted(run, machine, engine)
    return math.log(run.token.part(part) / token), math.log(run.first.part(part) / first)


def predicted(run: Run, machine: Machine, engine: Engine) -> tuple[float, float]:
    """Seconds of a token and of a first one."""
    cluster = Cluster(machine, machine.per_node)
    dtypes = Dtypes(run.dtype, run.dtype)
    setup = ServingSetup.with_engine_collectives(cluster, dtypes, engine)
    deployment = deploy(run.work, setup)
    token = deployment.step_time(StepBatch(1, PROMPT + NEW / 2))
    first = deployment.step_time(StepBatch(prefills=1, prefill_tokens=PROMPT))
    return token.value, first.value + engine.request_overhead


def _timed(plan: Plan, layers: int, asked: Asked, batches: int) -> Run:
    settings = Settings(
        dtype=asked.dtypes[0], device=asked.device, compiled=True, batch_size=1,
        prefill_chunk=CHUNK, bind_cpus=True,
        timeout=asked.timeout,
    )  # fmt: skip
    prompt = tuple(number % _VOCABULARY for number in range(PROMPT))
    calm = Calm(asked.patience / 20)
    found = arrivals(plan, [prompt], NEW, settings, batches, calm)
    token = times_of([seconds for batch in found for seconds in batch.windows()])
    first = times_of([batch.first for batch in found])
    return Run(work_from_plan(plan), layers, DTYPES[asked.dtypes[0]], token, first)


_VOCABULARY = 64


def _tiny(ranks: int) -> dict[str, Any]:
    heads = ranks * math.ceil(4 / ranks)
    return {**_LLAMA, "hidden_size": 16 * heads, "intermediate_size": 32 * heads, "head_dim": 16,
            "num_attention_heads": heads, "num_key_value_heads": heads,
            "vocab_size": _VOCABULARY * ranks}  # fmt: skip


def _larger(ranks: int) -> dict[str, Any]:
    heads = ranks * math.ceil(8 / ranks)
    return {**_LLAMA, "hidden_size": 64 * heads, "intermediate_size": 192 * heads, "head_dim": 64,
            "num_attention_heads": heads, "num_key_value_heads": heads,
            "vocab_size": 4096 * math.ceil(2 / ranks) * ranks}  # fmt: skip


_LLAMA: Mapping[str, Any] = {
    "model_type": "llama", "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
