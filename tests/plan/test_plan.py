"""Plans: the graph of a device, its weights, the readable file of a role."""

import ast

import numpy
import pytest
from handwritten import BATCH, FFN, HIDDEN, changed, mlp, pipeline, tensor_parallel

from parframe.errors import ParframeError
from parframe.plan import Device, Plan, Slices, validate_plan
from parframe.plan.program_text import format_program
from parframe.sizes import floordiv
from parframe.strategy import Placing


def test_a_device_is_a_graph_with_its_groups_and_its_sizes():
    graph = tensor_parallel(3, 2).device(4)
    assert graph.nodes["down@sum"]["group"] == (3, 4, 5)
    (edge,) = graph.get_edge_data("up", "relu").values()
    assert edge["tensor"].shape == (BATCH - floordiv(BATCH, 2), 3)
    assert graph.nodes["up.weight"]["part"].region[0][0].start == 4
    kinds = [kind for _, kind in graph.nodes(data="kind")]
    assert [kinds.count(k) for k in ("input", "parameter", "operator", "output")] == [1, 3, 5, 1]


def test_a_rank_outside_the_mesh_is_refused():
    with pytest.raises(ParframeError, match="give a rank from 0 to 1"):
        pipeline().device(2)


def test_weights_are_slices_of_the_original_tensors():
    plan, whole = tensor_parallel(3), numpy.arange(FFN * HIDDEN).reshape(FFN, HIDDEN)
    parts = [plan.weights(rank)["up.weight"] for rank in range(3)]
    assert [part.local_shape for part in parts] == [(4, HIDDEN), (3, HIDDEN), (3, HIDDEN)]
    numpy.testing.assert_array_equal(numpy.concatenate([p.take(whole) for p in parts]), whole)


RUNS = [
    ((), ()),
    (((0, 3),), ((1, 1),)),
    (((0, 2), (4, 5)), ((0, 4),)),
    (((0, 2), (4, 5)), ((0, 1), (3, 4))),
    ((), ((0, 4),)),
]


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("kind", ["numpy", "torch", "safetensors"])
def test_slices_are_taken_alike_from_every_kind_of_tensor(runs, kind, tmp_path):
    whole = numpy.arange(20.0).reshape(5, 4) if runs else numpy.array(3.0)
    slices = Slices("w", whole.shape, runs)
    numbers = [[i for low, high in axis for i in range(low, high)] for axis in runs]
    expected = whole[numpy.ix_(*numbers)] if runs else whole
    if kind == "numpy":
        found = slices.take(whole)
    elif kind == "torch":
        import torch

        found = slices.take(torch.from_numpy(whole)).numpy()
    else:
        from safetensors import safe_open
        from safetensors.numpy import save_file

        save_file({"w": whole}, tmp_path / "w.safetensors")
        with safe_open(tmp_path / "w.safetensors", framework="numpy") as file:
            found = slices.take(file.get_slice("w"))
    assert found.shape == slices.local_shape
    numpy.testing.assert_array_equal(found, expected)


def test_slices_of_another_models_weight_are_refused():
    with pytest.raises(ParframeError, match=r"w: has shape \[5\], the model's is \[4\]"):
        Slices("w", (4,), (((0, 4),),)).take(numpy.zeros(5))


def test_a_role_is_readable_python_with_its_sources():
    text = format_program(tensor_parallel(2), "all")
    ast.parse(text)
    assert "    up = aten.linear(x, up_weight)  # float32[batch_here, ffn_here] | model.up" in text
    assert "all_reduce(down, axes=('tp',), reduction='sum'" in text
    assert "# rank 1: dp=0 tp=1 | ffn_start=5 ffn_here=5" in text


def test_text_of_a_model_cannot_leave_its_comment():
    source = "a\nimport os\u2028\r\x0b\x00"
    plan = changed(pipeline(), "stage0", "up", source=source, module="b\n1/0", target="a b.c\n()")
    tree = ast.parse(format_program(plan, "stage0"))
    assert [type(node) for node in tree.body] == [ast.Expr, ast.FunctionDef]
    assert len(tree.body[1].body) == 4


def broken():
    plan = tensor_parallel(2)
    reduce = ("all", "down@sum")
    yield "'reduction'", changed(plan, *reduce, args={"reduction": "mean"})
    yield "'axes'", changed(plan, *reduce, args={"axes": ("pp",)})
    yield "'axes'", changed(plan, *reduce, args={"axes": ("tp", "tp")})
    yield "'parts'", changed(plan, *reduce, target="parframe.all_gather")
    yield "before it is defined", changed(plan, *reduce, args={"input": plan_ref("nothing")})
    yield "defined twice", changed(plan, *reduce, outputs=("up",))
    yield "'peer'", changed(pipeline(), "stage0", "relu~send", args={"peer": 2})
    attention = changed(plan, *reduce, target="parframe.ring_attention")
    yield "'travels'", attention
    yield "no 'parts' to send", changed(attention, *reduce, args={"travels": ("parts",)})
    devices = (plan.devices[0], Device(1, "none", {}))
    yield "no program", Plan(mlp(), plan.placing, plan.programs, devices)
    yield "not the ranks", Plan(mlp(), plan.placing, plan.programs, devices[:1])
    mesh = pipeline().mesh
    yield "no axis 'tp'", Plan(mlp(), Placing(mesh, plan.placing.splits), plan.programs, devices)


def plan_ref(name):
    from parframe.graph import Ref

    return Ref(name)


@pytest.mark.parametrize(("what", "plan"), list(broken()))
def test_an_illegal_plan_is_named(what, plan):
    with pytest.raises(ParframeError, match=what) as caught:
        validate_plan(plan)
    assert caught.value.kind == "plan"
