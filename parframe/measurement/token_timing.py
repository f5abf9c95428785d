"""Times of generated tokens of a plan in real processes."""

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
class TokenTimes:
    """Times of the tokens of one batch."""

    start: float  # the time at which the batch before it was done
    tokens: tuple[tuple[float, ...], ...]  # for every prompt, the times of its tokens

    @property
    def ttft(self) -> float:
        """Time to first token in seconds: the median of the prompts."""
        return median(times[0] - self.start for times in self.tokens)

    @property
    def inter_token(self) -> list[float]:
        """Seconds from each token to the next one of its prompt."""
        return [later - earlier for times in self.tokens for earlier, later in pairwise(times)]

    def window_means(self, shortest: float = 5e-3) -> list[float]:
        """Return mean inter-token times over windows of at least `shortest` seconds, in seconds.

        Tokens that are received late are received several at once, so single inter-token times are
        not reliable.
        """
        inter_token = max(median(self.inter_token), 1e-9)
        count = min(math.ceil(shortest / inter_token), min(map(len, self.tokens)) - 1)
        return [
            (times[index + count] - times[index]) / count
            for times in self.tokens
            for index in range(len(times) - count)
        ]


def time_batches(
    plan: Plan,
    prompts: Sequence[tuple[int, ...]],
    new_tokens: int,
    settings: Settings,
    batches: int = 1,
    before_batch: Callable[[], None] | None = None,
) -> list[TokenTimes]:
    """Generate batch after batch, and return the times of all but the first, which warms up.

    The prompts (token ids) are used in turn; ``settings.batch_size`` prompts are a batch on each
    replica. `before_batch` is called before each batch but the first, while the devices are idle.

    Raises
    ------
    ParframeError
        If the run fails.
    """
    rows = settings.batch_size * len(find_replicas(plan))
    sampling = Sampling(max_new_tokens=new_tokens)
    requests = [
        Request(number, prompts[number % len(prompts)], sampling)
        for number in range((batches + 1) * rows)
    ]
    token_times: dict[int, list[float]] = {}
    batch_ends: dict[int, float] = {}
    for event in generate(plan, requests, settings):
        now = time.perf_counter()
        if isinstance(event, Failure):
            raise event.error
        if isinstance(event, Token):
            token_times.setdefault(event.number, []).append(now)
        elif isinstance(event, Result) and event.number // rows not in batch_ends:
            if before_batch is not None:
                before_batch()
            batch_ends[event.number // rows] = time.perf_counter()
    return [
        TokenTimes(
            batch_ends[batch - 1],
            tuple(tuple(token_times[batch * rows + row]) for row in range(rows)),
        )
        for batch in range(1, batches + 1)
    ]


def summarize_latency(batches: Sequence[TokenTimes]) -> dict[str, float]:
    """Return latencies in milliseconds and throughputs in tokens per second."""
    inter_token = [seconds for batch in batches for seconds in batch.inter_token]
    deciles = quantiles(inter_token, n=10)
    tpot = median(inter_token)
    return {
        "ttft_ms": 1e3 * median(batch.ttft for batch in batches),
        "tpot_ms": 1e3 * tpot,
        "tpot_p10_ms": 1e3 * deciles[0],
        "tpot_p90_ms": 1e3 * deciles[-1],
        "tokens_per_second_per_user": 1 / tpot,
        "output_tokens_per_second": len(batches[0].tokens) / tpot,
    }
