"""The module of one device of a plan: for parframe's own processes, or inside a host's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.fx import GraphModule

from parframe.errors import ParframeError
from parframe.ops.group_registry import register_group
from parframe.plan import Part, Plan
from parframe.runtime.cached_program import KEPT_POSITIONS, SLOTS
from parframe.runtime.collectives import Meeting
from parframe.runtime.emit import Target, emit, symbols_to_give
from parframe.runtime.kv_cache import Cache, new_cache
from parframe.runtime.rank_program import Prepared, Transfer, prepare

Groups = Mapping[tuple[int, ...], dist.ProcessGroup]
"""Process groups by the ranks of the plan that are in them, in order."""


class RankModule(torch.nn.Module):
    """What one device of a plan computes.

    Parameters
    ----------
    prepared
        The device's program.
    body
        It as an fx graph module.
    symbols
        The names of sizes that must be given.
    rank, device
        The rank, and where its tensors lie.

    Notes
    -----
    It takes the device's own parts of the inputs (``inputs``), what it receives from other ranks
    (``receives``), and with a cache what `Cache.place` and `Cache.view` give; it returns a dict of
    its parts of the outputs (``outputs``) and of what it sends (``sends``).
    """

    def __init__(
        self,
        prepared: Prepared,
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
        self.takes = tuple(prepared.graph.inputs)
        self.inputs: tuple[Part, ...] = prepared.program.inputs
        self.outputs: tuple[Part, ...] = prepared.program.outputs
        self.receives: tuple[Transfer, ...] = prepared.receives
        self.sends: tuple[Transfer, ...] = prepared.sends
        self.formulas = prepared.formulas
        self.keeping = prepared.keeping
        self.calls = tuple((call.name, call.block) for call in prepared.graph.calls)

    def forward(
        self, values: Mapping[str, torch.Tensor], sizes: Mapping[str, int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Compute.

        Parameters
        ----------
        values
            By the names in ``takes``.
        sizes
            By the names in ``symbols``.
        """
        given = [values[name] for name in self.takes]
        numbers = [sizes[name] for name in self.symbols] if sizes is not None else []
        results: dict[str, torch.Tensor] = self.body(*given, *numbers)
        return results

    def new_cache(self, rows: int, slots: int, dtype: torch.dtype | None = None) -> Cache:
        """An empty cache for this device; see `parframe.runtime.kv_cache.new_cache`.

        Raises
        ------
        ParframeError
            Of kind ``run``, if the module was made without a cache.
        """
        if self.keeping is None:
            raise ParframeError(
                "run", f"rank {self.rank}", "the module keeps nothing", "make it with cache=True"
            )
        return new_cache(self.keeping.kept, rows, slots, self.device, dtype)

    def cached(self, cache: Cache, slots: torch.Tensor) -> dict[str, torch.Tensor]:
        """The values that the module takes of a cache."""
        positions, tensors = cache.view()
        return {SLOTS: slots, KEPT_POSITIONS: positions, **tensors} if tensors else {}


def build(
    plan: Plan,
    rank: int,
    parameters: Mapping[str, torch.Tensor],
    device: str | torch.device = "cpu",
    groups: Groups | None = None,
    dtype: torch.dtype | None = None,
    cache: bool = False,
) -> RankModule:
    """The module of one device.

    Parameters
    ----------
    plan
        The plan.
    rank
        The rank.
    parameters
        The device's parts of the parameters, by its names, on the device.
    device
        Where it runs.
    groups
        The process groups of all communications that the rank takes part in.
    dtype
        What floating-point numbers are computed in at least; the model's own if None.
    cache
        Whether keys and values are kept between calls.

    Raises
    ------
    ParframeError
        Of kind ``run``, if a group is missing, or the model cannot be run with a cache.
    """
    place = torch.device(device)
    prepared = prepare(plan, rank, cache)
    root = torch.nn.Module()
    for name, tensor in parameters.items():
        _register(root, name, tensor)

    def meeting(axes: tuple[str, ...]) -> Meeting:
        ranks = plan.mesh.group(rank, axes)
        if len(ranks) == 1:
            return Meeting("", 1, 0)
        group = (groups or {}).get(ranks)
        if group is None:
            raise ParframeError(
                "run",
                f"rank {rank}",
                f"there is no process group of the ranks {', '.join(map(str, ranks))} "
                f"({' and '.join(axes)})",
                "give it in `groups`; parframe never makes one behind its host's back",
            )
        return Meeting(register_group(group), len(ranks), ranks.index(rank))

    symbols = symbols_to_give(prepared.graph, prepared.formulas)
    body = emit(prepared.graph, root, prepared.formulas, symbols, Target(place, dtype, meeting))
    return RankModule(prepared, body, symbols, rank, place)


def _register(root: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    *path, last = name.split(".")
    module = root
    for part in path:
        inner: Any = module._modules.get(part)
        if inner is None:
            inner = torch.nn.Module()
            module.add_module(part, inner)
        module = inner
    if tensor.is_floating_point():
        module.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    else:
        module.register_buffer(last, tensor)
