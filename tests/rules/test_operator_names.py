"""Rules alone state what operators are: no other code lists operators by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import parframe
from parframe.rules.communication import PLAN_OPERATORS
from parframe.rules.table import DEVICE_OPERATORS, DISTRIBUTED_FORMS, RULES

ROOT = Path(parframe.__file__).parent
TARGETS = frozenset({*RULES, *PLAN_OPERATORS, *DEVICE_OPERATORS, *DISTRIBUTED_FORMS})
SOURCES = [
    path for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).parts[0] not in ("rules", "ops")
]  # fmt: skip
LISTS = (ast.Dict, ast.Set, ast.List, ast.Tuple, ast.Compare, ast.SetComp, ast.ListComp,
         ast.DictComp, ast.GeneratorExp, ast.MatchValue)  # fmt: skip


def operator_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of operators in a collection, a comparison or a text that is split into names."""
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = node.value.split()
            if len(words) > 1 and id(node) not in documented and all(map(is_name, words)):
                yield node.lineno, node.value
        elif isinstance(node, LISTS):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    text = inner.value
                    if text in TARGETS or text.startswith(("aten.", "torch.ops.")):
                        yield inner.lineno, text


def is_name(word: str) -> bool:
    return word in TARGETS or f"aten.{word}" in TARGETS or f"aten.{word}.default" in TARGETS


def arguments_of_calls(tree: ast.AST) -> set[tuple[int, str]]:
    """Names that are arguments of a call, as where an operator is written."""
    return {
        (arg.lineno, arg.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for arg in (*node.args, *(keyword.value for keyword in node.keywords))
        if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_outside_rules_and_ops_lists_operators(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set(operator_names(tree)) - arguments_of_calls(tree)
    assert not found, f"state it in the operators' rules: {sorted(found)}"


@pytest.mark.parametrize(
    "code",
    [
        'VIEWS = frozenset({"aten.view.default"})',
        'if operator.target == "parframe.send": pass',
        'KINDS = {"aten.linear.default": 1}',
        'NAMES = "view.default permute.default"',
        'FEW = frozenset(f"aten.{name}" for name in NAMES)',
        'match target:\n    case "parframe.shard": pass',
    ],
)
def test_a_table_of_operators_is_found(code):
    tree = ast.parse(code)
    assert set(operator_names(tree)) - arguments_of_calls(tree)
