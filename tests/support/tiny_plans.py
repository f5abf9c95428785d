"""Plans of tiny models, each made once."""

from __future__ import annotations

from functools import cache

from faults import product_plans
from models import resnet, tiny_config

import parframe

COMPOSITES = {
    "llama": ("TP2", "TP3", "TP6", "PP2", "PP3", "DP2", "TP2PP2", "TP4SP", "PP2TP2DP2"),
    "gpt2": ("TP2", "TP3", "DP2", "TP4SP", "PP2TP2DP2"),
    "gpt_neox": ("TP2", "TP2PP2", "TP2DP2"),
    "phi3": ("TP2", "TP3", "PP2"),
}
"""Models and the composites that they are partitioned by."""

RINGS = {"llama": ("CP3", "PP2CP2TP2"), "bert": ("DP2CP2",)}
"""Models and the composites that they are partitioned by with a ring."""


@cache
def graph_of(model: str) -> parframe.OperatorGraph:
    """Return the operator graph of a tiny model."""
    if model == "resnet":
        import torch

        image = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
        return parframe.load(resnet(), {"image": image}, {"image": {0: "batch"}})
    return parframe.load(tiny_config(model, num_hidden_layers=3))


@cache
def plan_of(model: str, composite: str) -> parframe.Plan:
    """Return the plan of a tiny model."""
    return parframe.partition(graph_of(model), composite)


@cache
def ring_of(model: str, composite: str, placement: str = "contiguous") -> parframe.Plan:
    """Return the plan of a tiny model with ring attention."""
    options = {"attention": "ring", "placement": placement}
    spec = parframe.Spec(parallel=composite, strategies={"cp": options})
    return parframe.partition(graph_of(model), spec)


@cache
def plans() -> dict[str, parframe.Plan]:
    """Return all plans that faults are planted in."""
    made = {f"{m} {c}": plan_of(m, c) for m, found in COMPOSITES.items() for c in found}
    rings = {f"{m} {c}, a ring": ring_of(m, c) for m, found in RINGS.items() for c in found}
    rings["llama CP3, zigzag"] = ring_of("llama", "CP3", "zigzag")
    return {**made, **rings, **product_plans()}
