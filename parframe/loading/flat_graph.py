"""A flat program: every operator of a model in order, before equal layers are folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from parframe.graph import Input, Operator, Parameter, Tensor, leaves_of, map_leaves, rename


@attrs.frozen
class Program:
    """Operators in order of execution, and what they work on."""

    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: Mapping[str, Input]
    parameters: Mapping[str, Parameter]
    outputs: Any
    remarks: tuple[str, ...] = ()

    def tensor(self, name: str) -> Tensor:
        """The value of this name."""
        for group in (self.tensors, self.inputs, self.parameters):
            if name in group:
                return group[name]
        raise KeyError(name)


def replace(program: Program, names: Mapping[str, str]) -> Program:
    """The program with values replaced by others that are equal to them."""
    final: dict[str, str] = {}
    for name in names:
        target = names[name]
        while target in names:
            target = names[target]
        final[name] = target
    return attrs.evolve(
        program,
        operators=tuple(
            attrs.evolve(op, args={slot: rename(arg, final) for slot, arg in op.args.items()})
            for op in program.operators
        ),
        outputs=map_leaves(program.outputs, final),
    )


def live(program: Program) -> Program:
    """The program without what its outputs do not need."""
    wanted = set(leaves_of(program.outputs))
    kept: list[Operator] = []
    for operator in reversed(program.operators):
        if wanted.intersection(operator.outputs):
            kept.append(operator)
            wanted.update(operator.inputs)
    return attrs.evolve(
        program,
        operators=tuple(reversed(kept)),
        tensors=_outputs_of(kept, program.tensors),
        parameters={name: p for name, p in program.parameters.items() if name in wanted},
    )


def _outputs_of(operators: Iterable[Operator], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made = {name for operator in operators for name in operator.outputs}
    return {name: tensor for name, tensor in tensors.items() if name in made}
