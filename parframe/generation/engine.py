"""Engine of one rank of a replica: it computes the steps of batches and shares the next tokens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

import attrs
import torch
import torch.distributed as dist

from parframe.errors import ParframeError
from parframe.generation.batch_shape import BatchShape
from parframe.generation.micro_batches import PREFILL_CHUNK, MicroBatch, Step
from parframe.generation.next_tokens import NextTokens, PendingTokens
from parframe.generation.outcomes import Result, Token
from parframe.generation.pending_sends import PendingSends
from parframe.generation.replicas import Replica, find_tokens_input
from parframe.generation.requests import Request
from parframe.generation.scheduler import Batch
from parframe.generation.step_layout import StepLayout, compute_step_layout
from parframe.ops.group_registry import transfer_device
from parframe.runtime.compilation import compile_module
from parframe.runtime.kv_cache import KVCache
from parframe.runtime.rank_module import GroupsByRanks, RankModule
from parframe.runtime.rank_program import Transfer
from parframe.simulation.interpreter import widen_dtype
from parframe.simulation.regions import take
from parframe.sizes import evaluate

OnTokens = Callable[[Sequence[Token]], None]
"""Function that is called with new tokens."""


class ProgressListener(Protocol):
    """Listener to the progress of a rank."""

    def step(self, number: int) -> None:
        """Begin a step."""

    def operator(self, name: str) -> None:
        """Begin an operator, or anything else that takes time."""


@attrs.define
class _ActiveMicroBatch:
    """Micro-batch with its KV cache and its next tokens on this rank."""

    micro_batch: MicroBatch
    cache: KVCache | None
    pending: PendingTokens = attrs.field(factory=PendingTokens)


class Engine:
    """Engine of one rank of a replica.

    Parameters
    ----------
    module
        Module of the rank.
    replica
        Replica of the rank.
    groups
        Process groups by their ranks.
    shape
        Shape of the batches.
    listener
        Listener to the progress.
    dtype
        Minimal dtype of the computation, as for the module.
    compiled
        Whether decode steps are compiled; prefill runs in PyTorch's own kernels.
    chunk
        Prompt tokens of one prefill step.
    """

    def __init__(
        self,
        module: RankModule,
        replica: Replica,
        groups: GroupsByRanks,
        shape: BatchShape,
        listener: ProgressListener,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
        chunk: int = PREFILL_CHUNK,
    ) -> None:
        self.module = module
        self.replica = replica
        self.groups = groups
        self.shape = shape
        self.listener = listener
        self.dtype = dtype
        self.chunk = chunk
        self.steps = 0
        self.row_range = replica.row_ranges(shape.rows).get(module.rank)
        self._decode = compile_module(module) if compiled else module
        self._sends = PendingSends(module.device)
        self._layouts: dict[int, StepLayout] = {}
        self._tokens_input = find_tokens_input(replica.plan.graph).name
        self._next_tokens = NextTokens(module, replica, groups, shape, self.row_range, self._sends)
        self._caches = [self._create_cache() for _ in range(shape.micro_batches)]
        if not compiled:
            self._report_layers()

    def run(self, batch: Batch, on_tokens: OnTokens) -> list[Result]:
        """Complete the requests of a batch.

        Parameters
        ----------
        batch
            The requests, at most as many as all micro-batches have rows.
        on_tokens
            Called with new tokens.

        Returns
        -------
        list of Result
            One result a request.

        Raises
        ------
        ParframeError
            Of kind ``run``, if the batch is too large.
        """
        steps = self.iterate_steps(batch, on_tokens)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                results: list[Result] = end.value
                return results

    def iterate_steps(
        self, batch: Batch, on_tokens: OnTokens
    ) -> Generator[None, None, list[Result]]:
        """Complete the requests of a batch, and yield after each step."""
        active = self._create_micro_batches(batch)
        while any(not current.micro_batch.finished for current in active):
            for current in active:
                if not current.micro_batch.finished:
                    with torch.no_grad():
                        self._advance(current, on_tokens)
                    yield
        self.listener.operator("wait for pending sends")
        self._sends.wait()
        return [result for current in active for result in current.micro_batch.results()]

    def _create_micro_batches(self, batch: Batch) -> list[_ActiveMicroBatch]:
        rows, count = self.shape.rows, self.shape.micro_batches
        if len(batch.requests) > rows * count:
            raise ParframeError(
                "run",
                f"rank {self.module.rank}",
                f"{len(batch.requests)} requests do not fit {rows * count} rows",
                "use smaller batches",
            )
        active = []
        for number in range(count):
            requests: list[Request | None] = list(batch.requests[number::count])
            requests += [None] * (rows - len(requests))
            cache = self._caches[number]
            if cache is not None:
                cache.clear()
            unit, uncached = self.replica.token_multiple, cache is None
            micro_batch = MicroBatch(requests, unit, self.chunk, uncached)
            active.append(_ActiveMicroBatch(micro_batch, cache))
        return active

    def _advance(self, current: _ActiveMicroBatch, on_tokens: OnTokens) -> None:
        """Take the tokens of the last step, then compute one step and sample."""
        micro_batch, pending = current.micro_batch, current.pending
        if pending.exist and not micro_batch.in_prefill:  # short prompts wait for long ones
            if pending.receive is not None:
                self.listener.operator("wait for next tokens")
            on_tokens(micro_batch.accept(self._next_tokens.take(pending)))
            if micro_batch.finished:
                return
        self.listener.step(self.steps)
        self.steps += 1
        step = micro_batch.next_step()
        results = self._compute(current, step)
        if step.samples and self._next_tokens.part is not None:
            self.listener.operator("sample")
            columns = self._layout(step.width).logits_columns
            self._next_tokens.draw(pending, micro_batch, step, columns, results)
        without_logits = not self._next_tokens.has_logits
        if not micro_batch.in_prefill and (pending.tokens is not None or without_logits):
            if self._next_tokens.needs_agreement(pending):
                self.listener.operator("agree on next tokens")
            self._next_tokens.share(pending)

    def _compute(self, current: _ActiveMicroBatch, step: Step) -> Mapping[str, torch.Tensor]:
        """Run the module for a step: receive, compute, send."""
        layout = self._layout(step.width)
        values = self._create_inputs(step, layout)
        if current.cache is not None:
            values.update(self._place_in_cache(current.cache, step, layout))
        for transfer in self.module.receives:
            values[transfer.value.name] = self._receive(transfer, layout.sizes)
        self.listener.operator("model step")
        single = step.width == self.replica.token_multiple and step.most == 1
        run = self._decode if single and current.cache is not None else self.module
        results: dict[str, torch.Tensor] = run(values, layout.module_sizes)
        for transfer in self.module.sends:
            self.listener.operator(f"send {transfer.value.name} to rank {transfer.peer}")
            self._sends.send(results[transfer.value.name], transfer.peer)
        return results

    def _create_inputs(self, step: Step, layout: StepLayout) -> dict[str, torch.Tensor]:
        """Create the rank's parts of the model's inputs."""
        values = {}
        for part, regions in layout.inputs:
            declared = self.replica.plan.graph.inputs[part.whole]
            rows = step.tokens if part.whole == self._tokens_input else step.positions
            whole = self._select_rows(rows, getattr(torch, declared.dtype))
            values[part.name] = take(whole, regions).contiguous()
        return values

    def _select_rows(self, rows: Sequence[Sequence[Any]], dtype: torch.dtype) -> torch.Tensor:
        """Return the rows of this rank as a tensor ``[rows, tokens]``."""
        own = self.row_range
        selected = rows[own.start : own.stop] if own is not None else rows
        return torch.tensor(selected, dtype=dtype, device=self.module.device)

    def _place_in_cache(
        self, cache: KVCache, step: Step, layout: StepLayout
    ) -> dict[str, torch.Tensor]:
        """Find cache slots for the tokens that this rank caches."""
        positions = self._select_rows(step.positions, torch.int64)
        real = self._select_rows(step.real, torch.bool)
        for regions in layout.cached:
            positions, real = take(positions, regions), take(real, regions)
        split = positions.shape[1] < step.width  # then ranks share the tokens of a row
        most = int(real.sum(1).max()) if split else step.most
        slots = cache.assign_slots(positions, real, most)
        return self.module.cache_inputs(cache, slots)

    def _receive(self, transfer: Transfer, sizes: Mapping[str, int]) -> torch.Tensor:
        value = transfer.value
        self.listener.operator(f"receive {value.name} from rank {transfer.peer}")
        dtype = widen_dtype(getattr(torch, value.dtype), self.dtype)
        shape = [evaluate(size, sizes) for size in value.shape]
        tensor = torch.empty(shape, dtype=dtype, device=transfer_device(self.module.device))
        dist.recv(tensor, transfer.peer)
        return tensor.to(self.module.device)

    def _layout(self, tokens: int) -> StepLayout:
        """Return the layout of steps with so many tokens a row, computed once."""
        if tokens not in self._layouts:
            self._layouts[tokens] = compute_step_layout(
                self.module,
                self.replica,
                self.shape.rows,
                self._rank_rows,
                tokens,
                self._next_tokens.part,
            )
        return self._layouts[tokens]

    @property
    def _rank_rows(self) -> int:
        own = self.row_range
        return self.shape.rows if own is None else own.stop - own.start

    def _create_cache(self) -> KVCache | None:
        if self.module.cached_program is None:
            return None
        unit, slots = self.replica.token_multiple, self.shape.slots
        tokens = torch.zeros(self._rank_rows, unit)
        for regions in self._layout(unit).cached:
            tokens = take(tokens, regions)
        steps = -(-slots // self.chunk) + 1  # each may pad the rank's share of its tokens
        share = -(-slots // unit) * tokens.shape[1]
        return self.module.new_cache(self._rank_rows, share + steps * tokens.shape[1], self.dtype)

    def _report_layers(self) -> None:
        """Report every layer to the listener as it begins."""
        names = [name for name, _ in self.module.calls]
        count = 0

        def report(*_: Any) -> None:
            nonlocal count
            self.listener.operator(names[count % len(names)])
            count += 1

        for block in self.module.body.get_submodule("blocks").children():
            block.register_forward_pre_hook(report)
