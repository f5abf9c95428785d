"""Command `parframe generate`: complete prompts with a model on many devices."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import attrs
import click

from parframe import hooks
from parframe.cli.answer import DEBUG, steps
from parframe.cli.completion_printers import JSONLinesPrinter, TextPrinter
from parframe.cli.completions import Completion, Event, collect_completions
from parframe.cli.failures import Reported
from parframe.cli.live_view import LiveView
from parframe.cli.options import model_argument
from parframe.cli.plan_source import find_model_folders, find_weights_folder, load_or_make_plan
from parframe.cli.prompt_requests import (
    DEFAULT_NEW_TOKENS,
    create_requests,
    find_stop_tokens,
    find_tokenizer,
)
from parframe.cli.prompts import read_prompts
from parframe.cli.run_options import parallel_option, run_options
from parframe.errors import ParframeError, did_you_mean
from parframe.generation import Request, Sampling, Settings
from parframe.generation.request_checks import check_request
from parframe.plan import Plan
from parframe.report.formatting import counted

_COUNT = click.IntRange(1)
_SAMPLING = ("temperature", "top_k", "top_p", "seed")


@click.command("generate")
@model_argument
@parallel_option
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Prompt; may be repeated.")
@click.option(
    "--prompt-file", metavar="PATH",
    help="File with a prompt or a JSON object a line; - for stdin.",
)  # fmt: skip
@click.option(
    "--max-new-tokens", type=_COUNT, metavar="N",
    help=f"Maximal number of new tokens (default: {DEFAULT_NEW_TOKENS}, or as many as fit).",
)  # fmt: skip
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.0, show_default=True, metavar="T",
    help="Temperature; 0 takes the most likely token.",
)  # fmt: skip
@click.option(
    "--top-k", type=_COUNT, metavar="K",
    help="Number of most likely tokens to draw from (default: all).",
)  # fmt: skip
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), metavar="P",
    help="Total probability of the most likely tokens to draw from (default: 1).",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True,
    help="Seed of draws and of random weights.",
)  # fmt: skip
@click.option(
    "--stop", "stops", multiple=True, metavar="TEXT",
    help="Stop string: end before it; may be repeated.",
)  # fmt: skip
@click.option("--ignore-eos", is_flag=True, help="Continue after the model's stop tokens.")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Tokenizer folder (default: the model's)."
)
@run_options(compiled=False)
@click.option(
    "--context", type=_COUNT, metavar="N",
    help="Positions of the KV cache of a prompt (default: as many as needed).",
)  # fmt: skip
@click.option(
    "--batch", "batch_size", type=_COUNT, default=8, show_default=True, metavar="N",
    help="Batch size of a replica.",
)  # fmt: skip
@click.option(
    "--micro-batches", type=_COUNT, metavar="N",
    help="Micro-batches of a batch (default: the number of pipeline stages).",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True,
    metavar="SECONDS", help="Time without progress after which the run fails.",
)  # fmt: skip
@click.option(
    "--stream/--no-stream", default=None, help="Print text as it is generated (default: stream)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line per prompt.")
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
    """Complete prompts with a model on many devices.

    Completions go to stdout in the order of the prompts, each followed by a newline. Everything
    else goes to stderr. A JSON object in the prompt file has the key `prompt` or `tokens`, and may
    set max_new_tokens, temperature, top_k, top_p and seed.

    MODEL is a Hugging Face folder, a config.json, a spec that names a model, or a plan.
    """
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        _check_options(as_json, stream, options)
        given = read_prompts(prompts, prompt_file)
        most = options.pop("max_new_tokens")
        sampling = Sampling(
            max_new_tokens=most or DEFAULT_NEW_TOKENS,
            **{name: options.pop(name) for name in _SAMPLING},
        )
        settings = Settings(seed=sampling.seed, **options)
        with steps(2) as step:
            step(f"loading {model}")
            plan = load_or_make_plan(model, parallel, options["dtype"])
        folder = find_weights_folder(plan, model, weights, settings.pickled)
        settings = attrs.evolve(settings, weights=folder)
        folders = find_model_folders(plan, model, settings.weights)
        text = find_tokenizer(given, stops, tokenizer, folders)
        if not ignore_eos:
            sampling = attrs.evolve(sampling, stop=find_stop_tokens(folders))
        from parframe.generation.model_limits import find_model_limits  # needs torch

        limits = find_model_limits(plan.graph)
        positions = None if most else _smallest(limits.positions, settings.context)
        requests = create_requests(given, sampling, text, positions)
        for request in requests:
            check_request(request, limits.vocabulary, limits.positions, settings.context)
        if _run_without_outcomes(plan, requests, settings):
            return
        completions = [
            Completion(prompt, request, text, stops)
            for prompt, request in zip(given, requests, strict=True)
        ]
        with LiveView(_speed_line(completions, plan)) as view:
            stream_out = view.share(out)
            show = (
                JSONLinesPrinter(completions, stream_out)
                if as_json
                else TextPrinter(completions, stream_out, stream is not False)
            )

            def on_event() -> None:
                show()
                if show.between_completions:
                    view.show()

            failures = collect_completions(_events(plan, requests, settings), completions, on_event)
    if failures:
        raise Reported(failures[0].error)


command.params.append(DEBUG)


def _check_options(as_json: bool, stream: bool | None, options: dict[str, Any]) -> None:
    """Refuse options that contradict each other."""
    greedy = options["temperature"] == 0
    for name in ("top_k", "top_p"):
        if greedy and options[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise _usage(option, "has no effect at temperature 0", "set --temperature as well")
    if as_json and stream:
        raise _usage("--stream", "cannot be combined with --json", "leave out one of them")
    _check_executor(options["executor"])
    if options["compiled"] and options["executor"] == "simulate":
        raise _usage("--compile", "does not work with --executor simulate", "leave out one of them")
    size, parts = options["batch_size"], options["micro_batches"]
    if parts is not None and parts > size:
        raise _usage(
            "--micro-batches", f"a batch of {size} cannot be split into {parts} micro-batches",
            f"use at most {size}, or a larger --batch",
        )  # fmt: skip


def _check_executor(name: str) -> None:
    """Refuse an unknown executor before the model is loaded."""
    known = (*hooks.EXECUTORS, *hooks.claimed_executors())
    if name not in known:
        raise _usage(
            f"--executor {name}", f"unknown name{did_you_mean(name, known)}",
            f"use one of {', '.join(known)}",
        )  # fmt: skip


def _usage(where: str, what: str, hint: str) -> ParframeError:
    return ParframeError("usage", f"parframe generate {where}", what, hint)


def _smallest(model: int | None, cache: int | None) -> int | None:
    """Return the smaller number of positions; None without a limit."""
    return min((size for size in (model, cache) if size is not None), default=None)


def _events(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Generator[Event, None, None]:
    """Yield tokens, results and failures as they arrive."""
    from parframe.executors import generate

    yield from generate(plan, requests, settings)


def _run_without_outcomes(plan: Plan, requests: Sequence[Request], settings: Settings) -> bool:
    """Run a rank that receives no outcomes; return False without running on all other ranks."""
    from parframe.executors.generate import receives_outcomes

    if receives_outcomes(settings.executor):
        return False
    for _ in _events(plan, requests, settings):
        pass
    return True


def _speed_line(completions: Sequence[Completion], plan: Plan) -> Callable[[], str]:
    """Return a function that describes the number of tokens and their rate."""
    start = time.monotonic()
    first: list[tuple[float, int]] = []

    def line() -> str:
        now = time.monotonic()
        tokens = sum(len(completion.tokens) for completion in completions)
        ended = sum(completion.outcome is not None for completion in completions)
        if tokens and not first:
            first.append((now, tokens))
        since, before = first[0] if first else (now, tokens)
        rate = f", {(tokens - before) / (now - since):.1f} tok/s" if tokens > before else ""
        return (
            f"{counted(tokens, 'token')} in {now - start:.1f} s{rate}; "
            f"{ended} of {counted(len(completions), 'prompt')} completed; "
            f"{counted(plan.mesh.size, 'device')}"
        )

    return line
