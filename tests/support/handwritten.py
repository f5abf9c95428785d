"""Small handwritten graphs and plans, for tests of plan files, simulation and verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from parframe.graph import (
    Arg,
    Block,
    Call,
    Input,
    Operator,
    OperatorGraph,
    Parameter,
    Ref,
    Tensor,
)
from parframe.layout import Region, Span
from parframe.mesh import Mesh
from parframe.plan import Device, Layout, Part, Plan, Program
from parframe.sizes import Size, offset, symbol
from parframe.strategy import Placing, Split

BATCH = symbol("batch")
HIDDEN, FFN = 6, 10


def operator(
    name: str,
    target: str,
    args: Mapping[str, Arg],
    outputs: Sequence[str] | None = None,
    module: str = "",
) -> Operator:
    source = f"model.py:{len(name)}: {name} = ..."
    return Operator(
        name, target, args, tuple(outputs or (name,)), module or f"model.{name}", source
    )


def linear(name: str, left: str, weight: str, bias: str | None = None) -> Operator:
    args = {"input": Ref(left), "weight": Ref(weight)}
    return operator(name, "aten.linear.default", args | ({"bias": Ref(bias)} if bias else {}))


def relu(name: str, value: str) -> Operator:
    return operator(name, "aten.relu.default", {"self": Ref(value)})


def graph(
    inputs: Sequence[Input],
    parameters: Sequence[Parameter],
    operators: Sequence[Operator],
    tensors: Sequence[Tensor],
    outputs: object,
    names: Sequence[str],
) -> OperatorGraph:
    """Return a graph of one call of one block."""
    block = Block(
        name="main",
        inputs=tuple(i.name for i in inputs),
        parameters=tuple(p.name for p in parameters),
        operators=tuple(operators),
        outputs=tuple(names),
        tensors={
            t.name: Tensor(t.name, t.shape, t.dtype) for t in (*inputs, *parameters, *tensors)
        },
    )
    call = Call("", "main", block.inputs, block.parameters, block.outputs)
    return OperatorGraph(
        blocks={"main": block},
        calls=(call,),
        inputs={i.name: i for i in inputs},
        outputs=outputs,
        parameters={p.name: p for p in parameters},
        source="by hand",
    )


def mlp() -> OperatorGraph:
    """Return the graph of ``down(relu(up(x)))`` with a bias at the end."""
    return graph(
        inputs=[Input("x", (BATCH, HIDDEN), "float32", axes=("batch", ""))],
        parameters=[
            Parameter("up.weight", (FFN, HIDDEN), "float32"),
            Parameter("down.weight", (HIDDEN, FFN), "float32"),
            Parameter("down.bias", (HIDDEN,), "float32"),
        ],
        operators=[
            linear("up", "x", "up.weight"),
            relu("relu", "up"),
            linear("down", "relu", "down.weight"),
            operator("sum", "aten.add.Tensor", {
                "self": Ref("down"), "other": Ref("down.bias"), "alpha": 1,
            }),
        ],
        tensors=[
            Tensor("up", (BATCH, FFN), "float32"),
            Tensor("relu", (BATCH, FFN), "float32"),
            Tensor("down", (BATCH, HIDDEN), "float32"),
            Tensor("sum", (BATCH, HIDDEN), "float32"),
        ],
        outputs={"y": "sum"},
        names=["sum"],
    )  # fmt: skip


def cut(length: Size, part: int, parts: int) -> tuple[Size, Size]:
    """Return the start and the length of a part; the first parts are longer by one."""
    start = [(length + parts - 1 - i) // parts if isinstance(length, int) else None
             for i in range(parts)]  # fmt: skip
    if isinstance(length, int):
        return sum(start[:part]), start[part]  # type: ignore[arg-type]
    from parframe.sizes import floordiv, simplify

    low, high = floordiv(length * part, parts), floordiv(length * (part + 1), parts)
    return low, simplify(high - low)


def whole(*shape: Size) -> tuple[Region, ...]:
    return tuple((Span(size, 0, size),) for size in shape)


def tensor_parallel(degree: int, data: int = 1) -> Plan:
    """Return a plan of the MLP with ``ffn`` split over ``tp``, and the batch over ``dp``."""
    model = mlp()
    ffn_start, ffn_here = offset("ffn_start"), offset("ffn_here")
    batch_start, batch_here = offset("batch_start"), offset("batch_here")
    shard: Region = (Span(FFN, ffn_start, ffn_start + ffn_here),)
    rows: Region = (Span(BATCH, batch_start, batch_start + batch_here),)
    all_hidden = whole(HIDDEN)[0]
    block = model.blocks["main"]
    up, act, down, total = block.operators
    reduce = operator("down@sum", "parframe.all_reduce", {
        "input": Ref("down"), "axes": ("tp",), "reduction": "sum", "tag": "down",
    }, module="model.down")  # fmt: skip
    total = attrs.evolve(total, args={**total.args, "self": Ref("down@sum")})
    shapes = {
        "x": (batch_here, HIDDEN), "up.weight": (ffn_here, HIDDEN),
        "down.weight": (HIDDEN, ffn_here), "down.bias": (HIDDEN,), "up": (batch_here, ffn_here),
        "relu": (batch_here, ffn_here), "down": (batch_here, HIDDEN),
        "down@sum": (batch_here, HIDDEN), "sum": (batch_here, HIDDEN),
    }  # fmt: skip
    program = Program(
        name="all",
        stage=0,
        operators=(up, act, down, reduce, total),
        tensors={name: Tensor(name, shape, "float32") for name, shape in shapes.items()},
        inputs=(Part("x", "x", (rows, all_hidden)),),
        parameters=(
            Part("up.weight", "up.weight", (shard, all_hidden)),
            Part("down.weight", "down.weight", (all_hidden, shard)),
            Part("down.bias", "down.bias", whole(HIDDEN)),
        ),
        outputs=(Part("sum", "sum", (rows, all_hidden)),),
        layouts={
            "up": Layout("up", (rows, shard)),
            "relu": Layout("relu", (rows, shard)),
            "down": Layout("down", (rows, all_hidden), {"tp": "sum"}),
            "down@sum": Layout("down", (rows, all_hidden)),
            "sum": Layout("sum", (rows, all_hidden)),
        },
    )
    mesh = Mesh((("dp", data), ("tp", degree)))
    devices = []
    for rank in range(mesh.size):
        at = mesh.coordinates(rank)
        f, n = cut(FFN, at["tp"], degree)
        b, m = cut(BATCH, at["dp"], data)
        bindings = {"ffn_start": f, "ffn_here": n, "batch_start": b, "batch_here": m}
        devices.append(Device(rank, "all", bindings))
    splits = (Split("ffn", ("tp",)), Split("batch", ("dp",)))
    return Plan(model, Placing(mesh, splits), {"all": program}, tuple(devices))


def pipeline() -> Plan:
    """Return a plan of the MLP in two stages."""
    model = mlp()
    up, act, down, total = model.blocks["main"].operators
    send = operator("relu~send", "parframe.send", {
        "input": Ref("relu"), "axes": ("pp",), "peer": 1, "tag": "relu",
    })  # fmt: skip
    send = attrs.evolve(send, outputs=())
    receive = operator("relu~recv", "parframe.recv", {
        "axes": ("pp",), "peer": 0, "tag": "relu",
    }, outputs=["relu"])  # fmt: skip
    tensors = {**model.blocks["main"].tensors}

    def keep(*names: str) -> dict[str, Tensor]:
        return {name: tensors[name] for name in names}

    first = Program(
        name="stage0",
        stage=0,
        operators=(up, act, send),
        tensors=keep("x", "up.weight", "up", "relu"),
        inputs=(Part("x", "x", whole(BATCH, HIDDEN)),),
        parameters=(Part("up.weight", "up.weight", whole(FFN, HIDDEN)),),
        outputs=(),
    )
    last = Program(
        name="stage1",
        stage=1,
        operators=(receive, down, total),
        tensors=keep("down.weight", "down.bias", "relu", "down", "sum"),
        inputs=(),
        parameters=(
            Part("down.weight", "down.weight", whole(HIDDEN, FFN)),
            Part("down.bias", "down.bias", whole(HIDDEN)),
        ),
        outputs=(Part("sum", "sum", whole(BATCH, HIDDEN)),),
    )
    return Plan(
        model,
        Placing(Mesh((("pp", 2),)), (Split("layers", ("pp",)),)),
        {"stage0": first, "stage1": last},
        (Device(0, "stage0", {}), Device(1, "stage1", {})),
    )


def changed(plan: Plan, program: str, name: str, **changes: object) -> Plan:
    """Change one operator of a program in a plan; ``args`` are merged."""
    before = plan.programs[program]
    operators = []
    for own in before.operators:
        if own.name == name:
            args = {**own.args, **changes.pop("args", {})}  # type: ignore[dict-item]
            own = attrs.evolve(own, args=args, **changes)  # type: ignore[arg-type]
        operators.append(own)
    after = attrs.evolve(before, operators=tuple(operators))
    return attrs.evolve(plan, programs={**plan.programs, program: after})
