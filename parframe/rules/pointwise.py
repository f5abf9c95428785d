"""Rules of elementwise operators, which broadcast their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from parframe.graph import BYTES, Operator
from parframe.rules.building import (
    FLOATS,
    always,
    broadcast,
    dim_index,
    label_dims,
    signature,
    unit_free,
)
from parframe.rules.kinds import Kind, Pointwise, View
from parframe.rules.rule import Rule, Site
from parframe.rules.signature import Concat, Signature, labels_of

_NONE = """
abs absolute acos acosh angle arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh
bitwise_not ceil celu clamp clamp_max clamp_min clip cos cosh digamma elu erf erfc erfinv exp exp2
expm1 fix floor frac frexp.Tensor gelu hardshrink hardsigmoid hardswish hardtanh i0 isfinite isinf
isnan isneginf isposinf isreal leaky_relu lgamma log log10 log1p log2 log_sigmoid logical_not logit
mish mvlgamma nan_to_num polygamma reciprocal relu relu6 round round.decimals rsqrt selu sgn sigmoid
sign signbit silu sin sinc sinh softplus softshrink special_airy_ai special_bessel_j0
special_bessel_j1 special_bessel_y0 special_bessel_y1 special_digamma special_entr special_erf
special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1 special_i0
special_i0e special_i1 special_i1e special_log1p special_log_ndtr special_logit
special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0
special_modified_bessel_k1 special_ndtr special_ndtri special_psi special_round
special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_sinc
special_spherical_bessel_j0 sqrt square tan tanh threshold trunc
add.Scalar sub.Scalar subtract.Scalar rsub.Scalar
div.Scalar_mode div.Tensor_mode divide.Scalar_mode divide.Tensor_mode
floor_divide floor_divide.Scalar
clamp.Tensor clamp_max.Tensor clamp_min.Tensor clip.Tensor
pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor float_power.Scalar float_power.Tensor_Scalar
float_power.Tensor_Tensor
atan2 arctan2 fmax fmin gcd heaviside hypot igamma igammac lcm logaddexp logaddexp2 max.other
maximum min.other minimum nextafter isclose polar
logical_and logical_or logical_xor
special_xlog1py special_xlog1py.other_scalar special_xlog1py.self_scalar
special_xlogy special_xlogy.other_scalar special_xlogy.self_scalar
special_zeta special_zeta.other_scalar special_zeta.self_scalar
special_gammainc special_gammaincc special_polygamma
ldexp.Tensor bitwise_left_shift.Tensor bitwise_left_shift.Tensor_Scalar
bitwise_left_shift.Scalar_Tensor bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar
bitwise_right_shift.Scalar_Tensor where.Scalar where.ScalarOther where.ScalarSelf masked_fill.Tensor
copy fill.Tensor
gelu_backward logit_backward sigmoid_backward silu_backward tanh_backward threshold_backward
xlogy.Tensor xlogy.Scalar_Other xlogy.Scalar_Self
"""

_TENSOR_SCALAR = """
bitwise_and bitwise_or bitwise_xor copysign fmod remainder
eq ne ge gt le lt greater greater_equal less less_equal not_equal __and__ __or__ __xor__
__lshift__ __rshift__
"""

_POLYNOMIALS = """
chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w
hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p
shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v
shifted_chebyshev_polynomial_w
"""

_LINEAR = {
    "self": """neg negative positive mul.Scalar multiply.Scalar div.Scalar divide.Scalar
        true_divide.Scalar deg2rad rad2deg real imag conj _conj conj_physical _conj_physical
        resolve_conj resolve_neg div.Tensor divide.Tensor true_divide.Tensor""",
    "self other": "add.Tensor sub.Tensor subtract.Tensor rsub.Tensor where.self",
    "self | other": "mul.Tensor multiply.Tensor",
    "self end": "lerp.Scalar lerp.Tensor",
    "self tensor1 | self tensor2": "addcmul",
    "self tensor1": "addcdiv",
    "real imag": "complex",
}
"""For each linearity, the operators that have it."""

_SAME: Mapping[Kind, str] = {
    View(): "alias detach",
    View(copies=True): "contiguous",
    Pointwise(): "alias_copy clone lift_fresh lift_fresh_copy",
}
"""For each kind, the operators that return their input."""

CAST = "aten.to.dtype"
"""The canonical form of casts."""

_CASTS = "to.device to.other to.dtype_layout to.prim_other _to_copy type_as"
_PRIM_CASTS = "to.prim_Device to.prim_dtype"


def pointwise(site: Site, linear: str = "", moves: bool = False) -> Signature | None:
    """Broadcast every input to the outputs, which have one shape."""
    shape = site.outputs[0].shape
    if any(output.shape != shape for output in site.outputs):
        return None
    taken = [broadcast(tensor.shape, shape) for tensor in site.inputs]
    given = unit_free(shape)
    present = [one for one in taken if one is not None]
    if len(present) < len(taken):
        return None
    seen = {dim for one in present for dim in one}
    if any(dim and dim not in seen for dim in given):
        return None
    return signature(site, present, [given] * len(site.outputs), linear=linear, moves=moves)


def _cast(site: Site) -> Signature | None:
    """Let sums pass through a cast to a wider float.

    One to a float that is no wider rounds: each part of a sum on its own, and not their sum. That
    goes for a cast that seems to do nothing, too: the model may be run in a wider dtype.
    """
    source, target = site.inputs[0].dtype, site.outputs[0].dtype
    wider = source in FLOATS and BYTES[source] < BYTES[target]
    exact = target in FLOATS and (wider or "int" in source)
    return _first(site, "self" if exact else "")


def _as_cast(site: Site) -> Operator:
    args = {"self": site.operator.args["self"], "dtype": site.outputs[0].dtype}
    return attrs.evolve(site.operator, target=CAST, args=args)


def _first(site: Site, linear: str) -> Signature | None:
    """Use the elements of the first input only; another one gives a dtype."""
    if len(site.inputs) == 1:
        return pointwise(site, linear)
    own = unit_free(site.inputs[0].shape)
    other = label_dims("t", len(site.inputs[1].shape))
    return signature(site, [own, other], [own], dropped=labels_of((other,)), linear=linear)


def _moved(site: Site) -> Signature | None:
    return pointwise(site, moves=True)


def _dropout(site: Site) -> Signature | None:
    idle = not site.arg("train", True) or site.arg("p") == 0
    return pointwise(site, moves=True) if idle else None


def _is_inactive(operator: Operator) -> bool:
    return not operator.args["train"]


def _masked_fill(site: Site) -> Signature | None:
    return pointwise(site, "self" if site.arg("value") == 0 else "")


def _gated(site: Site) -> Signature | None:
    """Combine the two halves of a dim: ``[h | h] -> h``."""
    shape = site.inputs[0].shape
    at = dim_index(site.arg("dim", -1), len(shape))
    taken, given = list(label_dims("a", len(shape))), list(label_dims("a", len(shape)))
    taken[at], given[at] = (Concat((("h",), ("h",))),), ("h",)
    return signature(site, [tuple(taken)], [tuple(given)])


def _prelu(site: Site) -> Signature | None:
    """Use a slope for each channel, or one for all."""
    taken = label_dims("a", len(site.inputs[0].shape))
    slope = taken[1:2] if site.inputs[1].shape not in ((), (1,)) else ((),)
    return signature(site, [taken, slope[: len(site.inputs[1].shape)]], [taken])


def _linear(linear: str) -> Callable[[Site], Signature | None]:
    return lambda site: pointwise(site, linear)


def _targets(text: str) -> list[str]:
    return [f"aten.{name}" if "." in name else f"aten.{name}.default" for name in text.split()]


def _binary(text: str) -> list[str]:
    names = []
    for name in text.split():
        names += [f"aten.{name}.Tensor", f"aten.{name}.Scalar"]
        if name.startswith(("bitwise", "remainder")):
            names.append(f"aten.{name}.Scalar_Tensor")
    return names


def _polynomials(text: str) -> list[str]:
    return [
        f"aten.special_{name}.{overload}"
        for name in text.split()
        for overload in ("default", "x_scalar", "n_scalar")
    ]


def is_addition(operator: Operator) -> bool:
    """Return whether an operator adds its second argument, as it is, to its first one."""
    return operator.target == _ADD and operator.args.get("alpha", 1) == 1


def is_sum(operator: Operator) -> bool:
    """Return whether an operator is the sum of two tensors and nothing else."""
    return is_addition(operator) and operator.slots == ("self", "other")


def _leaves_unchanged(operator: Operator) -> bool:
    """Return whether a call with a tensor and a number returns the tensor unchanged."""
    other = operator.args["other"]
    number = isinstance(other, int | float) and not isinstance(other, bool)
    return number and other == _NEUTRAL[operator.target]


_ADD = "aten.add.Tensor"
_NEUTRAL = {_ADD: 0, "aten.sub.Tensor": 0, "aten.mul.Tensor": 1, "aten.div.Tensor": 1}
"""For operators of a tensor and a number, the number that leaves the tensor unchanged."""

RULES = (
    *(
        Rule(target, pointwise)
        for target in (*_targets(_NONE), *_binary(_TENSOR_SCALAR), *_polynomials(_POLYNOMIALS))
    ),
    *(
        Rule(target, _linear(linear), identity=_leaves_unchanged if target in _NEUTRAL else None)
        for linear, names in _LINEAR.items()
        for target in _targets(names)
    ),
    *(
        Rule(target, _moved, kind=kind, identity=always)
        for kind, names in _SAME.items()
        for target in _targets(names)
    ),
    *(
        Rule(target, _cast, identity=always, canonical=_as_cast)
        for target in (CAST, *_targets(_CASTS))
    ),
    *(Rule(target, _cast) for target in _targets(_PRIM_CASTS)),
    Rule("aten.detach_.default", _moved, kind=View(), identity=always),
    *(
        Rule(f"aten.{name}.default", _dropout, identity=_is_inactive)
        for name in ("dropout", "feature_dropout")
    ),
    Rule("aten.alpha_dropout.default", _dropout),
    Rule("aten.masked_fill.Scalar", _masked_fill),
    Rule("aten.broadcast_tensors.default", _linear("tensors")),
    Rule("aten.glu.default", _gated),
    Rule("aten.prelu.default", _prelu),
    Rule("aten._prelu_kernel.default", pointwise),
)
