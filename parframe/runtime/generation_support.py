"""Checks that a plan can generate text, with or without a cache, before weights are read."""

from __future__ import annotations

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.plan import Plan
from parframe.runtime.cached_program import add_cache
from parframe.runtime.positionwise import NO_CACHE_HINT
from parframe.runtime.rank_program import bind_program, find_sequence_symbols


def check_cache_support(plan: Plan) -> None:
    """Check that every device of a plan can run with a key-value cache.

    An error of kind ``run`` names the operator that prevents it.
    """
    graph = plan.graph
    if not any(given.counted for given in graph.inputs.values()):
        raise ParframeError(
            "run",
            graph.source or "the model",
            "a key-value cache needs token positions as an input, which its graph does not have",
            f"load it with positions=True, if its code takes position_ids, or {NO_CACHE_HINT}",
        )
    devices = {device.program: device for device in reversed(plan.devices)}
    for name, device in devices.items():
        formulas = {own: size for own, size in device.bindings.items() if not isinstance(size, int)}
        add_cache(bind_program(plan.programs[name], device), find_sequence_symbols(plan, formulas))


def check_causal(plan: Plan) -> None:
    """Check that all attention is causal: otherwise padding after a text would change it.

    An attention with a mask of the model's own is assumed to be causal.
    """
    for program in plan.programs.values():
        for operator in program.operators:
            if _is_bidirectional(operator):
                raise ParframeError(
                    "run",
                    f"{operator.name} ({operator.module or 'the model'})",
                    "the model generates no text: its attention is not causal",
                    "use a causal language model",
                )


def _is_bidirectional(operator: Operator) -> bool:
    """Return whether an operator is an attention without a mask that is not causal."""
    args = operator.args
    causal = args.get("causal", args.get("is_causal"))
    masked = args.get("mask", args.get("attn_mask")) is not None
    return causal is False and not masked
