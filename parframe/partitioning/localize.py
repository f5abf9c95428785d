"""Localization of a block: from actions to the operators of one shape of device."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.dims import BoundOperator
from parframe.errors import ParframeError
from parframe.graph import Arg, Block, Operator, Ref, Tensor, rename_arg
from parframe.layout import Range, Region, TensorDim, dims_of, local_size, region_of
from parframe.partitioning.actions import Action, Add, Compute, Convert, Placement
from parframe.partitioning.cuts import Cut, Shape
from parframe.partitioning.local_block import LocalBlock
from parframe.rules import DistributedForm, Local, Signature, Site, without_addend
from parframe.rules.signature import inputs_with
from parframe.sizes import Size


def localize_block(
    block: Block,
    axes: Mapping[str, tuple[TensorDim, ...]],
    actions: tuple[Action, ...],
    cuts: tuple[Cut, ...],
    shape: Shape,
    given: Mapping[str, Placement],
) -> LocalBlock:
    """Write the actions of a block as operators for one shape of device.

    ``axes`` are the block's values in dimensions, ``given`` the placements of its inputs.
    """
    writer = _Writer(block, axes, cuts, shape)
    for value, layout in given.items():
        writer.tensors[value] = writer.local(value, value, layout)
    entries = tuple(writer.write(action) for action in actions)
    return LocalBlock(entries, writer.tensors, writer.layouts, axes, shape)


class _Writer:
    """Writer of actions as operators."""

    def __init__(
        self,
        block: Block,
        axes: Mapping[str, tuple[TensorDim, ...]],
        cuts: tuple[Cut, ...],
        shape: Shape,
    ) -> None:
        self.block = block
        self.axes = axes
        self.cuts = cuts
        self.shape = shape
        self.tensors: dict[str, Tensor] = {}
        self.layouts: dict[str, tuple[str, Placement]] = {}
        self.converted: dict[str, str] = {}
        self.sizes: dict[tuple[TensorDim, frozenset[int]], Size] = {}
        self.placed: dict[object, tuple[tuple[Region, ...], ...]] = {}

    def local(self, value: str, name: str, layout: Placement) -> Tensor:
        """Return the local tensor of a value in a placement."""
        whole = self.block.tensors[value]
        sizes = tuple([self.sized(axis, layout.cuts) for axis in self.axes[value]])
        self.layouts.setdefault(name, (value, layout))
        return Tensor(name, sizes, whole.dtype)

    def sized(self, axis: TensorDim, cuts: frozenset[int]) -> Size:
        """Return the local size of a tensor dim under some cuts."""
        key = (axis, cuts)
        if key not in self.sizes:
            self.sizes[key] = local_size(axis, self.shape.of(cuts))
        return self.sizes[key]

    def write(self, action: Action) -> tuple[Operator, ...]:
        """Write the operators of one action."""
        if isinstance(action, Convert):
            return (self.convert(action),)
        if isinstance(action, Add):
            return self.add(action)
        return LocalOperator(self, action).written()

    def convert(self, action: Convert) -> Operator:
        """Write one communication operator, or a local slice."""
        self.converted[action.output] = action.source
        self.tensors[action.output] = self.local(action.value, action.output, action.after)
        near = self.block.operators[min(action.index, len(self.block.operators) - 1)]
        args: dict[str, Arg] = {"input": Ref(action.source)}
        if action.kind == "shard":
            args["part"] = self.regions(action.value, action.after, action.before)
        else:
            args["axes"] = self.group_axes(action)
        if action.partial is not None:
            args["reduction"] = action.partial[1]
        if action.kind == "reduce_scatter":
            args["parts"] = self.parts(action.value, action.come, action.before)
        elif action.kind == "all_gather":
            args["parts"] = self.parts(action.value, action.gone, action.after)
        elif action.kind == "all_to_all":
            args["sends"] = self.parts(action.value, action.come, action.before)
            args["parts"] = self.parts(action.value, action.gone, action.after)
        return _operator(near, action.output, f"parframe.{action.kind}", args)

    def group_axes(self, action: Convert) -> tuple[Arg, ...]:
        """Return the mesh axes of a communication, in the order that numbers its ranks."""
        for cut in (action.gone, action.come):
            if cut is not None:
                return self.cuts[cut].axes
        return action.partial[0] if action.partial is not None else ()

    def regions(self, value: str, part: Placement, frame: Placement) -> tuple[Region, ...]:
        """Return the regions of a device's part of a value in a frame."""
        return tuple(
            region_of(axis, self.shape.of(part.cuts), self.shape.of(frame.cuts))
            for axis in self.axes[value]
        )

    def parts(
        self, value: str, cut: int | None, frame: Placement
    ) -> tuple[tuple[Region, ...], ...]:
        """Return the regions of every rank's part of a cut, in a frame without the cut."""
        if cut is None:
            raise ParframeError("internal", value, "is split by no cut", "report it")
        key = (self.axes[value], cut, frame.cuts)
        if key not in self.placed:
            outer = self.shape.of(frame.cuts)
            self.placed[key] = tuple(
                tuple(region_of(axis, {**outer, **pieces}, outer) for axis in self.axes[value])
                for pieces in self.cuts[cut].within(outer)
            )
        return self.placed[key]

    def add(self, action: Add) -> tuple[Operator, ...]:
        """Write the sum with a deferred addend."""
        left: str | None = action.left
        while left in self.layouts and self.layouts[left][0] == action.value:
            del self.layouts[left]
            left = self.converted.get(left)
        self.tensors[action.output] = self.local(action.value, action.output, action.layout)
        written: list[Operator] = []
        right = action.right
        whole = self.block.tensors[action.value]
        rank = len(whole.shape)
        width = len(action.aligned)
        origin = action.operator
        if action.aligned != tuple(range(rank - width, rank)):
            size = self.local(action.addend, right, action.right_layout).shape
            shape: list[Size] = [1] * (rank - action.aligned[0])
            for position, length in zip(action.aligned, size, strict=True):
                shape[position - action.aligned[0]] = length
            view = f"{action.output}~view"
            self.tensors[view] = Tensor(view, tuple(shape), whole.dtype)
            resize: dict[str, Arg] = {"self": Ref(right), "size": tuple(shape)}
            written.append(_operator(origin, view, "aten.view.default", resize))
            right = view
        args: dict[str, Arg] = {"self": Ref(action.left), "other": Ref(right), "alpha": 1}
        written.append(_operator(origin, action.output, "aten.add.Tensor", args))
        return tuple(written)


def _operator(
    origin: Operator, output: str, target: str, args: Mapping[str, Arg], name: str = ""
) -> Operator:
    return Operator(
        name=name or output,
        target=target,
        args=args,
        outputs=(output,),
        module=origin.module,
        source=origin.source,
        origin=origin.name,
    )


class LocalOperator(Local):
    """Operator during its localization; see ``Local``."""

    def __init__(self, writer: _Writer, action: Compute) -> None:
        self.writer = writer
        self.action = action
        self.bound: BoundOperator = action.bound
        self.site: Site = action.bound.site
        self.count = 0
        self.operators: list[Operator] = []
        self.shapes: dict[str, tuple[Size, ...]] = {}
        self.names: dict[str, str] = {}
        signature = action.bound.signature
        if signature is not None:
            self.signature: Signature = signature
        if action.bare and signature is not None and self.bound.rule is not None:
            self.site = without_addend(self.bound.rule, self.site, signature)

    def written(self) -> tuple[Operator, ...]:
        """Write the operators for a device."""
        operator = self.site.operator
        for value, name, layout in zip(
            operator.inputs, self.action.inputs, self.action.befores, strict=True
        ):
            self.names.setdefault(value, name)
            self.shapes.setdefault(value, self.writer.local(value, name, layout).shape)
        for value, name, layout in zip(
            operator.outputs, self.action.outputs, self.action.afters, strict=True
        ):
            tensor = self.writer.local(value, name, layout)
            self.shapes[value] = tensor.shape
            self.names[value] = name
            self.writer.tensors[name] = tensor
        rule, form = self.bound.rule, self.action.form
        if form is not None:
            self.plain(form.target, self.form_arguments(form))
        elif rule is not None and rule.local is not None and self.action.labels:
            rule.local(self)
        else:
            self.plain(operator.target, {})
        return tuple(self.operators)

    def form_arguments(self, form: DistributedForm) -> dict[str, Arg]:
        """Return the further arguments of an operator's distributed form."""
        slots = self.site.operator.slots
        moved = (slots[number] for number in inputs_with(self.signature, form.travels))
        more = form.arguments(self) if form.arguments is not None else {}
        where = {key: rename_arg(arg, self.names) for key, arg in more.items()}
        return {**where, "travels": tuple(dict.fromkeys(moved)), "axes": self.action.axes}

    def plain(self, target: str, more: Mapping[str, Arg]) -> None:
        """Write the operator as it is, with local shapes among its arguments."""
        operator, rule = self.site.operator, self.bound.rule
        args = dict(operator.args)
        if rule is not None:
            for slot in rule.shapes:
                args[slot] = self.shapes[operator.outputs[0]]
        self.operators.append(
            attrs.evolve(
                operator,
                name=self.own_name(operator.outputs[0]) if operator.outputs else operator.name,
                target=target,
                args={**self.positioned(args), **more},
                outputs=self.action.outputs,
                origin=operator.name,
            )
        )

    def own_name(self, output: str) -> str:
        """Return the operator's name if it makes the model's value, else the name of its output."""
        operator, name = self.site.operator, self.names[output]
        return operator.name if name == output == operator.outputs[0] else name

    def positioned(self, args: Mapping[str, Arg]) -> dict[str, Arg]:
        """Return the arguments with local names; one value may be read in two placements."""
        names = iter(self.action.inputs)

        def walk(arg: Arg) -> Arg:
            if isinstance(arg, Ref):
                return Ref(next(names))
            if isinstance(arg, tuple):
                return tuple(walk(part) for part in arg)
            return arg

        return {key: walk(arg) for key, arg in args.items()}

    def shape(self, name: str) -> tuple[Size, ...]:
        """Return the local shape of an input or output."""
        return self.shapes[name]

    def _axis(self, label: str) -> TensorDim:
        axis = self.bound.labels.get(label)
        if axis is None:
            raise KeyError(label)
        return axis

    def pieces(self, label: str) -> Mapping[str, Range]:
        """Return the parts of a label's dimensions, where it is split."""
        if label not in self.action.labels:
            return {}
        return self.writer.shape.of(self.action.cuts)

    def size(self, label: str) -> Size:
        """Return the local size of a label."""
        if label not in self.action.labels:
            return self.signature.sizes[label]
        return local_size(self._axis(label), self.pieces(label))

    def start(self, label: str) -> Size:
        """Return the start of the device's part of a label."""
        axis, pieces = self._axis(label), self.pieces(label)
        if label not in self.action.labels or not dims_of(axis) & set(pieces):
            return 0
        parts = region_of(axis, pieces, {})
        if len(parts) != 1 or not hasattr(parts[0], "start"):
            raise ParframeError(
                "partition",
                self.site.operator.module,
                f"{self.site.operator.target} needs one contiguous part of an axis that is split "
                "in several",
                "split another dimension, or give the operator a rule without that label",
            )
        start: Size = parts[0].start
        return start

    def split(self, label: str) -> bool:
        """Tell whether a label is split over devices here."""
        return label in self.action.labels

    def emit(
        self, target: str, args: Mapping[str, Arg], output: str | tuple[Size, ...], dtype: str = ""
    ) -> str:
        """Write an operator; see ``Local.emit``."""
        operator = self.site.operator
        if isinstance(output, str):
            name = self.names[output]
            own = self.own_name(output)
        else:
            self.count += 1
            name = own = f"{operator.outputs[0]}~{self.count}"
            self.writer.tensors[name] = Tensor(name, output, dtype or self.site.outputs[0].dtype)
        renamed = {key: rename_arg(arg, self.names) for key, arg in args.items()}
        self.operators.append(_operator(operator, name, target, renamed, own))
        return name
