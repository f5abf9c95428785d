"""Rules of operators that repeat elements along new or existing dims."""

from __future__ import annotations

import attrs

from parframe.graph import Operator
from parframe.rules.building import Dims, always, dim_index, label_dims, signature, unit_free
from parframe.rules.kinds import View
from parframe.rules.rule import Local, Rule, Site
from parframe.rules.signature import Pattern, Signature, labels_of
from parframe.sizes import Size


def _expanded(site: Site) -> Signature | None:
    """Repeat dims of size one and new dims, of which a device can compute any part."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    extra = len(target) - len(source)
    taken: list[Pattern] = []
    given = [*label_dims("n", extra)]
    for i, size in enumerate(source):
        if size == target[i + extra]:
            pattern: Pattern = () if size == 1 else (f"a{i}",)
            taken.append(pattern)
            given.append(pattern)
        elif size == 1:
            taken.append(())
            given.append((f"n{i + extra}",))
        else:
            return None
    new = labels_of((tuple(given),)) - labels_of((tuple(taken),))
    others = [label_dims(f"t{i}_", len(t.shape)) for i, t in enumerate(site.inputs[1:])]
    return signature(
        site, [tuple(taken), *others], [tuple(given)], free=new,
        dropped=labels_of(tuple(others)),
        linear="self", moves=not others,
    )  # fmt: skip


def _local_expand(local: Local) -> None:
    operator = local.site.operator
    (output,) = operator.outputs
    args = {"self": operator.args["self"], "size": local.shape(output), "implicit": False}
    local.emit("aten.expand.default", args, output)


def _repeated(site: Site) -> Signature | None:
    """Repeat dims: an output dim is ``(r a)``, ``r`` copies of ``a``."""
    source = site.inputs[0].shape
    taken = unit_free(source)
    given = []
    sizes: dict[str, Size] = {}
    for i, count in enumerate(_repeats(site)):
        own = i - (len(site.outputs[0].shape) - len(source))
        pattern: Pattern = taken[own] if own >= 0 else ()
        if count != 1:
            pattern = (f"r{i}", *pattern)
            sizes[f"r{i}"] = count
        given.append(pattern)
    return signature(site, [taken], [tuple(given)], sizes=sizes, free=list(sizes), moves=True)


def _repeats(site: Site) -> tuple[Size, ...]:
    counts = site.arg("repeats", site.arg("dims"))
    return (1,) * (len(site.outputs[0].shape) - len(counts)) + tuple(counts)


def _local_repeat(local: Local) -> None:
    operator = local.site.operator
    (output,) = operator.outputs
    counts = tuple(
        1 if count == 1 else local.size(f"r{i}") for i, count in enumerate(_repeats(local.site))
    )
    args = {"self": operator.args["self"], "repeats": counts}
    local.emit("aten.repeat.default", args, output)


def _interleaved(site: Site) -> Signature | None:
    """Repeat elements: an output dim is ``(a r)``, every element ``r`` times."""
    source = site.inputs[0].shape
    taken = unit_free(source)
    count = site.arg("repeats")
    repeat = () if count == 1 else ("r",)
    dim = site.arg("dim")
    if dim is None:
        given: Dims = ((*(atom for dim in taken for atom in dim), *repeat),)
    else:
        at = dim_index(dim, len(source))
        given = tuple((*dim, *repeat) if i == at else dim for i, dim in enumerate(taken))
    return signature(site, [taken], [given], sizes={"r": count}, free="r", moves=True)


def _local_interleave(local: Local) -> None:
    operator = local.site.operator
    count = local.site.arg("repeats")
    args = {key: arg for key, arg in operator.args.items() if key != "output_size"}
    args["repeats"] = count if count == 1 else local.size("r")
    local.emit(operator.target, args, operator.outputs[0])


def _grid(site: Site) -> Signature | None:
    """Give every output a dim for each input."""
    given: list[Pattern] = [(f"a{i}",) if t.shape else () for i, t in enumerate(site.inputs)]
    taken = [(dim,) if t.shape else () for dim, t in zip(given, site.inputs, strict=True)]
    if site.arg("indexing", "ij") == "xy":
        given[:2] = given[1::-1]
    return signature(site, taken, [tuple(given)] * len(site.outputs), moves=True)


def _as_expand(site: Site) -> Operator:
    args = {"self": site.operator.args["self"], "size": site.outputs[0].shape}
    return attrs.evolve(site.operator, target="aten.expand.default", args=args)


_EXPANDED = "expand.default expand_copy.default broadcast_to.default expand_as.default"

RULES = (
    *(
        Rule(
            f"aten.{name}",
            _expanded,
            local=_local_expand,
            kind=View(),
            identity=always,
            canonical=_as_expand,
        )
        for name in _EXPANDED.split()
    ),
    Rule("aten.repeat.default", _repeated, local=_local_repeat),
    Rule("aten.tile.default", _repeated, local=_local_repeat),
    Rule("aten.repeat_interleave.self_int", _interleaved, local=_local_interleave),
    Rule("aten.meshgrid.default", _grid),
    Rule("aten.meshgrid.indexing", _grid),
)
