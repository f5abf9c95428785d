"""Command `parframe bench`: measure the generation speed of a model on many devices."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

import parframe
from parframe.cli.answer import Answer, answers, steps
from parframe.cli.options import model_argument
from parframe.cli.plan_source import find_weights_folder, load_or_make_plan
from parframe.cli.run_options import parallel_option, run_options
from parframe.errors import ParframeError
from parframe.generation import Settings
from parframe.plan import Plan
from parframe.report.communication import draw_traffic, traffic_facts
from parframe.report.formatting import counted
from parframe.report.memory import draw_memory, memory_facts
from parframe.report.screen import BLANK, heading, table

_COUNT = click.IntRange(1)


@answers("bench")
@model_argument
@parallel_option
@click.option(
    "--prompt-tokens", type=_COUNT, default=32, show_default=True, metavar="N",
    help="Tokens of each prompt.",
)  # fmt: skip
@click.option(
    "--new-tokens", type=click.IntRange(3), default=64, show_default=True, metavar="N",
    help="New tokens of each prompt.",
)  # fmt: skip
@click.option(
    "--batch", type=_COUNT, default=1, show_default=True, metavar="N",
    help="Batch size of a replica.",
)  # fmt: skip
@click.option(
    "--batches", type=_COUNT, default=1, show_default=True, metavar="N",
    help="Number of measured batches, after one for warm-up.",
)  # fmt: skip
@run_options(compiled=True)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True,
    help="Seed of prompts and of random weights.",
)  # fmt: skip
@click.option(
    "--against", type=click.Choice(("transformers",)),
    help="Library to measure as well, in one process, for comparison.",
)  # fmt: skip
def command(
    model: Path,
    parallel: str | None,
    prompt_tokens: int,
    new_tokens: int,
    batch: int,
    batches: int,
    weights: str | None,
    against: str | None,
    **options: Any,
) -> Answer:
    """Measure the generation speed of a model on many devices.

    Prompts consist of random tokens, and no stop token ends them. The times exclude startup,
    reading weights and compilation.

    MODEL is a Hugging Face folder, a config.json, a spec that names a model, or a plan.
    """
    from parframe.generation.replicas import find_replicas
    from parframe.measurement.token_timing import summarize_latency, time_batches
    from parframe.simulation.dtypes import find_float_dtype

    with steps(4 if against else 3) as step:
        step(f"loading {model}")
        plan = load_or_make_plan(model, parallel, options["dtype"])
        folder = find_weights_folder(plan, model, weights, options["pickled"])
        if against and folder is None:
            raise ParframeError(
                "usage", "parframe bench --against", "transformers needs a weights folder",
                "give --weights PATH",
            )  # fmt: skip
        step("counting communication and memory")
        replicas = find_replicas(plan)
        check = partial(
            parframe.check, plan,
            dtype=options["dtype"] or find_float_dtype(plan.graph) or "float32",
            batch=batch * len(replicas),
        )  # fmt: skip
        traffic = check(sequence=replicas[0].token_multiple).traffic
        memory = check(sequence=prompt_tokens + new_tokens).memory
        prompts = random_prompts(plan, batch, prompt_tokens, options["seed"])
        step(f"generating on {plan.mesh.size} devices")
        settings = Settings(weights=folder, batch_size=batch, **options)
        own = summarize_latency(time_batches(plan, prompts, new_tokens, settings, batches))
        other = None
        if against and folder is not None:
            step("generating with transformers")
            other = time_transformers(folder, prompts, new_tokens, options["dtype"])
    facts = {
        "devices": plan.mesh.size,
        "batch_size": batch,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "parframe": own,
        "transformers": other,
        "tpot_ratio": own["tpot_ms"] / other["tpot_ms"] if other else None,
        "communication": traffic_facts(traffic),
        "memory": memory_facts(memory, None),
    }
    return Answer(facts, partial(_draw, facts))


def random_prompts(plan: Plan, count: int, length: int, seed: int) -> list[tuple[int, ...]]:
    """Return prompts of random tokens of the model's vocabulary."""
    import random

    from parframe.generation.model_limits import find_model_limits

    draw = random.Random(seed)
    vocabulary = find_model_limits(plan.graph).vocabulary
    return [tuple(draw.randrange(vocabulary) for _ in range(length)) for _ in range(count)]


def time_transformers(
    folder: Path, prompts: Sequence[tuple[int, ...]], new_tokens: int, dtype: str | None
) -> dict[str, float]:
    """Measure the `generate` of transformers in this process."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.generation.streamers import BaseStreamer

    from parframe.measurement.token_timing import TokenTimes, summarize_latency

    class Clock(BaseStreamer):
        """Streamer that records the times of tokens; the first call passes the prompt."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            """Ignore the end of the tokens."""

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")
    tokens = torch.tensor(prompts)
    clock, start = Clock(), 0.0
    for _ in range(2):  # the first is the warm-up
        clock, start = Clock(), time.perf_counter()
        model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens,
            min_new_tokens=new_tokens, do_sample=False, streamer=clock,
        )  # fmt: skip
    return summarize_latency([TokenTimes(start, (tuple(clock.times[1:]),) * len(prompts))])


_ROWS = {
    "ttft_ms": "TTFT (ms)",
    "tpot_ms": "TPOT, median (ms)",
    "tpot_p10_ms": "TPOT, p10 (ms)",
    "tpot_p90_ms": "TPOT, p90 (ms)",
    "tokens_per_second_per_user": "tok/s/user",
    "output_tokens_per_second": "output tok/s",
}


def _draw(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    names = [name for name in ("parframe", "transformers") if facts[name]]
    devices = counted(facts["devices"], "device")
    yield heading("Speed", f"{devices}, batch size {facts['batch_size']}")
    rows = [[head, *(f"{facts[name][key]:.2f}" for name in names)] for key, head in _ROWS.items()]
    yield table(("", *names), rows, right=names)
    if facts["tpot_ratio"] is not None:
        yield f"TPOT of parframe / TPOT of transformers: {facts['tpot_ratio']:.2f}"
    yield BLANK
    yield from draw_traffic(facts["communication"], "bytes per token")
    yield BLANK
    yield from draw_memory(facts["memory"])
