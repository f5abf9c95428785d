"""How fast a plan generates in real processes: when the tokens of batches come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median, quantiles

import attrs

from parframe.executors import generate
from parframe.generation import Failure, Request, Result, Sampling, Settings, Token
from parframe.generation.replicas import find_replicas
from parframe.plan import Plan


@attrs.frozen
class Arrivals:
    """When the tokens of one batch came.

    Parameters
    ----------
    begun
        When the batch before it was done.
    tokens
        For every prompt, when its tokens came.
    """

    begun: float
    tokens: tuple[tuple[float, ...], ...]

    @property
    def first(self) -> float:
        """Seconds to the first token of a prompt: their median."""
        return median(times[0] - self.begun for times in self.tokens)

    @property
    def between(self) -> list[float]:
        """Seconds from each token to the next of its prompt."""
        return [later - earlier for times in self.tokens for earlier, later in pairwise(times)]

    def windows(self, least: float = 5e-3) -> list[float]:
        """The same as means over as many tokens as take so long.

        Who hears of tokens late hears of several at once.
        """
        each = max(median(self.between), 1e-9)
        count = min(math.ceil(least / each), min(map(len, self.tokens)) - 1)
        return [
            (times[at + count] - times[at]) / count
            for times in self.tokens
            for at in range(len(times) - count)
        ]


def arrivals(
    plan: Plan,
    prompts: Sequence[tuple[int, ...]],
    new_tokens: int,
    settings: Settings,
    batches: int = 1,
    between: Callable[[], None] | None = None,
) -> list[Arrivals]:
    """Generate batch after batch; what the first takes is not told.

    Parameters
    ----------
    plan
        The plan.
    prompts
        Token ids, taken in turn.
    new_tokens
        Tokens after each.
    settings
        How it is run; ``rows`` prompts are a batch on each replica.
    batches
        How many are told.
    between
        Is called before each batch but the first, while the devices have nothing to do.

    Raises
    ------
    ParframeError
        If the run fails.
    """
    rows = settings.batch_size * len(find_replicas(plan))
    sampling = Sampling(max_new_tokens=new_tokens)
    listed = [
        Request(number, prompts[number % len(prompts)], sampling)
        for number in range((batches + 1) * rows)
    ]
    came: dict[int, list[float]] = {}
    ended: dict[int, float] = {}
    for event in generate(plan, listed, settings):
        now = time.perf_counter()
        if isinstance(event, Failure):
            raise event.error
        if isinstance(event, Token):
            came.setdefault(event.number, []).append(now)
        elif isinstance(event, Result) and event.number // rows not in ended:
            if between is not None:
                between()
            ended[event.number // rows] = time.perf_counter()
    return [
        Arrivals(
            ended[batch - 1],
            tuple(tuple(came[batch * rows + place]) for place in range(rows)),
        )
        for batch in range(1, batches + 1)
    ]


def figures(batches: Sequence[Arrivals]) -> dict[str, float]:
    """What the times say at which tokens of every prompt came, in seconds."""
    between = [seconds for batch in batches for seconds in batch.between]
    parts = quantiles(between, n=10)
    token = median(between)
    return {
        "first_token": median(batch.first for batch in batches),
        "token": token,
        "token_p10": parts[0],
        "token_p90": parts[-1],
        "tokens_per_second": 1 / token,
        "tokens_per_second_in_all": len(batches[0].tokens) / token,
    }
