"""Choice of the next tokens on the ranks with logits, and their transfer to the other ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
import torch.distributed as dist

from parframe.errors import ParframeError
from parframe.generation.batch_shape import BatchShape
from parframe.generation.micro_batches import MicroBatch, Step
from parframe.generation.pending_sends import PendingSends
from parframe.generation.replicas import Replica, RowRange, find_indices, find_logits
from parframe.generation.sampling import sample
from parframe.ops.group_registry import transfer_device
from parframe.runtime.rank_module import GroupsByRanks, RankModule

_TAG = 1
"""Tag that distinguishes tokens from activations between the same ranks."""


@attrs.define
class PendingTokens:
    """Next tokens of the rows of one micro-batch, until the micro-batch takes them.

    Parameters
    ----------
    tokens
        The token of each row, -1 for rows without one; None if this rank has none.
    receive
        Buffer and handle of a receive that has been started, if any.
    """

    tokens: list[int] | None = None
    receive: tuple[torch.Tensor, Any] | None = None

    @property
    def exist(self) -> bool:
        """True if next tokens are available or on their way."""
        return self.tokens is not None or self.receive is not None


class NextTokens:
    """Next tokens of one rank of a replica.

    The ranks with logits sample the tokens and agree on them; each of them sends the tokens to its
    share of the other ranks.
    """

    def __init__(
        self,
        module: RankModule,
        replica: Replica,
        groups: GroupsByRanks,
        shape: BatchShape,
        rows: RowRange | None,
        sends: PendingSends,
    ) -> None:
        self._rank = module.rank
        self._device = module.device
        self._replica = replica
        self._groups = groups
        self._shape = shape
        self._rows = rows
        self._sends = sends
        self._logits = find_logits(replica.plan)
        self.part = next((part for part in module.outputs if part.whole == self._logits), None)
        """The rank's part of the logits, if it has one."""
        self._agreed = self._check_logits()

    @property
    def has_logits(self) -> bool:
        """True if the rank is one of those with logits."""
        return self._rank in self._replica.logits_ranks

    def draw(
        self,
        pending: PendingTokens,
        micro_batch: MicroBatch,
        step: Step,
        columns: Mapping[int, int],
        results: Mapping[str, torch.Tensor],
    ) -> None:
        """Sample the next token of every row whose logits this rank has."""
        if self.part is None:
            return
        first = self._rows.start if self._rows is not None else 0
        rows = [
            row
            for row in range(first, self._rows.stop if self._rows is not None else len(step.last))
            if step.last[row] in columns and not micro_batch.finish[row]
        ]
        if pending.tokens is None:
            pending.tokens = [-1] * len(step.last)
        if not rows:
            return
        logits = results[self.part.name]
        places = [(row - first) * logits.shape[1] + columns[step.last[row]] for row in rows]
        index = torch.tensor(places, device=logits.device)
        requests = [micro_batch.requests[row] for row in rows]
        drawn = sample(
            logits.flatten(0, 1).index_select(0, index),
            [request.sampling for request in requests if request is not None],
            [request.number for request in requests if request is not None],
            [len(micro_batch.drawn[row]) for row in rows],
        )
        for row, token in zip(rows, drawn.tolist(), strict=True):
            pending.tokens[row] = token

    def share(self, pending: PendingTokens) -> None:
        """Start the transfer of the next tokens to all ranks of the replica, without waiting."""
        logits_ranks = self._replica.logits_ranks
        others = [rank for rank in self._replica.ranks if rank not in logits_ranks]
        if self.has_logits:
            if pending.tokens is not None and not self._agreed:
                drawn = self._to_tensor(pending.tokens)
                dist.all_reduce(drawn, dist.ReduceOp.MAX, group=self._groups[logits_ranks])
                pending.tokens = drawn.tolist()
            if pending.tokens is not None:
                for number, rank in enumerate(others):
                    if logits_ranks[number % len(logits_ranks)] == self._rank:
                        self._sends.send(self._to_tensor(pending.tokens), rank, _TAG)
            return
        source = logits_ranks[others.index(self._rank) % len(logits_ranks)]
        buffer = torch.empty(
            self._shape.rows, dtype=torch.int64, device=transfer_device(self._device)
        )
        pending.receive = buffer, dist.irecv(buffer, source, tag=_TAG)

    def take(self, pending: PendingTokens) -> list[int]:
        """Return the next token of every row, after waiting for a receive, and reset them."""
        if pending.receive is not None:
            buffer, work = pending.receive
            work.wait()
            pending.receive, pending.tokens = None, buffer.tolist()
        tokens, pending.tokens = pending.tokens, None
        return tokens or []

    def needs_agreement(self, pending: PendingTokens) -> bool:
        """Return whether `share` runs a collective among the ranks with logits."""
        return self.has_logits and pending.tokens is not None and not self._agreed

    def _to_tensor(self, tokens: list[int]) -> torch.Tensor:
        return torch.tensor(tokens, device=self._device)

    def _check_logits(self) -> bool:
        """Return whether every rank with logits has those of all rows and all tokens.

        Raises
        ------
        ParframeError
            Of kind ``run``, if a rank has logits of a part of the vocabulary only.
        """
        rows, unit = self._shape.rows, self._replica.token_multiple
        row_ranges = self._replica.row_ranges(rows)
        for rank in self._replica.logits_ranks:
            sizes = self._replica.sizes(rank, rows, unit)
            outputs = self._replica.plan.program(rank).outputs
            part = next(part for part in outputs if part.whole == self._logits)
            own = row_ranges[rank]
            vocabulary = self._replica.plan.graph.tensors[self._logits].shape[2]
            if len(find_indices(part, sizes, 2, int(str(vocabulary)))) != vocabulary:
                raise ParframeError(
                    "run",
                    f"rank {rank}",
                    "has the logits of only a part of the vocabulary",
                    "gather the model's outputs in the plan",
                )
            if own.stop - own.start != rows or len(find_indices(part, sizes, 1, unit)) != unit:
                return False
        return True


def find_sampling_groups(replicas: Sequence[Replica]) -> list[tuple[int, ...]]:
    """Return the groups of ranks that agree on next tokens, in addition to the plan's groups."""
    return [replica.logits_ranks for replica in replicas if len(replica.logits_ranks) > 1]
