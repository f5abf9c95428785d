"""An exported program without operators that write into their arguments."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

_FRESH = frozenset(
    f"aten::{name}"
    for name in (
        "linear", "matmul", "conv1d", "conv2d", "conv3d", "batch_norm", "layer_norm",
        "group_norm", "max_pool2d", "adaptive_avg_pool2d",
    )
)  # fmt: skip
"""Composite operators that never return one of their arguments."""


def functional(exported: ExportedProgram) -> ExportedProgram:
    """The program with in-place operators replaced by ones that return a new tensor.

    Where every tensor written to is fresh and nothing else looks at it, ``add_`` simply becomes
    ``add``; otherwise PyTorch rewrites the program, composite operators kept.
    """
    written = [node for node in exported.graph.nodes if _writes(node)]
    if not written:
        return exported
    if any(_functional_target(node) is None or not _is_alone(node) for node in written):
        return exported.run_decompositions({})
    for node in written:
        node.target = _functional_target(node)
    return exported


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _functional_target(node: Node) -> torch._ops.OpOverload | None:
    """The operator of the same name without the underscore, with the same arguments."""
    schema = node.target._schema  # type: ignore[union-attr]
    namespace, _, name = schema.name.partition("::")
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    target = getattr(packet, schema.overload_name or "default", None)
    if target is None or target._schema.is_mutable:
        return None
    same = [a.name for a in target._schema.arguments] == [a.name for a in schema.arguments]
    return target if same else None


def _is_alone(node: Node) -> bool:
    """Whether the tensor written to is fresh, of no other shape or dtype, and used only here."""
    target = node.args[0]
    if not isinstance(target, Node) or target.op != "call_function":
        return False
    before, after = target.meta.get("val"), node.meta.get("val")
    same = (
        isinstance(before, torch.Tensor)
        and isinstance(after, torch.Tensor)
        and before.shape == after.shape
        and before.dtype == after.dtype
    )
    return same and set(target.users) == {node} and not _may_alias(target)


def _may_alias(node: Node) -> bool:
    """Whether a call's result may share memory with one of its arguments."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    if _writes(node):
        return not _is_alone(node)
    if node.target.name() in _FRESH:
        return False
    composite = node.target.has_kernel_for_dispatch_key(
        torch._C.DispatchKey.CompositeImplicitAutograd
    )
    return composite or any(r.alias_info is not None for r in node.target._schema.returns)
