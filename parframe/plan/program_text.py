"""Programs as readable Python files, which are never executed."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import sympy

from parframe.graph import Arg, Operator, Ref, Tensor
from parframe.layout import Join, Region, Span
from parframe.plan.program import Part, Program, group_axes
from parframe.rules.table import communicates
from parframe.sizes import format_size

if TYPE_CHECKING:
    from parframe.plan.plan import Plan

_MOST_RANKS = 64
_MOST_ITEMS = 8
_MOST_GROUPS = 4
_LONGEST_SOURCE = 160


def format_program(plan: Plan, name: str) -> str:
    """Format one program of a plan as Python text."""
    program = plan.programs[name]
    ranks = [device.rank for device in plan.devices if device.program == name]
    symbols = _symbols(program)
    names = _identifiers(program, symbols)
    lines = [
        f'"""Program {name}, stage {program.stage}, of {_counted(ranks)}."""',
        "",
        *_header(plan, program, ranks),
        "",
        "",
        *_signature(plan, program, names, symbols),
        *(f"    {line}" for line in _body(plan, program, ranks, names)),
    ]
    return "\n".join(lines) + "\n"


def _counted(ranks: Sequence[int]) -> str:
    return f"{len(ranks)} device{'s' * (len(ranks) != 1)}"


def _header(plan: Plan, program: Program, ranks: Sequence[int]) -> Iterator[str]:
    yield f"# mesh: {plan.mesh}"
    yield f"# ranks: {_rank_runs(ranks)}"
    for rank in ranks[:_MOST_RANKS]:
        place = " ".join(f"{axis}={at}" for axis, at in plan.mesh.coordinates(rank).items())
        bound = " ".join(
            f"{name}={format_size(size)}" for name, size in plan.devices[rank].bindings.items()
        )
        yield _comment(f"rank {rank}: {place}{' | ' * bool(bound)}{bound}")
    if len(ranks) > _MOST_RANKS:
        yield f"# and {len(ranks) - _MOST_RANKS} more"


def _signature(
    plan: Plan, program: Program, names: Mapping[str, str], symbols: Set[str]
) -> Iterator[str]:
    yield f"def {_identifier(program.name)}("
    for kind, parts in (("input", program.inputs), ("weight", program.parameters)):
        wholes: Mapping[str, Tensor] = (
            plan.graph.inputs if kind == "input" else plan.graph.parameters
        )
        for part in parts:
            shown = f"{kind} {_shown_tensor(program.tensors[part.name])}"
            yield f"    {names[part.name]},  {_comment(f'{shown} {_of(part, wholes)}')}"
    if symbols:
        yield "    *,"
        yield from (f"    {symbol}," for symbol in sorted(symbols))
    yield "):"


def _of(part: Part, wholes: Mapping[str, Tensor]) -> str:
    whole = wholes[part.whole]
    if whole.shape == () or all(_is_all(region) for region in part.region):
        return f"= {part.whole}"
    regions = ", ".join(_region(region) for region in part.region)
    return f"= {part.whole}[{regions}]"


def _body(
    plan: Plan, program: Program, ranks: Sequence[int], names: Mapping[str, str]
) -> Iterator[str]:
    groups: dict[tuple[str, ...], str] = {}
    for operator in program.operators:
        results = ", ".join(names[name] for name in operator.outputs)
        shapes = ", ".join(_shown_tensor(program.tensors[name]) for name in operator.outputs)
        notes = [shapes, operator.module, operator.source[:_LONGEST_SOURCE]]
        if communicates(operator):
            axes = group_axes(operator)
            if axes not in groups:
                groups[axes] = _groups(plan, axes, ranks)
            notes.append(groups[axes])
        statement = f"{results}{' = ' * bool(results)}{_call(operator, names)}"
        yield f"{statement}  {_comment(' | '.join(note for note in notes if note))}"
    outputs = ", ".join(f"{part.whole!r}: {names[part.name]}" for part in program.outputs)
    yield f"return {{{outputs}}}"


def _groups(plan: Plan, axes: tuple[str, ...], ranks: Sequence[int]) -> str:
    groups = dict.fromkeys(plan.mesh.group(rank, axes) for rank in ranks)
    shown = " ".join(_rank_runs(group) for group in list(groups)[:_MOST_GROUPS])
    more = f" and {len(groups) - _MOST_GROUPS} more" if len(groups) > _MOST_GROUPS else ""
    return f"group{'s' * (len(groups) > 1)} {shown}{more}"


def _call(operator: Operator, names: Mapping[str, str]) -> str:
    target = ".".join(operator.target.split(".")[:2]).removeprefix("parframe.")
    shown: list[str] = []
    for slot, arg in operator.args.items():
        if arg is None:
            continue
        if slot in ("parts", "sends") and isinstance(arg, tuple):
            shown.append(f"{slot}={_group_regions(arg)}")
            continue
        value = _argument(arg, names)
        positional = isinstance(arg, Ref) and all("=" not in before for before in shown)
        shown.append(value if positional else f"{_identifier(slot)}={value}")
    return f"{'.'.join(map(_identifier, target.split('.')))}({', '.join(shown)})"


def _group_regions(parts: tuple[Any, ...]) -> str:
    """Format the regions of the ranks of a group; only the dim that differs, if it is one."""
    differ = [axis for axis, found in enumerate(zip(*parts, strict=True)) if len(set(found)) > 1]
    if len(differ) != 1:
        return _listed(_listed(_region(axis) for axis in part) for part in parts)
    return f"axis({differ[0]}, {_listed(_region(part[differ[0]]) for part in parts)})"


def _argument(arg: Arg, names: Mapping[str, str]) -> str:
    match arg:
        case Ref(name):
            return names[name]
        case tuple():
            return _listed(_argument(part, names) for part in arg)
        case Span() | Join():
            return _factor(arg)
        case float() if arg in (float("inf"), float("-inf")) or arg != arg:
            return f'float("{arg}")'
        case sympy.Expr():
            return format_size(arg)
    return ascii(arg)


def _listed(items: Iterable[str]) -> str:
    shown = list(items)
    if len(shown) > _MOST_ITEMS:
        shown = [*shown[:2], "...", shown[-1]]
    return f"({', '.join(shown)}{',' * (len(shown) == 1)})"


def _region(region: Region) -> str:
    return _factor(region[0]) if len(region) == 1 else _listed(_factor(part) for part in region)


def _factor(factor: Span | Join) -> str:
    if isinstance(factor, Join):
        return f"join{_listed(_region(part) for part in factor.parts)}"
    size, start, stop = (format_size(end) for end in (factor.size, factor.start, factor.stop))
    return f"whole({size})" if factor.whole else f"span({start}, {stop}, of={size})"


def _is_all(region: Region) -> bool:
    return all(isinstance(part, Span) and part.whole for part in region)


def _shown_tensor(tensor: Tensor) -> str:
    return f"{tensor.dtype}[{', '.join(format_size(size) for size in tensor.shape)}]"


def _symbols(program: Program) -> set[str]:
    found: set[str] = set()
    for operator in program.operators:
        for arg in operator.args.values():
            found |= {part.name for part in _expressions(arg)}
    return found


def _expressions(arg: Arg) -> Iterator[sympy.Symbol]:
    if isinstance(arg, tuple):
        for part in arg:
            yield from _expressions(part)
    elif isinstance(arg, Join):
        for region in arg.parts:
            yield from _expressions(region)
    elif isinstance(arg, Span):
        yield from _expressions((arg.size, arg.start, arg.stop))
    elif isinstance(arg, sympy.Expr):
        yield from arg.free_symbols


def _identifiers(program: Program, symbols: Set[str]) -> dict[str, str]:
    """Return a different Python name for every value."""
    found: dict[str, str] = {}
    taken = {*symbols, "aten", "axis", "float", "join", "span", "whole"}
    given = [part.name for part in (*program.inputs, *program.parameters)]
    for name in (*given, *(out for operator in program.operators for out in operator.outputs)):
        base = _identifier(name)
        own, number = base, 1
        while own in taken:
            number += 1
            own = f"{base}_{number}"
        taken.add(own)
        found[name] = own
    return found


def _identifier(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", name)
    if not plain or plain[0].isdigit() or keyword.iskeyword(plain):
        return f"_{plain}"
    return plain


def _rank_runs(ranks: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return "(" + " ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs) + ")"


def _comment(text: str) -> str:
    return "# " + "".join(c if c.isprintable() else "?" for c in text)
