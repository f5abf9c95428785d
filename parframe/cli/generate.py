"""`parframe generate`: a model and prompts in; what the model says on, from many devices, out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import attrs
import click

import parframe
from parframe import hooks
from parframe.cli.answer import DEBUG, steps
from parframe.cli.completions import Completion, Event, Liner, Printer, follow
from parframe.cli.failures import Reported
from parframe.cli.live import View
from parframe.cli.options import model_argument
from parframe.cli.prompts import Prompt, read_prompts
from parframe.cli.source import load_model, model_of, weights_of
from parframe.errors import ParframeError, did_you_mean
from parframe.generation import Request, Sampling, Settings
from parframe.generation.request_checks import check_request
from parframe.generation.tokenization import ModelTokenizer, read_stop_tokens, read_tokenizer
from parframe.plan import Plan
from parframe.report.formatting import counted
from parframe.spec import Spec
from parframe.spec.keys import DTYPES

_COUNT = click.IntRange(1)
_RANDOM = "random"
MOST = 128
"""How many new tokens a prompt gets where nothing is said of it, and so many fit."""


@click.command("generate")
@model_argument
@click.option("--parallel", help="The composite, such as TP2; one device without it.")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="May be repeated.")
@click.option(
    "--prompt-file", metavar="FILE", help="A prompt, or a JSON object, a line; - for stdin."
)
@click.option(
    "--max-new-tokens",
    type=_COUNT,
    metavar="N",
    help=f"At most so many for a prompt; without it {MOST}, or as many as fit.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    default=0.0,
    metavar="T",
    help="Draw tokens; 0, the default, takes the most likely one.",
)
@click.option("--top-k", type=_COUNT, metavar="K", help="Draw from the K most likely tokens.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="P",
    help="Draw from the fewest tokens of this probability together.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="Seed of draws and of random weights.",
)
@click.option("--stop", "stops", multiple=True, metavar="TEXT", help="End before this text.")
@click.option("--ignore-eos", is_flag=True, help="Go on after the model's own stop tokens.")
@click.option("--weights", metavar="FOLDER", help="Not those of the model; `random` for seeded.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Folder, if not the model's.")
@click.option("--pickled", is_flag=True, help="Read weights from .bin or .pt files too.")
@click.option("--extra", is_flag=True, help="Leave out weights that the model has no use for.")
@click.option("--dtype", type=click.Choice(DTYPES), help="What to compute in, if not the model's.")
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True)
@click.option(
    "--executor",
    default="local",
    show_default=True,
    metavar="NAME",
    help="What runs the devices: local, torchrun, simulate, or one of a plugin.",
)
@click.option(
    "--compile/--no-compile", "compiled", default=False, help="Compile the devices' work."
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
    "--cache/--no-cache",
    "cached",
    default=True,
    help="Keep keys and values; without, every token computes all before it again.",
)
@click.option("--context", type=_COUNT, metavar="N", help="Positions of the cache of a prompt.")
@click.option(
    "--batch",
    "batch_size",
    type=_COUNT,
    default=8,
    show_default=True,
    metavar="N",
    help="Prompts at once on a replica.",
)
@click.option(
    "--micro-batches", type=_COUNT, metavar="N", help="Parts of a batch for pipeline stages."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a device may be silent.",
)
@click.option("--stream/--no-stream", default=None, help="Print text as it comes (the default).")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line for a prompt.")
def command(
    model: Path,
    parallel: str | None,
    prompts: tuple[str, ...],
    prompt_file: str | None,
    stops: tuple[str, ...],
    ignore_eos: bool,
    weights: str | None,
    tokenizer: Path | None,
    stream: bool | None,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Continue prompts with a model on many devices.

    Completions go to stdout in the order of the prompts, each with a newline at its end; all else
    goes to stderr. An object in the file of prompts has a `prompt` or `tokens`, and may have
    max_new_tokens, temperature, top_k, top_p and seed of its own.

    MODEL is a Hugging Face folder, a config.json, a spec that names a model, or a plan.
    """
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        _check_options(as_json, stream, options)
        asked = read_prompts(prompts, prompt_file)
        most = options.pop("max_new_tokens")
        sampling = Sampling(
            max_new_tokens=most or MOST, **{name: options.pop(name) for name in _SAMPLING}
        )
        settings = Settings(seed=sampling.seed, **options)
        with steps(2) as step:
            step(f"loading {model}")
            plan = plan_of(model, parallel, options["dtype"])
        settings = attrs.evolve(
            settings, weights=weights_folder(plan, model, weights, settings.pickled)
        )
        folders = _folders(plan, model, settings.weights)
        text = _text(asked, stops, tokenizer, folders)
        if not ignore_eos:
            sampling = attrs.evolve(sampling, stop=_stop_tokens(folders))
        from parframe.generation.model_limits import find_model_limits  # needs torch

        limits = find_model_limits(plan.graph)
        room = None if most else _room(limits.positions, settings.context)
        requests = _requests(asked, sampling, text, room)
        for request in requests:
            check_request(request, limits.vocabulary, limits.positions, settings.context)
        if _take_part(plan, requests, settings):
            return
        completions = [
            Completion(prompt, request, text, stops)
            for prompt, request in zip(asked, requests, strict=True)
        ]
        streaming = stream is not False
        with View(_speed(completions, plan)) as view:
            beside = view.aside(out)
            printed = (
                Liner(completions, beside) if as_json else Printer(completions, beside, streaming)
            )

            def show() -> None:
                printed()
                if printed.resting:
                    view.show()

            failures = follow(_events(plan, requests, settings), completions, show)
    if failures:
        raise Reported(failures[0].error)


command.params.append(DEBUG)

_SAMPLING = ("temperature", "top_k", "top_p", "seed")


def _check_options(as_json: bool, stream: bool | None, options: dict[str, Any]) -> None:
    """Refuse options that contradict each other."""
    greedy = options["temperature"] == 0
    for name in ("top_k", "top_p"):
        if greedy and options[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise _usage(option, "the most likely token is taken", "give --temperature as well")
    if as_json and stream:
        raise _usage("--stream", "lines of JSON come when they are whole", "leave out one of both")
    _check_executor(options["executor"])
    if options["compiled"] and options["executor"] == "simulate":
        raise _usage("--compile", "simulated devices are not compiled", "leave out one of both")
    rows, parts = options["batch_size"], options["micro_batches"]
    if parts is not None and parts > rows:
        raise _usage(
            "--micro-batches", f"{rows} prompts at once cannot be split into {parts} parts",
            f"give at most {rows}, or a larger --batch",
        )  # fmt: skip


def _check_executor(name: str) -> None:
    """Refuse a name that neither parframe nor a plugin has, before anything is loaded."""
    known = (*hooks.EXECUTORS, *hooks.claimed_executors())
    if name not in known:
        raise _usage(
            f"--executor {name}", f"there is none of this name{did_you_mean(name, known)}",
            f"use one of {', '.join(known)}",
        )  # fmt: skip


def _usage(where: str, what: str, hint: str) -> ParframeError:
    return ParframeError("usage", f"parframe generate {where}", what, hint)


def plan_of(model: Path, parallel: str | None, dtype: str | None = None) -> Plan:
    """The plan of a model that computes in a dtype, or one that was made before."""
    if model.name == "plan.json" or (model / "plan.json").is_file():
        if parallel is not None:
            raise _usage("--parallel", f"{model} is a plan already", "give the model instead")
        return parframe.load_plan(model)
    if model.suffix == ".toml":
        spec = Spec.read(model)
        spec = attrs.evolve(spec, parallel=parallel) if parallel is not None else spec
        return parframe.partition(load_model(model_of(spec), None, dtype), spec)
    return parframe.partition(load_model(model, None, dtype), parallel or "TP1")


def _folders(plan: Plan, model: Path, weights: Path | None) -> tuple[Path, ...]:
    """The folders that may have the model's tokenizer and weights, the likeliest first."""
    given = [weights] if weights is not None else []
    beside = [model] if model.is_dir() else [model.parent]
    found = [*given, *beside, Path(plan.graph.source or "no model")]
    return tuple(folder for folder in found if folder.is_dir())


def weights_folder(
    plan: Plan, model: Path, weights: str | None, pickled: bool = False
) -> Path | None:
    """The folder of the weights, by default what lies beside the model; None for random ones."""
    if weights == _RANDOM:
        return None
    if weights is not None:
        if not Path(weights).is_dir():
            raise ParframeError(
                "weights", weights, "is not a folder", "give a folder with .safetensors, or random"
            )
        return Path(weights)
    found = weights_of(model) or weights_of(Path(plan.graph.source or "no model"))
    if found is None and pickled and model.is_dir():
        return model
    if found is None:
        raise _usage(
            "--weights", f"{plan.graph.source or 'the model'} has no .safetensors",
            "give --weights FOLDER, or --weights random to try the plan out",
        )  # fmt: skip
    return found


def _text(
    prompts: Sequence[Prompt], stops: Sequence[str], given: Path | None, folders: Sequence[Path]
) -> ModelTokenizer | None:
    """The tokenizer; None where there is none and none is needed."""
    there = [folder for folder in folders if (folder / "tokenizer.json").is_file()]
    folder = given or next(iter(there), None)
    if folder is None and not stops and all(prompt.text is None for prompt in prompts):
        return None
    return read_tokenizer(folder or next(iter(folders), Path()))


def _stop_tokens(folders: Sequence[Path]) -> tuple[int, ...]:
    return next((found for folder in folders if (found := read_stop_tokens(folder))), ())


def _room(model: int | None, cache: int | None) -> int | None:
    """How many positions there are for a prompt and what comes of it; None for any number."""
    return min((size for size in (model, cache) if size is not None), default=None)


def _requests(
    prompts: Sequence[Prompt], sampling: Sampling, text: ModelTokenizer | None, room: int | None
) -> tuple[Request, ...]:
    """The requests that prompts become, numbered in order; no longer than there is room, if any."""
    found = []
    for number, prompt in enumerate(prompts):
        tokens = prompt.tokens
        if prompt.text is not None and text is not None:
            tokens = text.encode(prompt.text)
        own = sampling
        if room is not None:
            fitting = max(1, min(MOST, room - len(tokens) + 1))
            own = attrs.evolve(own, max_new_tokens=fitting)
        found.append(Request(number, tokens, attrs.evolve(own, **prompt.sampling)))
    return tuple(found)


def _events(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Generator[Event, None, None]:
    """Tokens, results and failures, as they come."""
    from parframe.executors import generate

    yield from generate(plan, requests, settings)


def _take_part(plan: Plan, requests: Sequence[Request], settings: Settings) -> bool:
    """Do the part of a rank that is told nothing; False for all others."""
    from parframe.executors.generate import receives_outcomes

    if receives_outcomes(settings.executor):
        return False
    for _ in _events(plan, requests, settings):
        pass
    return True


def _speed(completions: Sequence[Completion], plan: Plan) -> Callable[[], str]:
    """A line that says how many tokens came, and how fast since the first ones."""
    start = time.monotonic()
    first: list[tuple[float, int]] = []

    def line() -> str:
        now = time.monotonic()
        tokens = sum(len(completion.tokens) for completion in completions)
        ended = sum(completion.outcome is not None for completion in completions)
        if tokens and not first:
            first.append((now, tokens))
        since, before = first[0] if first else (now, tokens)
        rate = f", {(tokens - before) / (now - since):.1f} a second" if tokens > before else ""
        return (
            f"{counted(tokens, 'token')} in {now - start:.1f} s{rate}; "
            f"{ended} of {counted(len(completions), 'prompt')} ended; "
            f"{counted(plan.mesh.size, 'device')}"
        )

    return line
