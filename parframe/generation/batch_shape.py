"""Shape of the batches of a replica: rows, micro-batches and cache slots."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import attrs

from parframe.generation.replicas import find_replicas
from parframe.generation.requests import Request
from parframe.generation.settings import Settings
from parframe.plan import Plan


@attrs.frozen
class BatchShape:
    """Shape of the batches of a replica.

    Parameters
    ----------
    rows
        Rows of a micro-batch.
    micro_batches
        Micro-batches of a batch; pipeline stages work on several at a time.
    slots
        Positions that the KV cache of a row can store.
    """

    rows: int
    micro_batches: int
    slots: int

    @property
    def batch_size(self) -> int:
        """Rows of all micro-batches."""
        return self.rows * self.micro_batches


def choose_batch_shape(plan: Plan, requests: Sequence[Request], settings: Settings) -> BatchShape:
    """Choose the shape of a replica's batches for some requests."""
    replicas = find_replicas(plan)
    stages = 1 + max(program.stage for program in plan.programs.values())
    share = -(-len(requests) // len(replicas))
    batch_size = max(1, min(settings.batch_size, share))
    micro_batches = min(settings.micro_batches or stages, batch_size)
    unit = replicas[0].row_multiple
    rows = ceil(batch_size / (micro_batches * unit)) * unit
    longest = max(request.positions for request in requests)
    return BatchShape(rows, micro_batches, settings.context or longest)
