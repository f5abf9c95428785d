"""A torch.nn.Module as a flat program, through torch.export."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram

from parframe.errors import ParframeError
from parframe.loading.dense_indexing.dense_export import with_all_rows
from parframe.loading.exported_program import HollowConstantError, Origin, convert
from parframe.loading.flat_graph import Program
from parframe.loading.in_place import AliasedWriteError
from parframe.loading.simplify import simplify
from parframe.loading.size_guards import check_guards
from parframe.loading.size_limits import Limits, limited
from parframe.loading.source_location import failing_line, model_files
from parframe.loading.symbolic_ranges import with_size_ranges

Dynamic = Mapping[str, Mapping[int, str]]
"""For each input, the axes whose sizes may vary, and their names."""


def export(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    axes: Mapping[str, Sequence[str]],
    data: Mapping[str, torch.Tensor] | None = None,
    constants: Mapping[str, Any] | None = None,
    strict_axes: bool = True,
) -> Program:
    """Export a module and make its program plain.

    Parameters
    ----------
    module
        The module, in eval mode or not; it is left as it was.
    inputs
        Example tensors by the names of the forward's arguments.
    axes
        The names of the axes of each input; an axis with a name may vary in size.
    data
        Tensors that no checkpoint holds, by their names in the model.
    constants
        Arguments of the forward that are not tensors.
    strict_axes
        Whether it is an error if a named axis turns out to have one size only.

    Raises
    ------
    ParframeError
        Of kind ``load``, with the line of the model's own code, if it cannot be exported.
    """
    files = model_files(module.modules())
    kind = Dim.DYNAMIC if strict_axes else Dim.AUTO
    shapes: dict[str, Any] = {
        name: {axis: kind for axis, label in enumerate(axes.get(name, ())) if label}
        for name in inputs
    }
    shapes.update(dict.fromkeys(constants or {}))
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        given = {**inputs, **(constants or {})}
        origin = Origin(axes, data or {}, aliases(module), files)
        try:
            return _exported(module, given, shapes, origin)
        except HollowConstantError:
            raise
        except Exception as error:  # whatever it is, a selection may be what it comes from
            found = _otherwise(module, lambda: _exported(module, given, shapes, origin), error)
            if found is None:
                raise
            return found
    except ParframeError:
        raise
    except Exception as error:
        raise _failure(module, error, files) from error
    finally:
        for part in training:
            part.training = True


def _otherwise(
    module: torch.nn.Module, load: Callable[[], Program], error: Exception
) -> Program | None:
    """What a module that was not exported is with what PyTorch cannot follow done another way."""
    fixed = isinstance(error, UserError)  # a list as long as a size fixes that
    found = with_size_ranges(module, load) if fixed else None
    return with_all_rows(module, load) if found is None else found


def _exported(
    module: torch.nn.Module, inputs: Mapping[str, Any], shapes: Mapping[str, Any], origin: Origin
) -> Program:
    exported = _trace(module, inputs, shapes)
    limits = check_guards(exported, module, inputs, origin.axes)
    return _plain(exported, origin, limits)


def _plain(exported: ExportedProgram, origin: Origin, limits: Limits) -> Program:
    """The program, made functional by PyTorch where that is not simple."""
    try:
        return simplify(limited(convert(exported, origin, structure), limits))
    except AliasedWriteError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rewritten = exported.run_decompositions({})
        return simplify(limited(convert(rewritten, origin, structure), limits))


def _trace(
    module: torch.nn.Module, inputs: Mapping[str, Any], shapes: Mapping[str, Any]
) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.no_grad():
            return torch.export.export(
                module, (), dict(inputs), dynamic_shapes=dict(shapes), strict=False
            )


def structure(value: Any) -> Any:
    """What a model returned as a graph's outputs: names, tuples, and dicts with ``$class``."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        if fields:
            return _named(value, zip(fields, value, strict=True))
        return tuple(structure(part) for part in value)
    if attrs.has(type(value)) or hasattr(value, "__dataclass_fields__"):
        items = value.items() if hasattr(value, "items") else vars(value).items()
        return _named(value, items)
    if isinstance(value, Mapping):
        return {str(key): structure(part) for key, part in value.items()}
    raise ParframeError(
        "load",
        type(value).__name__,
        "the model returns something other than tensors, tuples, lists and dicts",
        "wrap it in a module that returns those",
    )


def _named(value: Any, items: Any) -> dict[str, Any]:
    parts = {str(key): structure(part) for key, part in items if part is not None}
    return {"$class": type(value).__name__, **parts}


def aliases(module: torch.nn.Module) -> dict[str, tuple[str, ...]]:
    """For the first name of each tied weight, its further names."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, buffer in module.named_buffers(remove_duplicate=False):
        names.setdefault(id(buffer), []).append(name)
    return {group[0]: tuple(group[1:]) for group in names.values() if len(group) > 1}


def _failure(module: torch.nn.Module, error: Exception, files: frozenset[str]) -> ParframeError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0][:200] if lines else "no reason given"
    return ParframeError(
        "load",
        failing_line(error, files) or type(module).__name__,
        f"torch.export cannot follow this ({type(error).__name__}: {reason})",
        "avoid control flow and sizes that depend on tensors' contents, give `dynamic` only for"
        " axes that may vary, or give other example inputs",
    )


def example_axes(
    module: torch.nn.Module, inputs: Mapping[str, torch.Tensor], dynamic: Dynamic | None
) -> dict[str, tuple[str, ...]]:
    """Names of the axes of example inputs.

    Parameters
    ----------
    module
        The module; its forward must take these inputs.
    inputs
        Example tensors.
    dynamic
        The axes that may vary; without it, the first axis of all inputs, if it has one size
        in all of them, is ``batch``.

    Raises
    ------
    ParframeError
        If an input is not a tensor, or is not one the module takes, or an axis is not one.
    """
    _check_inputs(module, inputs)
    if dynamic is None:
        leading = {tensor.shape[0] for tensor in inputs.values() if tensor.dim()}
        first = "batch" if len(leading) == 1 else ""
        return {
            name: tuple(first if axis == 0 else "" for axis in range(tensor.dim()))
            for name, tensor in inputs.items()
        }
    for name, named in dynamic.items():
        for axis, label in named.items():
            if name not in inputs or not 0 <= axis < inputs[name].dim() or not label.isidentifier():
                raise ParframeError(
                    "input",
                    f"dynamic[{name!r}]",
                    f"axis {axis} as {label!r} is not an axis of an example input with a name",
                    'write dynamic={"x": {0: "batch"}}',
                )
    return {
        name: tuple(dynamic.get(name, {}).get(axis, "") for axis in range(tensor.dim()))
        for name, tensor in inputs.items()
    }


def _check_inputs(module: torch.nn.Module, inputs: Mapping[str, Any]) -> None:
    signature = inspect.signature(module.forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            raise ParframeError(
                "input", name, f"is a {type(value).__name__}, not a tensor", "give example tensors"
            )
        if name not in signature and not open_ended:
            raise ParframeError(
                "input",
                name,
                f"{type(module).__name__}.forward takes {', '.join(signature)}",
                "name the inputs as the forward does",
            )
