"""What a spec asks to run: its prompts, continued in real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parframe.errors import ParframeError
from parframe.plan import Plan
from parframe.spec import DemoModel, Spec


def run_facts(
    plan: Plan, spec: Spec, source: Path | DemoModel, weights: Path | None
) -> dict[str, Any]:
    """Run a plan on a spec's prompts, and tell what came of it.

    Parameters
    ----------
    plan
        The plan, of a graph with positions as an input.
    spec
        What is to be run.
    source
        The model.
    weights
        The folder of its weights; None for random ones.

    Raises
    ------
    ParframeError
        Of kind ``spec``, if a text is to be continued and the model has no tokenizer; whatever a
        run may raise.
    """
    from parframe.executors import run
    from parframe.generation import Sampling

    encode, decode = _text(spec, source)
    asked = [encode(prompt) if isinstance(prompt, str) else prompt for prompt in spec.run.prompts]
    start = time.monotonic()
    results = run(
        plan,
        asked,
        weights or "random",
        Sampling(max_new_tokens=spec.run.max_new_tokens),
        executor=spec.run.executor,
        device=spec.run.device,
        cached=spec.run.cached,
        compiled=spec.run.compiled,
        seed=spec.verify.seed,
    )
    return {
        "executor": spec.run.executor,
        "processes": plan.mesh.size,
        "seconds": time.monotonic() - start,
        "tokens": sum(len(result.tokens) for result in results),
        "completions": [
            {
                "prompt": prompt if isinstance(prompt, str) else list(prompt),
                "tokens": list(result.tokens),
                "continued": decode(ids, result.tokens)
                if isinstance(prompt, str)
                else list(result.tokens),
            }
            for prompt, ids, result in zip(spec.run.prompts, asked, results, strict=True)
        ],
    }


def _text(
    spec: Spec, source: Path | DemoModel
) -> tuple[Callable[[str], Sequence[int]], Callable[[Sequence[int], Sequence[int]], str]]:
    """From text to tokens and back."""
    if all(not isinstance(prompt, str) for prompt in spec.run.prompts):
        return lambda text: (), lambda before, after: ""
    if not isinstance(source, Path) or not source.is_dir():
        raise ParframeError(
            "spec",
            spec.origin.where("run.prompts"),
            "the model has no tokenizer for a text",
            "give lists of token ids, such as [[1, 403, 407]]",
        )
    from parframe.generation.tokenization import read_tokenizer

    tokenizer = read_tokenizer(source)

    def decode(before: Sequence[int], after: Sequence[int]) -> str:
        return tokenizer.decode((*before, *after))[len(tokenizer.decode(before)) :]

    return tokenizer.encode, decode
