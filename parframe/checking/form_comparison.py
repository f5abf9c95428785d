"""A program's operators compared with those that a device must have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import sympy

from parframe.checking.checked_model import Origin
from parframe.checking.local_forms import Written
from parframe.checking.operator_types import Step
from parframe.graph import Arg, Operator, Ref, Tensor
from parframe.sizes import Size

Mismatch = tuple[Operator, str, str]
"""The operator, the kind of finding and the message."""


class Forms:
    """The ways in which an operator may be written, with the device's names of its inputs."""

    def __init__(
        self,
        origin: Origin,
        step: Step,
        chosen: Sequence[str | None],
        tensors: Mapping[str, Tensor],
        same: Callable[[Size, Size], bool],
    ) -> None:
        self.same = same
        self.origin = origin
        self.step = step
        self.tensors = tensors
        self.inputs: dict[str, set[str]] = {}
        for own, name in zip(origin.operator.inputs, chosen, strict=True):
            if name is not None:
                self.inputs.setdefault(own, set()).add(name)

    def match(self, run: Sequence[Operator]) -> tuple[int, tuple[str, ...], Mismatch | None]:
        """Compare operators with each form.

        Returns
        -------
        int
            How many operators the form takes.
        tuple of str
            The device's names of the operator's outputs.
        Mismatch or None
            What is wrong, if no form fits: the mismatch that comes last in any of them.
        """
        best: tuple[int, int, tuple[str, ...], Mismatch] | None = None
        for form in self.step.forms:
            good, names, mismatch = self._compare(form, run)
            count = min(len(form), len(run))
            if mismatch is None:
                return count, names, None
            if best is None or good > best[0]:
                best = (good, count, names, mismatch)
        if best is None:
            mismatch = (run[0], "argument", "the rule does not cover the operator on this device")
            return len(run), run[-1].outputs[: len(self.origin.operator.outputs)], mismatch
        return best[1], best[2], best[3]

    def _compare(
        self, form: Sequence[Written], run: Sequence[Operator]
    ) -> tuple[int, tuple[str, ...], Mismatch | None]:
        names: dict[str, str] = {}
        mismatch: Mismatch | None = None
        good = 0
        for written, operator in zip(form, run, strict=False):
            fault = self._differs(written, operator, names)
            names.update(zip(written.outputs, operator.outputs, strict=False))
            if fault is None:
                good += 1
            elif mismatch is None:
                mismatch = (operator, *fault)
        if len(run) < len(form) and mismatch is None:
            missing = form[len(run)].target
            mismatch = (run[-1], "argument", f"is not followed by {missing}")
        outputs = self.origin.operator.outputs
        return good, tuple(names.get(own, f"{own}?") for own in outputs), mismatch

    def _differs(
        self, written: Written, operator: Operator, names: Mapping[str, str]
    ) -> tuple[str, str] | None:
        """Why an operator is not the one expected."""
        if operator.target != written.target:
            return "argument", f"is {operator.target}, not {written.target}"
        if len(operator.outputs) != len(written.outputs):
            return "structure", f"gives {len(operator.outputs)} values"
        for slot in (*written.args, *operator.args):
            if slot not in operator.args or slot not in written.args:
                there = "has no" if slot in written.args else "has a"
                return "argument", f"{there} {slot!r}"
            expected, found = written.args[slot], operator.args[slot]
            if not self._equal(expected, found, names):
                return "argument", f"its {slot} is {_text(found)}, not {_text(expected)}"
        if written.shape is not None:
            recorded = self.tensors.get(operator.outputs[0])
            if recorded is not None and (
                len(recorded.shape) != len(written.shape)
                or not all(map(self.same, recorded.shape, written.shape))
                or recorded.dtype != written.dtype
            ):
                return "shape", f"{recorded.name!r} is recorded as {_text(recorded.shape)}"
        return None

    def _equal(self, expected: Arg, found: Arg, names: Mapping[str, str]) -> bool:
        if isinstance(expected, Ref) or isinstance(found, Ref):
            if not (isinstance(expected, Ref) and isinstance(found, Ref)):
                return False
            if expected.name in names:
                return found.name == names[expected.name]
            return found.name in self.inputs.get(expected.name, ())
        if isinstance(expected, tuple):
            return (
                isinstance(found, tuple)
                and len(found) == len(expected)
                and all(self._equal(a, b, names) for a, b in zip(expected, found, strict=True))
            )
        if isinstance(expected, sympy.Expr) or isinstance(found, sympy.Expr):
            numbers = (int, sympy.Expr)
            return (
                isinstance(expected, numbers)
                and isinstance(found, numbers)
                and self.same(expected, found)
            )
        return type(expected) is type(found) and expected == found


def _text(arg: Arg) -> str:
    if isinstance(arg, Ref):
        return arg.name
    if isinstance(arg, tuple):
        return f"[{', '.join(map(_text, arg))}]"
    return str(arg)
