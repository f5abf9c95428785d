"""Devices of the ranks of a run."""

from __future__ import annotations

import torch

from parframe.errors import ParframeError
from parframe.runtime.process_groups import select_backend


def check_device(kind: str, where: str, ranks: int = 1, share_gpus: bool = False) -> None:
    """Check that this node has the devices that its ranks need.

    Parameters
    ----------
    kind
        ``cpu`` or ``cuda``.
    where
        Place that an error names.
    ranks
        Number of ranks on this node.
    share_gpus
        Whether ranks may share a GPU.

    Raises
    ------
    ParframeError
        Of kind ``run``, if devices or their communication backend are missing.
    """
    if kind == "cuda" and not (torch.cuda.is_available() and torch.cuda.device_count()):
        raise ParframeError(
            "run",
            f"{where}, device cuda",
            "PyTorch finds no GPU on this node",
            "use --device cpu, or install PyTorch with CUDA and its driver",
        )
    if kind == "cuda" and ranks > torch.cuda.device_count() and not share_gpus:
        raise ParframeError(
            "run",
            f"{where}, device cuda",
            f"{ranks} ranks need one GPU each, and this node has {torch.cuda.device_count()}",
            "use fewer devices or more nodes; to try a plan, let ranks share GPUs "
            "(--share-gpus, share_gpus=True) or use --device cpu",
        )
    if ranks > 1:
        select_backend(kind, share_gpus)


def select_device(kind: str, local_rank: int, share_gpus: bool = False) -> torch.device:
    """Return the torch device of a rank, and make it the current one.

    Raises
    ------
    ParframeError
        Of kind ``run``, if the node has no device for the rank.
    """
    check_device(kind, f"rank {local_rank}", local_rank + 1, share_gpus)
    if kind != "cuda":
        return torch.device(kind)
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
