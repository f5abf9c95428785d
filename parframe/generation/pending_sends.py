"""Point-to-point sends that overlap with computation."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from parframe.ops.group_registry import transfer_device


class PendingSends:
    """Sends that have been started and may not have completed."""

    def __init__(self, device: torch.device) -> None:
        self._device = transfer_device(device)
        self._pending: list[tuple[torch.Tensor, Any]] = []

    def send(self, tensor: torch.Tensor, peer: int, tag: int = 0) -> None:
        """Send a tensor to a rank without waiting, and keep it until the send has completed."""
        self._pending = [(sent, work) for sent, work in self._pending if not work.is_completed()]
        sent = tensor.to(self._device).contiguous()
        self._pending.append((sent, dist.isend(sent, peer, tag=tag)))

    def wait(self) -> None:
        """Wait until all sends have completed."""
        for _, work in self._pending:
            work.wait()
        self._pending = []
