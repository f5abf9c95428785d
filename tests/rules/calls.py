"""Operator calls to try rules on: from PyTorch's own samples, with their tensors."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.common_methods_invocations import op_db

from parframe.graph import Operator, Ref, Tensor
from parframe.ops.schema import bind_arguments, dtype_name, find_overload, is_dtype
from parframe.rules import Site
from parframe.rules.implementation import load_function
from parframe.rules.table import DEVICE_OPERATORS


@attrs.frozen
class Call:
    """One call of an operator: where it stands, its tensors by name, the values of symbols."""

    site: Site
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    values: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def target(self) -> str:
        return self.site.operator.target

    def __str__(self) -> str:
        shapes = [tuple(t.shape) for t in self.inputs.values()]
        args = {k: v for k, v in self.site.operator.args.items() if not isinstance(v, Ref)}
        return f"{self.target} of {shapes} with {args}"


def make_call(target: torch._ops.OpOverload, args: Any, kwargs: Any, result: Any) -> Call | None:
    """Return a call as it was made, or None where graphs cannot have it."""
    inputs: dict[str, torch.Tensor] = {}

    def convert(arg: Any) -> Any:
        if isinstance(arg, torch.Tensor):
            name = f"x{len(inputs)}"
            inputs[name] = arg.detach().clone()
            return Ref(name)
        if isinstance(arg, list | tuple):
            return tuple(convert(part) for part in arg)
        return dtype_name(arg) if isinstance(arg, torch.dtype) else arg

    bound = bind_arguments(target, args, kwargs, convert)
    results = [result] if isinstance(result, torch.Tensor) else list(result or ())
    if not results or not all(isinstance(one, torch.Tensor) for one in results):
        return None
    outputs = {f"y{i}": one.detach().clone() for i, one in enumerate(results)}
    operator = Operator("call", str(target), bound, tuple(outputs))
    site = Site(operator, described(inputs), described(outputs))
    return Call(site, inputs, outputs)


def described(tensors: Mapping[str, torch.Tensor]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, tuple(tensor.shape), dtype_name(tensor.dtype))
        for name, tensor in tensors.items()
    )


class _Recorder(torch.fx.Interpreter):
    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.calls: list[Call] = []

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        before = torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        result = super().call_function(target, args, kwargs)
        if isinstance(target, torch._ops.OpOverload) and not target._schema.is_mutable:
            call = make_call(target, *before, result)
            if call is not None:
                self.calls.append(call)
        return result


def calls_of(function: Any, *args: Any, **kwargs: Any) -> list[Call]:
    """Return every operator call within a function of tensors, composite operators kept."""
    leaves, spec = torch.utils._pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def flat(*given: torch.Tensor) -> Any:
        rest = iter(given)
        filled = [next(rest) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        own_args, own_kwargs = torch.utils._pytree.tree_unflatten(filled, spec)
        return function(*own_args, **own_kwargs)

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        module = make_fx(flat, pre_dispatch=True)(*tensors)
        recorder = _Recorder(module)
        recorder.run(*tensors)
    return recorder.calls


_UNFIT = ("fft", "linalg", "sparse", "jiterator", "_refs", "masked.", "nn.functional.rrelu")


def sampled(seed: int, per_operator: int | None) -> Iterator[Call]:
    """Yield calls from samples of PyTorch's operators, in float64; all if no number is given."""
    order = random.Random(seed)
    infos = [info for info in op_db if torch.float64 in info.supported_dtypes("cpu")]
    order.shuffle(infos)
    for info in infos:
        if info.name.startswith(_UNFIT) and info.name != "linalg.vector_norm":
            continue
        yield from samples_of(info, order, per_operator)


def samples_of(info: Any, order: random.Random, per_operator: int | None) -> Iterator[Call]:
    torch.manual_seed(order.randrange(2**31))
    try:
        samples = list(info.sample_inputs("cpu", torch.float64))
    except Exception:  # noqa: BLE001  # PyTorch's own samples fail in many ways
        return
    order.shuffle(samples)
    for sample in samples[:per_operator]:
        try:
            yield from calls_of(info.op, sample.input, *sample.args, **sample.kwargs)
        except Exception:  # noqa: BLE001
            continue


def execute(target: str, args: Mapping[str, Any], env: Mapping[str, torch.Tensor]) -> Any:
    """Run one operator on tensors by name."""

    def fill(arg: Any) -> Any:
        if isinstance(arg, Ref):
            return env[arg.name]
        if isinstance(arg, tuple):
            return [fill(part) for part in arg]
        return arg

    filled = {name: fill(arg) for name, arg in args.items()}
    if target in DEVICE_OPERATORS:
        return load_function(DEVICE_OPERATORS[target].implementation)(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in filled.items()}
        )
    function = find_overload(target if target.count(".") > 1 else f"{target}.default")
    named = {}
    for argument in function._schema.arguments:
        value = filled.get(argument.name)
        if value is None and argument.has_default_value():
            continue
        if is_dtype(argument) and isinstance(value, str):
            value = getattr(torch, value)
        named[argument.name] = value
    return function(**named)
