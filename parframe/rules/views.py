"""Rules of operators that give the same elements another shape or order."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any

from parframe.rules.building import Axes, axes, dimension, guarded, signature, unit_free
from parframe.rules.signature import Local, Pattern, Rule, Signature, Site, letters
from parframe.sizes import Size, divide, product


class _Factoring:
    """Matches the factors of two shapes with one product, major to minor."""

    def __init__(self, left: tuple[Size, ...], right: tuple[Size, ...]) -> None:
        self.shapes = (left, right)
        self.patterns: tuple[list[list[str]], list[list[str]]] = (
            [[] for _ in left],
            [[] for _ in right],
        )
        self.sizes: dict[str, Size] = {}
        self.whole: set[str] = set()

    def letter(self, size: Size) -> str:
        name = f"f{len(self.sizes)}"
        self.sizes[name] = size
        return name

    def run(self) -> None:
        rest = [
            [(axis, size) for axis, size in enumerate(shape) if size != 1] for shape in self.shapes
        ]
        left, right = rest
        while left and right:
            common = _common(left[0][1], right[0][1])
            if common == 1:
                self._block(left, right)
                continue
            name = self.letter(common)
            for side, items in enumerate(rest):
                axis, size = items.pop(0)
                self.patterns[side][axis].append(name)
                more = divide(size, common)
                if more != 1 and more is not None:
                    items.insert(0, (axis, more))

    def _block(self, left: list[tuple[int, Size]], right: list[tuple[int, Size]]) -> None:
        """Cut the shortest pair of groups with one product; their minor factors match."""
        lengths = _equal(left, right)
        groups = [left[: lengths[0]], right[: lengths[1]]]
        del left[: lengths[0]], right[: lengths[1]]
        tails: list[tuple[int, int, str]] = []
        while groups[0] and groups[1]:
            common = _common(groups[0][-1][1], groups[1][-1][1])
            if common == 1:
                break
            name = self.letter(common)
            for side, items in enumerate(groups):
                axis, size = items.pop()
                tails.append((side, axis, name))
                more = divide(size, common)
                if more != 1 and more is not None:
                    items.append((axis, more))
        for side, items in enumerate(groups):
            for axis, size in items:
                name = self.letter(size)
                self.patterns[side][axis].append(name)
                self.whole.add(name)
        for side, axis, name in reversed(tails):
            self.patterns[side][axis].append(name)


def _common(left: Size, right: Size) -> Size:
    """The greatest common factor that can be told."""
    if isinstance(left, int) and isinstance(right, int):
        return gcd(left, right)
    if divide(left, right) is not None:
        return right
    if divide(right, left) is not None:
        return left
    numbers = gcd(_number(left), _number(right))
    return numbers


def _number(size: Any) -> int:
    return size if isinstance(size, int) else int(size.as_coeff_Mul()[0])


def _equal(left: list[tuple[int, Size]], right: list[tuple[int, Size]]) -> tuple[int, int]:
    """How many axes of each make the first equal products; all where none do."""
    products = {product(size for _, size in left[:n]): n for n in range(len(left), 0, -1)}
    for n in range(1, len(right) + 1):
        here = product(size for _, size in right[:n])
        if here in products:
            return products[here], n
    return len(left), len(right)


def factored(site: Site) -> Signature | None:
    """The same elements in row-major order: axes are matched by their factors."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    if 0 in (*source, *target):
        return _empty(site)
    match = _Factoring(source, target)
    match.run()
    left, right = (tuple(tuple(axis) for axis in side) for side in match.patterns)
    return signature(site, [left], [right], sizes=match.sizes, whole=match.whole, moves=True)


def _empty(site: Site) -> Signature | None:
    """No elements: equal shapes pass, others are whole."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    taken = axes("a", len(source))
    if source == target:
        return signature(site, [taken], [taken], moves=True)
    given = axes("b", len(target))
    return signature(site, [taken], [given], whole=letters((taken, given)), moves=True)


def _factored_like(site: Site) -> Signature | None:
    """A view to the shape of another tensor, whose elements do not count."""
    alone = factored(Site(site.operator, site.inputs[:1], site.outputs))
    if alone is None or len(site.inputs) != 2:
        return None
    other = axes("t", len(site.inputs[1].shape))
    return signature(
        site, [alone.inputs[0], other], alone.outputs, sizes=alone.sizes, whole=alone.whole,
        dropped=letters((other,)), linear="self",
    )  # fmt: skip


def _local_reshape(local: Local) -> None:
    """A device's part need not lie contiguous, so a view becomes a reshape."""
    operator = local.site.operator
    (output,) = operator.outputs
    args = {"self": operator.args["self"], "shape": local.shape(output)}
    local.emit("aten.reshape.default", args, output)


def _expanded(site: Site) -> Signature | None:
    """Axes of size one, and new ones, are repeated: any device can compute any part."""
    source, target = site.inputs[0].shape, site.outputs[0].shape
    extra = len(target) - len(source)
    taken: list[Pattern] = []
    given = [*axes("n", extra)]
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
    new = letters((tuple(given),)) - letters((tuple(taken),))
    others = [axes(f"t{i}_", len(t.shape)) for i, t in enumerate(site.inputs[1:])]
    return signature(
        site, [tuple(taken), *others], [tuple(given)], free=new,
        dropped=letters(tuple(others)),
        linear="self", moves=not others,
    )  # fmt: skip


def _local_expand(local: Local) -> None:
    operator = local.site.operator
    (output,) = operator.outputs
    args = {"self": operator.args["self"], "size": local.shape(output), "implicit": False}
    local.emit("aten.expand.default", args, output)


def _repeated(site: Site) -> Signature | None:
    """An output axis is ``(r a)``: ``r`` copies of ``a``."""
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
    """An output axis is ``(a r)``: every element ``r`` times."""
    source = site.inputs[0].shape
    taken = unit_free(source)
    count = site.arg("repeats")
    repeat = () if count == 1 else ("r",)
    dim = site.arg("dim")
    if dim is None:
        given: Axes = ((*(atom for axis in taken for atom in axis), *repeat),)
    else:
        at = dimension(dim, len(source))
        given = tuple((*axis, *repeat) if i == at else axis for i, axis in enumerate(taken))
    return signature(site, [taken], [given], sizes={"r": count}, free="r", moves=True)


def _local_interleave(local: Local) -> None:
    operator = local.site.operator
    count = local.site.arg("repeats")
    args = {key: arg for key, arg in operator.args.items() if key != "output_size"}
    args["repeats"] = count if count == 1 else local.size("r")
    local.emit(operator.target, args, operator.outputs[0])


def permuted(order: Callable[[Site, int], list[int]]) -> Callable[[Site], Signature | None]:
    """Axes in another order; ``order`` says which input axis each output axis is."""

    def rule(site: Site) -> Signature | None:
        taken = axes("a", len(site.inputs[0].shape))
        places = order(site, len(taken))
        return signature(site, [taken], [tuple(taken[i] for i in places)], moves=True)

    return rule


def _permute(site: Site, rank: int) -> list[int]:
    return [dimension(dim, rank) for dim in site.arg("dims")]


def _swap(first: str, second: str) -> Callable[[Site, int], list[int]]:
    def order(site: Site, rank: int) -> list[int]:
        places = list(range(rank))
        if rank:
            i, j = dimension(site.arg(first), rank), dimension(site.arg(second), rank)
            places[i], places[j] = places[j], places[i]
        return places

    return order


def _transpose(site: Site, rank: int) -> list[int]:
    return list(reversed(range(rank)))


def _transpose_matrices(site: Site, rank: int) -> list[int]:
    return [*range(rank - 2), *reversed(range(max(rank - 2, 0), rank))]


def _move(site: Site, rank: int) -> list[int]:
    source, target = site.arg("source"), site.arg("destination")
    sources = [dimension(d, rank) for d in (source if isinstance(source, tuple) else (source,))]
    targets = [dimension(d, rank) for d in (target if isinstance(target, tuple) else (target,))]
    rest = iter([i for i in range(rank) if i not in sources])
    moved = dict(zip(targets, sources, strict=True))
    return [moved[i] if i in moved else next(rest) for i in range(rank)]


def _grid(site: Site) -> Signature | None:
    """Every output has an axis for each input."""
    given = list(_numbered(site))
    taken = [(axis,) if t.shape else () for axis, t in zip(given, site.inputs, strict=True)]
    if site.arg("indexing", "ij") == "xy":
        given[:2] = given[1::-1]
    return signature(site, taken, [tuple(given)] * len(site.outputs), moves=True)


def _numbered(site: Site) -> Axes:
    """A letter for each input that has an axis."""
    return tuple((f"a{i}",) if t.shape else () for i, t in enumerate(site.inputs))


def _windows(site: Site) -> Signature | None:
    """Windows along an axis, which is whole."""
    rank = len(site.inputs[0].shape)
    if not rank:
        return None
    at = dimension(site.arg("dimension"), rank)
    taken = axes("a", rank)
    given = (*taken[:at], ("n",), *taken[at + 1 :], ("w",))
    return signature(site, [taken], [given], whole=[f"a{at}"], dropped=[f"a{at}"], moves=True)


def _diagonal(site: Site) -> Signature | None:
    """The diagonal of two axes, which are whole."""
    rank = len(site.inputs[0].shape)
    two = {dimension(site.arg("dim1", 0), rank), dimension(site.arg("dim2", 1), rank)}
    taken = axes("a", rank)
    given = (*(axis for i, axis in enumerate(taken) if i not in two), ("d",))
    gone = [f"a{i}" for i in two]
    return signature(site, [taken], [given], whole=gone, dropped=gone, moves=True)


def _as_real(site: Site) -> Signature | None:
    taken = axes("a", len(site.inputs[0].shape))
    return signature(site, [taken], [(*taken, ("c",))], linear="self")


def _as_complex(site: Site) -> Signature | None:
    *taken, _ = axes("a", len(site.inputs[0].shape))
    return signature(site, [(*taken, ("c",))], [tuple(taken)], whole="c", linear="self")


def _shuffled(site: Site) -> Signature | None:
    """Channels ``(g c)`` become ``(c g)``."""
    source = site.inputs[0].shape
    each = divide(source[1], site.arg("groups"))
    if each is None or source[1] == 0:
        return None
    taken = axes("a", len(source))
    sizes: dict[str, Size] = {"g": site.arg("groups"), "c": each}
    return signature(
        site, [(taken[0], ("g", "c"), *taken[2:])], [(taken[0], ("c", "g"), *taken[2:])],
        sizes=sizes, moves=True,
    )  # fmt: skip


def _local_shuffle(local: Local) -> None:
    guarded(local, "g", groups=local.size("g"))


def _pixels(arg: str, shrink: bool) -> Callable[[Site], Signature | None]:
    """Channels ``(c r q)`` and an image become a larger image, or the other way round."""

    def rule(site: Site) -> Signature | None:
        deep, wide = site.inputs[0].shape, site.outputs[0].shape
        if shrink:
            deep, wide = wide, deep
        batch = axes("b", len(deep) - 3)
        small: Axes = (*batch, ("c", "r", "q"), ("h",), ("w",))
        large: Axes = (*batch, ("c",), ("h", "r"), ("w", "q"))
        taken, given = (large, small) if shrink else (small, large)
        factor = site.arg(arg)
        sizes: dict[str, Size] = {"r": factor, "q": factor}
        return signature(site, [taken], [given], sizes=sizes, whole="rq", moves=True)

    return rule


_FACTORED = """view.default reshape.default _unsafe_view.default _reshape_alias.default
flatten.using_ints ravel.default unflatten.int squeeze.default squeeze.dim squeeze.dims
view_copy.default squeeze_copy.default squeeze_copy.dim squeeze_copy.dims"""

_PERMUTED = {
    "permute.default": _permute,
    "permute_copy.default": _permute,
    "transpose_copy.int": _swap("dim0", "dim1"),
    "t_copy.default": _transpose,
    "transpose.int": _swap("dim0", "dim1"),
    "swapaxes.default": _swap("axis0", "axis1"),
    "swapdims.default": _swap("dim0", "dim1"),
    "t.default": _transpose,
    "numpy_T.default": _transpose,
    "mT.default": _transpose_matrices,
    "mH.default": _transpose_matrices,
    "adjoint.default": _transpose_matrices,
    "matrix_H.default": _transpose_matrices,
    "movedim.int": _move,
    "movedim.intlist": _move,
    "moveaxis.int": _move,
    "moveaxis.intlist": _move,
}

_EXPANDED = "expand.default expand_copy.default broadcast_to.default expand_as.default"

RULES = (
    *(Rule(f"aten.{name}", factored, local=_local_reshape) for name in _FACTORED.split()),
    *(
        Rule(f"aten.{name}.default", _factored_like, local=_local_reshape)
        for name in ("view_as", "reshape_as")
    ),
    Rule("aten.unsqueeze.default", factored),
    Rule("aten.unsqueeze_copy.default", factored),
    Rule("aten.channel_shuffle.default", _shuffled, local=_local_shuffle),
    Rule("aten.pixel_shuffle.default", _pixels("upscale_factor", shrink=False)),
    Rule("aten.pixel_unshuffle.default", _pixels("downscale_factor", shrink=True)),
    Rule("aten.atleast_1d.default", factored, local=_local_reshape),
    Rule("aten.atleast_2d.default", factored, local=_local_reshape),
    Rule("aten.atleast_3d.default", factored, local=_local_reshape),
    *(Rule(f"aten.{name}", _expanded, local=_local_expand) for name in _EXPANDED.split()),
    Rule("aten.repeat.default", _repeated, local=_local_repeat),
    Rule("aten.tile.default", _repeated, local=_local_repeat),
    Rule("aten.repeat_interleave.self_int", _interleaved, local=_local_interleave),
    *(Rule(f"aten.{name}", permuted(order)) for name, order in _PERMUTED.items()),
    Rule("aten.meshgrid.default", _grid),
    Rule("aten.meshgrid.indexing", _grid),
    Rule("aten.unfold.default", _windows),
    Rule("aten.diagonal.default", _diagonal),
    Rule("aten.view_as_real.default", _as_real),
    Rule("aten.view_as_complex.default", _as_complex),
)
