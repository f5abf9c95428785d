import attrs
import pytest

from parframe.errors import ParframeError
from parframe.mesh import Mesh, parse_composite
from parframe.strategy import Part, Placing, Split, Strategy, declare, mesh_of, place


@attrs.frozen
class Pipeline(Strategy):
    code = "PP"
    axis = "pp"
    splits = ("layers",)

    stage_starts: tuple[str | int, ...] = ()

    def fixed_stage_starts(self) -> tuple[str | int, ...]:
        return self.stage_starts


STRATEGIES: dict[str, Strategy] = {
    "DP": declare("DP", "dp", ["batch"], Strategy)(),
    "TP": declare("TP", "tp", ["heads", "ffn"], Strategy)(),
    "SP": declare("SP", "tp", ["sequence"], Strategy)(),
    "EP": declare("EP", "ep", ["experts", "batch"], Strategy)(),
    "PP": Pipeline((3, "model.layers.5")),
}


def parts(composite: str) -> list[Part]:
    return [(STRATEGIES[code], degree) for code, degree in parse_composite(composite)]


def placing(composite: str, **overrides: tuple[str, ...]) -> Placing:
    return place(parts(composite), mesh_of(parts(composite)), overrides)


@pytest.mark.parametrize(
    ("composite", "axes"),
    [
        ("EP8TP4DP2", (("ep", 8), ("tp", 4), ("dp", 2))),
        ("DP2TP4EP8", (("dp", 2), ("tp", 4), ("ep", 8))),
        ("TP4SP", (("tp", 4),)),
        ("SPDP2TP4", (("dp", 2), ("tp", 4))),
        ("SP2", (("tp", 2),)),
        ("SP2TP", (("tp", 2),)),
    ],
)
def test_the_mesh_has_an_axis_for_each_degree(
    composite: str, axes: tuple[tuple[str, int], ...]
) -> None:
    assert mesh_of(parts(composite)) == Mesh(axes)


def test_strategies_with_a_degree_come_before_those_that_share() -> None:
    assert placing("SPTP4DP2").splits == (
        Split("heads", ("tp",)),
        Split("ffn", ("tp",)),
        Split("batch", ("dp",)),
        Split("sequence", ("tp",)),
    )


def test_a_name_that_two_strategies_split_lies_over_both_axes() -> None:
    assert placing("EP2DP3").axes("batch") == ("ep", "dp")
    assert placing("DP3EP2").axes("batch") == ("dp", "ep")


def test_splits_of_the_spec_replace_those_of_strategies_and_are_required() -> None:
    placed = placing("TP2DP2", ffn=("dp", "tp"), heads=(), vocab=("tp",))
    assert placed.splits == (
        Split("ffn", ("dp", "tp"), required=True),
        Split("batch", ("dp",)),
        Split("vocab", ("tp",), required=True),
    )
    assert placed.axes("heads") == ()


def test_stage_starts_of_a_pipeline_reach_the_placing() -> None:
    assert placing("PP3").stage_starts == (3, "model.layers.5")
    assert placing("TP2").stage_starts == ()


@attrs.frozen
class RingContext(Strategy):
    code = "CP"
    axis = "cp"
    splits = ("sequence",)

    def distributed_forms(self) -> tuple[str, ...]:
        return ("ring",)

    def zigzag(self) -> tuple[str, ...]:
        return ("sequence",)


def test_distributed_forms_of_a_strategy_reach_the_placing_on_its_axis() -> None:
    both: list[Part] = [(STRATEGIES["TP"], 2), (RingContext(), 3)]
    placed = place(both, mesh_of(both))
    assert placed.zigzag == ("sequence",)
    assert placed.distributed_forms == {"cp": ("ring",)}
    assert placed.forms_along(["cp"]) == {"ring"}
    assert placed.forms_along(["cp", "tp"]) == frozenset()


def test_two_degrees_for_one_axis_tell_how_to_share_it() -> None:
    with pytest.raises(ParframeError, match=r"axis 'tp' a degree; write TP4SP"):
        mesh_of(parts("TP4SP2"))


def test_sharing_an_axis_that_nobody_has_asks_for_a_degree() -> None:
    with pytest.raises(ParframeError, match=r"SP has no degree.*; give it a degree, as in SP2"):
        mesh_of(parts("DP2SP"))


@pytest.mark.parametrize(
    ("axes", "message"),
    [(("tb",), r"splits.ffn: the mesh has no axis 'tb'.*: tp"), (("tp", "tp"), "each axis once")],
)
def test_overrides_must_name_axes_of_the_mesh_once(axes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ParframeError, match=message):
        placing("TP2", ffn=axes)
