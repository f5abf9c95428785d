"""Simulation: communication operators, matching, inputs and outputs."""

import attrs
import pytest
import torch
from handwritten import (
    HIDDEN,
    Part,
    Plan,
    Program,
    changed,
    graph,
    linear,
    mlp,
    operator,
    pipeline,
    relu,
    tensor_parallel,
    whole,
)

from parframe.errors import ParframeError
from parframe.graph import Input, Parameter, Ref, Tensor
from parframe.layout import Join, Span, region_length, region_size
from parframe.mesh import Mesh
from parframe.plan import Device
from parframe.simulation import Outputs, simulate, verify
from parframe.simulation.collectives import CommunicationCall, run_communication
from parframe.simulation.device_coroutine import find_last_uses
from parframe.strategy import Placing

ROWS, COLUMNS = 7, 6


def cuts(*ends, size=ROWS):
    """Return the regions of a dim between ends."""
    return [(Span(size, a, b),) for a, b in zip((0, *ends), (*ends, size), strict=True)]


def segments(*thirds):
    """Return regions of a dim with a segment of 4 and one of 3, each cut at its own ends."""
    return [(Join(((Span(4, a, b),), (Span(3, c, d),))),) for a, b, c, d in thirds]


PARTS = {
    "even": cuts(2, 4, size=COLUMNS),
    "uneven": cuts(3, 5),
    "empty": cuts(0, 7),
    "alone": cuts(),
    "segmented": segments((0, 2, 0, 1), (2, 4, 1, 3)),
    "duplicated": [cuts(3)[0], cuts(3)[0], cuts(3)[1], cuts(3)[1]],
    "in a product": [(Span(2, 0, 2), Span(3, i, i + 1)) for i in range(3)],
}


def shape(*regions):
    return tuple(region_length(region) for region in regions)


def plan_of(model, programs, axis="tp"):
    """Return a plan with a program for every rank."""
    named = {f"rank{i}": attrs.evolve(p, name=f"rank{i}") for i, p in enumerate(programs)}
    devices = tuple(Device(i, name, {}) for i, name in enumerate(named))
    return Plan(model, Placing(Mesh(((axis, len(programs)),))), named, devices)


def pointwise(rows=ROWS):
    """Return the graph of ``y = relu(x)``, of ``rows`` by COLUMNS."""
    tensor = Tensor("y", (rows, COLUMNS), "float32")
    return graph([Input("x", (rows, COLUMNS), "float32")], [], [relu("y", "x")], [tensor], "y", "y")


def converting(parts, target, args, come):
    """Return a plan of a communication operator that turns ``parts`` of rows into ``come``."""
    model, programs = pointwise(region_size(parts[0])), []
    for rank, part in enumerate(parts):
        columns = whole(COLUMNS)[0]
        given, gets = shape(part, columns), shape(*come[rank])
        programs.append(
            Program(
                name="",
                stage=0,
                operators=(
                    relu("y", "x"),
                    operator(
                        "y@", target, {"input": Ref("y"), "axes": ("tp",), **args, "tag": "t"}
                    ),
                ),
                tensors={
                    "x": Tensor("x", given, "float32"),
                    "y": Tensor("y", given, "float32"),
                    "y@": Tensor("y@", gets, "float32"),
                },
                inputs=(Part("x", "x", (part, columns)),),
                parameters=(),
                outputs=(Part("y@", "y", come[rank]),),
            )
        )
    return plan_of(model, programs)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_all_gather_puts_every_part_in_its_place(parts):
    columns = whole(COLUMNS)[0]
    rows = region_size(parts[0])
    everything = [whole(rows, COLUMNS)] * len(parts)
    args = {"parts": tuple((part, columns) for part in parts)}
    proof = verify(converting(parts, "parframe.all_gather", args, everything))
    assert proof.ok
    assert proof.max_error == 0
    assert proof.outputs[0].parts == len(parts)


@pytest.mark.parametrize("kind", ["even", "uneven", "empty", "alone", "segmented", "in a product"])
def test_all_to_all_swaps_rows_for_columns(kind):
    parts = PARTS[kind]
    rows, n = region_size(parts[0]), len(parts)
    ends = [COLUMNS * i // n for i in range(1, n)]
    columns = cuts(*ends, size=COLUMNS)
    plan = converting(
        parts, "parframe.all_to_all", {}, [(whole(rows)[0], columns[rank]) for rank in range(n)]
    )
    for rank in range(n):
        sends = tuple((whole(region_length(parts[rank]))[0], columns[m]) for m in range(n))
        width = whole(region_length(columns[rank]))[0]
        places = tuple((parts[m], width) for m in range(n))
        plan = changed(plan, f"rank{rank}", "y@", args={"sends": sends, "parts": places})
    assert verify(plan).max_error == 0


@pytest.mark.parametrize("kind", ["uneven", "empty", "alone", "segmented"])
@pytest.mark.parametrize("target", ["parframe.all_reduce", "parframe.reduce_scatter"])
def test_partial_sums_are_reduced(kind, target):
    parts = PARTS[kind]
    model = graph(
        [Input("x", (5, ROWS), "float32")],
        [Parameter("w", (COLUMNS, ROWS), "float32")],
        [linear("y", "x", "w")],
        [Tensor("y", (5, COLUMNS), "float32")],
        "y",
        "y",
    )
    args = {"input": Ref("y"), "axes": ("tp",), "reduction": "sum", "tag": "t"}
    n, programs = len(parts), []
    kept = [whole(5, COLUMNS)] * n
    if target == "parframe.reduce_scatter":
        rows = cuts(*[5 * i // n for i in range(1, n)], size=5)
        kept = [(rows[rank], whole(COLUMNS)[0]) for rank in range(n)]
        args["parts"] = tuple(kept)
    for rank, part in enumerate(parts):
        length = region_length(part)
        shapes = {"x": (5, length), "w": (COLUMNS, length), "y": (5, COLUMNS)}
        shapes["y@"] = shape(*kept[rank])
        programs.append(
            Program(
                name="",
                stage=0,
                operators=(linear("y", "x", "w"), operator("y@", target, args)),
                tensors={name: Tensor(name, size, "float32") for name, size in shapes.items()},
                inputs=(Part("x", "x", (whole(5)[0], part)),),
                parameters=(Part("w", "w", (whole(COLUMNS)[0], part)),),
                outputs=(Part("y@", "y", kept[rank]),),
            )
        )
    proof = verify(plan_of(model, programs))
    assert proof.ok
    assert proof.outputs[0].parts == n


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", [-1.0, 4.0]), ("prod", [-6.0, 4.0]), ("max", [2.0, 2.0]), ("min", [-3.0, 2.0])],
)
def test_reductions_of_numbers(reduction, expected):
    tensors = [torch.tensor([2.0, 2.0]), torch.tensor([-3.0, 2.0])]
    assert reduced(tensors, reduction).tolist() == expected


@pytest.mark.parametrize(("reduction", "expected"), [("any", [True, False]), ("all", [False] * 2)])
def test_reductions_of_booleans(reduction, expected):
    tensors = [torch.tensor([True, False]), torch.tensor([False, False])]
    assert reduced(tensors, reduction).tolist() == expected


def test_partial_sums_are_added_in_the_order_of_ranks():
    tensors = [torch.tensor([value]) for value in (1e16, 1.0, -1e16, 1.0)]
    expected = ((1e16 + 1.0) - 1e16) + 1.0
    assert reduced([t.double() for t in tensors], "sum").item() == expected


def reduced(tensors, reduction):
    args = {"input": Ref("x"), "axes": ("tp",), "reduction": reduction, "tag": "t"}
    own = operator("r", "parframe.all_reduce", args)
    results = run_communication(
        [CommunicationCall(i, own, t, tuple(t.shape), {}) for i, t in enumerate(tensors)]
    )
    assert all(result is results[0] for result in results)
    return results[0]


@pytest.mark.parametrize("root", [0, 1, 2])
def test_a_broadcast_needs_the_tensor_on_its_root_only(root):
    model = pointwise()
    programs = []
    for rank in range(3):
        args = {"input": Ref("y")} if rank == root else {}
        spread = operator("y@", "parframe.broadcast", {**args, "axes": ("tp",), "root": root,
                                                       "tag": 1})  # fmt: skip
        names = ("x", "y", "y@") if rank == root else ("y@",)
        programs.append(
            Program(
                name="",
                stage=0,
                operators=(relu("y", "x"), spread) if rank == root else (spread,),
                tensors={name: Tensor(name, (ROWS, COLUMNS), "float32") for name in names},
                inputs=(Part("x", "x", whole(ROWS, COLUMNS)),) if rank == root else (),
                parameters=(),
                outputs=(Part("y@", "y", whole(ROWS, COLUMNS)),),
            )
        )
    proof = verify(plan_of(model, programs))
    assert proof.max_error == 0
    assert proof.outputs[0].parts == 3


def test_a_shard_takes_a_part_without_communication():
    rows = cuts(3)
    model, programs = pointwise(), []
    for part in rows:
        region = (part, whole(COLUMNS)[0])
        programs.append(
            Program(
                name="",
                stage=0,
                operators=(
                    relu("y", "x"),
                    operator("y@", "parframe.shard", {"input": Ref("y"), "part": region}),
                ),
                tensors={
                    "x": Tensor("x", (ROWS, COLUMNS), "float32"),
                    "y": Tensor("y", (ROWS, COLUMNS), "float32"),
                    "y@": Tensor("y@", shape(*region), "float32"),
                },
                inputs=(Part("x", "x", whole(ROWS, COLUMNS)),),
                parameters=(),
                outputs=(Part("y@", "y", region),),
            )
        )
    proof = verify(plan_of(model, programs))
    assert proof.max_error == 0
    assert proof.communication == ()


def test_an_output_that_no_device_computes_is_an_error():
    plan = tensor_parallel(2, 2)
    lost = attrs.evolve(plan.programs["all"], outputs=())
    with pytest.raises(ParframeError, match="output sum: the devices' parts do not cover it"):
        simulate(attrs.evolve(plan, programs={"all": lost}), inputs())


def test_elements_that_no_part_covers_are_nan():
    parts = PARTS["uneven"]
    columns = whole(COLUMNS)[0]
    shifted = (*parts[:-1], (Span(ROWS, 4, 6),))
    args = {"parts": tuple((part, columns) for part in shifted)}
    come = [whole(ROWS, COLUMNS)] * 3
    given = {"x": torch.ones(ROWS, COLUMNS)}
    found = simulate(converting(parts, "parframe.all_gather", args, come), given)
    assert found[-1].isnan().all()
    assert not found[:-1].isnan().any()


def inputs(rows=5):
    return {"x": torch.linspace(-2, 3, rows * HIDDEN).reshape(rows, HIDDEN)}


def test_values_are_freed_after_their_last_use():
    program = tensor_parallel(2).programs["all"]
    outputs = [part.name for part in program.outputs]
    assert find_last_uses(program.operators, outputs) == (
        ("x", "up.weight"), ("up",), ("relu", "down.weight"), ("down",), ("down@sum", "down.bias"),
    )  # fmt: skip


FAULTS = {
    "a tag that nobody else has": (
        changed(pipeline(), "stage1", "relu~recv", args={"tag": "other"}),
        r"ranks 0, 1: deadlock: rank 0 at relu~send \(parframe.send, tag 'relu'\) waits for rank 1",
    ),
    "a send whose peer sends too": (
        changed(pipeline(), "stage1", "down", target="parframe.send", outputs=(),
                args={"input": Ref("relu"), "axes": ("pp",), "peer": 0, "tag": "relu"}),
        "deadlock|does not match",
    ),
    "a send to itself": (
        changed(pipeline(), "stage0", "relu~send", args={"peer": 0}),
        "rank 0, relu~send .*: parframe.send to itself",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("plan", "what"), FAULTS.values(), ids=FAULTS)
def test_transfers_that_do_not_match_are_an_error(plan, what):
    with pytest.raises(ParframeError, match=what) as caught:
        simulate(plan, inputs())
    assert caught.value.kind == "run"


def two_ranks(*orders):
    """Return a plan of two devices with collectives (tag, target, arguments) in these orders."""
    model, programs = pointwise(), []
    for order in orders:
        operators, before = [relu("y", "x")], "y"
        for number, (tag, target, more) in enumerate(order):
            args = {"input": Ref(before), "axes": ("tp",), **more, "tag": tag}
            before = f"y@{number}"
            operators.append(operator(before, target, args))
        names = ("x", "y", *(f"y@{number}" for number in range(len(order))))
        programs.append(
            Program(
                name="",
                stage=0,
                operators=tuple(operators),
                tensors={name: Tensor(name, (ROWS, COLUMNS), "float32") for name in names},
                inputs=(Part("x", "x", whole(ROWS, COLUMNS)),),
                parameters=(),
                outputs=(Part(before, "y", whole(ROWS, COLUMNS)),),
            )
        )
    return plan_of(model, programs)


A = ("a", "parframe.all_reduce", {"reduction": "max"})
B = ("b", "parframe.all_reduce", {"reduction": "max"})


@pytest.mark.parametrize(
    ("orders", "what"),
    [
        (([A, B], [B, A]), "deadlock: rank 0 at y@0 .* tag 'a'.* rank 1 at y@0 .* tag 'b'"),
        (([A, B], [A]), r"ranks 0: deadlock: rank 0 at y@1 .* waits for rank 1"),
        (([A], [("a", "parframe.all_reduce", {"reduction": "sum"})]), "reduction 'sum', but"),
        (
            ([A], [("a", "parframe.broadcast", {"root": 0})]),
            "does not match y@0 .*all_reduce.* of rank 0",
        ),
    ],
)
def test_collectives_that_do_not_match_are_an_error(orders, what):
    with pytest.raises(ParframeError, match=what):
        simulate(two_ranks(*orders), {"x": torch.ones(ROWS, COLUMNS)})


def test_collectives_in_the_same_order_do_not_deadlock():
    found = simulate(two_ranks([A, B], [A, B]), {"x": -torch.ones(ROWS, COLUMNS)})
    assert torch.equal(found, torch.zeros(ROWS, COLUMNS))


def test_a_wrong_shape_in_a_collective_is_an_error():
    plan = two_ranks([A], [A])
    half = attrs.evolve(
        plan.programs["rank1"], inputs=(Part("x", "x", ((Span(ROWS, 0, 3),), whole(COLUMNS)[0])),)
    )
    plan = attrs.evolve(plan, programs={**plan.programs, "rank1": half})
    with pytest.raises(ParframeError, match=r"rank 0, y@0: reduces a .* of shape \[3, 6\] with"):
        simulate(plan, {"x": torch.ones(ROWS, COLUMNS)})


def test_a_failing_operator_is_named_with_its_rank():
    plan = changed(tensor_parallel(2), "all", "down", args={"weight": Ref("down.bias")})
    with pytest.raises(ParframeError, match=r"rank 0, down \(model.down\): aten.linear"):
        simulate(plan, inputs())


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "x: is missing"),
        ({"x": torch.ones(2, HIDDEN), "y": 1}, "y: is not an input"),
        ({"x": torch.ones(2, 5)}, r"x: has the shape \[2, 5\]"),
        ({"x": torch.ones(2)}, r"x: has the shape \[2\]"),
        (
            {"x": torch.ones(2, HIDDEN).int()},
            "x: has dtype torch.int32, but the model takes float32",
        ),
        ({"x": "text"}, "x: is not a tensor"),
    ],
)
def test_inputs_that_do_not_fit_are_an_error(given, what):
    with pytest.raises(ParframeError, match=what) as caught:
        simulate(pipeline(), given)
    assert caught.value.kind == "input"


def test_an_unknown_dtype_is_an_error():
    with pytest.raises(ParframeError, match="did you mean 'float32'"):
        simulate(pipeline(), inputs(), dtype="float3")


@pytest.mark.parametrize(("dtype", "expected"), [("float64", torch.float64), (None, torch.float32)])
def test_a_simulation_computes_in_the_given_dtype(dtype, expected):
    found = simulate(tensor_parallel(2, 2), inputs(), dtype=dtype)
    assert found["y"].dtype == expected
    assert found["y"].shape == (5, HIDDEN)


def test_a_simulation_returns_the_structure_of_the_model():
    given, shards = inputs(), tensor_parallel(3, 2)
    structures = {"sum": torch.Tensor, ("sum",): tuple}
    for structure, kind in structures.items():
        model = attrs.evolve(mlp(), outputs=structure)
        assert isinstance(simulate(attrs.evolve(shards, graph=model), given), kind)
    model = attrs.evolve(mlp(), outputs={"$class": "Output", "y": "sum", "none": None})
    found = simulate(attrs.evolve(shards, graph=model), given)
    assert isinstance(found, Outputs)
    assert found.y is found["y"] is found[0]
    assert found.none is None
    with pytest.raises(AttributeError):
        _ = found.other


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_batch_may_have_fewer_rows_than_devices(rows):
    given = inputs(rows)
    expected = simulate(tensor_parallel(1), given, dtype="float64")["y"]
    found = simulate(tensor_parallel(2, 5), given, dtype="float64")["y"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
