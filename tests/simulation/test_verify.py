"""Verification: a correct plan passes, a wrong one fails with its first wrong operator."""

import attrs
import pytest
import torch
from handwritten import HIDDEN, Part, changed, graph, operator, pipeline, tensor_parallel

from parframe.errors import ParframeError
from parframe.graph import Input, Parameter, Ref, Tensor
from parframe.simulation import verify
from parframe.simulation.numerical_error import find_scale, relative_error
from parframe.simulation.trial_inputs import choose_trial_sizes, make_trial_inputs
from parframe.sizes import symbol


@pytest.mark.parametrize(
    "plan", [tensor_parallel(1), tensor_parallel(3), tensor_parallel(4, 3), pipeline()]
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_correct_plan_passes(plan, dtype):
    proof = verify(plan, dtype=dtype)
    assert proof.ok
    assert proof.max_error <= proof.bound
    assert proof.first_difference is None


def test_every_replica_is_compared():
    proof = verify(tensor_parallel(3, 2))
    assert [row.parts for row in proof.outputs] == [6, 6]


def test_a_wrong_replica_is_found_though_another_is_correct():
    plan = tensor_parallel(2)
    twin = attrs.evolve(plan.programs["all"], name="twin")
    plan = attrs.evolve(
        plan,
        programs={**plan.programs, "twin": twin},
        devices=(plan.devices[0], attrs.evolve(plan.devices[1], program="twin")),
    )
    assert verify(plan).ok
    proof = verify(changed(plan, "twin", "sum", args={"alpha": 2}))
    assert not proof.ok
    assert proof.first_difference.operator == "sum"
    assert proof.first_difference.ranks == (1,)


def test_the_first_operator_that_differs_is_reported():
    proof = verify(changed(tensor_parallel(3, 2), "all", "relu", target="aten.abs.default"))
    assert not proof.ok
    found = proof.first_difference
    assert (found.operator, found.module) == ("relu", "model.relu")
    assert found.source == "model.py:4: relu = ..."
    assert found.ranks == (0, 1, 2, 3, 4, 5)


def test_without_layouts_the_first_difference_of_a_pipeline_is_reported():
    proof = verify(changed(pipeline(), "stage0", "relu", target="aten.abs.default"))
    assert proof.first_difference.operator == "relu"
    assert proof.first_difference.ranks == (0,)


def bias_on_every_rank(plan):
    plan = changed(plan, "all", "down", args={"bias": Ref("down.bias")})
    return changed(plan, "all", "sum", args={"alpha": 0})


def shard_of_another_rank(plan):
    bindings = {**plan.devices[0].bindings, "ffn_start": 1}
    return attrs.evolve(
        plan, devices=(attrs.evolve(plan.devices[0], bindings=bindings), *plan.devices[1:])
    )


def rows_swapped(plan):
    program = plan.programs["all"]
    (part,) = program.outputs
    rows = part.region[0][0]
    moved = attrs.evolve(rows, start=rows.size - rows.stop, stop=rows.size - rows.start)
    turned = attrs.evolve(
        program, outputs=(Part(part.name, part.whole, ((moved,), part.region[1])),)
    )
    return attrs.evolve(plan, programs={"all": turned})


FAULTS = {
    "a wrong reduction": lambda p: changed(p, "all", "down@sum", args={"reduction": "max"}),
    "a missing reduction": lambda p: changed(p, "all", "sum", args={"self": Ref("down")}),
    "a bias on every rank": bias_on_every_rank,
    "a shard of another rank": shard_of_another_rank,
    "rows given in another order": rows_swapped,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_fault_is_found(fault, dtype):
    proof = verify(fault(tensor_parallel(2, 2)), dtype=dtype, batch=4)
    assert not proof.ok
    assert proof.max_error > 1e-3


def test_communication_is_counted_by_mesh_axis():
    (row,) = verify(tensor_parallel(3, 2), batch=4).communication
    assert (row.axes, row.kind, row.count, row.total) == (("tp",), "all_reduce", 1, 2)
    assert row.bytes == 2 * HIDDEN * 4
    (row,) = verify(pipeline(), batch=4).communication
    assert (row.axes, row.kind, row.count, row.bytes) == (("pp",), "send", 1, 4 * 10 * 4)


def test_given_inputs_and_weights_are_used():
    weights = {
        "up.weight": torch.zeros(10, HIDDEN),
        "down.weight": torch.ones(HIDDEN, 10),
        "down.bias": torch.ones(HIDDEN),
    }
    given = {"x": torch.ones(3, HIDDEN)}
    broken = changed(tensor_parallel(2), "all", "relu", target="aten.neg.default")
    assert verify(broken, weights=weights, inputs=given).ok
    assert not verify(broken, inputs=given).ok


def test_the_same_seed_gives_the_same_proof():
    assert verify(tensor_parallel(3, 2), seed=3) == verify(tensor_parallel(3, 2), seed=3)


def test_trials_have_uneven_parts_and_fewer_rows_than_parts():
    assert choose_trial_sizes(tensor_parallel(2, 4), None, None) == ({"batch": 5}, {"batch": 3})
    assert choose_trial_sizes(tensor_parallel(2, 4), 7, None) == ({"batch": 7},)
    assert choose_trial_sizes(pipeline(), None, None) == ({"batch": 2},)


@pytest.mark.parametrize(
    ("batch", "sequence", "what"), [(0, None, "is 0"), (None, 4, "not a size")]
)
def test_invalid_sizes_are_an_error(batch, sequence, what):
    with pytest.raises(ParframeError, match=what):
        verify(pipeline(), batch=batch, sequence=sequence)


def test_a_dtype_without_a_bound_is_an_error():
    with pytest.raises(ParframeError, match="use one of float64, float32"):
        verify(pipeline(), dtype="bfloat16")


def lookup():
    """Return a graph that looks up integers, shifted by two, behind a view."""
    batch = symbol("batch")
    return graph(
        inputs=[
            Input("ids", (batch, 40), "int64", axes=("batch", "")),
            Input("mask", (batch, 40), "bool"),
            Input("kinds", (batch,), "int64"),
        ],
        parameters=[Parameter("table", (5, 3), "float32")],
        operators=[
            operator("flat", "aten.view.default", {"self": Ref("ids"), "size": (-1,)}),
            operator("next", "aten.add.Tensor", {"self": Ref("flat"), "other": 2, "alpha": 1}),
            operator("rows", "aten.embedding.default", {
                "weight": Ref("table"), "indices": Ref("next"),
            }),
        ],
        tensors=[
            Tensor("flat", (batch * 40,), "int64"),
            Tensor("next", (batch * 40,), "int64"),
            Tensor("rows", (batch * 40, 3), "float32"),
        ],
        outputs="rows",
        names=["rows"],
    )  # fmt: skip


def test_random_integers_are_valid_indices():
    found = make_trial_inputs(lookup(), {"batch": 3}, seed=0)
    assert sorted(found["ids"].unique().tolist()) == [0, 1, 2]
    assert found["ids"].shape == (3, 40)
    assert found["mask"].dtype == torch.bool
    assert int(found["kinds"].max()) < 8


def test_random_floats_have_both_signs_and_distinct_rows():
    x = make_trial_inputs(pipeline().graph, {"batch": 3}, seed=0)["x"]
    assert (x < 0).any()
    assert (x > 0).any()
    assert len(x.unique(dim=0)) == 3


INFINITE = float("inf")


@pytest.mark.parametrize(
    ("found", "expected", "result"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 3.0], [1.0, 2.0], 0.5),
        ([1.0, INFINITE], [1.0, INFINITE], 0.0),
        ([1.0, INFINITE], [1.0, -INFINITE], INFINITE),
        ([1.0, float("nan")], [1.0, 2.0], INFINITE),
        ([1.0, float("nan")], [1.0, float("nan")], 0.0),
        ([1.0], [1.0, 2.0], INFINITE),
        ([], [], 0.0),
        ([0.0], [0.0], 0.0),
    ],
)
def test_relative_error_of_floats(found, expected, result):
    found, expected = torch.tensor(found), torch.tensor(expected)
    assert relative_error(found, expected, find_scale(expected)) == result


def test_unequal_integers_have_an_infinite_error():
    ones = torch.ones(2, dtype=torch.int64)
    assert relative_error(ones, ones, find_scale(ones)) == 0
    assert relative_error(ones, ones * 2, find_scale(ones)) == INFINITE
    assert relative_error(ones, ones.int(), find_scale(ones)) == INFINITE
