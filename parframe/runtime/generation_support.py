"""Whether a plan can generate text, with a cache or without one: known before anything is read."""

from __future__ import annotations

from parframe.errors import ParframeError
from parframe.graph import Operator
from parframe.plan import Plan
from parframe.runtime.cached_program import keeping
from parframe.runtime.positionwise import WITHOUT_CACHE
from parframe.runtime.rank_program import bound_program, lengths_of


def check_kept(plan: Plan) -> None:
    """Make sure that every device can keep what its attention needs again.

    Parameters
    ----------
    plan
        The plan.

    Raises
    ------
    ParframeError
        Of kind ``run``, with what stands in the way and the way out.
    """
    graph = plan.graph
    if not any(given.counted for given in graph.inputs.values()):
        raise ParframeError(
            "run",
            graph.source or "the model",
            "a key-value cache needs the positions of tokens as an input, and its graph has none",
            f"load it with positions=True, if its code takes position_ids, or {WITHOUT_CACHE}",
        )
    first = {device.program: device for device in reversed(plan.devices)}
    for name, device in first.items():
        formulas = {own: size for own, size in device.bindings.items() if not isinstance(size, int)}
        keeping(bound_program(plan.programs[name], device), lengths_of(plan, formulas))


def check_causal(plan: Plan) -> None:
    """Make sure that no attention looks ahead: what is filled up behind a text would change it.

    An attention with a mask of the model's own is taken for one that does not.

    Parameters
    ----------
    plan
        The plan.

    Raises
    ------
    ParframeError
        Of kind ``run``, with the first attention that does.
    """
    for program in plan.programs.values():
        for operator in program.operators:
            if _looks_ahead(operator):
                raise ParframeError(
                    "run",
                    f"{operator.name} ({operator.module or 'the model'})",
                    "generates no text: its attention looks ahead",
                    "give a causal language model",
                )


def _looks_ahead(operator: Operator) -> bool:
    """Whether an operator is an attention without a mask that is not causal."""
    args = operator.args
    causal = args.get("causal", args.get("is_causal"))
    masked = args.get("mask", args.get("attn_mask")) is not None
    return causal is False and not masked
