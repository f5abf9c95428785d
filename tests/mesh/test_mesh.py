import pytest
from hypothesis import given
from hypothesis import strategies as st

from parframe.errors import ParframeError
from parframe.mesh import MAX_DEVICES, Composite, Mesh, format_composite, parse_composite, rank_grid

CUBE = Mesh((("pp", 2), ("dp", 3), ("tp", 4)))

meshes = st.lists(st.integers(1, 5), max_size=4).map(
    lambda degrees: Mesh((f"axis{i}", degree) for i, degree in enumerate(degrees))
)
composites = st.lists(
    st.tuples(
        st.sampled_from(["TP", "PP", "DP", "SP", "EP", "FSDP", "ETP"]),
        st.none() | st.integers(1, MAX_DEVICES),
    ),
    min_size=1,
    unique_by=lambda part: part[0],
).filter(lambda parts: any(degree for _, degree in parts))


def test_the_first_axis_varies_slowest() -> None:
    assert CUBE.coordinates(0) == {"pp": 0, "dp": 0, "tp": 0}
    assert CUBE.coordinates(1) == {"pp": 0, "dp": 0, "tp": 1}
    assert CUBE.coordinates(23) == {"pp": 1, "dp": 2, "tp": 3}
    assert CUBE.rank({"tp": 0, "pp": 1, "dp": 0}) == 12


@given(meshes)
def test_every_rank_has_its_own_coordinates(mesh: Mesh) -> None:
    assert [mesh.rank(mesh.coordinates(rank)) for rank in range(mesh.size)] == [*range(mesh.size)]


@given(meshes, st.randoms())
def test_a_rank_is_found_in_its_group_at_its_index(mesh: Mesh, random: object) -> None:
    axes = mesh.names[::-2]
    for rank in range(mesh.size):
        assert mesh.group(rank, axes)[mesh.index(rank, axes)] == rank


@given(meshes)
def test_groups_part_the_ranks(mesh: Mesh) -> None:
    groups = mesh.groups(mesh.names[1:])
    assert sorted(rank for group in groups for rank in group) == [*range(mesh.size)]
    assert all(mesh.group(group[0], mesh.names[1:]) == group for group in groups)


@pytest.mark.parametrize(
    ("rank", "axes", "group"),
    [
        (13, ("tp",), (12, 13, 14, 15)),
        (13, ("pp",), (1, 13)),
        (1, ("pp", "dp"), (1, 5, 9, 13, 17, 21)),
        (1, ("dp", "pp"), (1, 13, 5, 17, 9, 21)),
        (7, (), (7,)),
    ],
)
def test_a_group_is_ordered_by_its_axes_as_given(
    rank: int, axes: tuple[str, ...], group: tuple[int, ...]
) -> None:
    assert CUBE.group(rank, axes) == group


def test_no_axis_is_one_device() -> None:
    assert (Mesh(()).size, Mesh(()).groups(()), rank_grid(Mesh(()))) == (
        1,
        ((0,),),
        (("ranks",), ("0",)),
    )


def test_the_grid_shortens_long_runs_to_fit_a_terminal() -> None:
    assert rank_grid(Mesh((("pp", 2), ("tp", 64)))) == (
        ("pp", "ranks along tp"),
        ("0", "0 1 2 ... 63"),
        ("1", "64 65 66 ... 127"),
    )


@pytest.mark.parametrize(
    "axes",
    [
        (("tp", 0),),
        (("tp", -2),),
        (("tp", True),),
        (("tp", MAX_DEVICES + 1),),
        (("tp", MAX_DEVICES), ("dp", 2)),
        (("tp", 2), ("tp", 3)),
        (("TP", 2),),
        (("", 2),),
    ],
)
def test_illegal_axes_are_refused(axes: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(ParframeError, match=r"^error\[mesh\]"):
        Mesh(axes)


def test_unknown_places_are_refused_with_a_hint() -> None:
    with pytest.raises(ParframeError, match="the mesh has no such axis; use one of its axes: pp"):
        CUBE.degree("experts")
    with pytest.raises(ParframeError, match="give a rank from 0 to 23"):
        CUBE.coordinates(24)
    with pytest.raises(ParframeError, match="give tp from 0 to 3"):
        CUBE.rank({"pp": 0, "dp": 0, "tp": 4})
    with pytest.raises(ParframeError, match="give each axis once"):
        CUBE.group(0, ("tp", "tp"))


@given(composites)
def test_a_composite_reads_back_as_it_was_written(parts: list[tuple[str, int | None]]) -> None:
    assert parse_composite(format_composite(tuple(parts))) == tuple(parts)


@pytest.mark.parametrize(
    ("text", "composite"),
    [
        ("EP8TP4DP2", (("EP", 8), ("TP", 4), ("DP", 2))),
        ("TP4SP", (("TP", 4), ("SP", None))),
        ("SPTP4", (("SP", None), ("TP", 4))),
        ("TP4SPPP2", (("TP", 4), ("SP", None), ("PP", 2))),
        ("FSDP8", (("FSDP", 8),)),
        ("TP1", (("TP", 1),)),
    ],
)
def test_a_code_ends_at_its_first_p(text: str, composite: Composite) -> None:
    assert parse_composite(text) == composite


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 1, "no code has a degree"),
        ("TP", 3, "no code has a degree"),
        ("TPSP", 5, "no code has a degree"),
        ("TP0", 3, "begins with 0"),
        ("TP04", 3, "begins with 0"),
        ("TP-1", 3, "a sign"),
        ("TP65537", 3, "larger than 65536"),
        ("TP" + "9" * 150, 3, "larger than 65536"),
        ("TP2" * 100, 201, "longer than 200 characters"),
        ("tp4", 1, "write TP4"),
        ("TP4dp2", 4, "write TP4DP2"),
        ("4TP", 1, "write the code first"),
        ("TP4TP2", 4, "TP is given twice"),
        ("TP4 DP2", 4, "write 'TP4DP2'"),
        (" ", 1, "a space"),
        ("TP4,DP2", 4, "no code begins here"),
        ("XQ4", 1, "a code ends in P"),
        ("TP٤", 3, "not a plain digit"),
    ],
)
def test_a_malformed_composite_gets_a_caret_and_the_grammar(
    text: str, column: int, expected: str
) -> None:
    with pytest.raises(ParframeError) as caught:
        parse_composite(text)
    message, shown, caret, grammar = str(caught.value).splitlines()
    assert message.startswith(f"error[composite] column {column}: ")
    assert expected in message
    assert text[column - 1 : column + 2].strip() in shown
    assert caret.strip() == "^"
    assert caret.index("^") == min(column - 1, 60) + 4
    assert grammar.startswith("  grammar: ")
