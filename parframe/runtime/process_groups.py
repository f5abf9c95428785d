"""Process groups that the collectives of a plan need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from parframe.errors import ParframeError, did_you_mean

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Store  # type: ignore[attr-defined]

BACKENDS: Mapping[str, str] = {"cpu": "gloo", "cuda": "nccl"}
"""The backend of torch.distributed for each type of device."""

Ranks = tuple[int, ...]


def make_groups(
    groups: Iterable[Ranks],
    *,
    rank: int,
    world: int,
    device: str = "cpu",
    timeout: float,
    store: Store | None = None,
    shared: bool = False,
) -> dict[Ranks, ProcessGroup]:
    """Create the process groups of one rank, by the ranks of each group in its order.

    ``groups`` are all that any rank needs, in the same order on every rank. The group of all ranks
    is created first, over ``store``, unless the host has created it already (``store`` is then
    None). With `TORCH_GLOO_LAZY_INIT=1` it costs nothing until something is sent over it. Groups of
    one rank are not created. ``device`` is the type of the device whose tensors are sent,
    ``timeout`` the seconds after which a collective fails; ``shared`` ranks may share a device,
    which only gloo supports.

    Raises
    ------
    ParframeError
        If there is no backend for the device, or the host's process group does not match.
    """
    import torch.distributed as dist

    wanted = list(groups)
    for ranks in wanted:
        _check_ranks(ranks, world)
    backend = select_backend(device, shared)
    limit = timedelta(seconds=timeout)
    if dist.is_initialized():
        _check_initialized(rank, world, backend)
    elif store is None:
        raise ParframeError(
            "run",
            f"rank {rank}",
            "there is no process group of all ranks, and no store to create one",
            "call torch.distributed.init_process_group first",
        )
    else:
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
    world_group = cast("ProcessGroup", dist.group.WORLD)
    created: dict[Ranks, ProcessGroup] = {tuple(range(world)): world_group}
    for ranks in dict.fromkeys(wanted):
        if len(ranks) == 1 or ranks in created:
            continue
        # All ranks must call new_group, also those outside the group: its name contains a counter.
        group = dist.new_group(list(ranks), timeout=limit, backend=backend, sort_ranks=False)
        if rank in ranks:
            created[ranks] = group
    return created


def close_groups() -> None:
    """Destroy all process groups of this process, including the host's."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def select_backend(device: str, shared: bool = False) -> str:
    """Return the backend of torch.distributed for a type of device, which ranks may share.

    An error of kind ``run`` reports a backend that this build of PyTorch does not have.
    """
    import torch.distributed as dist

    if not dist.is_available():
        what = "this build of PyTorch does not have it"
        raise ParframeError("run", "torch.distributed", what, "install a build that does")
    if device not in BACKENDS:
        raise ParframeError(
            "run",
            f"device {device!r}",
            f"no backend supports it{did_you_mean(device, BACKENDS)}",
            f"use one of {', '.join(BACKENDS)}",
        )
    backend = "gloo" if shared else BACKENDS[device]
    if not dist.is_backend_available(backend):
        raise ParframeError(
            "run",
            f"device {device!r}",
            f"this build of PyTorch has no {backend}",
            "install a build that has it, or run on cpu",
        )
    return backend


def _check_initialized(rank: int, world: int, backend: str) -> None:
    """Check that the host's process group has the plan's ranks and a backend of the device."""
    import torch.distributed as dist

    if (dist.get_rank(), dist.get_world_size()) != (rank, world):
        raise ParframeError(
            "run",
            f"rank {rank} of {world}",
            f"in torch.distributed this process is rank {dist.get_rank()} of "
            f"{dist.get_world_size()}",
            "use the same ranks in both",
        )
    if backend not in str(dist.get_backend_config()):
        raise ParframeError(
            "run",
            f"rank {rank}",
            f"the process group of all ranks uses {dist.get_backend()}, not {backend}",
            f"create it with {backend}, or with cpu:gloo,cuda:nccl",
        )


def _check_ranks(ranks: Ranks, world: int) -> None:
    if not ranks or len(set(ranks)) != len(ranks) or not all(0 <= r < world for r in ranks):
        raise ParframeError(
            "run",
            f"group {', '.join(map(str, ranks)) or 'without ranks'}",
            f"it is not a group of ranks of {world}",
            f"use ranks from 0 to {world - 1}, each once",
        )
