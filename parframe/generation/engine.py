"""One rank of a replica: it computes step after step, and draws or is told what comes next."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

import attrs
import torch
import torch.distributed as dist

from parframe.errors import ParframeError
from parframe.generation.micro_batches import CHUNK, Lane, Step
from parframe.generation.replicas import Replica, logits_name, places, tokens_input
from parframe.generation.requests import Request, Result, Token
from parframe.generation.sampling import sample
from parframe.generation.scheduler import Batch
from parframe.generation.step_shapes import Width, width_of
from parframe.ops.group_registry import transfer_device
from parframe.runtime.compilation import compile_module as compiled_form
from parframe.runtime.kv_cache import KVCache
from parframe.runtime.rank_module import GroupsByRanks, RankModule
from parframe.runtime.rank_program import Transfer
from parframe.simulation.interpreter import widened
from parframe.simulation.regions import take
from parframe.sizes import evaluate

Told = Callable[[Sequence[Token]], None]
"""Is told of the tokens that were drawn."""

_TOKENS_TAG = 1
"""Tells what was drawn apart from activations between the same ranks."""


class Watch(Protocol):
    """Who wants to know how far a rank has come."""

    def step(self, number: int) -> None:
        """A step begins."""

    def operator(self, name: str) -> None:
        """An operator, or something else that takes time, begins."""


@attrs.frozen
class Shape:
    """How much a replica does at once.

    Parameters
    ----------
    rows
        How many rows a lane has.
    lanes
        Into how many lanes a batch is split; stages of a pipeline work on several at a time.
    slots
        How many positions a cache holds.
    """

    rows: int
    lanes: int
    slots: int


@attrs.define
class _Running:
    """A lane with what belongs to it on this rank."""

    lane: Lane
    cache: KVCache | None
    pending: list[int] | None = None
    coming: tuple[torch.Tensor, Any] | None = None


class Engine:
    """What one rank of a replica does for its batches.

    Parameters
    ----------
    module
        The module of the rank.
    replica
        The ranks that work together.
    groups
        The process groups by their ranks.
    shape
        How much is done at once.
    watch
        Told how far it has come.
    dtype
        What is computed in at least; as for the module.
    compiled
        Whether the step of one token is compiled; prompts are computed by PyTorch's own kernels.
    chunk
        How many tokens of prompts are computed at once.
    """

    def __init__(
        self,
        module: RankModule,
        replica: Replica,
        groups: GroupsByRanks,
        shape: Shape,
        watch: Watch,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
        chunk: int = CHUNK,
    ) -> None:
        self.module = module
        self.replica = replica
        self.groups = groups
        self.shape = shape
        self.watch = watch
        self.dtype = dtype
        self.chunk = chunk
        self.steps = 0
        self.block = replica.blocks(shape.rows).get(module.rank)
        self._decode = compiled_form(module) if compiled else module
        self._sent: list[tuple[torch.Tensor, Any]] = []
        self._known: dict[int, Width] = {}
        self._name = tokens_input(replica.plan.graph).name
        self._logits = logits_name(replica.plan)
        self._drawn = next((p for p in module.outputs if p.whole == self._logits), None)
        self._caches = [self._new_cache() for _ in range(shape.lanes)]
        self._complete = self._all_have_all()
        if not compiled:
            self._tell_calls()

    def run(self, batch: Batch, told: Told) -> list[Result]:
        """Complete the requests of a batch.

        Parameters
        ----------
        batch
            The requests, at most as many as there are rows in all lanes.
        told
            Told of every token as it is known.

        Returns
        -------
        list of Result
            One for each request.

        Raises
        ------
        ParframeError
            Of kind ``run``, if something fails.
        """
        steps = self.stepwise(batch, told)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                results: list[Result] = end.value
                return results

    def stepwise(self, batch: Batch, told: Told) -> Generator[None, None, list[Result]]:
        """The same a step at a time, for who wants to do something between steps.

        Parameters
        ----------
        batch, told
            As for `run`.

        Returns
        -------
        list of Result
            What the generator returns.
        """
        running = self._lanes(batch)
        while any(not own.lane.finished for own in running):
            for own in running:
                if not own.lane.finished:
                    with torch.no_grad():
                        self._advance(own, told)
                    yield
        self._settle()
        return [result for own in running for result in own.lane.results()]

    def _lanes(self, batch: Batch) -> list[_Running]:
        rows, count = self.shape.rows, self.shape.lanes
        if len(batch.requests) > rows * count:
            raise ParframeError(
                "run",
                f"rank {self.module.rank}",
                f"{len(batch.requests)} requests do not fit {rows * count} rows",
                "give a batch of fewer",
            )
        found = []
        for number in range(count):
            own: list[Request | None] = list(batch.requests[number::count])
            own += [None] * (rows - len(own))
            cache = self._caches[number]
            if cache is not None:
                cache.clear()
            lane = Lane(own, self.replica.unit, self.chunk, whole=cache is None)
            found.append(_Running(lane, cache))
        return found

    def _advance(self, own: _Running, told: Told) -> None:
        """Take what was drawn last, then compute one step and draw."""
        drawn = own.pending is not None or own.coming is not None
        if drawn and not own.lane.prompting:  # rows of shorter prompts wait for the others
            told(own.lane.accept(self._obtained(own)))
            if own.lane.finished:
                return
        self.watch.step(self.steps)
        self.steps += 1
        step = own.lane.step()
        results = self._computed(own, step)
        if step.draws:
            self._draw(own, step, results)
        if not own.lane.prompting and (own.pending is not None or not self._in_tail):
            self._pass_on(own)

    @property
    def _in_tail(self) -> bool:
        return self.module.rank in self.replica.tail

    def _computed(self, own: _Running, step: Step) -> Mapping[str, torch.Tensor]:
        """Run the module for a step: receive, compute, send."""
        width = self._width(step.width)
        values = self._inputs(step, width)
        if own.cache is not None:
            values.update(self._placed(own.cache, step, width))
        for transfer in self.module.receives:
            values[transfer.value.name] = self._received(transfer, width.sizes)
        self.watch.operator("the model's step")
        single = own.cache is not None and step.width == self.replica.unit and step.most == 1
        run = self._decode if single else self.module
        results: dict[str, torch.Tensor] = run(values, width.given)
        for transfer in self.module.sends:
            self.watch.operator(f"send {transfer.value.name} to rank {transfer.peer}")
            self._send(results[transfer.value.name], transfer.peer, 0)
        return results

    def _inputs(self, step: Step, width: Width) -> dict[str, torch.Tensor]:
        """The rank's parts of the model's inputs."""
        values = {}
        for part, regions in width.inputs:
            declared = self.replica.plan.graph.inputs[part.whole]
            rows = step.tokens if part.whole == self._name else step.positions
            whole = self._rows(rows, getattr(torch, declared.dtype))
            values[part.name] = take(whole, regions).contiguous()
        return values

    def _rows(self, rows: Sequence[Sequence[Any]], dtype: torch.dtype) -> torch.Tensor:
        block = self.block
        own = rows[block.start : block.stop] if block is not None else rows
        return torch.tensor(own, dtype=dtype, device=self.module.device)

    def _placed(self, cache: KVCache, step: Step, width: Width) -> dict[str, torch.Tensor]:
        """Find slots for the tokens that this rank keeps."""
        positions = self._rows(step.positions, torch.int64)
        real = self._rows(step.real, torch.bool)
        for regions in width.kept:
            positions, real = take(positions, regions), take(real, regions)
        shared = positions.shape[1] < step.width  # then a row's tokens are here or elsewhere
        most = int(real.sum(1).max()) if shared else step.most
        slots = cache.assign_slots(positions, real, most)
        return self.module.cache_inputs(cache, slots)

    def _received(self, transfer: Transfer, sizes: Mapping[str, int]) -> torch.Tensor:
        value = transfer.value
        self.watch.operator(f"receive {value.name} from rank {transfer.peer}")
        kind = widened(getattr(torch, value.dtype), self.dtype)
        shape = [evaluate(size, sizes) for size in value.shape]
        tensor = torch.empty(shape, dtype=kind, device=transfer_device(self.module.device))
        dist.recv(tensor, transfer.peer)
        return tensor.to(self.module.device)

    def _send(self, tensor: torch.Tensor, peer: int, tag: int) -> None:
        """Send without waiting; the tensor is held until it has arrived."""
        self._sent = [(own, work) for own, work in self._sent if not work.is_completed()]
        whole = tensor.to(transfer_device(self.module.device)).contiguous()
        self._sent.append((whole, dist.isend(whole, peer, tag=tag)))

    def _settle(self) -> None:
        self.watch.operator("wait until all that was sent has arrived")
        for _, work in self._sent:
            work.wait()
        self._sent = []

    def _draw(self, own: _Running, step: Step, results: Mapping[str, torch.Tensor]) -> None:
        """Draw the next token of every row whose logits are here."""
        if self._drawn is None:
            return
        self.watch.operator("draw")
        at = self._width(step.width).columns
        block = self.block
        first = block.start if block is not None else 0
        rows = [
            row
            for row in range(first, block.stop if block is not None else len(step.last))
            if step.last[row] in at and not own.lane.finish[row]
        ]
        if own.pending is None:
            own.pending = [-1] * len(step.last)
        if not rows:
            return
        logits = results[self._drawn.name]
        picked = [(row - first) * logits.shape[1] + at[step.last[row]] for row in rows]
        index = torch.tensor(picked, device=logits.device)
        requests = [own.lane.requests[row] for row in rows]
        drawn = sample(
            logits.flatten(0, 1).index_select(0, index),
            [request.sampling for request in requests if request is not None],
            [request.number for request in requests if request is not None],
            [len(own.lane.drawn[row]) for row in rows],
        )
        for row, token in zip(rows, drawn.tolist(), strict=True):
            own.pending[row] = token

    def _pass_on(self, own: _Running) -> None:
        """Let all ranks of the replica know what was drawn, without waiting for it."""
        tail = self.replica.tail
        others = [rank for rank in self.replica.ranks if rank not in tail]
        if self._in_tail:
            if own.pending is not None and not self._complete:
                self.watch.operator("agree on what was drawn")
                drawn = self._tensor(own.pending)
                dist.all_reduce(drawn, dist.ReduceOp.MAX, group=self.groups[tail])
                own.pending = drawn.tolist()
            mine = [r for at, r in enumerate(others) if tail[at % len(tail)] == self.module.rank]
            if own.pending is not None:
                for rank in mine:
                    self._send(self._tensor(own.pending), rank, _TOKENS_TAG)
            return
        source = tail[others.index(self.module.rank) % len(tail)]
        buffer = torch.empty(
            self.shape.rows, dtype=torch.int64, device=transfer_device(self.module.device)
        )
        own.coming = buffer, dist.irecv(buffer, source, tag=_TOKENS_TAG)

    def _obtained(self, own: _Running) -> list[int]:
        """What was drawn for every row."""
        if own.coming is not None:
            buffer, work = own.coming
            self.watch.operator("wait for what was drawn")
            work.wait()
            own.coming, own.pending = None, buffer.tolist()
        pending, own.pending = own.pending, None
        return pending or []

    def _tensor(self, tokens: list[int]) -> torch.Tensor:
        return torch.tensor(tokens, device=self.module.device)

    def _all_have_all(self) -> bool:
        """Whether every rank with logits has those of all rows and all tokens."""
        rows, unit = self.shape.rows, self.replica.unit
        blocks = self.replica.blocks(rows)
        for rank in self.replica.tail:
            sizes = self.replica.sizes(rank, rows, unit)
            part = next(
                p for p in self.replica.plan.program(rank).outputs if p.whole == self._logits
            )
            block = blocks[rank]
            vocabulary = self.replica.plan.graph.tensors[self._logits].shape[2]
            if len(places(part, sizes, 2, int(str(vocabulary)))) != vocabulary:
                raise ParframeError(
                    "run",
                    f"rank {rank}",
                    "it has the logits of a part of the vocabulary only",
                    "let the plan give the model's outputs whole",
                )
            if block.stop - block.start != rows or len(places(part, sizes, 1, unit)) != unit:
                return False
        return True

    def _width(self, tokens: int) -> Width:
        if tokens not in self._known:
            rows = self.shape.rows
            self._known[tokens] = width_of(
                self.module, self.replica, rows, self._own_rows, tokens, self._drawn
            )
        return self._known[tokens]

    @property
    def _own_rows(self) -> int:
        block = self.block
        return self.shape.rows if block is None else block.stop - block.start

    def _new_cache(self) -> KVCache | None:
        if self.module.cached_program is None:
            return None
        unit, slots = self.replica.unit, self.shape.slots
        here = torch.zeros(self._own_rows, unit)
        for regions in self._width(unit).kept:
            here = take(here, regions)
        steps = -(-slots // self.chunk) + 1  # each may fill up what the rank has of it
        share = -(-slots // unit) * here.shape[1]
        return self.module.new_cache(self._own_rows, share + steps * here.shape[1], self.dtype)

    def _tell_calls(self) -> None:
        """Tell of every layer that begins, as the module calls them in turn."""
        names = [name for name, _ in self.module.calls]
        count = 0

        def tell(*_: Any) -> None:
            nonlocal count
            self.watch.operator(names[count % len(names)])
            count += 1

        for block in self.module.body.get_submodule("blocks").children():
            block.register_forward_pre_hook(tell)


def agreeing(replicas: Sequence[Replica]) -> list[tuple[int, ...]]:
    """The groups of ranks that agree on what was drawn, beside those of the plan."""
    return [replica.tail for replica in replicas if len(replica.tail) > 1]
