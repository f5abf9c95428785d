"""Pipeline stages of a plan and the programs of its devices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from parframe.plan import Plan, Program
from parframe.report.formatting import counted, runs
from parframe.report.screen import heading, lines, table
from parframe.rules.communication import BROADCAST, SEND

_MOST_SENT = 4
_NUMBERED = re.compile(r"(.*\.)(\d+)")


def stage_facts(plan: Plan) -> list[dict[str, Any]]:
    """Return each stage's ranks, their programs, and the modules whose weights it stores."""
    repeated = _repeated(plan)
    found: dict[int, dict[str, Any]] = {}
    for name, program in plan.programs.items():
        ranks = [device.rank for device in plan.devices if device.program == name]
        stage = found.setdefault(
            program.stage,
            {"stage": program.stage, "ranks": [], "programs": {}, "holds": [], "moves": []},
        )
        stage["ranks"] = sorted([*stage["ranks"], *ranks])
        stage["programs"][name] = {"ranks": ranks, "operators": len(program.operators)}
        stage["holds"] = stage["holds"] or _holds(program, plan, repeated)
        stage["moves"] = stage["moves"] or _moves(program)
    return [found[number] for number in sorted(found)]


def stage_layers(plan: Plan) -> list[str]:
    """Return the layers of each stage as runs, such as ``["0-1", "2-3"]``.

    A layer is in the stage that has most of its operators. The list is empty if the model has no
    repeated layers.
    """
    counts: dict[str, Counter[int]] = {}
    for program in {program.stage: program for program in plan.programs.values()}.values():
        for operator in program.operators:
            call = operator.name.rpartition("/")[0]
            counts.setdefault(call, Counter())[program.stage] += 1
    layers: dict[int, list[int]] = {
        stage: [] for stage in sorted({program.stage for program in plan.programs.values()})
    }
    for number, layer in enumerate(plan.graph.layers):
        operators = counts.get(plan.graph.calls[layer].name)
        if operators is None:
            return []
        layers[operators.most_common(1)[0][0]].append(number)
    return [runs(numbers) for numbers in layers.values()] if plan.graph.layers else []


def draw_stages(facts: list[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Yield a table with a row for each stage, and the values that stages send."""
    yield heading("Stages", counted(len(facts), "stage"))
    yield table(
        ("stage", "ranks", "operators", "modules"),
        (
            [
                str(f["stage"]),
                runs(f["ranks"]),
                str(max(program["operators"] for program in f["programs"].values())),
                ", ".join(_first_and_last(merge_layers(f["holds"]))),
            ]
            for f in facts
        ),
        right=("stage", "operators"),
    )
    sent = [f"stage {f['stage']} sends {', '.join(f['moves'])}" for f in facts if f["moves"]]
    if len(sent) > _MOST_SENT:
        sent = [*sent[:_MOST_SENT], f"and {counted(len(sent) - _MOST_SENT, 'more stage')}"]
    if sent:
        yield lines(sent, style="dim")


def merge_layers(modules: list[str]) -> list[str]:
    """Return module paths with runs of neighboring layers as one.

    Examples
    --------
    >>> merge_layers(["embed", "layers.0", "layers.1", "layers.2", "norm"])
    ['embed', 'layers.0-2', 'norm']
    """
    found: list[tuple[str, int, int] | str] = []
    for module in modules:
        numbered = _NUMBERED.fullmatch(module)
        if numbered is None:
            found.append(module)
            continue
        path, number = numbered[1], int(numbered[2])
        before = found[-1] if found else ""
        if isinstance(before, tuple) and before[0] == path and before[2] == number - 1:
            found[-1] = (path, before[1], number)
        else:
            found.append((path, number, number))
    return [f if isinstance(f, str) else _layers(*f) for f in found]


def _layers(path: str, first: int, last: int) -> str:
    return f"{path}{first}" if first == last else f"{path}{first}-{last}"


def _first_and_last(names: list[str]) -> list[str]:
    return names if len(names) <= 5 else [*names[:2], f"... {len(names) - 4} more ...", *names[-2:]]


def _repeated(plan: Plan) -> dict[str, str]:
    """Return the layers of repeated blocks, by name of call."""
    uses: dict[str, int] = {}
    for call in plan.graph.calls:
        uses[call.block] = uses.get(call.block, 0) + 1
    return {call.name: call.name for call in plan.graph.calls if uses[call.block] > 1}


def _holds(program: Program, plan: Plan, repeated: Mapping[str, str]) -> list[str]:
    """Return the layers and modules whose weights the operators use, in order."""
    weights = {
        part.name
        for part in program.parameters
        if plan.graph.parameters[part.whole].kind == "parameter"
    }
    found: dict[str, None] = {}
    for operator in program.operators:
        if any(name in weights for name in operator.inputs):
            layer = operator.name.rpartition("/")[0]
            found[repeated.get(layer, operator.module or operator.name)] = None
    return list(found)


def _moves(program: Program) -> list[str]:
    """Return the values that a program sends to other stages."""
    found: dict[str, None] = {}
    for operator in program.operators:
        if operator.target in (SEND.target, BROADCAST.target):
            found.update(dict.fromkeys(operator.inputs))
    return list(found)
