"""Greedy continuations of prompts by transformers' `generate` and by the processes of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import torch

import parframe
from parframe.executors import generate
from parframe.generation import Request, Result, Sampling, Settings

PROMPTS = ((5, 17, 9, 33, 4), (7, 8, 50), (100, 3, 61, 12, 90, 77, 21), (64, 65))
"""Prompts of several lengths for tiny models."""


def saved(name: str, folder: Path, **changes: Any) -> Any:
    """Write a tiny model of transformers in float32 to a folder, and return it."""
    model: Any = models.tiny_model(name, **changes).float()
    model.generation_config.eos_token_id = None  # every text reaches its maximal length
    model.save_pretrained(folder)
    return model


def expected(model: Any, prompts: Sequence[Sequence[int]], count: int) -> list[tuple[int, ...]]:
    """Return the new tokens of each prompt by transformers' `generate`."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
        )
        found.append(tuple(whole[0, len(prompt) :].tolist()))
    return found


def completed(
    plan: parframe.Plan, prompts: Sequence[Sequence[int]], count: int, settings: Settings
) -> list[tuple[int, ...]]:
    """Return the new tokens of each prompt in real processes."""
    sampling = Sampling(max_new_tokens=count)
    requests = [Request(at, tuple(prompt), sampling) for at, prompt in enumerate(prompts)]
    results = {e.number: e for e in generate(plan, requests, settings) if isinstance(e, Result)}
    return [results[request.number].tokens for request in requests]
