"""Run of the prompts of a spec in real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parframe.errors import ParframeError
from parframe.plan import Plan
from parframe.spec import DemoModel, Spec


def run_spec_prompts(
    plan: Plan, spec: Spec, source: Path | DemoModel, weights: Path | None
) -> dict[str, Any]:
    """Run a plan on the prompts of a spec, and return the completions.

    Raises
    ------
    ParframeError
        Of kind ``spec``, if the spec has text prompts and the model has no tokenizer; or any error
        of the run.
    """
    from parframe.executors import run
    from parframe.generation import Sampling

    encode, decode = _tokenizer_functions(spec, source)
    prompts = [encode(prompt) if isinstance(prompt, str) else prompt for prompt in spec.run.prompts]
    start = time.monotonic()
    results = run(
        plan,
        prompts,
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
                "continuation": decode(ids, result.tokens)
                if isinstance(prompt, str)
                else list(result.tokens),
            }
            for prompt, ids, result in zip(spec.run.prompts, prompts, results, strict=True)
        ],
    }


def _tokenizer_functions(
    spec: Spec, source: Path | DemoModel
) -> tuple[Callable[[str], Sequence[int]], Callable[[Sequence[int], Sequence[int]], str]]:
    """Return functions that encode a text, and decode the tokens after a prompt."""
    if all(not isinstance(prompt, str) for prompt in spec.run.prompts):
        return lambda text: (), lambda before, after: ""
    if not isinstance(source, Path) or not source.is_dir():
        raise ParframeError(
            "spec",
            spec.origin.where("run.prompts"),
            "the model has no tokenizer for text prompts",
            "use lists of token IDs, such as [[1, 403, 407]]",
        )
    from parframe.generation.tokenization import read_tokenizer

    tokenizer = read_tokenizer(source)

    def decode(before: Sequence[int], after: Sequence[int]) -> str:
        return tokenizer.decode((*before, *after))[len(tokenizer.decode(before)) :]

    return tokenizer.encode, decode
