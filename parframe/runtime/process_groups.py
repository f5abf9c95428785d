"""Process groups: those that a plan's collectives need, each with a timeout, at the least cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import attrs

from parframe.errors import ParframeError, did_you_mean

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Store  # type: ignore[attr-defined]

BACKENDS: Mapping[str, str] = {"cpu": "gloo", "cuda": "nccl"}
"""The backend of torch.distributed for each type of device."""

Ranks = tuple[int, ...]


@attrs.frozen
class Groups:
    """The process groups that one rank takes part in.

    Parameters
    ----------
    rank, world
        Which rank it is, and of how many.
    of
        The group of each tuple of ranks, in the order of the tuple.
    """

    rank: int
    world: int
    of: Mapping[Ranks, ProcessGroup]

    def name(self, ranks: Ranks) -> str:
        """The name by which functional collectives know a group.

        Parameters
        ----------
        ranks
            The ranks of the group, in its order.

        Returns
        -------
        str
            Its name.

        Raises
        ------
        ParframeError
            If the group was not made, or this rank is not in it.
        """
        if ranks not in self.of:
            raise ParframeError(
                "run",
                f"rank {self.rank}",
                f"it has no process group of the ranks {_listed(ranks)}",
                "name every group of more than one rank when groups are made",
            )
        name: str = self.of[ranks].group_name
        return name


def make_groups(
    groups: Iterable[Ranks],
    *,
    rank: int,
    world: int,
    device: str = "cpu",
    timeout: float,
    store: Store | None = None,
    shared: bool = False,
) -> Groups:
    """Make the process groups of one rank.

    The group of all ranks is made first, unless the host has one already, which is then used;
    where connections are made when they are first needed (`TORCH_GLOO_LAZY_INIT=1`), it costs
    nothing until something is sent over it. A group of one rank is not made, since it has nothing
    to send.

    Parameters
    ----------
    groups
        Every group that some rank needs, the same ones in the same order on every rank.
    rank, world
        Which rank this is, and of how many.
    device
        The type of the device whose tensors are sent: `cpu` or `cuda`.
    timeout
        Seconds that a communication may take.
    store
        Where the ranks meet; None if the host has a process group of all ranks.
    shared
        Whether several ranks may share a device, which leaves gloo alone.

    Returns
    -------
    Groups
        The groups that this rank is in.

    Raises
    ------
    ParframeError
        If there is no backend for the device, or the host's process group does not fit.
    """
    import torch.distributed as dist

    wanted = list(groups)
    for ranks in wanted:
        _check_ranks(ranks, world)
    backend = backend_of(device, shared)
    limit = timedelta(seconds=timeout)
    if dist.is_initialized():
        _check_host(rank, world, backend)
    elif store is None:
        raise ParframeError(
            "run",
            f"rank {rank}",
            "there is no process group of all ranks, and no store to make one",
            "call torch.distributed.init_process_group first",
        )
    else:
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
    everybody = cast("ProcessGroup", dist.group.WORLD)
    made: dict[Ranks, ProcessGroup] = {tuple(range(world)): everybody}
    for ranks in dict.fromkeys(wanted):
        if len(ranks) == 1 or ranks in made:
            continue
        # all ranks take part, since a group's name is counted; those outside only count
        group = dist.new_group(list(ranks), timeout=limit, backend=backend, sort_ranks=False)
        if rank in ranks:
            made[ranks] = group
    return Groups(rank, world, made)


def close_groups() -> None:
    """Close all process groups of this process, the host's as well."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def backend_of(device: str, shared: bool = False) -> str:
    """The backend of torch.distributed for a type of device.

    Parameters
    ----------
    device
        The type, `cpu` or `cuda`.
    shared
        Whether several ranks may share a device.

    Raises
    ------
    ParframeError
        If this build of PyTorch has none.
    """
    import torch.distributed as dist

    if not dist.is_available():
        raise ParframeError(
            "run",
            "torch.distributed",
            "this build of PyTorch has none",
            "install a build that has it",
        )
    if device not in BACKENDS:
        raise ParframeError(
            "run",
            f"device {device!r}",
            f"there is no backend for it{did_you_mean(device, BACKENDS)}",
            f"use one of {', '.join(BACKENDS)}",
        )
    backend = "gloo" if shared else BACKENDS[device]
    if not dist.is_backend_available(backend):
        raise ParframeError(
            "run",
            f"device {device!r}",
            f"this build of PyTorch has no {backend}",
            "install one that has it, or run on cpu",
        )
    return backend


def _check_host(rank: int, world: int, backend: str) -> None:
    """The host's process group must be that of the plan's ranks, over a backend of the device."""
    import torch.distributed as dist

    if (dist.get_rank(), dist.get_world_size()) != (rank, world):
        raise ParframeError(
            "run",
            f"rank {rank} of {world}",
            f"torch.distributed calls this process rank {dist.get_rank()} of "
            f"{dist.get_world_size()}",
            "let both agree",
        )
    if backend not in str(dist.get_backend_config()):
        raise ParframeError(
            "run",
            f"rank {rank}",
            f"the process group of all ranks uses {dist.get_backend()}, not {backend}",
            f"make it with {backend}, or with cpu:gloo,cuda:nccl",
        )


def _check_ranks(ranks: Ranks, world: int) -> None:
    if not ranks or len(set(ranks)) != len(ranks) or not all(0 <= r < world for r in ranks):
        raise ParframeError(
            "run",
            f"group {_listed(ranks)}",
            f"it is not a group of some of {world} ranks",
            f"name ranks from 0 to {world - 1}, each once",
        )


def _listed(ranks: Ranks) -> str:
    return ", ".join(map(str, ranks)) or "of nobody"
