"""Operators over a whole dim written as simpler ones, so that the dim may be split.

Only sums and extremes of a device's part are communicated, never the dim itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from parframe.graph import Arg, Operator, Ref, Tensor
from parframe.rules.building import HALVES, dim_indices
from parframe.rules.rule import Site
from parframe.sizes import Size, product

Decomposed: TypeAlias = tuple[tuple[Operator, ...], Mapping[str, Tensor]]


_ALPHA: Mapping[str, Arg] = {"alpha": 1}


class _Body:
    """Writer of simpler operators in one dtype; values are named after output and part."""

    def __init__(self, site: Site, over: frozenset[int], dtype: str) -> None:
        self.site = site
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}
        self.over = over
        self.dtype = dtype
        self.shape = site.inputs[0].shape
        self.small = tuple(1 if i in over else n for i, n in enumerate(self.shape))

    def write(
        self,
        part: str,
        target: str,
        args: Mapping[str, Arg],
        shape: tuple[Size, ...],
        dtype: str,
        output: str = "",
    ) -> Ref:
        operator = self.site.operator
        name = output or f"{operator.outputs[0]}.{part}"
        self.operators.append(
            Operator(
                f"{operator.name}.{part}", f"aten.{target}", dict(args), (name,),
                operator.module, operator.source,
            )
        )  # fmt: skip
        if not output:
            self.tensors[name] = Tensor(name, shape, dtype)
        return Ref(name)

    def done(self) -> Decomposed:
        return tuple(self.operators), self.tensors

    def cast(self, part: str, value: Ref, before: str, shape: tuple[Size, ...]) -> Ref:
        if before == self.dtype:
            return value
        args = {"self": value, "dtype": self.dtype, "non_blocking": False, "copy": False}
        return self.write(part, "to.dtype", args, shape, self.dtype)

    def reduce(self, part: str, target: str, value: Ref, **more: Arg) -> Ref:
        args = {"self": value, "dim": tuple(sorted(self.over)), "keepdim": True, **more}
        return self.write(part, target, args, self.small, self.dtype)

    def apply(self, part: str, target: str, value: Ref, **more: Arg) -> Ref:
        shape = self.tensors[value.name].shape if value.name in self.tensors else self.shape
        return self.write(part, target, {"self": value, **more}, shape, self.dtype)

    def finish(self, value: Ref, output: Tensor, squeeze: bool = False) -> None:
        """Give a value the shape, dtype and name of an output."""
        if squeeze:
            args: dict[str, Arg] = {"self": value, "shape": output.shape}
            last = output.dtype == self.dtype
            value = self.write(
                f"{output.name}.shape", "reshape.default", args, output.shape, self.dtype,
                output.name if last else "",
            )  # fmt: skip
            if last:
                return
        if output.dtype == self.dtype:
            args = {"self": value}
            target = "alias.default"
        else:
            args = {"self": value, "dtype": output.dtype, "non_blocking": False, "copy": False}
            target = "to.dtype"
        self.write(f"{output.name}.end", target, args, output.shape, output.dtype, output.name)


def _wide(dtype: str) -> str:
    """Return the dtype in which sums over a dim are computed."""
    return "float32" if dtype in HALVES else dtype


def _body(site: Site, over: frozenset[int]) -> tuple[_Body, Ref]:
    source = site.inputs[0]
    wide = _wide(source.dtype)
    if not wide.startswith("float"):
        wide = _wide(site.outputs[0].dtype)
    body = _Body(site, over, wide)
    first = Ref(site.operator.inputs[0])
    return body, body.cast("wide", first, source.dtype, source.shape)


def softmax(log: bool) -> Callable[[Site], Decomposed | None]:
    """Return the decomposition ``exp(x - max) / sum``, or its logarithm."""

    def decompose(site: Site) -> Decomposed | None:
        over = dim_indices(site.arg("dim"), len(site.inputs[0].shape))
        if 0 in site.inputs[0].shape:
            return None
        body, value = _body(site, over)
        _, low, exp, total = _exponentials(body, value)
        if log:
            lost = body.apply("logarithm", "log.default", total)
            value = body.apply("result", "sub.Tensor", low, other=lost, **_ALPHA)
        else:
            value = body.apply("result", "div.Tensor", exp, other=total)
        body.finish(value, site.outputs[0])
        return body.done()

    return decompose


def _exponentials(body: _Body, value: Ref) -> tuple[Ref, Ref, Ref, Ref]:
    """Write the maximum, the values without it, their exponentials, and the sum of these."""
    top = body.reduce("maximum", "amax.default", value)
    low = body.apply("lowered", "sub.Tensor", value, other=top, **_ALPHA)
    exp = body.apply("exponentials", "exp.default", low)
    return top, low, exp, body.reduce("total", "sum.dim_IntList", exp)


def logsumexp(site: Site) -> Decomposed | None:
    """Decompose into ``log(sum(exp(x - max))) + max``."""
    over = dim_indices(site.arg("dim"), len(site.inputs[0].shape))
    if 0 in site.inputs[0].shape:
        return None
    body, value = _body(site, over)
    top, _, _, total = _exponentials(body, value)
    lost = body.apply("logarithm", "log.default", total)
    value = body.apply("result", "add.Tensor", lost, other=top, **_ALPHA)
    body.finish(value, site.outputs[0], squeeze=True)
    return body.done()


def _centred(body: _Body, value: Ref, correction: Any) -> tuple[Ref, Ref, Ref]:
    """Write the mean, the values without it, and their variance."""
    count = product(body.shape[i] for i in body.over)
    mean = body.reduce("mean", "mean.dim", value)
    low = body.apply("centred", "sub.Tensor", value, other=mean, **_ALPHA)
    squares = body.apply("squares", "mul.Tensor", low, other=low)
    total = body.reduce("total", "sum.dim_IntList", squares)
    variance = body.apply("variance", "div.Scalar", total, other=count - correction)
    return mean, low, variance


def statistics(name: str) -> Callable[[Site], Decomposed | None]:
    """Return the decomposition of the variance, or its root, and the mean where it is an output."""

    def decompose(site: Site) -> Decomposed | None:
        if not site.inputs[0].dtype.startswith(("float", "bfloat")) or 0 in site.inputs[0].shape:
            return None
        over = dim_indices(site.arg("dim"), len(site.inputs[0].shape))
        body, value = _body(site, over)
        unbiased = 1 if site.arg("unbiased", True) else 0
        correction = site.arg("correction", unbiased)
        count = product(body.shape[i] for i in over)
        if isinstance(count, int) and count <= correction:
            return None
        mean, _, result = _centred(body, value, correction)
        if name.startswith("std"):
            result = body.apply("root", "sqrt.default", result)
        for found, output in zip((result, mean), site.outputs, strict=False):
            body.finish(found, output, squeeze=True)
        return body.done()

    return decompose


def vector_norm(site: Site) -> Decomposed | None:
    """Decompose into the root of the sum of squares."""
    if site.arg("ord", 2) != 2 or site.inputs[0].dtype.startswith("complex"):
        return None
    over = dim_indices(site.arg("dim"), len(site.inputs[0].shape))
    body, value = _body(site, over)
    squares = body.apply("squares", "mul.Tensor", value, other=value)
    total = body.reduce("total", "sum.dim_IntList", squares)
    body.finish(body.apply("root", "sqrt.default", total), site.outputs[0], squeeze=True)
    return body.done()


def _scaled(body: _Body, value: Ref, site: Site) -> Ref:
    """Write the product with the weight and the sum with the bias, in the wide dtype."""
    for slot, target in (("weight", "mul.Tensor"), ("bias", "add.Tensor")):
        tensor = site.input(slot)
        if tensor is not None:
            other = body.cast(f"{slot}_wide", Ref(tensor.name), tensor.dtype, tensor.shape)
            more: Mapping[str, Arg] = _ALPHA if slot == "bias" else {}
            value = body.apply(f"{slot}ed", target, value, other=other, **more)
    return value


def layer_norm(site: Site) -> Decomposed | None:
    """Decompose into centering, division by the deviation, and scaling."""
    rank = len(site.inputs[0].shape)
    over = frozenset(range(rank - len(site.arg("normalized_shape")), rank))
    body, value = _body(site, over)
    mean, low, variance = _centred(body, value, 0)
    moved = body.apply("moved", "add.Scalar", variance, other=site.arg("eps", 1e-5), **_ALPHA)
    scale = body.apply("scale", "rsqrt.default", moved)
    value = body.apply("normal", "mul.Tensor", low, other=scale)
    body.finish(_scaled(body, value, site), site.outputs[0])
    for found, output in zip((mean, scale), site.outputs[1:], strict=False):
        body.finish(found, output)
    return body.done()


_EPSILON = {"float64": 2.220446049250313e-16, "float32": 1.1920928955078125e-07}


def rms_norm(site: Site) -> Decomposed | None:
    """Decompose into division by the root of the mean square, and scaling."""
    rank = len(site.inputs[0].shape)
    over = frozenset(range(rank - len(site.arg("normalized_shape")), rank))
    body, value = _body(site, over)
    squares = body.apply("squares", "mul.Tensor", value, other=value)
    mean = body.reduce("mean", "mean.dim", squares)
    epsilon = site.arg("eps", _EPSILON[body.dtype])
    moved = body.apply("moved", "add.Scalar", mean, other=epsilon, **_ALPHA)
    scale = body.apply("scale", "rsqrt.default", moved)
    value = body.apply("normal", "mul.Tensor", value, other=scale)
    body.finish(_scaled(body, value, site), site.outputs[0])
    return body.done()
