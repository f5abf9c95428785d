"""Pipeline stages that lie on meshes of their own, with other degrees than the stages before."""

import attrs
import models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plan_assertions import assert_equal, count_communication
from torch import nn

from parframe.checking import check
from parframe.errors import ParframeError
from parframe.loading import load
from parframe.mesh import Mesh, StagedMesh, rank_grid
from parframe.partitioning import partition
from parframe.plan import validate_plan
from parframe.plan.plan_json import dump_plan
from parframe.plan.plan_reader import parse_plan
from parframe.report.mesh import mesh_facts
from parframe.simulation import simulate, verify
from parframe.spec import Spec, Stage

FOUR_TWO = StagedMesh("pp", (Mesh((("tp", 4),)), Mesh((("tp", 2),))))

staged = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4).map(
    lambda degrees: StagedMesh("pp", [Mesh((("dp", dp), ("tp", tp))) for dp, tp in degrees])
)


def stages_of(*degrees, layers=4):
    """So many stages of as many layers each as can be."""
    begins = [number * layers // len(degrees) for number in range(len(degrees) + 1)]
    spans = zip(begins, begins[1:], degrees, strict=False)
    return [Stage(first, following - 1, own) for first, following, own in spans]


@given(staged, st.sampled_from([("tp",), ("dp", "tp"), ("pp", "dp", "tp"), ("pp", "tp", "dp")]))
def test_groups_of_a_staged_mesh_part_its_ranks(mesh: StagedMesh, axes: tuple[str, ...]) -> None:
    groups = mesh.groups(axes)
    assert sorted(rank for group in groups for rank in group) == [*range(mesh.size)]
    for group in groups:
        assert all(mesh.group(rank, axes) == group for rank in group)
        assert all(mesh.group_size(axes, rank) == len(group) for rank in group)


@given(staged)
def test_every_rank_of_a_staged_mesh_has_its_own_coordinates(mesh: StagedMesh) -> None:
    assert [mesh.rank(mesh.coordinates(rank)) for rank in range(mesh.size)] == [*range(mesh.size)]


def test_ranks_are_numbered_stage_after_stage() -> None:
    assert rank_grid(FOUR_TWO) == (("pp", "ranks along tp"), ("0", "0 1 2 3"), ("1", "4 5"))
    assert mesh_facts(FOUR_TWO)["stages"] == [{"tp": 4}, {"tp": 2}]
    assert str(FOUR_TWO) == "pp=2 (tp=4; tp=2)"


def test_a_staged_mesh_has_no_groups_across_stages_along_some_of_the_uneven_axes() -> None:
    with pytest.raises(ParframeError, match=r"no groups along them; give axes within .* or pp, tp"):
        FOUR_TWO.group(0, ("pp",))
    with pytest.raises(ParframeError, match="its degree differs from stage to stage"):
        FOUR_TWO.degree("tp")
    with pytest.raises(ParframeError, match="give a rank from 0 to 5"):
        FOUR_TWO.coordinates(6)
    with pytest.raises(ParframeError, match="give pp from 0 to 1"):
        FOUR_TWO.rank({"pp": 2, "tp": 0})
    with pytest.raises(ParframeError, match="its stages have different axes"):
        StagedMesh("pp", (Mesh((("tp", 4),)), Mesh((("dp", 2),))))


def test_stages_alike_are_a_regular_mesh() -> None:
    spec = Spec(parallel="PP2TP4", stages=stages_of({"tp": 2}, {"tp": 2}))
    assert spec.placing().mesh == Mesh((("pp", 2), ("tp", 2)))
    assert spec.placing().stage_starts == (2,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('stages = [{ layers = "1-2" }]', "stage 0 begins with layer 1, not 0; give a list"),
        (
            'stages = [{ layers = "0-1" }, { layers = "3" }]',
            "stage 1 begins with layer 3, not 2",
        ),
        (
            'stages = [{ layers = "0-2" }, { layers = "2-3" }]',
            "stage 1 begins with layer 2, not 3",
        ),
        ('stages = [{ layers = "2-0" }]', "stage 0 has the layers 2-0"),
        ("stages = [{ tp = 2 }]", 'stage 0 has no layers such as "0-11"'),
        ('stages = [{ tp = 0, layers = "0-3" }]', "tp of stage 0 is 0"),
        ('stages = [{ tp = [2], layers = "0-3" }]', "tp of stage 0 is a list of 1"),
        ("stages = [3]", "stage 0 is 3"),
        ("stages = []", "is an empty list"),
        ('stages = [{ layers = "0-3" }]', "are 1, and the axis 'pp' has 2; give 2 stages"),
        (
            'stages = [{ tq = 2, layers = "0" }, { layers = "1-3" }]',
            "there is no axis 'tq' within a stage",
        ),
    ],
)
def test_wrong_stages_are_refused_with_line_and_key(text: str, message: str) -> None:
    with pytest.raises(ParframeError) as refused:
        Spec.parse(f'parallel = "PP2TP2"\n{text}').placing()
    assert f"spec line 2, key 'stages': {message}" in str(refused.value)


@pytest.mark.parametrize(
    ("parallel", "more", "message"),
    [
        ("TP2", {}, "'layers' is split over no axis; split it over one axis, as PP does"),
        ("TP2PP2", {}, "the first axis of the mesh is 'tp'; give that of the stages first"),
        ("PP2TP2", {"devices": 8}, "key 'devices': is 8, and the stages have 6; give 6"),
        ("PP2TP2", {"shares": {"pp": (3, 1)}}, "key 'shares.pp': stages say which layers"),
        (
            "PP2TP2",
            {"strategies": {"pp": {"stage_starts": [1]}}},
            "set by 'stage_starts' too; keep one",
        ),
        (
            "PP2TP2",
            {"splits": {"vocab": ["pp", "tp"]}},
            "key 'splits.vocab': the axis 'pp' of the stages splits 'vocab', too",
        ),
    ],
)
def test_stages_that_clash_with_the_rest_of_the_spec_are_refused(parallel, more, message) -> None:
    with pytest.raises(ParframeError) as refused:
        Spec(parallel=parallel, stages=stages_of({"tp": 4}, {"tp": 2}), **more).placing()
    assert message in str(refused.value)


@pytest.mark.slow
def test_stages_that_have_not_the_layers_of_the_model_are_refused() -> None:
    spec = Spec.parse('parallel = "PP2TP2"\nstages = [{ layers = "0" }, { layers = "1-3" }]')
    with pytest.raises(ParframeError, match=r"line 2, key 'stages': end with layer 3, and the mod"):
        partition(load(models.tiny_config("llama")), spec)


CASES = [
    ("PP2TP4", [{"tp": 4}, {"tp": 2}], {}),
    ("PP2TP4", [{"tp": 2}, {"tp": 4}], {}),
    ("PP2TP4", [{"tp": 3}, {"tp": 2}], {}),
    ("PP2TP4", [{"tp": 1}, {"tp": 4}], {}),
    ("PP2TP4DP2", [{"tp": 4}, {"tp": 2}], {"tie_word_embeddings": True}),
    ("PP2DP2TP2", [{"dp": 3}, {"dp": 2, "tp": 1}], {}),
    ("PP2TP4SPDP2", [{"tp": 2}, {"tp": 3}], {}),
    ("PP3TP4", [{"tp": 4}, {"tp": 2}, {"tp": 1}], {}),
    ("PP3TP2DP2SP", [{"dp": 1}, {"dp": 4}, {"dp": 1}], {"tie_word_embeddings": True}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "degrees", "changes"), CASES, ids=str)
def test_stages_of_different_degrees_are_proved(parallel, degrees, changes) -> None:
    graph = load(models.tiny_config("llama", num_hidden_layers=4, **changes))
    plan = partition(graph, Spec(parallel=parallel, stages=stages_of(*degrees)))
    report = check(plan)
    assert report.ok, report.findings[:3]
    assert verify(plan).ok
    assert dump_plan(parse_plan(dump_plan(plan))) == dump_plan(plan)


@pytest.mark.slow
def test_unequal_devices_and_stages_of_different_degrees_go_together() -> None:
    graph = load(models.tiny_config("llama", num_hidden_layers=4))
    spec = Spec(parallel="PP2TP2DP2", shares={"tp": (3, 1)}, stages=stages_of({"dp": 1}, {"dp": 2}))
    plan = partition(graph, spec)
    assert check(plan).ok
    assert verify(plan).ok
    assert parse_plan(dump_plan(plan)).mesh == plan.mesh


@pytest.mark.slow
def test_every_rank_of_the_next_stage_receives_the_residual_stream_from_one_rank() -> None:
    graph = load(models.tiny_config("llama", num_hidden_layers=4))
    plan = partition(graph, Spec(parallel="PP2TP4", stages=stages_of({"tp": 4}, {"tp": 2})))
    sends = [count_communication(plan, rank)["send"] for rank in range(6)]
    assert (sends, [count_communication(plan, rank)["recv"] for rank in range(6)]) == (
        [1, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1],
    )


@pytest.mark.slow
def test_a_batch_that_stages_split_alike_crosses_split() -> None:
    graph = load(models.tiny_config("llama", num_hidden_layers=4))
    plan = partition(graph, Spec(parallel="PP2DP2TP2", stages=stages_of({"tp": 1}, {"tp": 2})))
    assert all("all_gather" not in count_communication(plan, rank) for rank in range(2))
    assert plan.mesh.group(0, ("pp", "tp")) == (0, 2, 3)


def with_operators(plan, rank, change):
    """The plan with every operator of a rank's program changed, or left out."""
    program = plan.program(rank)
    operators = tuple(new for old in program.operators if (new := change(old)) is not None)
    programs = {**plan.programs, program.name: attrs.evolve(program, operators=operators)}
    return attrs.evolve(plan, programs=programs)


@pytest.fixture(scope="module")
def four_two():
    graph = load(models.tiny_config("llama"))
    return partition(graph, Spec(parallel="PP2TP4", stages=stages_of({}, {"tp": 2}, layers=2)))


@pytest.mark.slow
def test_a_device_with_the_program_of_another_stage_is_found(four_two) -> None:
    devices = list(four_two.devices)
    devices[3] = attrs.evolve(devices[3], program=devices[4].program)
    wrong = attrs.evolve(four_two, devices=tuple(devices))
    with pytest.raises(ParframeError, match="rank 3: is in stage 0, its program in 1"):
        validate_plan(wrong)
    assert [finding.message for finding in check(wrong).findings] == ["rank 3 is in stage 0, not 1"]


@pytest.mark.slow
@pytest.mark.parametrize("axes", [("pp",), ("tp", "pp"), ("pp", "tp", "tp")])
def test_a_communication_along_axes_without_groups_is_found(four_two, axes) -> None:
    def change(operator):
        if operator.target != "parframe.send":
            return operator
        return attrs.evolve(operator, args={**operator.args, "axes": axes})

    wrong = with_operators(four_two, 0, change)
    with pytest.raises(ParframeError, match="its 'axes' is"):
        validate_plan(wrong)
    assert "its axes are" in check(wrong).findings[0].message


@pytest.mark.slow
def test_a_value_sent_to_the_wrong_rank_or_to_none_is_found(four_two) -> None:
    def astray(operator):
        if operator.target != "parframe.send":
            return operator
        return attrs.evolve(operator, args={**operator.args, "peer": 5})

    for change in (astray, lambda o: None if o.target == "parframe.send" else o):
        found = {finding.kind for finding in check(with_operators(four_two, 0, change)).findings}
        assert {"matching", "deadlock"} & found


class Skips(nn.Module):
    """The first value is needed by every layer, the second by the last alone."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 16)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(4)
        )

    def forward(self, x):
        first = self.into(x).tanh()
        second = y = self.layers[0](first).tanh()
        for layer in self.layers[1:]:
            y = layer(y * first).tanh()
        return y + second - first, first


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [(1, 2, 3), (3, 1, 2), (2, 1, 2), (2, 2, 3)])
@pytest.mark.parametrize("axis", ["dp", "tp"])
def test_values_that_skip_stages_reach_every_stage_that_needs_them(degrees, axis) -> None:
    model = models.randomize(Skips().double()).eval()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).double()
    graph = load(model, {"x": x}, {"x": {0: "batch"}})
    plan = partition(
        graph, Spec(parallel="PP3DP2TP2", stages=stages_of(*({axis: of} for of in degrees)))
    )
    report = check(plan)
    assert report.ok, report.findings[:3]
    for actual, expected in zip(simulate(plan, {"x": x}, model), model(x), strict=True):
        assert_equal(actual, expected, 1e-11)
