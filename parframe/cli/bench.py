"""`parframe bench`: a model and a composite in; how fast it generates, in numbers, out."""

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
from parframe.cli.generate import plan_of, weights_folder
from parframe.cli.options import model_argument
from parframe.errors import ParframeError
from parframe.generation import Settings
from parframe.plan import Plan
from parframe.report.communication import draw_traffic, traffic_facts
from parframe.report.formatting import counted
from parframe.report.memory import draw_memory, memory_facts
from parframe.report.screen import BLANK, heading, table
from parframe.spec.keys import DTYPES

_COUNT = click.IntRange(1)
_MANY = click.IntRange(3)


@answers("bench")
@model_argument
@click.option("--parallel", help="The composite, such as TP2; one device without it.")
@click.option("--prompt-tokens", type=_COUNT, default=32, show_default=True, metavar="N")
@click.option("--new-tokens", type=_MANY, default=64, show_default=True, metavar="N")
@click.option(
    "--batch", type=_COUNT, default=1, show_default=True, metavar="N", help="Prompts at once."
)
@click.option(
    "--batches",
    type=_COUNT,
    default=1,
    show_default=True,
    metavar="N",
    help="How many batches are measured, after one that warms up.",
)
@click.option("--weights", metavar="FOLDER", help="Not those of the model; `random` for seeded.")
@click.option("--pickled", is_flag=True, help="Read weights from .bin or .pt files too.")
@click.option("--extra", is_flag=True, help="Leave out weights that the model has no use for.")
@click.option("--dtype", type=click.Choice(DTYPES), help="What to compute in, if not the model's.")
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True)
@click.option("--executor", default="local", show_default=True, help="What starts the devices.")
@click.option("--compile/--no-compile", "compiled", default=True, help="Compile the devices' work.")
@click.option(
    "--cache/--no-cache",
    "cached",
    default=True,
    help="Keep keys and values; without, every token computes all before it again.",
)
@click.option(
    "--share-gpus",
    "share_gpus",
    is_flag=True,
    help="Let several devices of the plan share a GPU, slowly, to try it out.",
)
@click.option(
    "--bind/--no-bind",
    "bind_cpus",
    default=True,
    help="Keep each process to processors of its own.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True,
    help="Seed of prompts and of random weights.",
)  # fmt: skip
@click.option(
    "--against",
    type=click.Choice(("transformers",)),
    help="Generate by this as well, in one process, and compare.",
)
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
    """Measure how fast a model generates on many devices.

    Prompts are random tokens, and no token ends them. Starting, reading weights and compiling are
    not counted.

    MODEL is a Hugging Face folder, a config.json, a spec that names a model, or a plan.
    """
    from parframe.generation.replicas import find_replicas
    from parframe.measurement.token_timing import summarize_latency, time_batches
    from parframe.simulation.dtypes import find_float_dtype

    with steps(4 if against else 3) as step:
        step(f"loading {model}")
        plan = plan_of(model, parallel, options["dtype"])
        folder = weights_folder(plan, model, weights, options["pickled"])
        if against and folder is None:
            raise ParframeError(
                "usage", "parframe bench --against", "transformers needs a folder of weights",
                "give --weights FOLDER",
            )  # fmt: skip
        step("counting what is sent and held")
        replicas = find_replicas(plan)
        checked = partial(
            parframe.check, plan,
            dtype=options["dtype"] or find_float_dtype(plan.graph) or "float32",
            batch=batch * len(replicas),
        )  # fmt: skip
        sent = checked(sequence=replicas[0].token_multiple).traffic
        held = checked(sequence=prompt_tokens + new_tokens).memory
        prompts = random_prompts(plan, batch, prompt_tokens, options["seed"])
        step(f"generating on {plan.mesh.size} devices")
        settings = Settings(weights=folder, batch_size=batch, **options)
        found = summarize_latency(time_batches(plan, prompts, new_tokens, settings, batches))
        peer = None
        if against and folder is not None:
            step("generating with transformers")
            peer = transformers_figures(folder, prompts, new_tokens, options["dtype"])
    facts = {
        "devices": plan.mesh.size,
        "batch": batch,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "parframe": found,
        "transformers": peer,
        "tpot_ratio": found["tpot_ms"] / peer["tpot_ms"] if peer else None,
        "communication": traffic_facts(sent),
        "memory": memory_facts(held, None),
    }
    return Answer(facts, partial(_draw, facts))


def random_prompts(plan: Plan, count: int, length: int, seed: int) -> list[tuple[int, ...]]:
    """Prompts of random tokens of the model's vocabulary."""
    import random

    from parframe.generation.model_limits import find_model_limits

    draw = random.Random(seed)
    vocabulary = find_model_limits(plan.graph).vocabulary
    return [tuple(draw.randrange(vocabulary) for _ in range(length)) for _ in range(count)]


def transformers_figures(
    folder: Path, prompts: Sequence[tuple[int, ...]], new_tokens: int, dtype: str | None
) -> dict[str, float]:
    """The same of transformers' own `generate`, in this process."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.generation.streamers import BaseStreamer

    from parframe.measurement.token_timing import TokenTimes, summarize_latency

    class Clock(BaseStreamer):
        """Notes when tokens come; the prompt itself is the first that is told."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            """All tokens have come."""

    peer: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")
    given = torch.tensor(prompts)
    clock, begun = Clock(), 0.0
    for _ in range(2):  # the first to warm up
        clock, begun = Clock(), time.perf_counter()
        peer.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=new_tokens,
            min_new_tokens=new_tokens, do_sample=False, streamer=clock,
        )  # fmt: skip
    return summarize_latency([TokenTimes(begun, (tuple(clock.times[1:]),) * len(prompts))])


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
    devices, prompts = counted(facts["devices"], "device"), counted(facts["batch"], "prompt")
    yield heading("Speed", f"{devices}, {prompts} at once")
    rows = []
    for key, words in _ROWS.items():
        rows.append([words, *(f"{facts[name][key]:.2f}" for name in names)])
    yield table(("", *names), rows, right=names)
    if facts["tpot_ratio"] is not None:
        yield f"TPOT, relative to that of transformers: {facts['tpot_ratio']:.2f}"
    yield BLANK
    yield from draw_traffic(facts["communication"], "bytes per token")
    yield BLANK
    yield from draw_memory(facts["memory"])
