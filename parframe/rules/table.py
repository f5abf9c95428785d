"""Table of rules by operator, and lookups for the operators of programs.

Rules and device operators of plugins are added by `register` when a plugin is named: what an
operator *is* (its kind, its functions, its distributed forms) is then known everywhere. How its
dimensions are named, and so how it is split, is decided by the rules that are passed to `naming`
and `check`; one of a plugin comes before a built-in one there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType

import attrs

from parframe.graph import Operator
from parframe.rules import (
    attention,
    convolution,
    creation,
    experts,
    indexing,
    joining,
    matmul,
    normalization,
    permuting,
    pointwise,
    recurrence,
    reductions,
    repeating,
    slicing,
    views,
)
from parframe.rules.communication import COMMUNICATION_OPERATORS, PLAN_OPERATORS
from parframe.rules.device_operators import DEVICE_OPERATORS as _DEVICE_OPERATORS
from parframe.rules.kinds import Kind, Pointwise
from parframe.rules.rule import DeviceOperator, DistributedForm, Rule

_MODULES: tuple[ModuleType, ...] = (
    attention, convolution, creation, experts, indexing, joining, matmul, normalization, permuting,
    pointwise, recurrence, reductions, repeating, slicing, views,
)  # fmt: skip

RULES: Mapping[str, Rule] = {rule.target: rule for module in _MODULES for rule in module.RULES}
"""Every built-in rule."""

_registered: dict[str, Rule] = {}
_device_operators = {operator.target: operator for operator in _DEVICE_OPERATORS}
_forms = {form.target: form for rule in RULES.values() for form in rule.distributed_forms}
_rules_of_forms = {form.target: rule for rule in RULES.values() for form in rule.distributed_forms}

_BUILT_IN_FORMS = frozenset(_forms)

DISTRIBUTED_FORMS: Mapping[str, DistributedForm] = MappingProxyType(_forms)
"""The distributed forms of operators, by the target that they have in plans."""

DEVICE_OPERATORS: Mapping[str, DeviceOperator] = MappingProxyType(_device_operators)
"""The operators that only programs of devices have, by target."""

_FORM_ARGUMENTS = ("travels", "axes", "tag")


def register(rules: Iterable[Rule | DeviceOperator]) -> list[Rule]:
    """Register the operators of a plugin, and return its rules; the last one of a target counts.

    Built-in operators stay what they are: of a rule for one of them only its distributed forms are
    added.
    """
    found = []
    for rule in rules:
        if isinstance(rule, DeviceOperator):
            _device_operators[rule.target] = rule
            continue
        found.append(rule)
        _registered[rule.target] = rule
        for form in rule.distributed_forms:
            if form.target not in _BUILT_IN_FORMS:
                _forms[form.target] = form
                _rules_of_forms[form.target] = RULES.get(rule.target, rule)
    return found


def rule_for(target: str, extra: Mapping[str, Rule] | None = None) -> Rule | None:
    """Return the rule of an operator of the model, one of ``extra`` before a built-in one."""
    return (extra or {}).get(target) or RULES.get(target)


def model_operator(operator: Operator) -> Operator:
    """Return the model's operator that an operator of a program computes, or its device's part."""
    if operator.target in _forms:
        args = {slot: a for slot, a in operator.args.items() if slot not in _FORM_ARGUMENTS}
        return attrs.evolve(operator, target=_rules_of_forms[operator.target].target, args=args)
    device_operator = _device_operators.get(operator.target)
    return operator if device_operator is None else device_operator.original(operator)


def rule_of(operator: Operator) -> Rule | None:
    """Return the rule of the model's operator that an operator of a program computes."""
    target = operator.target
    rule = RULES.get(target) or _rules_of_forms.get(target) or _registered.get(target)
    if rule is None and target in _device_operators:
        rule = rule_of(model_operator(operator))
    return rule


def state_of(operator: Operator) -> tuple[str, ...]:
    """Return the arguments of an operator of the model whose values are kept between steps."""
    rule = RULES.get(operator.target) or _registered.get(operator.target)
    return () if rule is None else rule.state


def kind_of(operator: Operator) -> Kind:
    """Return the kind of an operator of a program."""
    if operator.target in PLAN_OPERATORS:
        return PLAN_OPERATORS[operator.target].kind
    device_operator = _device_operators.get(operator.target)
    if device_operator is not None and device_operator.kind is not None:
        return device_operator.kind
    rule = rule_of(operator)
    return Pointwise() if rule is None else rule.kind


def communicates(operator: Operator) -> bool:
    """Return whether ranks communicate in an operator, by itself or as a distributed form."""
    return operator.target in COMMUNICATION_OPERATORS or operator.target in _forms
