"""The executor `simulate`: all ranks in this process, and nothing kept from token to token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from parframe.generation.micro_batches import Lane, Step
from parframe.generation.replicas import logits_name, replicas_of, tokens_input
from parframe.generation.requests import Failure, Request, Result, Token
from parframe.generation.sampling import sample
from parframe.generation.scheduler import batches
from parframe.generation.settings import Settings
from parframe.plan import Plan
from parframe.simulation.dtypes import find_weights_dtype, parse_dtype
from parframe.simulation.inputs import convert_inputs
from parframe.simulation.interpreter import input_sizes
from parframe.simulation.outputs import assemble_outputs
from parframe.simulation.simulate import RunInputs, run_devices
from parframe.simulation.threads import limit_threads
from parframe.weights import read_state_dict


def generate(
    plan: Plan, requests: Sequence[Request], settings: Settings
) -> Iterator[Token | Result | Failure]:
    """Complete requests; see `parframe.executors.generate`.

    Every token computes all before it again: right for any plan, and slow.
    """
    model = _Model(plan, settings)
    replica = replicas_of(plan)[0]
    unit = replica.batch(replica.row_unit)
    most = max(1, settings.rows * len(replicas_of(plan)))
    for batch in batches(requests, most):
        count = -(-len(batch.requests) // unit) * unit
        rows = [*batch.requests, *[None] * (count - len(batch.requests))]
        lane = Lane(rows, replica.unit, whole=True)
        while not lane.finished:
            yield from lane.accept(_drawn(lane, model))
        yield from lane.results()


class _Model:
    """A plan with its weights."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self.plan = plan
        self.dtype = parse_dtype(settings.dtype)
        self.device = torch.device(settings.device)
        state = read_state_dict(
            plan.graph, settings.weights, self.dtype, settings.seed, settings.pickled,
            settings.extra,
        )  # fmt: skip
        self.state = {name: tensor.to(self.device) for name, tensor in state.items()}
        self.tokens = tokens_input(plan.graph).name
        self.logits = logits_name(plan)

    def __call__(self, step: Step) -> torch.Tensor:
        """The logits of a step."""
        graph = self.plan.graph
        rows = {self.tokens: torch.tensor(step.tokens)}  # every text begins at position 0
        kind = self.dtype or find_weights_dtype(graph, self.state)
        inputs = convert_inputs(graph, rows, kind, self.device)
        given = RunInputs(inputs, self.state, self.dtype, self.device)
        with limit_threads(self.state):
            found = run_devices(self.plan, given)
        return assemble_outputs(graph, found, input_sizes(graph, inputs))[self.logits]


def _drawn(lane: Lane, model: _Model) -> list[int]:
    """A token for every row; -1 where none is drawn."""
    step = lane.step()
    rows = [row for row, place in enumerate(step.last) if place >= 0]
    requests = [request for row in rows if (request := lane.requests[row]) is not None]
    logits = model(step)
    picked = logits[torch.tensor(rows), torch.tensor([step.last[row] for row in rows])]
    drawn = sample(
        picked,
        [request.sampling for request in requests],
        [request.number for request in requests],
        [len(lane.drawn[row]) for row in rows],
    )
    found = [-1] * len(lane.requests)
    for row, token in zip(rows, drawn.tolist(), strict=True):
        found[row] = token
    return found
