"""Greedy continuations of prompts by transformers, and by plans in real processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import torch

import parframe
from parframe.generation import Sampling


def folder_of(name: str, path: Path, **changes: Any) -> Path:
    """Write a tiny model with random weights in float32 to a folder."""
    model = models.tiny_model(name, **changes).float()
    model.generation_config.eos_token_id = None
    model.save_pretrained(path)
    return path


def continued(folder: Path, prompts: Sequence[Sequence[int]], new: int) -> list[list[int]]:
    """Return the greedy continuation of every prompt by transformers, one prompt at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        given = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None}
        with torch.no_grad():
            whole = model.generate(ids, max_new_tokens=new, do_sample=False, **given)
        found.append(whole[0, len(prompt) :].tolist())
    return found


def run(
    graph: Any,
    composite: Any,
    folder: Path,
    prompts: Sequence[Sequence[int]],
    new: int,
    **settings: Any,
) -> list[list[int]]:
    """Return the greedy continuation of every prompt by a plan in real processes."""
    plan = parframe.partition(graph, composite)
    sampling = settings.pop("sampling", Sampling(max_new_tokens=new))
    results = parframe.run(plan, prompts, folder, sampling, timeout=60, **settings)
    return [list(result.tokens) for result in results]
