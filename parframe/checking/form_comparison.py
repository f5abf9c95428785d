"""Comparison of a program's operators with the forms that a device must have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import sympy

from parframe.checking.checked_model import ModelOperator
from parframe.checking.local_forms import ExpectedOperator
from parframe.checking.operator_types import OperatorType
from parframe.graph import Arg, Operator, Ref, Tensor
from parframe.sizes import Size

Mismatch = tuple[Operator, str, str]
"""Operator, kind of finding, and message."""


@attrs.frozen(eq=False)
class FormComparison:
    """Forms that an operator may have, with the device's names of its inputs."""

    origin: ModelOperator
    operator_type: OperatorType
    input_names: Sequence[str | None]
    tensors: Mapping[str, Tensor]
    same_size: Callable[[Size, Size], bool]

    def match(self, run: Sequence[Operator]) -> tuple[int, tuple[str, ...], Mismatch | None]:
        """Return how many operators a form takes, the device's names of its outputs, and the fault.

        If no form matches, the fault is that of the form that matches the most operators.
        """
        best: tuple[int, int, tuple[str, ...], Mismatch] | None = None
        for form in self.operator_type.forms:
            matched, names, mismatch = self._compare(form, run)
            count = min(len(form), len(run))
            if mismatch is None:
                return count, names, None
            if best is None or matched > best[0]:
                best = (matched, count, names, mismatch)
        if best is None:
            mismatch = (run[0], "argument", "the rule does not cover the operator on this device")
            return len(run), run[-1].outputs[: len(self.origin.operator.outputs)], mismatch
        return best[1], best[2], best[3]

    def _compare(
        self, form: Sequence[ExpectedOperator], run: Sequence[Operator]
    ) -> tuple[int, tuple[str, ...], Mismatch | None]:
        names: dict[str, str] = {}
        mismatch: Mismatch | None = None
        matched = 0
        for expected_operator, operator in zip(form, run, strict=False):
            fault = self._mismatch(expected_operator, operator, names)
            names.update(zip(expected_operator.outputs, operator.outputs, strict=False))
            if fault is None:
                matched += 1
            elif mismatch is None:
                mismatch = (operator, *fault)
        if len(run) < len(form) and mismatch is None:
            missing = form[len(run)].target
            mismatch = (run[-1], "argument", f"is not followed by {missing}")
        outputs = self.origin.operator.outputs
        return matched, tuple(names.get(own, f"{own}?") for own in outputs), mismatch

    def _mismatch(
        self, expected_operator: ExpectedOperator, operator: Operator, names: Mapping[str, str]
    ) -> tuple[str, str] | None:
        """Return why an operator is not the one expected; None if it is."""
        if operator.target != expected_operator.target:
            return "argument", f"is {operator.target}, not {expected_operator.target}"
        if len(operator.outputs) != len(expected_operator.outputs):
            return "structure", f"has {len(operator.outputs)} values"
        for slot in (*expected_operator.args, *operator.args):
            if slot not in operator.args or slot not in expected_operator.args:
                prefix = "has no" if slot in expected_operator.args else "has an unexpected"
                return "argument", f"{prefix} argument {slot!r}"
            expected, found = expected_operator.args[slot], operator.args[slot]
            if not self._equal(expected, found, names):
                texts = _format_arg(found), _format_arg(expected)
                return "argument", f"its {slot} is {texts[0]}, not {texts[1]}"
        if expected_operator.shape is not None:
            recorded = self.tensors.get(operator.outputs[0])
            if recorded is not None and (
                len(recorded.shape) != len(expected_operator.shape)
                or not all(map(self.same_size, recorded.shape, expected_operator.shape))
                or recorded.dtype != expected_operator.dtype
            ):
                return "shape", (
                    f"{recorded.name!r} is recorded as {recorded.dtype} "
                    f"{_format_arg(recorded.shape)}, but is {expected_operator.dtype} "
                    f"{_format_arg(expected_operator.shape)}"
                )
        return None

    def _equal(self, expected: Arg, found: Arg, names: Mapping[str, str]) -> bool:
        if isinstance(expected, Ref) or isinstance(found, Ref):
            if not (isinstance(expected, Ref) and isinstance(found, Ref)):
                return False
            if expected.name in names:
                return found.name == names[expected.name]
            return (expected.name, found.name) in zip(
                self.origin.operator.inputs, self.input_names, strict=True
            )
        if isinstance(expected, tuple):
            return (
                isinstance(found, tuple)
                and len(found) == len(expected)
                and all(self._equal(a, b, names) for a, b in zip(expected, found, strict=True))
            )
        if isinstance(expected, sympy.Expr) or isinstance(found, sympy.Expr):
            number_types = (int, sympy.Expr)
            return (
                isinstance(expected, number_types)
                and isinstance(found, number_types)
                and self.same_size(expected, found)
            )
        return type(expected) is type(found) and expected == found


def _format_arg(arg: Arg) -> str:
    if isinstance(arg, Ref):
        return arg.name
    if isinstance(arg, tuple):
        return f"[{', '.join(map(_format_arg, arg))}]"
    return str(arg)
