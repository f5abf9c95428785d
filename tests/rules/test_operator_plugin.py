"""An operator of a distribution, with its distributed form, is planned, proved, priced and run."""

from __future__ import annotations

import importlib
import os
import sys

import attrs
import pytest
import torch
from safetensors.torch import save_file

import parframe
from parframe import Spec
from parframe.errors import ParframeError
from parframe.generation import Sampling
from parframe.price.work.work_from_plan import work_from_plan

PLUGIN = '''
"""Vector quantization: a codebook operator, its rule, and a form in which codes are broadcast."""

from collections.abc import Sequence
from math import prod

import attrs
import torch
import torch.distributed as dist

from parframe import Rule, Strategy, hookimpl
from parframe.ops.group_registry import find_group
from parframe.rules import DistributedForm, Lookup


@torch.library.custom_op("codebook::nearest", mutates_args=())
def nearest(hidden: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Replace every vector by the code that has the greatest product with it."""
    return finish(add_codes(None, hidden, codes), hidden)


@nearest.register_fake
def _(hidden, codes):
    return torch.empty_like(hidden)


def add_codes(best, hidden, codes):
    """Return the greatest products and their codes, with more codes to choose from."""
    if not len(codes):
        return best
    products, at = (hidden @ codes.T).max(-1, keepdim=True)
    chosen = codes[at[..., 0]]
    if best is None:
        return products, chosen
    better = products > best[0]
    return torch.where(better, products, best[0]), torch.where(better, chosen, best[1])


def finish(best, hidden):
    return torch.zeros_like(hidden) if best is None else best[1].to(hidden.dtype).clone()


def simulate(ranks):
    """Compute the form for all ranks of a group."""
    results = []
    for own in ranks:
        best = None
        for other in ranks:
            best = add_codes(best, own["hidden"], other["codes"])
        results.append(finish(best, own["hidden"]))
    return results


@torch.library.custom_op("codebook::broadcast_codes", mutates_args=())
def broadcast_codes(
    hidden: torch.Tensor, codes: torch.Tensor, counts: Sequence[int], rank: int, group: str
) -> torch.Tensor:
    """Compute the form for this rank: every rank broadcasts its codes in turn."""
    process_group = find_group(group)
    best = None
    for source, count in enumerate(counts):
        part = codes.contiguous() if source == rank else codes.new_empty(count, codes.shape[1])
        dist.broadcast(part, dist.get_global_rank(process_group, source), process_group)
        best = add_codes(best, hidden, part)
    return finish(best, hidden)


@broadcast_codes.register_fake
def _(hidden, codes, counts, rank, group):
    return torch.empty_like(hidden)


BROADCAST = DistributedForm(
    "broadcast",
    "codebook.broadcast_codes",
    stays="b",
    travels="m",
    description="every device broadcasts its codes",
    count_sent=lambda shapes, travels, ranks: {"codes": prod(shapes["codes"]) * (ranks - 1)},
    simulate=simulate,
    run=torch.ops.codebook.broadcast_codes.default,
    sizes={"counts": ("codes", 0)},
)


@attrs.frozen
class CodebookParallel(Strategy):
    """Split the codes and the batch."""

    code, axis, splits = "KP", "kp", ("codes", "batch")
    form: str = "broadcast"

    def distributed_forms(self):
        return (self.form,) if self.form else ()


@hookimpl
def parframe_strategies():
    return [CodebookParallel]


@hookimpl
def parframe_rules():
    return [
        Rule(
            "codebook.nearest.default",
            "b s h!, m! h! -> b s h",
            "hidden codes",
            roles={"m": "codes"},
            distributed_forms=(BROADCAST,),
            kind=Lookup(),
        )
    ]
'''


RAMP = '''
"""An operator whose part on a device depends on where the part begins."""

import attrs
import torch

from parframe import Rule, hookimpl
from parframe.rules import DeviceOperator


@torch.library.custom_op("ramp::add", mutates_args=())
def add(x: torch.Tensor) -> torch.Tensor:
    """Add to every element its number along the last dim."""
    return add_from(x, 0)


@add.register_fake
def _(x):
    return torch.empty_like(x)


def add_from(x, start):
    return x + torch.arange(start, start + x.shape[-1], dtype=x.dtype)


def local(local):
    operator = local.site.operator
    local.emit("ramp.add_from", {**operator.args, "start": local.start("n")}, operator.outputs[0])


def original(operator):
    return attrs.evolve(operator, target="ramp.add.default", args={"x": operator.args["x"]})


@hookimpl
def parframe_rules():
    return [
        Rule("ramp.add.default", "... n -> ... n", "x", local=local),
        DeviceOperator("ramp.add_from", original, add_from),
    ]
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install distributions for this test and its processes, and import their modules."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
    modules = []

    def installed(module, source, entry_point):
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        name = module.replace("_", "-")
        (folder / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[parframe]\n{entry_point} = {module}\n")
        modules.append(module)
        return importlib.import_module(module)

    yield installed
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def plugin(install):
    return install("parframe_codebook", PLUGIN, "strategy.KP")


class LanguageModel(torch.nn.Module):
    """Tokens by the token before, through a codebook."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(23, 12)
        self.codes = torch.nn.Parameter(torch.randn(7, 12))
        self.head = torch.nn.Linear(12, 23)

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        return self.head(hidden + torch.ops.codebook.nearest(hidden, self.codes))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return LanguageModel()


def loaded(model):
    inputs = {"input_ids": torch.zeros(2, 5, dtype=torch.int64)}
    return parframe.load(model, inputs, {"input_ids": {0: "batch", 1: "sequence"}})


def targets(plan, rank=0):
    return [operator.target for operator in plan.program(rank).operators]


def continued(model, prompts, count):
    """The likeliest tokens after each prompt, as the whole model gives them."""
    found = []
    for prompt in prompts:
        tokens = list(prompt)
        for _ in range(count):
            with torch.no_grad():
                tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        found.append(tuple(tokens[len(prompt) :]))
    return found


@pytest.mark.parametrize("composite", ["KP2", "KP3TP2", "DP2KP2"])
def test_a_distributed_form_of_a_plugin_is_planned_checked_and_proved(plugin, model, composite):
    plan = parframe.partition(loaded(model), composite)
    assert "codebook.broadcast_codes" in targets(plan)
    report = parframe.check(plan)
    assert report.ok, report.findings
    assert any(traffic.kind == "codebook.broadcast_codes" for traffic in report.traffic)
    proof = parframe.verify(plan)
    assert proof.ok, proof
    assert proof.max_error < 1e-11


def test_a_wrong_argument_of_a_distributed_form_of_a_plugin_is_found(plugin, model):
    plan = parframe.partition(loaded(model), "KP2")
    programs = {}
    for name, program in plan.programs.items():
        operators = tuple(
            attrs.evolve(op, args={**op.args, "travels": ("hidden",)})
            if op.target == "codebook.broadcast_codes"
            else op
            for op in program.operators
        )
        programs[name] = attrs.evolve(program, operators=operators)
    assert not parframe.check(attrs.evolve(plan, programs=programs)).ok


def test_an_operator_of_a_plugin_is_gathered_where_its_form_is_not_wanted(plugin, model):
    spec = Spec(parallel="KP2", strategies={"kp": {"form": ""}})
    plan = parframe.partition(loaded(model), spec)
    assert "codebook.nearest.default" in targets(plan)
    assert parframe.check(plan).ok
    assert parframe.verify(plan).ok


def test_a_saved_plan_names_the_plugin_and_reads_its_rules_again(plugin, model, tmp_path):
    plan = parframe.partition(loaded(model), "KP2")
    assert plan.plugins == ("parframe-codebook",)
    plan.save(tmp_path / "plan")
    again = parframe.load_plan(tmp_path / "plan")
    assert again == plan
    assert parframe.check(again).ok


def test_a_plan_of_a_plugin_that_is_not_installed_is_refused(plugin, model, tmp_path):
    plan = parframe.partition(loaded(model), "KP2")
    attrs.evolve(plan, plugins=("parframe-absent",)).save(tmp_path / "plan")
    with pytest.raises(ParframeError, match=r"parframe-absent.*no plugin of that name"):
        parframe.load_plan(tmp_path / "plan")


def test_the_work_of_a_plugin_operator_is_counted(plugin, model):
    (stage,) = work_from_plan(parframe.partition(loaded(model), "KP2")).stages
    (gather,) = [one for one in stage.communication if one.kind == "all_gather"]
    assert gather.elements > 0
    assert gather.ranks == (0, 1)


@pytest.mark.parametrize("form", ["broadcast", ""])
def test_a_plugin_operator_generates_in_real_processes(plugin, model, tmp_path, form):
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        folder / "model.safetensors",
    )
    prompts = [(5, 9, 7), (11, 3), (1, 20, 4, 8)]
    spec = Spec(parallel="KP2", strategies={"kp": {"form": form}})
    plan = parframe.partition(loaded(model), spec)
    results = parframe.run(
        plan, prompts, folder, Sampling(max_new_tokens=6), cached=False, timeout=90
    )
    assert [result.tokens for result in results] == continued(model, prompts, 6)


class Ramp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(8, 12), torch.nn.Linear(12, 8)

    def forward(self, x):
        return self.down(torch.ops.ramp.add(self.up(x)))


def test_an_operator_of_devices_alone_comes_from_a_plugin(install):
    install("parframe_ramp", RAMP, "rules")
    graph = parframe.load(Ramp(), {"x": torch.randn(4, 8)}, {"x": {0: "batch"}})
    plan = parframe.partition(graph, Spec(parallel="TP3", plugins=("parframe-ramp",)))
    assert "ramp.add_from" in targets(plan)
    assert parframe.check(plan).ok
    assert parframe.verify(plan).ok
