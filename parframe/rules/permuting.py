"""Rules of operators that permute dims, or factors of dims."""

from __future__ import annotations

from collections.abc import Callable

from parframe.rules.building import Dims, dim_index, guarded, label_dims, signature
from parframe.rules.kinds import Pointwise, View
from parframe.rules.rule import Rule, Site
from parframe.rules.signature import Signature
from parframe.sizes import Size, divide


def permuted(order: Callable[[Site, int], list[int]]) -> Callable[[Site], Signature | None]:
    """Return a rule of dims in another order; ``order`` gives the input dim of each output dim."""

    def rule(site: Site) -> Signature | None:
        taken = label_dims("a", len(site.inputs[0].shape))
        places = order(site, len(taken))
        return signature(site, [taken], [tuple(taken[i] for i in places)], moves=True)

    return rule


def _permute(site: Site, rank: int) -> list[int]:
    return [dim_index(dim, rank) for dim in site.arg("dims")]


def _swap(first: str, second: str) -> Callable[[Site, int], list[int]]:
    def order(site: Site, rank: int) -> list[int]:
        places = list(range(rank))
        if rank:
            i, j = dim_index(site.arg(first), rank), dim_index(site.arg(second), rank)
            places[i], places[j] = places[j], places[i]
        return places

    return order


def _transpose(site: Site, rank: int) -> list[int]:
    return list(reversed(range(rank)))


def _transpose_matrices(site: Site, rank: int) -> list[int]:
    return [*range(rank - 2), *reversed(range(max(rank - 2, 0), rank))]


def _move(site: Site, rank: int) -> list[int]:
    source, target = site.arg("source"), site.arg("destination")
    sources = [dim_index(d, rank) for d in (source if isinstance(source, tuple) else (source,))]
    targets = [dim_index(d, rank) for d in (target if isinstance(target, tuple) else (target,))]
    rest = iter([i for i in range(rank) if i not in sources])
    moved = dict(zip(targets, sources, strict=True))
    return [moved[i] if i in moved else next(rest) for i in range(rank)]


def _windows(site: Site) -> Signature | None:
    """Take windows along a dim, which is whole."""
    rank = len(site.inputs[0].shape)
    if not rank:
        return None
    at = dim_index(site.arg("dimension"), rank)
    taken = label_dims("a", rank)
    given = (*taken[:at], ("n",), *taken[at + 1 :], ("w",))
    return signature(site, [taken], [given], whole=[f"a{at}"], dropped=[f"a{at}"], moves=True)


def _diagonal(site: Site) -> Signature | None:
    """Take the diagonal of two dims, which are whole."""
    rank = len(site.inputs[0].shape)
    two = {dim_index(site.arg("dim1", 0), rank), dim_index(site.arg("dim2", 1), rank)}
    taken = label_dims("a", rank)
    given = (*(dim for i, dim in enumerate(taken) if i not in two), ("d",))
    gone = [f"a{i}" for i in two]
    return signature(site, [taken], [given], whole=gone, dropped=gone, moves=True)


def _as_real(site: Site) -> Signature | None:
    taken = label_dims("a", len(site.inputs[0].shape))
    return signature(site, [taken], [(*taken, ("c",))], linear="self")


def _as_complex(site: Site) -> Signature | None:
    *taken, _ = label_dims("a", len(site.inputs[0].shape))
    return signature(site, [(*taken, ("c",))], [tuple(taken)], whole="c", linear="self")


def _shuffled(site: Site) -> Signature | None:
    """Return ``(g c) -> (c g)`` of channels."""
    source = site.inputs[0].shape
    each = divide(source[1], site.arg("groups"))
    if each is None or source[1] == 0:
        return None
    taken = label_dims("a", len(source))
    sizes: dict[str, Size] = {"g": site.arg("groups"), "c": each}
    return signature(
        site, [(taken[0], ("g", "c"), *taken[2:])], [(taken[0], ("c", "g"), *taken[2:])],
        sizes=sizes, moves=True,
    )  # fmt: skip


def _pixels(arg: str, shrink: bool) -> Callable[[Site], Signature | None]:
    """Return a rule from channels ``(c r q)`` to a larger image, or the reverse."""

    def rule(site: Site) -> Signature | None:
        deep, wide = site.inputs[0].shape, site.outputs[0].shape
        if shrink:
            deep, wide = wide, deep
        batch = label_dims("b", len(deep) - 3)
        small: Dims = (*batch, ("c", "r", "q"), ("h",), ("w",))
        large: Dims = (*batch, ("c",), ("h", "r"), ("w", "q"))
        taken, given = (large, small) if shrink else (small, large)
        factor = site.arg(arg)
        sizes: dict[str, Size] = {"r": factor, "q": factor}
        return signature(site, [taken], [given], sizes=sizes, whole="rq", moves=True)

    return rule


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

_PIXELS = {
    "pixel_shuffle": ("upscale_factor", False),
    "pixel_unshuffle": ("downscale_factor", True),
}

RULES = (
    *(
        Rule(f"aten.{name}", permuted(order), kind=Pointwise() if "_copy" in name else View())
        for name, order in _PERMUTED.items()
    ),
    Rule(
        "aten.channel_shuffle.default",
        _shuffled,
        local=lambda local: guarded(local, "g", groups=local.size("g")),
    ),
    *(
        Rule(
            f"aten.{name}.default",
            _pixels(arg, shrink),
            local=lambda local: guarded(local, local.signature.sizes),
        )
        for name, (arg, shrink) in _PIXELS.items()
    ),
    Rule("aten.unfold.default", _windows, kind=View()),
    Rule("aten.diagonal.default", _diagonal, kind=View()),
    Rule("aten.view_as_real.default", _as_real, kind=View()),
    Rule("aten.view_as_complex.default", _as_complex, kind=View()),
)
