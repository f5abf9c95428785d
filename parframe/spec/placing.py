"""The strategies that a spec names, from plugins and from the spec, placed on its mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parframe import hooks
from parframe.errors import ParframeError, did_you_mean
from parframe.mesh import Mesh, is_axis, is_code
from parframe.spec.stage_list import place_stages
from parframe.spec.strategy_options import configure
from parframe.spec.value_readers import wrong
from parframe.strategy import Placing, Strategy, declare, mesh_of, place

if TYPE_CHECKING:
    from parframe.spec.spec import Spec


def place_spec(spec: Spec) -> Placing:
    """Find the strategies that a spec names and place what they split.

    A composite names them by their codes. Where a spec gives a mesh instead, the strategies that
    have a table in it take part, each on the axis of its own.

    Raises
    ------
    ParframeError
        Of kind `strategy`, `mesh` or `plugin`, for what is unknown, clashes or fails.
    """
    tables = _tables(spec)
    composite = spec.composite() or tuple((code, None) for code in tables)
    codes = [code for code, _ in composite]
    for code, name in tables.items():
        if code not in codes:
            raise _wrong(
                spec,
                f"strategies.{name}",
                f"{code} takes no part in {spec.parallel!r}",
                "add it to 'parallel', or remove the table",
            )
    offered = hooks.strategies(codes, spec.plugins)
    parts = [
        (_strategy(spec, code, offered.get(code), tables.get(code)), degree)
        for code, degree in composite
    ]
    with spec.origin.at("parallel" if spec.parallel else "mesh"):
        axes = mesh_of(parts).axes if spec.mesh is None else spec.mesh
        regular = Mesh(axes, {} if spec.stages else spec.shares)
        placing = place(parts, regular, spec.splits)
        return _staged(spec, placing) if spec.stages else placing


def _staged(spec: Spec, placing: Placing) -> Placing:
    """Give the stages that the spec lists meshes of their own, and check their devices."""
    placing = place_stages(placing, spec.stages, spec.shares)
    size = placing.mesh.size
    if spec.devices not in (None, size):
        raise ParframeError(
            "mesh", "devices", f"is {spec.devices}, and the stages have {size}", f"give {size}"
        )
    return placing


def _tables(spec: Spec) -> dict[str, str]:
    """Name the table of each strategy that has one, by its code."""
    tables: dict[str, str] = {}
    for name, table in spec.strategies.items():
        key = f"strategies.{name}"
        code = table.get("code", name.upper())
        if not isinstance(code, str) or not is_code(code):
            what = f"{code!r} cannot be the code of a strategy"
            hint = 'give code = "..." in uppercase, ending in P, as in "TP"'
            raise _wrong(spec, key, what, hint)
        if code in tables:
            raise _wrong(spec, key, f"strategies.{tables[code]} has the same code", "keep one")
        tables[code] = name
    return tables


def _strategy(
    spec: Spec, code: str, offered: type[Strategy] | None, table_name: str | None
) -> Strategy:
    """Make the strategy of a code from a plugin, from the spec, or from both."""
    key = "parallel" if table_name is None else f"strategies.{table_name}"
    options = {} if table_name is None else dict(spec.strategies[table_name])
    options.pop("code", None)
    strategy = offered
    if "splits" in options or (offered and "axis" in options):
        base = offered or Strategy
        axis = options.pop("axis", getattr(base, "axis", code.lower()))
        splits = options.pop("splits", getattr(base, "splits", ()))
        _check_declaration(spec, key, axis, splits)
        strategy = declare(code, axis, splits, base)
    if strategy is None:
        known = hooks.claimed_codes()
        raise _wrong(
            spec,
            key,
            f"no strategy has the code {code!r}{did_you_mean(code, known)}",
            f"use one of {', '.join(known)}, or declare it: "
            f'[strategies.{code.lower()}] with splits = ["..."]',
        )
    with spec.origin.at(key):
        return configure(strategy, options, key)


def _check_declaration(spec: Spec, key: str, axis: Any, splits: Any) -> None:
    if not isinstance(axis, str) or not is_axis(axis):
        hint = "give a to z, digits and underscores, as in 'tp'"
        raise _wrong(spec, f"{key}.axis", wrong(axis), hint)
    if not isinstance(splits, list | tuple) or not all(isinstance(name, str) for name in splits):
        hint = 'give a list of names, as in ["heads", "ffn"]'
        raise _wrong(spec, f"{key}.splits", wrong(splits), hint)


def _wrong(spec: Spec, key: str, what: str, hint: str) -> ParframeError:
    return ParframeError("strategy", spec.origin.where(key), what, hint)
