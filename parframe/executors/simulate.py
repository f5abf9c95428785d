"""Executor `simulate`: all ranks in this process, without a KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from parframe.generation.micro_batches import MicroBatch, Step
from parframe.generation.outcomes import Failure, Result, Token
from parframe.generation.replicas import find_logits, find_replicas, find_tokens_input
from parframe.generation.requests import Request
from parframe.generation.sampling import sample
from parframe.generation.scheduler import create_batches
from parframe.generation.settings import Settings
from parframe.plan import Plan
from parframe.simulation.dtypes import find_weights_dtype, parse_dtype
from parframe.simulation.graph_inputs import convert_inputs, find_sizes
from parframe.simulation.outputs import assemble_outputs
from parframe.simulation.simulate import RunInputs, run_devices
from parframe.simulation.threads import limit_threads
from parframe.weights import read_state_dict


def generate(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Complete requests; see `parframe.executors.generate`.

    Every step computes the whole text again, so this is slow.
    """
    model = _Model(plan, settings)
    replica = find_replicas(plan)[0]
    unit = replica.global_rows(replica.row_multiple)
    most = max(1, settings.batch_size * len(find_replicas(plan)))
    for batch in create_batches(requests, most):
        count = -(-len(batch.requests) // unit) * unit
        rows = [*batch.requests, *[None] * (count - len(batch.requests))]
        micro_batch = MicroBatch(rows, replica.token_multiple, uncached=True)
        while not micro_batch.finished:
            yield from micro_batch.accept(_draw_tokens(micro_batch, model))
        yield from micro_batch.results()


class _Model:
    """Plan with its weights."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self.plan = plan
        self.dtype = parse_dtype(settings.dtype)
        self.device = torch.device(settings.device)
        state = read_state_dict(
            plan.graph, settings.weights, self.dtype, settings.seed, settings.pickled,
            settings.extra,
        )  # fmt: skip
        self.state = {name: tensor.to(self.device) for name, tensor in state.items()}
        self.tokens = find_tokens_input(plan.graph).name
        self.logits = find_logits(plan)

    def __call__(self, step: Step) -> torch.Tensor:
        """Return the logits of a step ``[batch, sequence, vocabulary]``."""
        graph = self.plan.graph
        rows = {self.tokens: torch.tensor(step.tokens)}  # every text begins at position 0
        kind = self.dtype or find_weights_dtype(graph, self.state)
        inputs = convert_inputs(graph, rows, kind, self.device)
        given = RunInputs(inputs, self.state, self.dtype, self.device)
        with limit_threads(self.state):
            found = run_devices(self.plan, given)
        return assemble_outputs(graph, found, find_sizes(graph, inputs))[self.logits]


def _draw_tokens(micro_batch: MicroBatch, model: _Model) -> list[int]:
    """Return the next token of every row; -1 for rows without one."""
    step = micro_batch.next_step()
    rows = [row for row, index in enumerate(step.last) if index >= 0]
    requests = [request for row in rows if (request := micro_batch.requests[row]) is not None]
    logits = model(step)
    picked = logits[torch.tensor(rows), torch.tensor([step.last[row] for row in rows])]
    drawn = sample(
        picked,
        [request.sampling for request in requests],
        [request.number for request in requests],
        [len(micro_batch.drawn[row]) for row in rows],
    )
    found = [-1] * len(micro_batch.requests)
    for row, token in zip(rows, drawn.tolist(), strict=True):
        found[row] = token
    return found
