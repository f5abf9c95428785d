"""Module of one rank inside a host, with the host's process groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from parframe.errors import ParframeError
from parframe.plan import Plan, communicates, group_axes
from parframe.runtime.rank_module import GroupsByRanks, RankModule, build_module
from parframe.simulation.dtypes import parse_dtype
from parframe.weights import read_weights


def rank_module(
    plan: Plan,
    rank: int,
    weights: Any = None,
    device: str | torch.device = "cpu",
    groups: Any = None,
    dtype: str | torch.dtype | None = None,
    cache: bool = False,
) -> RankModule:
    """Build the module of one rank, for a program that runs the plan itself.

    Parameters
    ----------
    plan
        The plan.
    rank
        A rank of the plan's mesh.
    weights
        A folder of safetensors or one that `parframe shard` wrote, a state dict, a module, or
        ``"random"`` for seeded random weights. Only the slices of this rank are read.
    device
        The torch device that the module is on.
    groups
        A `torch.distributed.device_mesh.DeviceMesh` whose dimensions have the names of the plan's
        mesh axes, or a mapping from the tuple of ranks of a process group to the group. No process
        group is created here.
    dtype
        Narrowest floating-point dtype of any result; the model's own dtypes if None.
    cache
        Whether keys and values are cached between calls, in a cache that the caller owns. The
        graph must have been loaded with positions.

    Returns
    -------
    parframe.runtime.rank_module.RankModule
        A `torch.nn.Module`; its ``body`` is a `torch.fx.GraphModule` of PyTorch's own operators
        and functional collectives, which `torch.compile` compiles without graph breaks; equal
        layers are compiled once.

    Raises
    ------
    ParframeError
        Of kind ``mesh``, if the plan has no such rank; of kind ``weights``, if the weights are not
        those of the model; of kind ``run``, if a process group is missing, or the model cannot run
        with a cache.

    Examples
    --------
    >>> module = parframe.rank_module(plan, 0, weights="random", cache=True)  # doctest: +SKIP
    """
    plan.program(rank)  # raises for an unknown rank before weights are read
    torch_device, torch_dtype = torch.device(device), parse_dtype(dtype)
    groups_by_ranks = _collect_groups(plan, rank, groups)
    parameters = read_weights(plan, rank, weights, torch_device, torch_dtype, graph_dtypes=True)
    return build_module(plan, rank, parameters, torch_device, groups_by_ranks, torch_dtype, cache)


def _collect_groups(plan: Plan, rank: int, groups: Any) -> GroupsByRanks:
    """Return the host's process groups by their ranks."""
    if groups is None or isinstance(groups, Mapping):
        return dict(groups or {})
    if not hasattr(groups, "get_group") or not hasattr(groups, "mesh_dim_names"):
        raise ParframeError(
            "run",
            f"rank {rank}, groups",
            f"{type(groups).__name__} has no process groups",
            "pass a DeviceMesh, or process groups by the tuple of their ranks",
        )
    return dict(_groups_of_device_mesh(plan, rank, groups))


def _groups_of_device_mesh(
    plan: Plan, rank: int, device_mesh: Any
) -> Iterator[tuple[tuple[int, ...], dist.ProcessGroup]]:
    """Yield the process groups that a rank communicates over, from a DeviceMesh."""
    operators = plan.program(rank).operators
    used = dict.fromkeys(group_axes(op) for op in operators if communicates(op))
    for axes in used:
        ranks = plan.mesh.group(rank, axes)
        if len(ranks) == 1:
            continue
        if len(axes) > 1 or axes[0] not in (device_mesh.mesh_dim_names or ()):
            raise ParframeError(
                "run",
                f"rank {rank}, groups",
                f"the DeviceMesh has no single dimension for {' and '.join(axes)}",
                "name its dimensions as the plan's mesh axes; where devices communicate along "
                "several axes at once, pass process groups by the tuple of their ranks",
            )
        group = device_mesh.get_group(axes[0])
        mesh_ranks = tuple(dist.get_process_group_ranks(group))
        if mesh_ranks != ranks:
            raise ParframeError(
                "run",
                f"rank {rank}, groups",
                f"along {axes[0]} the DeviceMesh has the ranks {_format_ranks(mesh_ranks)}, the "
                f"plan {_format_ranks(ranks)}",
                f"create it over ranks in the plan's order: {plan.mesh}",
            )
        yield ranks, group


def _format_ranks(ranks: tuple[int, ...]) -> str:
    return ", ".join(map(str, ranks))
