"""The table itself: every rule names an operator of PyTorch or parframe, and its arguments."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from parframe.graph import Operator, Ref, Tensor
from parframe.ops.implementations import registered_operator
from parframe.rules import Rule, Site, bind, parse
from parframe.rules.table import RULES, rule_for

NOTATIONS = [rule for rule in RULES.values() if isinstance(rule.signature, str)]


def overload_of(target):
    return registered_operator(Operator("call", target, {}, ("y",)))


@pytest.mark.parametrize("target", RULES)
def test_every_rule_is_of_an_operator_that_exists(target):
    assert isinstance(overload_of(target), torch._ops.OpOverload)


@pytest.mark.parametrize("rule", NOTATIONS, ids=lambda rule: rule.target)
def test_every_notation_names_the_arguments_of_its_operator(rule):
    names = {argument.name for argument in overload_of(rule.target)._schema.arguments}
    assert {*rule.slots.split(), *rule.linear.replace("|", " ").split()} <= names
    assert len(rule.slots.split()) == len(parse(rule.signature).inputs)


def test_a_rule_of_a_plugin_comes_before_a_built_in_one():
    own = Rule("aten.relu.default", "a! -> a")
    assert rule_for("aten.relu.default", {"aten.relu.default": own}) is own
    assert rule_for("aten.relu.default") is RULES["aten.relu.default"]
    assert rule_for("their.operator.default") is None


def test_the_table_needs_no_torch():
    code = "import sys, parframe.rules.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_attention_names_heads_and_groups():
    shapes = {"query": (2, 8, 5, 4), "key": (2, 2, 5, 4), "value": (2, 2, 5, 6)}
    operator = Operator("a", "parframe.attention.default", {s: Ref(s) for s in shapes}, ("y",))
    inputs = tuple(Tensor(name, shape, "float32") for name, shape in shapes.items())
    site = Site(operator, inputs, (Tensor("y", (2, 5, 8, 6), "float32"),))
    found = bind(RULES["parframe.attention.default"], site)
    assert found.inputs[0][1] == found.outputs[0][2] == ("k", "g")
    assert found.sizes["g"] == 4
    assert found.whole == {"t", "d"}
