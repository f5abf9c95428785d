"""Export of a torch.nn.Module to a flat graph, by torch.export."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._dynamo.exc import UserError
from torch.export import Dim

from parframe.errors import ParframeError
from parframe.loading.dense_indexing.dense_export import export_dense
from parframe.loading.exported_program import MissingContentError, ModelFacts, convert_exported
from parframe.loading.flat_graph import FlatGraph
from parframe.loading.in_place import AliasedWriteError
from parframe.loading.simplify import simplify
from parframe.loading.size_guards import check_guards
from parframe.loading.size_limits import apply_limits
from parframe.loading.source_location import failing_line, model_files
from parframe.loading.symbolic_ranges import export_symbolic_ranges


def export(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    dim_names: Mapping[str, Sequence[str]],
    data: Mapping[str, torch.Tensor] | None = None,
    constants: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> FlatGraph:
    """Export a module, which is left as it was, and simplify its graph.

    `data` are the tensors that no checkpoint stores, by their names in the model; `constants` the
    arguments that are not tensors. An input's dim with a name may vary in size; if `strict`, a
    named dim that can have only one size is an error.

    Raises
    ------
    ParframeError
        Of kind ``load``, with the line of the model's own code, if it cannot be exported.
    """
    files = model_files(module.modules())
    kind = Dim.DYNAMIC if strict else Dim.AUTO
    shapes: dict[str, Any] = {
        name: {dim: kind for dim, label in enumerate(dim_names.get(name, ())) if label}
        for name in inputs
    }
    shapes.update(dict.fromkeys(constants or {}))
    arguments = {**inputs, **(constants or {})}
    facts = ModelFacts(dim_names, data or {}, tied_names(module), files)
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        return _export_or_rewrite(module, lambda: _export(module, arguments, shapes, facts))
    except ParframeError:
        raise
    except Exception as error:
        raise ParframeError(
            "load",
            failing_line(error, files) or type(module).__name__,
            f"torch.export does not support this line ({first_line(error)})",
            "remove control flow and sizes that depend on the contents of tensors, give `dynamic`"
            " only for dims that may vary, or give other example inputs",
        ) from error
    finally:
        for part in training:
            part.training = True


def _export_or_rewrite(
    module: torch.nn.Module, export_module: Callable[[], FlatGraph]
) -> FlatGraph:
    """Export a module, with rewrites of code that torch.export does not support if it fails."""
    try:
        return export_module()
    except MissingContentError:
        raise
    except Exception as error:  # any kind of error may come from code that can be rewritten
        graph = None
        if isinstance(error, UserError):  # as a list of the example's length causes
            graph = export_symbolic_ranges(module, export_module)
        if graph is None:
            graph = export_dense(module, export_module)
        if graph is None:
            raise
        return graph


def _export(
    module: torch.nn.Module, arguments: dict[str, Any], shapes: dict[str, Any], facts: ModelFacts
) -> FlatGraph:
    """Export a module, which PyTorch makes functional where that is needed."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module, (), arguments, dynamic_shapes=shapes, strict=False)
    limits = check_guards(exported, module, arguments, facts.dim_names)
    try:
        return simplify(apply_limits(convert_exported(exported, facts), limits))
    except AliasedWriteError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            functional = exported.run_decompositions({})
        return simplify(apply_limits(convert_exported(functional, facts), limits))


def tied_names(module: torch.nn.Module) -> dict[str, tuple[str, ...]]:
    """Return, for the first name of each tied weight, its other names."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, buffer in module.named_buffers(remove_duplicate=False):
        names.setdefault(id(buffer), []).append(name)
    return {group[0]: tuple(group[1:]) for group in names.values() if len(group) > 1}


def first_line(error: Exception) -> str:
    """Return the type and the first line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}"
