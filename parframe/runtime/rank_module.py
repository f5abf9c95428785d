"""Module of one rank of a plan, for parframe's own processes or inside a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.fx import GraphModule

from parframe.errors import ParframeError
from parframe.ops.group_registry import register_group
from parframe.plan import Part, Plan
from parframe.runtime.cached_program import CACHED_POSITIONS, SLOTS
from parframe.runtime.collectives import GroupInfo
from parframe.runtime.emit import Target, emit, symbols_to_give
from parframe.runtime.kv_cache import KVCache, allocate_cache
from parframe.runtime.rank_program import RankProgram, Transfer, build_rank_program

GroupsByRanks = Mapping[tuple[int, ...], dist.ProcessGroup]
"""Process groups by the plan's ranks in them, in order."""


class RankModule(torch.nn.Module):
    """Computation of one rank of a plan.

    It takes the rank's parts of the inputs (``inputs``), the values it receives from other ranks
    (``receives``), and with a cache those of `cache_inputs`; it returns a dict of the rank's parts
    of the outputs (``outputs``) and of the values to send to other ranks (``sends``). ``symbols``
    are the names of sizes that must be passed.
    """

    def __init__(
        self,
        rank_program: RankProgram,
        body: GraphModule,
        symbols: Sequence[str],
        rank: int,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.body = body
        self.rank = rank
        self.device = device
        self.symbols = tuple(symbols)
        self.input_names = tuple(rank_program.graph.inputs)
        self.inputs: tuple[Part, ...] = rank_program.program.inputs
        self.outputs: tuple[Part, ...] = rank_program.program.outputs
        self.receives: tuple[Transfer, ...] = rank_program.receives
        self.sends: tuple[Transfer, ...] = rank_program.sends
        self.formulas = rank_program.formulas
        self.cached_program = rank_program.cached_program
        self.calls = tuple((call.name, call.block) for call in rank_program.graph.calls)

    def forward(
        self, values: Mapping[str, torch.Tensor], sizes: Mapping[str, int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Compute one step from tensors by ``input_names`` and sizes by ``symbols``."""
        tensors = [values[name] for name in self.input_names]
        numbers = [sizes[name] for name in self.symbols] if sizes is not None else []
        results: dict[str, torch.Tensor] = self.body(*tensors, *numbers)
        return results

    def new_cache(self, rows: int, slots: int, dtype: torch.dtype | None = None) -> KVCache:
        """Allocate an empty cache for this rank, as `allocate_cache` does.

        An error of kind ``run`` reports a module that was built without a cache.
        """
        if self.cached_program is None:
            raise ParframeError(
                "run",
                f"rank {self.rank}",
                "the module was built without a cache",
                "build it with cache=True",
            )
        return allocate_cache(self.cached_program.caches, rows, slots, self.device, dtype)

    def cache_inputs(self, cache: KVCache, slots: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the values to pass to the module for a cache.

        ``slots`` (``[rows, tokens]``) are those of the step's tokens, from `KVCache.assign_slots`.
        """
        positions, tensors = cache.view()
        return {SLOTS: slots, CACHED_POSITIONS: positions, **tensors} if tensors else {}


def build_module(
    plan: Plan,
    rank: int,
    parameters: Mapping[str, torch.Tensor],
    device: str | torch.device = "cpu",
    groups: GroupsByRanks | None = None,
    dtype: torch.dtype | None = None,
    cache: bool = False,
) -> RankModule:
    """Build the module of one rank from its parts of the parameters, by its program's names.

    No floating-point result is narrower than ``dtype``; None keeps the model's own dtypes. With
    ``cache``, keys and values are cached between calls.

    Raises
    ------
    ParframeError
        Of kind ``run``, if a group is missing, or the model cannot be run with a cache.
    """
    device = torch.device(device)
    rank_program = build_rank_program(plan, rank, cache)
    root = torch.nn.Module()
    for name, tensor in parameters.items():
        _add_parameter(root, name, tensor)

    def find_group(axes: tuple[str, ...]) -> GroupInfo:
        ranks = plan.mesh.group(rank, axes)
        if len(ranks) == 1:
            return GroupInfo("", 1, 0)
        group = (groups or {}).get(ranks)
        if group is None:
            raise ParframeError(
                "run",
                f"rank {rank}",
                f"there is no process group of the ranks {', '.join(map(str, ranks))} "
                f"({' and '.join(axes)})",
                "pass it in `groups`; parframe creates no process groups for a host",
            )
        return GroupInfo(register_group(group), len(ranks), ranks.index(rank))

    symbols = symbols_to_give(rank_program.graph, rank_program.formulas)
    target = Target(device, dtype, find_group)
    body = emit(rank_program.graph, root, rank_program.formulas, symbols, target)
    return RankModule(rank_program, body, symbols, rank, device)


def _add_parameter(root: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Add a parameter, or a buffer if it is not floating-point, under a dotted name."""
    *path, last = name.split(".")
    module = root
    for part in path:
        child: Any = module._modules.get(part)
        if child is None:
            child = torch.nn.Module()
            module.add_module(part, child)
        module = child
    if tensor.is_floating_point():
        module.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    else:
        module.register_buffer(last, tensor)
